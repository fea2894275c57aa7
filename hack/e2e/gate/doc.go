// Package gate holds the gate by tests through the proxies that ask it: the
// real processes under the chart's service accounts, the real ingress-nginx
// controller on Ingress objects, plain nginx, and those of package callers.
//
// It owns the scenarios (scenarios_test.go: one table for all callers, where
// they differ as data), the objects that they are about (testdata/objects.yaml)
// and the load under which keys rotate and are revoked, certificates and gates
// are replaced. It does not own the processes: package stack, ingressnginx, nginx
// and callers run them.
//
//	client ──► proxy ──► app (environment_test.go)
//	               │ auth-url, HTTPS
//	               └──► keywright webhook ◄── API server ◄── keywright controller
//
// Each scenario says what the client gets, what the gate counted for it, and
// what the app saw of it: a denied request must never get there.
package gate
