package controllers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

func inPEM(kind string, der []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestImportedKey(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // to be refused
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := func(priv any, id string, alg keyset.Algorithm) []byte {
		raw, err := keyset.EncodePrivate(priv, id, alg)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return inPEM("PRIVATE KEY", der, err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	ecPEM := inPEM("EC PRIVATE KEY", sec1, err)
	public, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	publicPEM := inPEM("PUBLIC KEY", public, err)
	publicJWK := []byte(`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`)
	secret := bytes.Repeat([]byte("s3cret-"), 10)
	thumbprint, err := keyset.Thumbprint(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		raw    []byte
		alg    keyset.Algorithm
		id     string
		wantID string // "*": any
		want   error
	}{
		"PKCS#8, EC":                     {raw: pkcs8(ec), alg: "ES256", wantID: thumbprint},
		"SEC 1":                          {raw: ecPEM, alg: "ES256", wantID: thumbprint},
		"PKCS#8, Ed25519":                {raw: pkcs8(ed), alg: "EdDSA", wantID: "*"},
		"PKCS#8, RSA":                    {raw: pkcs8(rs), alg: "PS256", wantID: "*"},
		"PKCS#1":                         {raw: inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs), nil), alg: "RS512", wantID: "*"},
		"a JWK with its kid":             {raw: jwk(ec, "own", "ES256"), alg: "ES256", wantID: "own"},
		"a JWK and another keyID":        {raw: jwk(ec, "own", "ES256"), alg: "ES256", id: "asked", wantID: "asked"},
		"an oct JWK":                     {raw: jwk(secret, "own", "HS256"), alg: "HS256", wantID: "own"},
		"a secret as it is":              {raw: secret, alg: "HS256", wantID: "*"},
		"a secret with a keyID":          {raw: secret, alg: "HS512", id: "asked", wantID: "asked"},
		"a secret that is short":         {raw: secret[:20], alg: "HS256", want: keyset.ErrUnusableKey},
		"a JWK of another algorithm":     {raw: jwk(rs, "own", "RS256"), alg: "RS512", want: errOtherAlgJWK},
		"an EC key on another curve":     {raw: pkcs8(ec), alg: "ES384", want: keyset.ErrUnusableKey},
		"an RSA key that is small":       {raw: pkcs8(small), alg: "RS256", want: keyset.ErrUnusableKey},
		"an RSA key for EdDSA":           {raw: pkcs8(rs), alg: "EdDSA", want: keyset.ErrUnusableKey},
		"a public key":                   {raw: publicPEM, alg: "ES256", want: errPublicOnly},
		"a public JWK":                   {raw: publicJWK, alg: "ES256", want: errPublicOnly},
		"a public key for HS*":           {raw: publicPEM, alg: "HS256", want: errPublicOnly},
		"a public key in DER for HS*":    {raw: public, alg: "HS256", want: errNotForHMAC},
		"a private key for HS*":          {raw: pkcs8(ec), alg: "HS256", want: errNotForHMAC},
		"a private JWK for HS*":          {raw: jwk(ec, "", "ES256"), alg: "HS256", want: errOtherAlgJWK},
		"a public JWK for HS*":           {raw: publicJWK, alg: "HS256", want: errPublicOnly},
		"an oct JWK for ES256":           {raw: jwk(secret, "own", ""), alg: "ES256", want: keyset.ErrUnusableKey},
		"nothing":                        {raw: nil, alg: "ES256", want: errNotPrivate},
		"a certificate":                  {raw: inPEM("CERTIFICATE", []byte{1}, nil), alg: "ES256", want: errPublicOnly},
		"PEM that is broken":             {raw: inPEM("PRIVATE KEY", []byte{1}, nil), alg: "ES256", want: errNotPrivate},
		"PEM with a passphrase":          {raw: inPEM("ENCRYPTED PRIVATE KEY", []byte{1}, nil), alg: "ES256", want: errNotPrivate},
		"a JWK whose halves don't match": {raw: bytes.Replace(jwk(ec, "", "ES256"), []byte(`"x":"`), []byte(`"x":"AA`), 1), alg: "ES256", want: keyset.ErrMalformedJWK},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			k, err := importedKey(tc.raw, tc.alg, tc.id)
			if !errors.Is(err, tc.want) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			if err != nil {
				if strings.Contains(err.Error(), string(secret[:10])) {
					t.Errorf("the error quotes the secret: %v", err)
				}
				return
			}
			if k.ID == "" || (tc.wantID != "*" && k.ID != tc.wantID) {
				t.Errorf("ID %q, want %q", k.ID, tc.wantID)
			}
			if (k.Public == nil) != tc.alg.Symmetric() {
				t.Errorf("public half %v", k.Public)
			}
			if _, pub, err := keyset.DecodePrivate(k.Private); err != nil || tc.alg.CheckVerificationKey(pub) != nil {
				t.Errorf("its private JWK is of no use: %v", err)
			}
		})
	}
}

func TestLoadImport(t *testing.T) {
	secret := func(data map[string][]byte) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "legacy"}, Data: data}
	}
	good := bytes.Repeat([]byte("s"), 32)
	tests := map[string]struct {
		secret  *corev1.Secret
		revoked string
		want    string
	}{
		"the entry of its kind":      {secret: secret(map[string][]byte{"secret": good, "other": nil})},
		"the only entry":             {secret: secret(map[string][]byte{"whatever": good})},
		"no Secret":                  {want: "secretName: Secret legacy does not exist"},
		"entries that nobody knows":  {secret: secret(map[string][]byte{"a": good, "b": good}), want: "secretName: Secret legacy has none of the entries [signing.jwk jwk.json tls.key key.pem private.pem secret], and not a single one"},
		"an entry that is no secret": {secret: secret(map[string][]byte{"secret": good[:5]}), want: "secretName: entry secret of Secret legacy: key cannot be used with the algorithm: a secret of 5 bytes with HS256, which needs 32"},
		"a key that is revoked":      {secret: secret(map[string][]byte{"secret": good}), revoked: "old", want: "keyID: old is in revokedKeys"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := fake.NewClientBuilder().WithScheme(scheme(t))
			if tc.secret != nil {
				b = b.WithObjects(tc.secret)
			}
			sk := &v1alpha1.SigningKey{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"},
				Spec:       v1alpha1.SigningKeySpec{Algorithm: "HS256", Import: &v1alpha1.Import{SecretName: "legacy", KeyID: "old", WithoutKeyID: true}},
			}
			if tc.revoked != "" {
				sk.Spec.RevokedKeys = []v1alpha1.RevokedKey{{KeyID: tc.revoked}}
			}
			k, err := (&SigningKeyReconciler{Live: b.Build()}).loadImport(t.Context(), sk)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Fatalf("error %q, want %q", got, tc.want)
			}
			if err == nil && (k.ID != "old" || !k.WithoutKeyID) {
				t.Errorf("key %+v", k)
			}
		})
	}
}
