//go:build linux

package gate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// upstream is an issuer of others, which answers over HTTPS on loopback.
type upstream struct {
	*httptest.Server
	jwks atomic.Pointer[[]byte]
}

func newUpstream(t *testing.T, keys ...*signer) *upstream {
	s := &upstream{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.URL, s.URL+"/keys") // the gate notices
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(*s.jwks.Load()) // the gate notices
	})
	s.shows(t, keys...)
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

// shows makes it publish these keys and no others.
func (s *upstream) shows(t *testing.T, signers ...*signer) {
	t.Helper()
	keys := []map[string]string{}
	for _, by := range signers {
		point, err := by.key.(*ecdsa.PrivateKey).PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, map[string]string{
			"kty": "EC", "crv": "P-256", "use": "sig", "kid": by.kid,
			"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
		})
	}
	raw, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	s.jwks.Store(&raw)
}

func newSigner(t *testing.T, kid string) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{kid: kid, alg: "ES256", key: key}
}

// TestKeysOfOtherIssuers runs a gate that trusts the certificate of two issuers
// on loopback, as an installation would trust its own authority.
func TestKeysOfOtherIssuers(t *testing.T) {
	first, old, rolled, second := newSigner(t, "k1"), newSigner(t, "old"), newSigner(t, "new"), newSigner(t, "k1")
	discovered, direct := newUpstream(t, first, old), newUpstream(t, second)
	const directIssuer = "https://direct.example"
	token := func(by *signer, issuer string) string {
		t.Helper()
		signing := *by
		signing.issuer = issuer
		raw, err := signing.sign(signing.claims(time.Now(), 50*time.Minute, nil))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}

	authority := filepath.Join(t.TempDir(), "ca.crt")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: discovered.Certificate().Raw})
	if err := os.WriteFile(authority, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := env.StartGate(t.Context(), "issuers", append([]string{"--allow-private-urls", "--fetch-ca-file", authority}, debug...)...)
	if err != nil {
		t.Fatal(err)
	}
	env.logs = append(env.logs, g.Log)
	defer func() {
		if err := g.Terminate(); err != nil {
			t.Error(err)
		}
	}()
	policy := &v1alpha1.AccessPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "other-issuers"},
		Spec: v1alpha1.AccessPolicySpec{
			Denials: &v1alpha1.Denials{ReasonHeader: true},
			Issuers: []v1alpha1.TokenIssuerRef{
				{OIDC: &v1alpha1.OIDCIssuer{URL: discovered.URL}, Audiences: []string{"orders"}, Algorithms: []string{"ES256"}},
				{JWKS: &v1alpha1.JWKSIssuer{URL: direct.URL + "/keys", Issuer: directIssuer}, Audiences: []string{"orders"}, Algorithms: []string{"ES256"}},
			},
		},
	}
	if err := env.Client.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := env.Client.Delete(t.Context(), policy); err != nil {
			t.Error(err)
		}
	}()

	// answers asks a gate, and gives an error when the answer is another.
	answers := func(g *stack.Gate, raw, reason string) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+"/auth/token/shop/other-issuers", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+raw)
		resp, err := verifierOf(t, g).Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close() // there is none
		if got := resp.Header.Get("X-Keywright-Reason"); got != reason || (resp.StatusCode == http.StatusOK) != (reason == "") {
			return fmt.Errorf("status %d, reason %q, want reason %q", resp.StatusCode, got, reason)
		}
		return nil
	}
	want := func(what, raw, reason string) {
		t.Helper()
		if err := answers(g, raw, reason); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	becomes := func(what, raw, reason string) {
		t.Helper()
		await(t, what, func() error { return answers(g, raw, reason) })
	}

	of1, ofOld, ofRolled := token(first, discovered.URL), token(old, discovered.URL), token(rolled, discovered.URL)
	of2 := token(second, directIssuer)
	becomes("a token of the issuer with discovery to pass", of1, "")
	becomes("a token of the issuer without it to pass", of2, "")
	want("another key of the issuer", ofOld, "")

	// Two keys are called k1, and each counts for its own issuer alone.
	want("the second's key for the first issuer", token(second, discovered.URL), "bad_signature")
	want("the first's key for the second issuer", token(first, directIssuer), "bad_signature")
	want("a key of the first for the second issuer", token(old, directIssuer), "wrong_issuer")
	want("an issuer with a slash more", token(old, discovered.URL+"/"), "wrong_issuer")

	await(t, "a gate that may not dial private addresses to deny", func() error { return answers(env.gate, of1, "issuer_not_loaded") })

	// One rolls its key, the other goes away. A token with the new key ID makes
	// the gate ask both again before their time.
	direct.Close()
	discovered.shows(t, first, rolled)
	want("a key that is new", ofRolled, "unknown_key")
	want("the key that went, until the gate asks", ofOld, "")
	becomes("the new key to count", ofRolled, "")
	want("the key that went", ofOld, "unknown_key")
	await(t, "the gate to notice that an issuer is away", func() error {
		log, err := os.ReadFile(g.Log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "keys of an issuer could not be fetched") && strings.Contains(line, "url="+direct.URL+"/keys") {
				if !strings.Contains(line, "denied=false") {
					return fmt.Errorf("it says %s", line)
				}
				return nil
			}
		}
		return fmt.Errorf("%s says nothing of it", g.Log)
	})
	want("a token of the issuer that is away", of2, "")
	want("a token that was not seen before, of the issuer that is away", token(second, directIssuer), "")
	want("the other issuer's", of1, "")
}
