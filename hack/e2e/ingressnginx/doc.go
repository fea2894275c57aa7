// Package ingressnginx runs the real ingress-nginx controller, as a host
// process, on Ingress objects of an existing API server.
//
// It owns the controller's process with its nginx, their namespaces and
// network, and the few objects that the controller itself needs (its Namespace,
// ServiceAccount with RBAC, ConfigMap, Pod and IngressClass). It does not own
// the API server, nor the Ingresses, Services and EndpointSlices of a test:
// there are builders for those, and the test applies them. The controller is
// built by hack/ingress-nginx/build.sh, its nginx is Debian's.
//
// # Where things run
//
//	host's namespaces                        │ the controller's own: network, mount, PID
//	                                         │
//	test ── Client, RawRequest ──────────────┼──► nginx :80 :443
//	                                         │      │ auth-url, backends
//	gate 127.0.0.1:P ◄─ Expose ─ HostIP:Q ◄──┼──────┘
//	API server 127.0.0.1:R ◄─ Expose ─ … ◄───┼──── controller
//	                                HostIP ══ veth ══ IP
//
// The controller has fixed paths (/etc/nginx, /etc/ingress-controller,
// /tmp/nginx), so it has its own mounts, and the host's files stay as they are.
// It also has its own network, joined to the host's by a veth pair, for three
// reasons: an EndpointSlice may not hold a loopback address, so a backend needs
// another one anyhow; no port of the host is taken, so tests run side by side;
// and all of it is gone with the last process in it, whatever happened before.
// What listens on the host's loopback, such as the API server, is reached
// through a forwarder for which Expose gives the address.
//
// The first process in there (init.sh) ends when its standard input does, that
// is, when the test does, even by SIGKILL; the kernel then ends all others with
// it and removes the network. What outlived its test nevertheless (a folder, an
// interface) is removed by the next Start.
//
// # Waiting
//
// A changed Ingress takes effect after a second or two: the controller writes
// nginx.conf, reloads nginx, and the new worker fetches endpoints by a timer.
// WaitSynced waits for exactly that, on what template.awk of
// hack/ingress-nginx adds to the controller's template (comments in nginx.conf,
// and a server on a port of its own), never on an answer of the gate.
//
// It needs Linux and root.
package ingressnginx
