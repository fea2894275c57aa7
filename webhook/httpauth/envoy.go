package httpauth

import (
	"net/http"
	"strings"

	"github.com/keywright/keywright/webhook/authz"
)

// EnvoyPrefix is where Envoy's HTTP ext_authz filter asks, and what configures
// it (Contour, Envoy Gateway, Istio, the Gateway API): EnvoyPrefix + namespace
// + "/" + policy is its path_prefix, and the path of the request follows.
const EnvoyPrefix = "/auth/envoy/"

// Envoy reads the check request of the ext_authz filter, which has the method,
// the Host, the path and the query of the request itself: those of the client
// as Envoy routes them. No header says anything, and a body, which the filter
// sends when it is told to, is not read.
//
// The name of the policy ends at the first slash behind it. A path that begins
// with a slash, as Envoy demands of clients, cannot change it. Without such a
// slash the target is not known.
func Envoy(r *http.Request) authz.Request {
	rest, ok := strings.CutPrefix(r.RequestURI, EnvoyPrefix)
	if !ok {
		return authz.Request{}
	}
	path, _, _ := strings.Cut(rest, "?") // a query has slashes of its own
	end := len(path)
	if slash := strings.IndexByte(path, '/'); slash >= 0 {
		if next := strings.IndexByte(path[slash+1:], '/'); next >= 0 {
			end = slash + 1 + next
		}
	}
	ref, _, ok := cutPolicy(EnvoyPrefix+rest[:end], EnvoyPrefix)
	if !ok {
		return authz.Request{}
	}
	req := authz.Request{Policy: ref, Header: r.Header, Method: r.Method, HasMethod: r.Method != ""}
	if end < len(path) {
		req.Target, req.HasTarget = rest[end:], true
	}
	if IsAuthority(r.Host) {
		req.Host, req.HasHost = r.Host, true
	}
	return req
}
