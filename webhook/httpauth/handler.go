package httpauth

import (
	"net/http"
	"strings"
	"time"

	"github.com/keywright/keywright/webhook/authz"
)

// Prefix is where all callers ask.
const Prefix = "/auth/"

// callers are all ways to ask.
var callers = [...]struct {
	prefix string
	read   func(*http.Request) authz.Request
	// copiesAll says that the caller may put each header of an answer on the
	// request, where a Date of ours would replace the client's.
	copiesAll bool
}{
	{prefix: NginxPrefix, read: Nginx},
	{prefix: ForwardPrefix, read: Forward},
	{prefix: EnvoyPrefix, read: Envoy, copiesAll: true},
	{prefix: TokenPrefix, read: Token, copiesAll: true},
}

// Handler answers callers. It must be called before anything cleans or
// redirects the target.
type Handler struct {
	Gate *authz.Gate
	// Clock measures how long answers take.
	Clock func() time.Time
	// Took is told how long each answer took.
	Took func(time.Duration)
	// Log is told of denials, and with LogAllowed of all decisions.
	Log        func(req authz.Request, d authz.Decision)
	LogAllowed bool
}

// ServeHTTP answers under Prefix, with 200, 401 or 403.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := h.Clock()
	var req authz.Request // the policy without a name does not exist
	for i := range callers {
		if c := &callers[i]; strings.HasPrefix(r.RequestURI, c.prefix) {
			if req = c.read(r); c.copiesAll {
				w.Header()["Date"] = nil
			}
			break
		}
	}
	d := h.Gate.Check(r.Context(), req)
	Respond(w, &d)
	h.Took(h.Clock().Sub(began))
	if !d.Allowed || h.LogAllowed {
		h.Log(req, d)
	}
}
