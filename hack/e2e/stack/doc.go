// Package stack runs Keywright for tests and the demo: a real control plane,
// what the chart installs in it, and the two processes, each as a process of
// its own under exactly the chart's service account, with RBAC on.
//
// It owns processes and files; what is asked of them is the caller's.
package stack
