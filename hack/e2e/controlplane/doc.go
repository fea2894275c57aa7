// Package controlplane runs a real Kubernetes control plane for tests, the
// demo and `make controlplane-up`: etcd, kube-apiserver with RBAC on, and
// kube-controller-manager, all on loopback.
//
// It owns those three processes and one temporary folder, and nothing else: it
// installs no resource of Keywright. There is no scheduler and no kubelet, so
// no pod ever runs; the controller manager runs the controllers that Keywright
// leans on (garbage collection, namespace deletion, service accounts and their
// tokens, aggregated roles) and no workload controller.
//
//	Start ──► etcd ──► kube-apiserver ──► kube-controller-manager ──► ready
//	                    │  ▲      │  ▲
//	     StopAPIServer ─┘  │      │  └─ ResumeAPIServer   (hangs: SIGSTOP)
//	      StartAPIServer ──┘      └──── PauseAPIServer   (and so with etcd)
//	Stop, or the death of this process, ends all of them
package controlplane
