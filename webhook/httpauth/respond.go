package httpauth

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/keywright/keywright/webhook/authz"
)

var noStore = []string{"no-store"}

// Respond writes a decision: 200, 401 or 403, never a body, of which net/http
// tells. Identity headers are all there when allowed.
func Respond(w http.ResponseWriter, d *authz.Decision) {
	h := w.Header()
	h["Cache-Control"] = noStore
	if !d.Allowed {
		if d.ShowReason {
			h["X-Keywright-Reason"] = []string{d.Reason}
		}
		if challenge := d.WWWAuthenticate(); challenge != "" {
			h["Www-Authenticate"] = []string{challenge}
		}
		status := http.StatusForbidden
		if d.Status == authz.StatusUnauthorized {
			status = http.StatusUnauthorized
		}
		w.WriteHeader(status)
		return
	}
	if n := len(d.Identity); n > 0 {
		values := make([]string, n)
		for i := range d.Identity {
			values[i] = d.Identity[i].Value
			h[d.Identity[i].Field.Name] = values[i : i+1 : i+1]
		}
	}
	if d.CacheFor > 0 {
		// Not private: nginx, which only asks on behalf of others, would not
		// keep it. Vary keeps it apart by credentials, whatever the proxy's key.
		h["Cache-Control"] = []string{"max-age=" + strconv.FormatInt(int64(d.CacheFor.Seconds()), 10)}
		h["Vary"] = []string{d.Vary}
	}
	w.WriteHeader(http.StatusOK)
}

// cutPolicy takes namespace and policy out of a raw request target that begins
// with prefix, and gives the raw query. Nothing is decoded or cleaned: names
// of objects need neither, and what does not look like one is no policy.
func cutPolicy(target, prefix string) (ref authz.Ref, query string, ok bool) {
	rest, ok := strings.CutPrefix(target, prefix)
	if !ok {
		return authz.Ref{}, "", false
	}
	path, query, _ := strings.Cut(rest, "?")
	ref, ok = authz.ParseRef(path)
	return ref, query, ok
}

// only gives the single line of a field. Field names are compared as they
// came: X_Original_URL is another field.
func only(lines []string) (string, bool) {
	if len(lines) != 1 {
		return "", false
	}
	return lines[0], true
}
