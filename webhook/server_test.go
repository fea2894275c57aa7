package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
)

var start = time.Unix(1_800_000_000, 0)

// logs is a log that a test can read.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newTestServer(t testing.TB, o Options, clock func() time.Time) (*server, *logs) {
	t.Helper()
	out := &logs{}
	o.CacheSize = 100
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent, o.MaxConnections = 100, 100
	}
	log := slog.New(slog.NewJSONHandler(out, nil))
	callers, err := newCallers(o.CallerSecretFile, o.CallerCAFile, log)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(log, &contact{clock: clock}, callers, o, clock)
	t.Cleanup(s.gate.Close)
	s.feed.synced = []func() bool{func() bool { return true }}
	return s, out
}

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

func shopKey(t testing.TB, sequence int64, states ...v1alpha1.KeyState) *v1alpha1.SigningKey {
	t.Helper()
	sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "u"}}
	sk.Spec.Algorithm = "ES256"
	sk.Spec.Issuer = "https://auth.example"
	sk.Spec.Propagation.VerifierLag.Duration = time.Minute
	sk.Status.Sequence = sequence
	for i, state := range states {
		k := newSigner(t, "k"+string(rune('0'+i)), state).status
		k.Issuer = sk.Spec.Issuer
		sk.Status.Keys = append(sk.Status.Keys, k)
	}
	return sk
}

