package httpauth

import (
	"net/http"
	"strings"
	"time"

	"github.com/keywright/keywright/webhook/authz"
)

// Prefix is where all callers ask.
const Prefix = "/auth/"

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
	if strings.HasPrefix(r.RequestURI, NginxPrefix) {
		req = Nginx(r)
	}
	d := h.Gate.Check(r.Context(), req)
	Respond(w, &d)
	h.Took(h.Clock().Sub(began))
	if !d.Allowed || h.LogAllowed {
		h.Log(req, d)
	}
}
