// Package nginx runs a plain nginx in front of a backend, configured as
// ingress-nginx would configure it for the annotations auth-url,
// auth-response-headers, auth-cache-key and auth-cache-duration.
//
// It owns the process, its folder and its configuration (nginx.conf.tmpl, which
// says what each directive stands for). It does not own what nginx talks to, and
// it is not ingress-nginx: package ingressnginx runs that one. This one is for
// the demo and for tests that need nothing but auth_request, as it needs no
// root, no cluster and half a second.
//
// The port is bound before nginx starts and handed to it as an inherited socket
// (the way nginx hands its own to a new binary), so no other process can take
// it in between, and a client that comes too early waits instead of being
// refused.
package nginx
