package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

// now is the instant of all tests.
var now = time.Unix(1_800_000_000, 0)

const (
	ttl    = time.Hour
	leeway = time.Minute
	issuer = "https://auth.shop.example"

	goodClaims = `{"iss":"https://auth.shop.example","sub":"u-17","aud":"orders","exp":1800000600,"iat":1800000000}`
)

// signer holds a key pair, with kid k-<algorithm>.
type signer struct {
	key  *keyset.Key
	priv any
}

var material = sync.OnceValue(func() map[keyset.Family]map[keyset.Algorithm]any {
	must := func(k any, err error) any {
		if err != nil {
			panic(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	secret := make([]byte, 64)
	must(rand.Read(secret))
	out := map[keyset.Family]map[keyset.Algorithm]any{}
	for _, alg := range keyset.Algorithms() {
		if out[alg.Family()] == nil {
			out[alg.Family()] = map[keyset.Algorithm]any{}
		}
		var priv any
		switch alg.Family() {
		case keyset.FamilyEC:
			priv = must(ecdsa.GenerateKey(alg.Curve(), rand.Reader))
		case keyset.FamilyOKP:
			priv = must(ed, err)
		case keyset.FamilyRSA:
			priv = rsaKey
		case keyset.FamilyHMAC:
			priv = secret
		}
		out[alg.Family()][alg] = priv
	}
	return out
})

func newSigner(alg keyset.Algorithm) signer {
	priv := material()[alg.Family()][alg]
	var pub crypto.PublicKey
	switch k := priv.(type) {
	case *ecdsa.PrivateKey:
		pub = &k.PublicKey
	case ed25519.PrivateKey:
		pub = k.Public()
	case *rsa.PrivateKey:
		pub = &k.PublicKey
	case []byte:
		pub = k
	}
	return signer{priv: priv, key: &keyset.Key{
		ID: "k-" + string(alg), Algorithm: alg, Public: pub,
		Issuer: issuer, MaxTokenTTL: ttl, Leeway: leeway,
	}}
}

// everySigner is one signer an algorithm, and the set of their keys.
func everySigner(t testing.TB) (map[keyset.Algorithm]signer, *keyset.Set) {
	t.Helper()
	signers := map[keyset.Algorithm]signer{}
	var keys []*keyset.Key
	for _, alg := range keyset.Algorithms() {
		s := newSigner(alg)
		signers[alg] = s
		keys = append(keys, s.key)
	}
	return signers, newSet(t, keys...)
}

func newSet(t testing.TB, keys ...*keyset.Key) *keyset.Set {
	t.Helper()
	set, err := keyset.NewSet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// header is the signer's ordinary header.
func (s signer) header() string {
	return `{"alg":"` + string(s.key.Algorithm) + `","kid":"` + s.key.ID + `"}`
}

// mint signs any header and payload as they are, right or wrong.
func (s signer) mint(t testing.TB, header, payload string) string {
	t.Helper()
	return s.signSegments(t, b64(header), b64(payload))
}

// signSegments signs two segments that need not be base64url.
func (s signer) signSegments(t testing.TB, header, payload string) string {
	t.Helper()
	input := header + "." + payload
	sig, err := jwt.GetSigningMethod(string(s.key.Algorithm)).Sign(input, s.priv)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// good is a token that passes.
func (s signer) good(t testing.TB) string { return s.mint(t, s.header(), goodClaims) }

var orders = token.Expected{Audiences: []string{"orders"}, RequiredClaims: []string{"sub"}}

// wantReason fails unless err has the reason; "" wants no error.
func wantReason(t *testing.T, err error, want string) {
	t.Helper()
	if got := token.Reason(err); got != want {
		t.Errorf("got reason %q (%v), want %q", got, err, want)
	}
}
