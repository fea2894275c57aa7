package webhook

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/httpauth"
	"github.com/keywright/keywright/webhook/policy"
)

// keysPrefix is where public keys are served.
const keysPrefix = "/keys/"

const (
	jwksPath      = "jwks.json"
	discoveryPath = ".well-known/openid-configuration"
)

// published serves JWKS (RFC 7517) and discovery documents (OpenID Connect
// Discovery 1.0 section 3) of SigningKeys, to GET and HEAD.
type published struct {
	store *authz.Store
	clock func() time.Time
	// synced says whether a SigningKey that is not known does not exist.
	synced func() bool
	// url is where this process is reached from outside, without a slash at
	// its end; empty when it is not known.
	url string
	// hosts are those of issuers, in normal form, with the SigningKey of each.
	hosts map[string]authz.Ref

	mu sync.Mutex
	// made are the JWK Sets that were asked for.
	made map[authz.Ref]madeJWKS
}

// madeJWKS is the text of a JWK Set of keys.
type madeJWKS struct {
	keys []*keyset.Key
	text []byte
}

// maxMade is of how many SigningKeys that is kept. Beyond it, it begins anew.
const maxMade = 10_000

// discovery is a discovery document.
type discovery struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
}

func (p *published) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ref, document, ok := cutKeys(r.RequestURI)
	own, host := p.issuerAt(r.Host)
	switch {
	case host == "" && !ok, host != "" && ok && ref != own: // at an issuer's host are its keys alone
		refuse(w, http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
		return
	case !ok:
		ref = own
	}
	known, there := p.store.Keys(ref)
	if !there && !p.synced() {
		retryLater(w)
		return
	}
	base := ""
	if there && !ok {
		document, base = cutIssuer(r.RequestURI, host, known.Issuer)
	}
	if !there || document == "" || (document == discoveryPath && known.Issuer == "") {
		refuse(w, http.StatusNotFound)
		return
	}
	now := p.clock()
	keys := publicKeys(known, now)
	switch {
	case len(keys) == 0 && known.Symmetric:
		refuse(w, http.StatusNotFound)
	case len(keys) == 0:
		retryLater(w) // never an empty set: verifiers would keep it
	case document == jwksPath:
		p.writeJWKS(w, known, keys, now)
	default:
		p.writeDiscovery(w, r, base, known, keys, now)
	}
}

// issuerAt gives the SigningKey whose issuer has a host, and the host in normal
// form; both are empty when no issuer has it.
func (p *published) issuerAt(raw string) (ref authz.Ref, host string) {
	if len(p.hosts) == 0 {
		return authz.Ref{}, ""
	}
	host, err := policy.NormalizeHost(raw)
	if err != nil {
		return authz.Ref{}, ""
	}
	ref, ok := p.hosts[host]
	if !ok {
		return authz.Ref{}, ""
	}
	return ref, host
}

// cutIssuer finds the document that a raw target at an issuer's host asks for:
// what comes behind the issuer's own path, as discovery has it (OpenID Connect
// Discovery 1.0 section 4). base is the issuer without a slash at its end. Both
// are empty when there is none, or when the issuer is not at that host.
func cutIssuer(target, host, issuer string) (document, base string) {
	target, _, _ = strings.Cut(target, "?")
	base = strings.TrimRight(issuer, "/")
	u, err := url.Parse(base)
	if err != nil || !authz.SameHost(u.Host, host) {
		return "", ""
	}
	document, ok := strings.CutPrefix(target, u.EscapedPath()+"/")
	if !ok || document != jwksPath && document != discoveryPath {
		return "", ""
	}
	return document, base
}

// cutKeys takes a raw target /keys/{namespace}/{name}/{document} apart.
func cutKeys(target string) (ref authz.Ref, document string, ok bool) {
	target, _, _ = strings.Cut(target, "?")
	rest, ok := strings.CutPrefix(target, keysPrefix)
	if !ok {
		return authz.Ref{}, "", false
	}
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) != 3 || (parts[2] != jwksPath && parts[2] != discoveryPath) {
		return authz.Ref{}, "", false
	}
	return authz.Ref{Namespace: parts[0], Name: parts[1]}, parts[2], true
}