func ask(h http.Handler, method, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.RequestURI = target
	r.Header.Set("X-Forwarded-Host", "evil.example")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPublishedKeys(t *testing.T) {
	next := metav1.NewTime(start.Add(7 * time.Second))
	overdue := metav1.NewTime(start.Add(-time.Hour))
	soon := metav1.NewTime(start.Add(time.Millisecond))
	over := metav1.NewTime(start)
	sk := shopKey(t, 1, v1alpha1.KeyPublished, v1alpha1.KeyActive, v1alpha1.KeyVerifying, v1alpha1.KeyVerifying, v1alpha1.KeyRetired)
	sk.Status.Keys[3].VerifyUntil = &over
	with := func(change func(*v1alpha1.SigningKey)) *v1alpha1.SigningKey {
		changed := sk.DeepCopy()
		change(changed)
		return changed
	}
	const jwks, config = "/keys/shop/shop/jwks.json", "/keys/shop/shop/.well-known/openid-configuration"
	tests := map[string]struct {
		sk             *v1alpha1.SigningKey
		method, target string
		status         int
		cacheControl   string
	}{
		"a JWKS":                               {sk, "GET", jwks, 200, "public, max-age=60"},
		"a JWKS with a query":                  {sk, "GET", jwks + "?x=1", 200, "public, max-age=60"},
		"HEAD":                                 {sk, "HEAD", jwks, 200, "public, max-age=60"},
		"POST":                                 {sk, "POST", jwks, 405, "no-store"},
		"up to the next transition":            {with(func(sk *v1alpha1.SigningKey) { sk.Status.NextTransition = &v1alpha1.NextTransition{Time: next} }), "GET", jwks, 200, "public, max-age=7"},
		"whatever is overdue":                  {with(func(sk *v1alpha1.SigningKey) { sk.Status.NextTransition = &v1alpha1.NextTransition{Time: overdue} }), "GET", jwks, 200, "public, max-age=60"},
		"at least a second":                    {with(func(sk *v1alpha1.SigningKey) { sk.Status.NextTransition = &v1alpha1.NextTransition{Time: soon} }), "GET", jwks, 200, "public, max-age=1"},
		"no key yet":                           {with(func(sk *v1alpha1.SigningKey) { sk.Status.Keys = nil }), "GET", jwks, 503, "no-store"},
		"only keys that are over":              {with(func(sk *v1alpha1.SigningKey) { sk.Status.Keys = sk.Status.Keys[3:] }), "GET", jwks, 503, "no-store"},
		"a SigningKey that does not exist":     {sk, "GET", "/keys/shop/nope/jwks.json", 404, "no-store"},
		"another document":                     {sk, "GET", "/keys/shop/shop/x", 404, "no-store"},
		"a path that would have to be cleaned": {sk, "GET", "/keys/shop/../shop/shop/jwks.json", 404, "no-store"},
		"HS*":                                  {with(func(sk *v1alpha1.SigningKey) { sk.Spec.Algorithm, sk.Status.Keys = "HS256", nil }), "GET", jwks, 404, "no-store"},
		"from a HS* key's time before":         {with(func(sk *v1alpha1.SigningKey) { sk.Spec.Algorithm = "HS256" }), "GET", jwks, 200, "public, max-age=60"},
		"discovery":                            {sk, "GET", config, 200, "no-store"},
		"discovery without an issuer":          {with(func(sk *v1alpha1.SigningKey) { sk.Spec.Issuer, sk.Status.Keys[1].Issuer = "", "" }), "GET", config, 404, "no-store"},
		"discovery without a key":              {with(func(sk *v1alpha1.SigningKey) { sk.Status.Keys = nil }), "GET", config, 503, "no-store"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s, _ := newTestServer(t, Options{}, at(start))
			s.feed.setSigningKey(tc.sk)
			w := ask(s.auth, tc.method, tc.target)
			if w.Code != tc.status || w.Header().Get("Cache-Control") != tc.cacheControl {
				t.Errorf("got %d, Cache-Control %q", w.Code, w.Header().Get("Cache-Control"))
			}
			if (w.Header().Get("Retry-After") != "") != (tc.status == 503) {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
		})
	}

	t.Run("the JWKS has the keys that verify now", func(t *testing.T) {
		s, _ := newTestServer(t, Options{}, at(start))
		s.feed.setSigningKey(sk)
		var document map[string][]map[string]string
		if err := json.Unmarshal(ask(s.auth, "GET", jwks).Body.Bytes(), &document); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, key := range document["keys"] {
			ids = append(ids, key["kid"])
			if key["alg"] != "ES256" || key["use"] != "sig" || key["d"] != "" {
				t.Errorf("got %v", key)
			}
		}
		if !cmp.Equal(ids, []string{"k0", "k1", "k2"}) {
			t.Errorf("got %v", ids)
		}
	})
	t.Run("the discovery document", func(t *testing.T) {
		for public, want := range map[string]string{"": "http://example.com", "https://keys.example/a/": "https://keys.example/a"} {
			s, _ := newTestServer(t, Options{PublicURL: public}, at(start))
			s.feed.setSigningKey(sk)
			var got discovery
			if err := json.Unmarshal(ask(s.auth, "GET", config).Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(discovery{
				Issuer: "https://auth.example", JWKSURI: want + jwks, Algorithms: []string{"ES256"},
				ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"},
			}, got); diff != "" {
				t.Errorf("document (-want +got):\n%s", diff)
			}
		}
	})
	t.Run("at an issuer's host", func(t *testing.T) {
		hosts := map[string]string{"auth.example": "shop/shop", "other.example": "shop/shop", "gone.example": "shop/gone"}
		const discovery, jwks = "/.well-known/openid-configuration", "/jwks.json"
		for name, tc := range map[string]struct {
			issuer, host, target, method string
			status                       int
			jwksURI                      string
		}{
			"the discovery document":                 {host: "auth.example", target: discovery, status: 200, jwksURI: "https://auth.example/jwks.json"},
			"the JWKS":                               {host: "auth.example", target: jwks, status: 200},
			"in another spelling, with a query":      {host: "AUTH.example.:443", target: discovery + "?a", status: 200, jwksURI: "https://auth.example/jwks.json"},
			"an issuer with a slash":                 {issuer: "https://auth.example/", host: "auth.example", target: discovery, status: 200, jwksURI: "https://auth.example/jwks.json"},
			"an issuer with a path":                  {issuer: "https://auth.example/shop%20a", host: "auth.example", target: "/shop%20a" + discovery, status: 200, jwksURI: "https://auth.example/shop%20a/jwks.json"},
			"an issuer with a path, without it":      {issuer: "https://auth.example/shop", host: "auth.example", target: discovery, status: 404},
			"an issuer elsewhere":                    {host: "other.example", target: discovery, status: 404},
			"an issuer that is no URL":               {issuer: "shop", host: "auth.example", target: discovery, status: 404},
			"a SigningKey that does not exist":       {host: "gone.example", target: discovery, status: 404},
			"its keys by their name":                 {host: "auth.example", target: "/keys/shop/shop/jwks.json", status: 200},
			"another's keys by their name":           {host: "auth.example", target: "/keys/shop/other/jwks.json", status: 404},
			"another document":                       {host: "auth.example", target: "/", status: 404},
			"a change":                               {host: "auth.example", target: jwks, method: "POST", status: 405},
			"another host":                           {host: "keys.example", target: discovery, status: 404},
			"another host, a change":                 {host: "keys.example", target: discovery, method: "POST", status: 404},
			"another host, another's keys by a name": {host: "keys.example", target: "/keys/shop/other/jwks.json", status: 200},
			"a host that is none":                    {host: "auth.example,", target: discovery, status: 404},
		} {
			t.Run(name, func(t *testing.T) {
				s, _ := newTestServer(t, Options{IssuerHosts: hosts}, at(start))
				own := sk.DeepCopy()
				if tc.issuer != "" {
					own.Spec.Issuer = tc.issuer
					for i := range own.Status.Keys {
						own.Status.Keys[i].Issuer = tc.issuer
					}
				}
				other := sk.DeepCopy()
				other.Name, other.UID = "other", "other"
				s.feed.setSigningKey(own)
				s.feed.setSigningKey(other)
				method := tc.method
				if method == "" {
					method = "GET"
				}
				r := httptest.NewRequest(method, tc.target, nil)
				r.Host = tc.host
				w := httptest.NewRecorder()
				s.auth.ServeHTTP(w, r)
				if w.Code != tc.status {
					t.Fatalf("got %d, want %d", w.Code, tc.status)
				}
				var got struct {
					JWKSURI string `json:"jwks_uri"`
				}
				if tc.status == 200 {
					if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
						t.Fatal(err)
					}
				}
				if got.JWKSURI != tc.jwksURI {
					t.Errorf("jwks_uri %q, want %q", got.JWKSURI, tc.jwksURI)
				}
			})
		}
	})
	t.Run("nothing is said not to exist before all is loaded", func(t *testing.T) {
		s, _ := newTestServer(t, Options{}, at(start))
		s.feed.synced = []func() bool{func() bool { return false }}
		if w := ask(s.auth, "GET", jwks); w.Code != 503 {
			t.Errorf("got %d", w.Code)
		}
	})
}

func TestFeed(t *testing.T) {
	s, out := newTestServer(t, Options{}, at(start))
	hmac := shopKey(t, 1, v1alpha1.KeyActive)
	hmac.Spec.Algorithm = "HS256"
	hmac.Status.Keys[0].Algorithm, hmac.Status.Keys[0].PublicKey = "HS256", nil
	loaded := func() int {
		k, ok := s.store.Keys(authz.Ref{Namespace: "shop", Name: "shop"})
		if !ok {
			return -1
		}
		return len(k.Set.Keys())
	}
	s.feed.setSigningKey(hmac)
	if loaded() != 0 {
		t.Errorf("%d keys before the secret", loaded())
	}
	entry, err := keyset.HMACEntry{Namespace: "shop", Name: "shop", Secrets: map[string][]byte{"k0": bytes.Repeat([]byte("s"), 32)}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.feed.setSecrets(map[string][]byte{keyset.HMACEntryName("shop", "shop"): entry})
	if loaded() != 1 {
		t.Errorf("%d keys with the secret", loaded())
	}
	if strings.Contains(out.String(), strings.Repeat("s", 32)) || !strings.Contains(out.String(), "not in the Secret") {
		t.Errorf("log: %s", out)
	}

	ap := &v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders", UID: "p", Generation: 1}}
	ap.Spec.Issuers = []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}}}
	notReady := func() error {
		for _, state := range s.store.Policies() {
			return state.NotReady
		}
		return nil
	}
	s.feed.setPolicy(ap)
	if err := notReady(); err != nil {
		t.Error(err)
	}
	broken := ap.DeepCopy()
	broken.Spec.Issuers = nil
	s.feed.setPolicy(broken) // the same generation, as after a restore of etcd
	if err := notReady(); err == nil || !strings.Contains(err.Error(), "spec.issuers") {
		t.Errorf("got %v", err)
	}
	compiled := strings.Count(out.String(), "does not compile")
	touched := broken.DeepCopy()
	touched.Generation, touched.Labels = 2, map[string]string{"a": "b"}
	s.feed.setPolicy(touched)
	if n := strings.Count(out.String(), "does not compile"); n != compiled {
		t.Error("a policy of the same spec is compiled again")
	}
	s.feed.setNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	s.feed.deletePolicy(authz.Ref{Namespace: "shop", Name: "orders"})
	s.feed.deleteSigningKey(authz.Ref{Namespace: "shop", Name: "shop"})
	if keys, policies := s.store.Size(); keys != 0 || policies != 0 {
		t.Errorf("%d SigningKeys, %d policies stay", keys, policies)
	}
}

