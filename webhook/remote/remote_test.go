package remote_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/fetch"
	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
	"github.com/keywright/keywright/webhook/remote"
)

var start = time.Unix(1_800_000_000, 0)

// signer makes tokens of one key.
type signer struct {
	kid     string
	private *ecdsa.PrivateKey
}

func newSigner(t *testing.T, kid string) *signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{kid, private}
}

func (s *signer) token(t *testing.T, iss string) string {
	t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": iss, "aud": "orders", "sub": "u", "exp": start.Add(100 * time.Hour).Unix()})
	tok.Header["kid"] = s.kid
	raw, err := tok.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// set is a JWK Set of the signers' keys.
func set(t *testing.T, signers ...*signer) string {
	t.Helper()
	var keys []*keyset.Key
	for _, s := range signers {
		keys = append(keys, &keyset.Key{ID: s.kid, Algorithm: keyset.ES256, Public: &s.private.PublicKey})
	}
	doc, err := keyset.DocumentOf(keys)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// site is an issuer: what it answers, by path; "500" and "" are failures.
type site struct {
	*httptest.Server
	answers atomic.Pointer[map[string]string]
	asked   atomic.Int64
	maxAge  atomic.Pointer[string]
}

func newSite(t *testing.T) *site {
	s := &site{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		answer := (*s.answers.Load())[r.URL.Path]
		if control := s.maxAge.Load(); control != nil {
			w.Header().Set("Cache-Control", *control)
		}
		switch answer {
		case "":
			w.WriteHeader(http.StatusInternalServerError)
		case "redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "304":
			w.WriteHeader(http.StatusNotModified)
		case "cut":
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"keys":[`)
			panic(http.ErrAbortHandler)
		case "huge":
			_, _ = w.Write(make([]byte, fetch.MaxBytes+1))
		default:
			_, _ = io.WriteString(w, answer)
		}
	}))
	t.Cleanup(s.Close)
	s.shows("")
	return s
}

const wellKnown = "/.well-known/openid-configuration"

// shows makes the site answer with a JWK Set, by discovery too.
func (s *site) shows(jwks string) {
	s.answers.Store(&map[string]string{
		wellKnown: `{"issuer":"` + s.URL + `","jwks_uri":"` + s.URL + `/keys"}`, "/keys": jwks,
		"/elsewhere": jwks,
	})
}

// world is a gate whose keys are fetched.
type world struct {
	t       *testing.T
	now     time.Time
	store   *authz.Store
	gate    *authz.Gate
	fetcher *remote.Fetcher
	policy  authz.Ref
}

func newWorld(t *testing.T, sites ...*site) *world {
	w := &world{t: t, now: start, store: authz.NewStore(), policy: authz.Ref{Namespace: "shop", Name: "orders"}}
	clock := func() time.Time { return w.now }
	w.gate = authz.NewGate(w.store, authz.Options{CacheSize: 100, Clock: clock})
	t.Cleanup(w.gate.Close)
	roots := x509.NewCertPool()
	for _, s := range sites {
		roots.AddCert(s.Certificate())
	}
	w.fetcher = &remote.Fetcher{
		Store: w.store, Client: &fetch.Client{AllowPrivate: true, Roots: roots}, Clock: clock, Log: slog.New(slog.DiscardHandler),
	}
	return w
}

func (w *world) set(issuers ...v1alpha1.TokenIssuerRef) {
	w.t.Helper()
	p, err := policy.Compile("shop", "orders", &v1alpha1.AccessPolicySpec{Issuers: issuers})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store.SetPolicy(w.policy, p, nil)
}

func (w *world) round() time.Time { return w.fetcher.Round(context.Background()) }

func (w *world) want(raw, reason string) {
	w.t.Helper()
	for _, pass := range []string{"first", "again"} {
		d := w.gate.Check(context.Background(), authz.Request{Policy: w.policy, Header: map[string][]string{"Authorization": {"Bearer " + raw}}})
		if d.Reason != reason || d.Allowed != (reason == "") {
			w.t.Errorf("%s: reason %q (%v), want %q", pass, d.Reason, d.Err, reason)
		}
	}
}

func oidc(s *site) v1alpha1.TokenIssuerRef {
	return v1alpha1.TokenIssuerRef{OIDC: &v1alpha1.OIDCIssuer{URL: s.URL}, Audiences: []string{"orders"}, Algorithms: []string{"ES256"}}
}

func jwks(s *site, issuer string) v1alpha1.TokenIssuerRef {
	return v1alpha1.TokenIssuerRef{JWKS: &v1alpha1.JWKSIssuer{URL: s.URL + "/keys", Issuer: issuer}, Audiences: []string{"orders"}, Algorithms: []string{"ES256"}}
}

func TestKeysOfAnIssuerAreFollowed(t *testing.T) {
	a, b, c := newSigner(t, "a"), newSigner(t, "b"), newSigner(t, "a")
	s := newSite(t)
	w := newWorld(t, s)
	w.set(oidc(s))
	w.want(a.token(t, s.URL), "issuer_not_loaded")
	next := w.round() // it fails
	w.want(a.token(t, s.URL), "issuer_not_loaded")
	if wait := next.Sub(w.now); wait < remote.RetryInterval || wait > 2*remote.RetryInterval {
		t.Errorf("after a failure it waits for %s", wait)
	}

	s.shows(set(t, a))
	w.now = next
	next = w.round()
	w.want(a.token(t, s.URL), "")
	w.want(a.token(t, s.URL+"/"), "wrong_issuer")
	w.want(c.token(t, s.URL), "bad_signature")
	if wait := next.Sub(w.now); wait < remote.DefaultInterval || wait > remote.DefaultInterval*11/10 {
		t.Errorf("after a success it waits for %s", wait)
	}

	// A key that is new: refused, asked for in the background, not too often.
	s.shows(set(t, a, b))
	w.want(b.token(t, s.URL), "unknown_key")
	select {
	case <-w.store.Wanted():
	default:
		t.Error("nobody is woken")
	}
	asked := s.asked.Load()
	early := w.round()
	if s.asked.Load() != asked || early.Sub(w.now) > remote.EarlyInterval {
		t.Errorf("asked %d times at once; the next is in %s", s.asked.Load()-asked, early.Sub(w.now))
	}
	w.now = early
	next = w.round()
	w.want(b.token(t, s.URL), "")
	w.want(a.token(t, s.URL), "")

	// A key that is gone, though its token was verified before.
	s.shows(set(t, b))
	w.now = next
	next = w.round()
	w.want(a.token(t, s.URL), "unknown_key")
	w.want(b.token(t, s.URL), "")

	// Another key of the same ID.
	other := newSigner(t, "b")
	s.shows(set(t, other))
	w.now = next
	next = w.round()
	w.want(b.token(t, s.URL), "bad_signature")
	w.want(other.token(t, s.URL), "")

	// Failures of each kind keep what there is, up to a bound.
	good := w.now
	for _, answer := range []string{"", "garbage", `{"no":"keys"}`, "redirect", "304", "cut", "huge", "[]", "null"} {
		s.shows(answer)
		w.now = next
		next = w.round()
		w.want(other.token(t, s.URL), "")
	}
	if w.now.Sub(good) >= remote.MaxStale {
		t.Fatal("the bound came too early to show anything")
	}
	w.now = good.Add(remote.MaxStale)
	next = w.round()
	w.want(other.token(t, s.URL), "issuer_not_loaded")

	s.shows(set(t, other))
	w.now = next
	next = w.round()
	w.want(other.token(t, s.URL), "")

	// A set that was emptied is empty.
	s.shows(`{"keys":[]}`)
	w.now = next
	w.round()
	w.want(other.token(t, s.URL), "unknown_key")
}

func TestDiscoveryNamesTheIssuer(t *testing.T) {
	a := newSigner(t, "a")
	for name, tc := range map[string]struct{ issuer, keys string }{
		"another issuer":       {issuer: "https://attacker.example"},
		"with a slash":         {issuer: "{url}/"},
		"none":                 {},
		"keys without TLS":     {issuer: "{url}", keys: "http://127.0.0.1:1/keys"},
		"keys that are a file": {issuer: "{url}", keys: "file:///etc/passwd"},
		"no keys":              {issuer: "{url}", keys: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			w := newWorld(t, s)
			w.set(oidc(s))
			keys := s.URL + "/keys"
			if tc.keys != "" {
				keys = tc.keys
			}
			s.answers.Store(&map[string]string{
				"/keys":   set(t, a),
				wellKnown: `{"issuer":"` + strings.ReplaceAll(tc.issuer, "{url}", s.URL) + `","jwks_uri":"` + keys + `"}`,
			})
			w.round()
			w.want(a.token(t, s.URL), "issuer_not_loaded")
		})
	}
}

func TestPrivateAddressesAreRefused(t *testing.T) {
	a, s := newSigner(t, "a"), newSite(t)
	s.shows(set(t, a))
	w := newWorld(t, s)
	w.fetcher.Client = &fetch.Client{}
	w.set(oidc(s))
	w.round()
	w.want(a.token(t, s.URL), "issuer_not_loaded")
	if s.asked.Load() != 0 {
		t.Error("it was asked")
	}
}

// Keys belong to an issuer (RFC 8725 section 3.8): two with keys of one ID.
func TestIssuersDoNotMix(t *testing.T) {
	a, b := newSigner(t, "same"), newSigner(t, "same")
	siteA, siteB := newSite(t), newSite(t)
	siteA.shows(set(t, a))
	siteB.shows(set(t, b))
	w := newWorld(t, siteA, siteB)
	w.set(oidc(siteA), jwks(siteB, "https://b.example"))
	w.round()
	w.want(a.token(t, siteA.URL), "")
	w.want(b.token(t, "https://b.example"), "")
	w.want(a.token(t, "https://b.example"), "bad_signature")
	w.want(b.token(t, siteA.URL), "bad_signature")
	w.want(a.token(t, "https://c.example"), "ambiguous_key")
	w.want(a.token(t, ""), "ambiguous_key")

	// Without the one, the other's tokens count as before.
	w.set(jwks(siteB, "https://b.example"))
	w.want(a.token(t, siteA.URL), "bad_signature")
	w.want(b.token(t, "https://b.example"), "")
	w.want(b.token(t, siteA.URL), "wrong_issuer")
	if loaded, missing := w.store.OriginsLoaded(); loaded != 1 || missing != 0 {
		t.Errorf("%d loaded, %d missing, want the one that is named", loaded, missing)
	}
}

func TestPoliciesShareASource(t *testing.T) {
	a, s := newSigner(t, "a"), newSite(t)
	s.shows(set(t, a))
	w := newWorld(t, s)
	w.set(oidc(s))
	w.policy.Name = "second"
	w.set(oidc(s))
	w.round()
	if n := s.asked.Load(); n != 2 {
		t.Errorf("%d requests, want one for discovery and one for keys", n)
	}
	w.want(a.token(t, s.URL), "")
	// A policy that changes keeps what is there.
	w.set(oidc(s))
	w.want(a.token(t, s.URL), "")
	w.store.DeletePolicy(w.policy)
	w.store.DeletePolicy(authz.Ref{Namespace: "shop", Name: "orders"})
	if loaded, missing := w.store.OriginsLoaded(); loaded+missing != 0 {
		t.Error("what nobody names is kept")
	}
}

func TestAPolicyThatComesBackFindsItsKeys(t *testing.T) {
	a, s := newSigner(t, "a"), newSite(t)
	s.shows(set(t, a))
	for what, breaks := range map[string]func(*world){
		"broken and mended":   func(w *world) { w.store.SetPolicy(w.policy, nil, errors.New("a typo")) },
		"deleted and created": func(w *world) { w.store.DeletePolicy(w.policy) },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, s)
			w.set(oidc(s))
			w.round()
			w.want(a.token(t, s.URL), "")
			breaks(w)
			if loaded, missing := w.store.OriginsLoaded(); loaded+missing != 0 {
				t.Error("what nobody names is counted")
			}
			w.set(oidc(s))
			w.want(a.token(t, s.URL), "")

			// The same with a look at what is named in between.
			breaks(w)
			w.round()
			w.set(oidc(s))
			w.want(a.token(t, s.URL), "issuer_not_loaded")
			w.round()
			w.want(a.token(t, s.URL), "")
		})
	}
}

// hanging answers nothing until it is let go.
type hanging struct {
	remote.Getter
	at   string
	hung chan struct{}
	free chan struct{}
}

// Get hangs at one place.
func (h *hanging) Get(ctx context.Context, target string) ([]byte, http.Header, error) {
	if strings.HasPrefix(target, h.at) {
		h.hung <- struct{}{}
		<-h.free
	}
	return h.Getter.Get(ctx, target)
}

func TestASourceThatHangsDelaysNoOther(t *testing.T) {
	a, good, bad := newSigner(t, "a"), newSite(t), newSite(t)
	good.shows(set(t, a))
	bad.shows(set(t, a))
	w := newWorld(t, good, bad)
	w.set(oidc(good))
	w.round()
	if !w.fetcher.Asked() {
		t.Error("not all are asked after a round")
	}
	w.policy.Name = "second"
	var hang []v1alpha1.TokenIssuerRef
	for i := range 16 {
		hang = append(hang, jwks(bad, fmt.Sprintf("https://issuer-%d.example", i)))
	}
	w.set(hang...)
	if w.fetcher.Asked() {
		t.Error("a new source counts as asked")
	}
	h := &hanging{Getter: w.fetcher.Client, at: bad.URL, hung: make(chan struct{}, 16), free: make(chan struct{})}
	w.fetcher.Client = h
	done := make(chan struct{})
	go func() { defer close(done); w.round() }()
	for range 4 { // of one namespace
		<-h.hung
	}
	w.policy.Name = "orders"
	before := good.asked.Load()
	w.now = w.now.Add(2 * remote.MaxInterval)
	w.round() // waits for none of those
	if good.asked.Load() == before {
		t.Error("the good source is not asked while others hang")
	}
	close(h.free)
	<-done
	if !w.fetcher.Asked() {
		t.Error("not all are asked at the end")
	}
}

func TestOneKeyIsOneObject(t *testing.T) {
	a, s := newSigner(t, "a"), newSite(t)
	s.shows(set(t, a))
	w := newWorld(t, s)
	other := oidc(s)
	other.Algorithms, other.Audiences = []string{"RS256", "ES256"}, []string{"another"}
	w.set(other, oidc(s))
	w.round()
	w.want(a.token(t, s.URL), "")
}

func TestCacheControlIsHonouredWithinBounds(t *testing.T) {
	a := newSigner(t, "a")
	for control, want := range map[string]time.Duration{
		"max-age=0": remote.MinInterval, "public, max-age=120": 2 * time.Minute, "max-age=86400": remote.MaxInterval,
		"no-store": remote.MinInterval, "max-age=x": remote.DefaultInterval, "max-age=99999999999999": remote.DefaultInterval,
	} {
		t.Run(control, func(t *testing.T) {
			s := newSite(t)
			s.shows(set(t, a))
			s.maxAge.Store(&control)
			w := newWorld(t, s)
			w.set(oidc(s))
			wait := w.round().Sub(w.now)
			if wait < want && want != remote.MaxInterval || wait > want*11/10 {
				t.Errorf("asks again after %s, want %s", wait, want)
			}
		})
	}
}

// Each key is used with one algorithm (RFC 8725 section 3.1).
func TestEachKeyHasOneAlgorithm(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m, err := keyset.MembersOf(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		alg        string
		algorithms []string
		rs, ps     string
	}{
		"the one that it names":              {alg: "RS256", algorithms: []string{"PS256", "RS256"}, ps: "algorithm_mismatch"},
		"none that is not allowed":           {alg: "RS256", algorithms: []string{"PS256"}, rs: "unknown_key", ps: "unknown_key"},
		"the only one that fits":             {algorithms: []string{"ES256", "PS256"}, rs: "algorithm_mismatch"},
		"none where several fit":             {algorithms: []string{"RS256", "PS256"}, rs: "unknown_key", ps: "unknown_key"},
		"none that nobody knows":             {alg: "RS1", algorithms: []string{"RS256"}, rs: "unknown_key", ps: "unknown_key"},
		"none that is for something else":    {alg: "RSA-OAEP", algorithms: []string{"RS256"}, rs: "unknown_key", ps: "unknown_key"},
		"none of another family, by its alg": {alg: "ES256", algorithms: []string{"ES256", "RS256"}, rs: "unknown_key", ps: "unknown_key"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			alg := ""
			if tc.alg != "" {
				alg = `"alg":"` + tc.alg + `",`
			}
			s.shows(`{"keys":[{"kid":"r",` + alg + `"kty":"RSA","n":"` + m.N + `","e":"` + m.E + `"}]}`)
			w := newWorld(t, s)
			ref := oidc(s)
			ref.Algorithms = tc.algorithms
			w.set(ref)
			w.round()
			for method, want := range map[jwt.SigningMethod]string{jwt.SigningMethodRS256: tc.rs, jwt.SigningMethodPS256: tc.ps} {
				tok := jwt.NewWithClaims(method, jwt.MapClaims{"iss": s.URL, "aud": "orders", "exp": start.Add(time.Hour).Unix()})
				tok.Header["kid"] = "r"
				raw, err := tok.SignedString(private)
				if err != nil {
					t.Fatal(err)
				}
				w.want(raw, want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	a := newSigner(t, "a")
	good := strings.TrimSuffix(strings.TrimPrefix(set(t, a), `{"keys":[`), `]}`)
	for name, bad := range map[string]string{
		"an unknown kty":         `{"kid":"x","kty":"AKP","alg":"ML-DSA-44","pub":"AA"}`,
		"an unknown curve":       `{"kid":"x","kty":"OKP","crv":"X25519","x":"AAAA"}`,
		"a secret":               `{"kid":"x","kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
		"a point off its curve":  `{"kid":"x","kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}`,
		"no kid":                 strings.Replace(good, `"kid":"a"`, `"kid":""`, 1),
		"a kid of a number":      strings.Replace(good, `"kid":"a"`, `"kid":1`, 1),
		"use enc":                strings.Replace(strings.Replace(good, `"kid":"a"`, `"kid":"x"`, 1), `"use":"sig"`, `"use":"enc"`, 1),
		"key_ops without verify": strings.Replace(strings.Replace(good, `"kid":"a"`, `"kid":"x"`, 1), `"use":"sig"`, `"key_ops":["sign"]`, 1),
		"a member that is none":  `"text"`,
		"a key of null":          `null`,
	} {
		t.Run(name+" beside a good one", func(t *testing.T) {
			for _, doc := range []string{`{"keys":[` + bad + `,` + good + `]}`, `{"more":1,"keys":[` + good + `,` + bad + `]}`} {
				keys, err := remote.Parse([]byte(doc))
				if err != nil || len(keys) != 1 || keys[0].ID != "a" {
					t.Errorf("%v, %v, want the good one", keys, err)
				}
			}
		})
	}
	t.Run("two keys of one ID are none", func(t *testing.T) {
		keys, err := remote.Parse([]byte(set(t, a, newSigner(t, "b"), newSigner(t, "a"))))
		if err != nil || len(keys) != 1 || keys[0].ID != "b" {
			t.Errorf("%v, %v, want the other alone", keys, err)
		}
	})
	t.Run("a key for encryption is no rival", func(t *testing.T) {
		keys, err := remote.Parse([]byte(`{"keys":[` + strings.Replace(good, `"use":"sig"`, `"use":"enc"`, 1) + `,` + good + `]}`))
		if err != nil || len(keys) != 1 {
			t.Errorf("%v, %v, want the one for signatures", keys, err)
		}
	})
	t.Run("the order does not matter", func(t *testing.T) {
		b := newSigner(t, "b")
		one, err := remote.Parse([]byte(set(t, a, b)))
		two, err2 := remote.Parse([]byte(set(t, b, a)))
		if err != nil || err2 != nil || one[0].ID != two[0].ID || one[1].ID != two[1].ID {
			t.Errorf("%v and %v, want the same", one, two)
		}
	})
	t.Run("too many keys", func(t *testing.T) {
		if _, err := remote.Parse([]byte(`{"keys":[` + strings.Repeat(`1,`, 300) + `1]}`)); err == nil {
			t.Error("they are taken")
		}
	})
}

// FuzzParse: no JWK Set panics, and what is taken from one can be used.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"keys":[]}`, `{"keys":null}`, `[]`, `{"keys":[{"kid":"x","kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
		`{"keys":[{"kid":"1","kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"sig"}]}`,
		`{"keys":[{"kid":"x","kty":"RSA","n":"AA","e":"AQAB"},{"kid":"x","kty":"oct","k":"AA"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		keys, err := remote.Parse(raw)
		if err != nil && keys != nil {
			t.Fatal("keys beside an error")
		}
		seen := map[string]bool{}
		for _, k := range keys {
			if k.ID == "" || k.Public == nil || seen[k.ID] {
				t.Fatalf("%+v", k)
			}
			seen[k.ID] = true
			for _, alg := range keyset.Algorithms() {
				if alg.Symmetric() && !errors.Is(alg.CheckVerificationKey(k.Public), keyset.ErrUnusableKey) {
					t.Fatal("a public key passes for a secret")
				}
			}
		}
	})
}
