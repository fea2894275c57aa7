package webhook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// signer is a key of SigningKey shop/shop with its private half.
type signer struct {
	private *ecdsa.PrivateKey
	status  v1alpha1.KeyStatus
}

func newSigner(t testing.TB, id string, state v1alpha1.KeyState) *signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, err := keyset.MembersOf(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := v1alpha1.PublicJWK(m)
	return &signer{private: private, status: v1alpha1.KeyStatus{
		KeyID: id, Algorithm: "ES256", State: state, PublicKey: &public, CreatedAt: metav1.NewTime(start),
		MaxTokenTTL: v1alpha1.Duration{Duration: time.Hour},
	}}
}

// mint makes a token of ten minutes.
func (s *signer) mint(t testing.TB, sub string, issued time.Time) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"sub": sub, "iat": issued.Unix(), "exp": issued.Add(10 * time.Minute).Unix(),
	})
	token.Header["kid"] = s.status.KeyID
	raw, err := token.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// shopOf is SigningKey shop/shop with the keys of signers.
func shopOf(t testing.TB, sequence int64, signers ...*signer) *v1alpha1.SigningKey {
	t.Helper()
	sk := shopKey(t, sequence)
	sk.Spec.Issuer = ""
	for _, s := range signers {
		sk.Status.Keys = append(sk.Status.Keys, s.status)
	}
	return sk
}

// ordersOf is a policy of any token of SigningKey shop/shop.
func ordersOf() *v1alpha1.AccessPolicy {
	ap := &v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"}}
	ap.Spec.Issuers = []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}}}
	return ap
}

// asks sends a token to the policy and gives the status.
func asks(s *server, raw string) int {
	r := httptest.NewRequest("GET", "/auth/nginx/shop/orders", nil)
	r.RequestURI = "/auth/nginx/shop/orders"
	r.Header.Set("Authorization", "Bearer "+raw)
	w := httptest.NewRecorder()
	s.auth.ServeHTTP(w, r)
	return w.Code
}

func TestARevocationInSpecCountsAtOnce(t *testing.T) {
	const jwks = "/keys/shop/shop/jwks.json"
	for name, revoke := range map[string]func(*v1alpha1.SigningKeySpec){
		"by key ID": func(spec *v1alpha1.SigningKeySpec) { spec.RevokedKeys = []v1alpha1.RevokedKey{{KeyID: "old"}} },
		"by time": func(spec *v1alpha1.SigningKeySpec) {
			spec.RevokeCreatedBefore = &v1alpha1.RevokeCreatedBefore{Time: metav1.NewTime(start.Add(time.Hour))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := start
			s, out := newTestServer(t, Options{}, func() time.Time { return now })
			old, next := newSigner(t, "old", v1alpha1.KeyActive), newSigner(t, "next", v1alpha1.KeyActive)
			raw := old.mint(t, "u-17", start)
			s.feed.setPolicy(ordersOf())
			s.feed.setSigningKey(shopOf(t, 1, old))
			for range 2 { // the second time from the cache
				if got := asks(s, raw); got != 200 {
					t.Fatalf("before: got %d", got)
				}
			}
			now = start.Add(time.Second)
			sk := shopOf(t, 1, old)
			revoke(&sk.Spec)
			s.feed.setSigningKey(sk)
			for range 2 {
				if got := asks(s, raw); got != 401 {
					t.Errorf("after: got %d", got)
				}
			}
			if !strings.Contains(out.String(), `"reason":"key_revoked"`) || strings.Contains(out.String(), raw) {
				t.Errorf("log: %s", out)
			}
			if w := ask(s.auth, "GET", jwks); w.Code != 503 {
				t.Errorf("the JWKS of a SigningKey whose only key is revoked: %d", w.Code)
			}

			next.status.CreatedAt = metav1.NewTime(now.Add(time.Second))
			sk = shopOf(t, 2, next, old) // not told yet that old is revoked
			revoke(&sk.Spec)
			s.feed.setSigningKey(sk)
			if w := ask(s.auth, "GET", jwks); w.Code != 200 || strings.Contains(w.Body.String(), `"old"`) || !strings.Contains(w.Body.String(), `"next"`) {
				t.Errorf("the JWKS with the next key: %d %s", w.Code, w.Body)
			}
			if got := asks(s, next.mint(t, "u-17", now)); got != 200 {
				t.Errorf("a token of the next key: got %d", got)
			}
			if got := asks(s, raw); got != 401 {
				t.Errorf("beside the next key: got %d", got)
			}
		})
	}
}

func TestAKeyThatOnlyTheGateKnowsVerifiesAndIsNotPublished(t *testing.T) {
	const jwks = "/keys/shop/shop/jwks.json"
	s, _ := newTestServer(t, Options{}, at(start))
	gone, fresh := newSigner(t, "gone", v1alpha1.KeyActive), newSigner(t, "fresh", v1alpha1.KeyActive)
	raw := gone.mint(t, "u-17", start)
	s.feed.setPolicy(ordersOf())
	for _, step := range []struct {
		what      string
		sk        *v1alpha1.SigningKey
		published bool
	}{
		{"before", shopOf(t, 5, gone), true},
		{"an older status without it", shopOf(t, 4, fresh), true},
		{"once the sequence has risen", shopOf(t, 6, fresh), false},
		{"also when that is seen again", shopOf(t, 6, fresh), false},
	} {
		s.feed.setSigningKey(step.sk)
		if got := asks(s, raw); got != 200 {
			t.Errorf("%s: a token of it: %d", step.what, got)
		}
		if w := ask(s.auth, "GET", jwks); w.Code != 200 || strings.Contains(w.Body.String(), `"gone"`) != step.published {
			t.Errorf("%s: the JWKS is %d %s", step.what, w.Code, w.Body)
		}
	}
}