// publicKeys are the keys with a public half that verify at now and that
// status still knows.
func publicKeys(known *authz.Keys, now time.Time) []*keyset.Key {
	return slices.DeleteFunc(known.Set.Keys(), func(k *keyset.Key) bool {
		return k.Algorithm.Symmetric() || !k.ValidAt(now) || known.Details[k.ID].Hidden
	})
}

// maxAge is how long a verifier may keep what it got: never past the next
// change that is still to come, and at least a second. A change that is
// overdue says nothing of when it comes: it may be so for hours.
func maxAge(known *authz.Keys, now time.Time) time.Duration {
	age := known.MaxAge
	if known.NextTransition.After(now) {
		age = min(age, known.NextTransition.Sub(now))
	}
	return max(age, time.Second)
}

func (p *published) writeJWKS(w http.ResponseWriter, known *authz.Keys, keys []*keyset.Key, now time.Time) {
	text, err := p.textOf(known.Ref, keys)
	if err != nil {
		retryLater(w) // each key was read from such members
		return
	}
	w.Header().Set("Cache-Control", cacheFor(known, now))
	write(w, "application/jwk-set+json", text)
}

// textOf gives the JWK Set of a SigningKey's keys, and makes it anew only when
// they are others than before.
func (p *published) textOf(ref authz.Ref, keys []*keyset.Key) ([]byte, error) {
	p.mu.Lock()
	made, ok := p.made[ref]
	p.mu.Unlock()
	if ok && slices.Equal(made.keys, keys) {
		return made.text, nil
	}
	document, err := keyset.DocumentOf(keys)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == nil || len(p.made) >= maxMade {
		p.made = map[authz.Ref]madeJWKS{} // many are of SigningKeys that are gone
	}
	p.made[ref] = madeJWKS{keys: keys, text: text}
	return text, nil
}

// writeDiscovery writes a discovery document. base is where the JWK Set is; empty:
// where this process is reached.
func (p *published) writeDiscovery(w http.ResponseWriter, r *http.Request, base string, known *authz.Keys, keys []*keyset.Key, now time.Time) {
	cacheControl := cacheFor(known, now)
	if base == "" && p.url != "" {
		base = p.url + keysPrefix + known.Ref.String()
	}
	if base == "" {
		// The asking side's own word for us is good enough for itself, and
		// for nobody else: no forwarded field is read, nothing is kept.
		if !httpauth.IsAuthority(r.Host) {
			refuse(w, http.StatusNotFound)
			return
		}
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		base, cacheControl = scheme+r.Host+keysPrefix+known.Ref.String(), "no-store"
	}
	var algorithms []string
	for _, k := range keys {
		if alg := string(k.Algorithm); !slices.Contains(algorithms, alg) {
			algorithms = append(algorithms, alg)
		}
	}
	slices.Sort(algorithms)
	w.Header().Set("Cache-Control", cacheControl)
	writeJSON(w, "application/json", discovery{
		Issuer:        known.Issuer,
		JWKSURI:       base + "/" + jwksPath,
		Algorithms:    algorithms,
		ResponseTypes: []string{"id_token"},
		SubjectTypes:  []string{"public"},
	})
}

func cacheFor(known *authz.Keys, now time.Time) string {
	return "public, max-age=" + strconv.FormatInt(int64(maxAge(known, now)/time.Second), 10)
}

func retryLater(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable)
}

// refuse answers without a document, for this time alone: one that is not
// there may be there the next moment.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

func writeJSON(w http.ResponseWriter, contentType string, document any) {
	raw, err := json.Marshal(document)
	if err != nil {
		retryLater(w)
		return
	}
	write(w, contentType, raw)
}

func write(w http.ResponseWriter, contentType string, raw []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(raw) // whoever asked is gone
}
