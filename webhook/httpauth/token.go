package httpauth

import (
	"net/http"

	"github.com/keywright/keywright/webhook/authz"
)

// TokenPrefix is where those ask who do not say what the request is, such as
// HAProxy and F5's ingress controller: TokenPrefix + namespace + "/" + policy.
const TokenPrefix = "/auth/token/"

// Token reads nothing but the policy and the credentials. Method, path and host
// are not known, whatever headers say: such callers pass on those of the
// client, so a policy that looks at one denies here.
func Token(r *http.Request) authz.Request {
	ref, _, ok := cutPolicy(r.RequestURI, TokenPrefix)
	if !ok {
		return authz.Request{}
	}
	return authz.Request{Policy: ref, Header: r.Header}
}