func TestWhatIsWrongWithAPolicyIsToldOnceAndInShort(t *testing.T) {
	s, out := newTestServer(t, Options{}, at(start))
	ap := &v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"}}
	for range 100 {
		ap.Spec.Rules = append(ap.Spec.Rules, v1alpha1.Rule{Name: strings.Repeat("ü", 100), Access: "Nope"})
	}
	s.feed.setPolicy(ap)
	for _, state := range s.store.Policies() {
		if n := len(state.NotReady.Error()); n > 1200 || n < 1000 {
			t.Errorf("%d bytes are kept", n)
		}
	}
	if n := len(out.String()); n > 1600 {
		t.Errorf("%d bytes are logged", n)
	}
	before := len(out.String())
	ask(s.auth, "GET", "/auth/nginx/shop/orders")
	line := out.String()[before:]
	if !strings.Contains(line, "policy is not ready: does not compile") || !strings.Contains(line, "spec.") || len(line) > 500 {
		t.Errorf("log: %s", line)
	}
}

func TestKeysDoNotWaitForPolicies(t *testing.T) {
	s, _ := newTestServer(t, Options{}, at(start))
	s.feed.policies.Lock() // as while a policy is compiled
	defer s.feed.policies.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.feed.setSigningKey(shopKey(t, 1, v1alpha1.KeyActive))
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("keys wait")
	}
}

