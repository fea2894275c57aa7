package httpauth

import (
	"net/http"
	"strings"

	"github.com/keywright/keywright/webhook/authz"
)

// ForwardPrefix is where Traefik (ForwardAuth, and its ingress-nginx provider)
// and Caddy (forward_auth) ask: ForwardPrefix + namespace + "/" + policy.
const ForwardPrefix = "/auth/forward/"

// Names of the fields that Traefik and Caddy set, in canonical form.
const (
	forwardedMethod = "X-Forwarded-Method"
	forwardedHost   = "X-Forwarded-Host"
	forwardedURI    = "X-Forwarded-Uri"
)

// Forward reads the question of a proxy that describes the request in
// X-Forwarded fields. Where its target names no policy, the request does not
// either.
//
// Both proxies overwrite what a client sent in these fields with what they
// route by, host included, also for an absolute-form request. They stop doing
// so for peers that they are told to trust (trustForwardHeader,
// trusted_proxies); then the fields are that peer's word. A list is no host,
// and a target that is not a path, such as the * of OPTIONS, is not known.
func Forward(r *http.Request) authz.Request {
	ref, _, ok := cutPolicy(r.RequestURI, ForwardPrefix)
	if !ok {
		return authz.Request{}
	}
	req := authz.Request{Policy: ref, Header: r.Header}
	req.Method, req.HasMethod = only(r.Header[forwardedMethod])
	if target, ok := only(r.Header[forwardedURI]); ok && strings.HasPrefix(target, "/") {
		req.Target, req.HasTarget = target, true
	}
	if host, ok := only(r.Header[forwardedHost]); ok && IsAuthority(host) {
		req.Host, req.HasHost = host, true
	}
	return req
}