// fakeAPI answers lists with what it has, and watches with nothing; it tells
// the resources that were asked for.
func fakeAPI(t *testing.T, has map[string]string, asked chan<- string) *rest.Config {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.URL.Query().Get("fieldSelector")
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		for suffix, list := range has {
			if strings.HasSuffix(r.URL.Path, suffix) {
				_, _ = io.WriteString(w, list)
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(api.Close)
	return &rest.Config{Host: api.URL}
}

func TestFollowersFillTheStore(t *testing.T) {
	list := func(version, kind, item string) string {
		return `{"apiVersion":"` + version + `","kind":"` + kind + `List","metadata":{"resourceVersion":"5"},"items":[` + item + `]}`
	}
	has := map[string]string{
		"/signingkeys":    list("keywright.dev/v1alpha1", "SigningKey", `{"metadata":{"namespace":"shop","name":"shop","uid":"u"},"spec":{},"status":{}}`),
		"/accesspolicies": list("keywright.dev/v1alpha1", "AccessPolicy", `{"metadata":{"namespace":"shop","name":"orders"},"spec":{"issuers":[{"signingKeyRef":{"name":"shop"}}]}}`),
		"/secrets":        list("v1", "Secret", ""),
		"/namespaces":     list("v1", "Namespace", `{"metadata":{"name":"shop"}}`),
	}
	const hmac, gates = "/api/v1/namespaces/keywright/secrets metadata.name=keywright-hmac", "/api/v1/namespaces/keywright/secrets metadata.name=keywright-gates"
	tests := map[string]struct {
		watch   []string
		keysets string
		want    []string
	}{
		"all namespaces": {nil, ":8082", []string{
			"/api/v1/namespaces ", gates, hmac,
			"/apis/keywright.dev/v1alpha1/accesspolicies ", "/apis/keywright.dev/v1alpha1/signingkeys ",
		}},
		"nobody to be told of key sets": {nil, "0", []string{
			"/api/v1/namespaces ", hmac,
			"/apis/keywright.dev/v1alpha1/accesspolicies ", "/apis/keywright.dev/v1alpha1/signingkeys ",
		}},
		"some namespaces": {[]string{"shop"}, ":8082", []string{
			gates, hmac,
			"/apis/keywright.dev/v1alpha1/namespaces/shop/accesspolicies ", "/apis/keywright.dev/v1alpha1/namespaces/shop/signingkeys ",
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s, _ := newTestServer(t, Options{}, time.Now)
			s.feed.synced = nil
			asked := make(chan string, 1000)
			ctx, stop := context.WithCancel(context.Background())
			all, err := s.feed.followers(fakeAPI(t, has, asked), &Options{Namespace: "keywright", WatchNamespaces: tc.watch, KeysetsListen: tc.keysets}, s.pin)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); all.run(ctx) }()
			await(t, "it has synced", s.feed.hasSynced)
			got := map[string]bool{}
			await(t, "all is asked for that is not waited for", func() bool {
				for len(asked) > 0 {
					got[<-asked] = true
				}
				return len(got) >= len(tc.want)
			})
			if n := len(s.feed.synced); n != 4-min(1, len(tc.watch)) {
				t.Errorf("%d kinds are waited for", n)
			}
			for ref, state := range s.store.Policies() {
				if ref.String() != "shop/orders" || state.NotReady != nil {
					t.Errorf("policy %s: %v", ref, state.NotReady)
				}
			}
			if keys, policies := s.store.Size(); keys != 1 || policies != 1 {
				t.Errorf("%d SigningKeys, %d policies", keys, policies)
			}
			stop()
			<-ended
			for len(asked) > 0 {
				got[<-asked] = true
			}
			if diff := cmp.Diff(tc.want, slices.Sorted(maps.Keys(got))); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMetricsAndDenials(t *testing.T) {
	s, out := newTestServer(t, Options{}, at(start))
	s.feed.setSigningKey(shopKey(t, 1, v1alpha1.KeyActive))
	ap := &v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"}}
	ap.Spec.Issuers = []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}}}
	s.feed.setPolicy(ap)
	for range denialsAtOnce + 50 {
		r := httptest.NewRequest("GET", "/auth/nginx/shop/orders", nil)
		r.RequestURI = "/auth/nginx/shop/orders"
		r.Header.Set("Authorization", "Bearer eyJ-secret-token")
		r.Header.Set("X-Original-URL", "http://x/\x1b[31m?access_token=secret-query")
		s.auth.ServeHTTP(httptest.NewRecorder(), r)
	}
	other := ap.DeepCopy()
	other.Name = "quiet"
	s.feed.setPolicy(other)
	ask(s.auth, "GET", "/auth/nginx/shop/quiet")
	ask(s.auth, "GET", "/auth/nginx/guess/17")
	for _, policy := range []string{"shop/quiet", "guess/17"} {
		if !strings.Contains(out.String(), `"policy":"`+policy+`"`) {
			t.Errorf("no denial of %s is logged while another policy has many", policy)
		}
	}
	metrics := ask(s.admin, "GET", "/metrics").Body.String()
	for _, want := range []string{
		`keywright_gate_decisions_total{policy="orders",policy_namespace="shop",reason="malformed",result="deny"} 250`,
		`keywright_gate_decisions_total{policy="",policy_namespace="",reason="policy_not_found",result="deny"} 1`,
		`keywright_gate_cache_lookups_total{result="refused"} 248`,
		`keywright_gate_decision_duration_seconds_count 252`,
		`keywright_gate_keys 1`, `keywright_gate_signing_keys 1`, `keywright_gate_policies 2`,
		`keywright_gate_policies_not_ready 0`, `keywright_gate_internal_errors_total 0`, `keywright_gate_synced 1`,
		`keywright_gate_key_set_age_seconds 0`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(metrics, "guess") {
		t.Error("a policy that does not exist has a label")
	}
	log := out.String()
	if n := strings.Count(log, "request denied"); n < denialsAtOnce || n > denialsAtOnce+20 {
		t.Errorf("%d denials logged", n)
	}
	for _, secret := range []string{"secret-token", "secret-query", "\x1b"} {
		if strings.Contains(log, secret) {
			t.Errorf("log shows %q", secret)
		}
	}
	if !strings.Contains(log, `"policy":"shop/orders","status":401,"rule":"default","reason":"malformed"`) {
		t.Errorf("log: %.300s", log)
	}
}

func TestReadiness(t *testing.T) {
	now := start
	s, _ := newTestServer(t, Options{}, func() time.Time { return now })
	synced := false
	s.feed.synced = []func() bool{func() bool { return true }, func() bool { return synced }}
	want := func(path string, status int) {
		t.Helper()
		if w := ask(s.admin, "GET", path); w.Code != status {
			t.Errorf("%s: got %d, want %d", path, w.Code, status)
		}
	}
	want("/readyz", 503)
	want("/healthz", 200)
	synced = true
	compiled, err := policy.Compile("shop", "orders", &v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{
		{JWKS: &v1alpha1.JWKSIssuer{URL: "https://keys.example", Issuer: "https://keys.example"}, Audiences: []string{"a"}, Algorithms: []string{"ES256"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.store.SetPolicy(authz.Ref{Namespace: "shop", Name: "orders"}, compiled, nil)
	want("/readyz", 503) // keys of another issuer are to come
	now = now.Add(firstFetch)
	want("/readyz", 200) // and are not waited for any longer
	now = start
	want("/readyz", 200)
	s.draining.Store(true)
	want("/readyz", 503)
	want("/healthz", 200)
	for _, path := range []string{"/readyz", "/metrics", "/healthz"} {
		if w := ask(s.auth, "GET", path); w.Code != 404 {
			t.Errorf("%s on the auth listener: %d", path, w.Code)
		}
	}
}

func TestContact(t *testing.T) {
	now := start
	c := &contact{clock: func() time.Time { return now }}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(500)
		case "/unknown":
			w.WriteHeader(401)
		case "/elsewhere":
			w.WriteHeader(304)
		}
		_, _ = w.Write([]byte("event"))
	}))
	defer api.Close()
	client := &http.Client{Transport: c.wrap(http.DefaultTransport)}
	get := func(path string) *http.Response {
		response, err := client.Get(api.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	for _, path := range []string{"/bad", "/unknown", "/elsewhere"} {
		_ = get(path).Body.Close()
	}
	if _, ok := c.age(); ok {
		t.Error("an error counts as contact")
	}
	response := get("/")
	defer func() { _ = response.Body.Close() }()
	now = now.Add(time.Minute)
	if age, ok := c.age(); !ok || age != time.Minute {
		t.Errorf("got %s, %v", age, ok)
	}
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	if age, _ := c.age(); age != 0 {
		t.Errorf("got %s after an event", age)
	}
}

// writeCertificate writes a new self-signed certificate with a serial number.
func writeCertificate(t *testing.T, dir string, serial int64) {
	t.Helper()
	cert, private := certify(t, nil, &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"gate"}})
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: cert.Raw}, "tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		// Renamed into place, as the kubelet does.
		fresh := filepath.Join(dir, name+".new")
		if err := os.WriteFile(fresh, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve serves on real connections until stop is called; ended then says how it
// went.
func serve(s *server, at listeners) (stop context.CancelFunc, ended <-chan error) {
	ctx, stop := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- s.serve(ctx, at) }()
	return stop, end
}

// run serves until the test ends.
func run(t testing.TB, s *server, at listeners) {
	t.Helper()
	stop, ended := serve(s, at)
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// await asks until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline:
			t.Fatalf("waited too long until %s", what)
		case <-tick.C:
		}
	}
}

func TestCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, 1)
	s, _ := newTestServer(t, Options{
		TLSCertFile: filepath.Join(dir, "tls.crt"), TLSKeyFile: filepath.Join(dir, "tls.key"), TLSMinVersion: "1.3",
	}, time.Now)
	auth, admin := listen(t), listen(t)
	stop, ended := serve(s, listeners{auth: auth, admin: admin})

	serial := func() int64 {
		conn, err := tls.Dial("tcp", auth.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own
		if err != nil {
			return 0
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	await(t, "the first certificate is served", func() bool { return serial() == 1 })
	writeCertificate(t, dir, 2)
	await(t, "the second certificate is served", func() bool { return serial() == 2 })

	if _, err := tls.Dial("tcp", auth.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil { //nolint:gosec // the test's own
		t.Error("TLS 1.2 is spoken")
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, //nolint:gosec // the test's own
	}}
	response, err := client.Get("https://" + auth.Addr().String() + "/auth/nginx/a/b")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.ProtoMajor != 1 || response.StatusCode != 403 {
		t.Errorf("got %s %d", response.Proto, response.StatusCode)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDrain(t *testing.T) {
	s, _ := newTestServer(t, Options{InsecureHTTP: true, ShutdownDelay: 300 * time.Millisecond}, time.Now)
	auth, admin := listen(t), listen(t)
	stop, ended := serve(s, listeners{auth: auth, admin: admin})
	client := &http.Client{Transport: &http.Transport{}}
	status := func(address, path string) (int, bool) {
		response, err := client.Get("http://" + address + path)
		if err != nil {
			return 0, false
		}
		defer func() { _ = response.Body.Close() }()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode, response.Close
	}
	await(t, "it is ready", func() bool { got, _ := status(admin.Addr().String(), "/readyz"); return got == 200 })
	if got, closed := status(auth.Addr().String(), "/auth/nginx/a/b"); got != 403 || closed {
		t.Errorf("before: got %d, closed %v", got, closed)
	}
	stop()
	await(t, "it is not ready", func() bool { return s.draining.Load() })
	if got, closed := status(auth.Addr().String(), "/auth/nginx/a/b"); got != 403 || !closed {
		t.Errorf("while draining: got %d, closed %v", got, closed)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", auth.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}

func TestASlowConnectionIsClosedAndIsNoFailure(t *testing.T) {
	s, _ := newTestServer(t, Options{InsecureHTTP: true}, time.Now)
	s.drain = 200 * time.Millisecond
	auth, admin := listen(t), listen(t)
	stop, ended := serve(s, listeners{auth: auth, admin: admin})
	var open []net.Conn
	for _, l := range []net.Listener{auth, admin} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "GET /auth/nginx/a/b HTTP/1.1\r\nHost: g\r\n\r\nGET /half"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1"))); err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second): // less than readTimeout
		t.Fatal("it waits for slow connections")
	}
	for _, conn := range open {
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		_, err := io.Copy(io.Discard, conn)
		var failure net.Error
		if errors.As(err, &failure) && failure.Timeout() {
			t.Error("a connection stays open")
		}
	}
}

func TestFailureEndsTheProcess(t *testing.T) {
	s, _ := newTestServer(t, Options{InsecureHTTP: true, ShutdownDelay: time.Hour}, time.Now)
	at := listeners{auth: listen(t), admin: listen(t)}
	_ = at.admin.Close()
	if err := s.serve(context.Background(), at); err == nil {
		t.Error("no error")
	}
}

func TestHostileRequestsAreDenied(t *testing.T) {
	s, _ := newTestServer(t, Options{InsecureHTTP: true}, time.Now)
	auth, admin := listen(t), listen(t)
	run(t, s, listeners{auth: auth, admin: admin})
	requests := map[string]string{
		"a huge token":                   "GET /auth/nginx/a/b HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer " + strings.Repeat(".", 100_000) + "\r\n\r\n",
		"a query that cannot be decoded": "GET /auth/nginx/a/b?host=%zz;&& HTTP/1.1\r\nHost: g\r\n\r\n",
		"another method":                 "FOO /auth/nginx/a/b HTTP/1.1\r\nHost: g\r\n\r\n",
		"HEAD":                           "HEAD /auth/nginx/a/b HTTP/1.1\r\nHost: g\r\n\r\n",
		"a path to be cleaned":           "GET /auth//nginx/../x HTTP/1.1\r\nHost: g\r\n\r\n",
		"an upgrade":                     "GET /auth/nginx/a/b HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"bytes beyond ASCII":             "GET /auth/nginx/a/b HTTP/1.1\r\nHost: g\r\nX-Original-URL: http://x/\xff\r\n\r\n",
	}
	for name, raw := range requests {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", auth.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, raw); err != nil {
				t.Fatal(err)
			}
			head := make([]byte, len("HTTP/1.1 403 Forbidden"))
			if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 403 Forbidden" {
				t.Errorf("got %q, %v", head, err)
			}
		})
	}
}

func TestOptionsNameTheFlag(t *testing.T) {
	good := Options{Listen: ":8443", AdminListen: ":8081", TLSCertFile: "c", TLSKeyFile: "k", TLSMinVersion: "1.3", Namespace: "keywright", CacheSize: 1, MaxConcurrent: 1, MaxConnections: 1}
	for _, address := range []string{"", "0", ":8082"} {
		good.KeysetsListen, good.GRPCListen = address, address
		if err := good.Validate(); err != nil {
			t.Errorf("good options: %v", err)
		}
	}
	tests := map[string]func(*Options){
		"--listen: ":             func(o *Options) { o.Listen = "8443" },
		"--admin-listen: ":       func(o *Options) { o.AdminListen = "" },
		"--grpc-listen: ":        func(o *Options) { o.GRPCListen = "9443" },
		"--caller-ca-file: ":     func(o *Options) { o.CallerCAFile, o.InsecureHTTP, o.TLSCertFile, o.TLSKeyFile = "ca", true, "", "" },
		"--max-staleness: ":      func(o *Options) { o.MaxStaleness = time.Minute },
		"--max-concurrent: ":     func(o *Options) { o.MaxConcurrent = 0 },
		"--max-connections: ":    func(o *Options) { o.MaxConnections = -1 },
		"--keysets-listen: ":     func(o *Options) { o.KeysetsListen = "8082" },
		"--tls-cert-file: ":      func(o *Options) { o.TLSCertFile = "" },
		"--tls-key-file: ":       func(o *Options) { o.TLSKeyFile = "" },
		"--insecure-http: ":      func(o *Options) { o.InsecureHTTP = true },
		"--tls-min-version: ":    func(o *Options) { o.TLSMinVersion = "1.1" },
		"--namespace: ":          func(o *Options) { o.Namespace = "" },
		"--namespace: \"A\"":     func(o *Options) { o.Namespace = "A" },
		"--watch-namespaces: ":   func(o *Options) { o.WatchNamespaces = []string{"a", ""} },
		"--cache-size: ":         func(o *Options) { o.CacheSize = 0 },
		"--shutdown-delay: ":     func(o *Options) { o.ShutdownDelay = -1 },
		"--public-url: ":         func(o *Options) { o.PublicURL = "keys.example" },
		"--issuer-hosts: ":       func(o *Options) { o.IssuerHosts = map[string]string{"Auth.example": "shop/shop"} },
		"--issuer-hosts: auth":   func(o *Options) { o.IssuerHosts = map[string]string{"auth.example": "shop"} },
		"--log-allowed-sample: ": func(o *Options) { o.LogAllowedSample = math.NaN() },
	}
	for want, change := range tests {
		o := good
		change(&o)
		if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}
