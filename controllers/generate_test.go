package controllers

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// generated is a key with its material.
func generated(t *testing.T, alg keyset.Algorithm) lifecycle.Key {
	t.Helper()
	k := lifecycle.Key{Algorithm: alg, Issuer: "https://auth.example"}
	if alg.Family() == keyset.FamilyRSA {
		k.RSABits = 2048
	}
	if err := generate(&k); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestGenerate(t *testing.T) {
	for _, alg := range keyset.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			k, other := generated(t, alg), generated(t, alg)
			if k.ID == other.ID || string(k.Private) == string(other.Private) {
				t.Fatal("two keys are the same")
			}
			var head struct{ Kid, Alg, Use string }
			if err := json.Unmarshal(k.Private, &head); err != nil {
				t.Fatal(err)
			}
			if head.Kid != k.ID || head.Alg != string(alg) || head.Use != "sig" {
				t.Errorf("private JWK says kid %q, alg %q, use %q, want %q, %q, sig", head.Kid, head.Alg, head.Use, k.ID, alg)
			}
			_, pub, err := keyset.DecodePrivate(k.Private)
			if err != nil {
				t.Fatalf("reading the private JWK: %v", err)
			}
			if err := alg.CheckVerificationKey(pub); err != nil {
				t.Errorf("the key is not one for its algorithm: %v", err)
			}
			if alg.Symmetric() {
				if secret, ok := pub.([]byte); !ok || len(secret) != alg.MinSecretBytes() {
					t.Errorf("secret of %d bytes, want %d", len(secret), alg.MinSecretBytes())
				}
				if k.Public != nil {
					t.Error("a secret has a public half")
				}
				if id, err := base64.RawURLEncoding.DecodeString(k.ID); err != nil || len(id) != 16 {
					t.Errorf("key ID %q is not 16 random bytes", k.ID)
				}
				if print, err := keyset.Thumbprint(crypto.PublicKey(pub)); err == nil && print == k.ID {
					t.Error("the key ID is a thumbprint of the secret: it lets anyone test guesses")
				}
				return
			}
			if print, err := keyset.Thumbprint(pub); err != nil || print != k.ID {
				t.Errorf("key ID %q, want the thumbprint %q, %v", k.ID, print, err)
			}
			if members, err := keyset.MembersOf(pub); err != nil || k.Public == nil || *k.Public != members {
				t.Errorf("public half %+v, want %+v, %v", k.Public, members, err)
			}
		})
	}
}

func TestGenerateKeepsToTheRSASize(t *testing.T) {
	for _, bits := range []int32{2048, 3072, 4096} {
		k := lifecycle.Key{Algorithm: keyset.RS256, RSABits: bits}
		if err := generate(&k); err != nil {
			t.Fatal(err)
		}
		_, pub, err := keyset.DecodePrivate(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		if rsaKey, ok := pub.(*rsa.PublicKey); !ok || rsaKey.N.BitLen() != int(bits) {
			t.Errorf("an RSA key of %d bits was asked for, got %T of another size", bits, pub)
		}
	}
}

func TestGenerateRefusesAnUnknownAlgorithm(t *testing.T) {
	k := lifecycle.Key{Algorithm: "none"}
	if err := generate(&k); !errors.Is(err, keyset.ErrUnusableKey) || k.ID != "" || k.Private != nil {
		t.Errorf("generate = %v, key %+v", err, k)
	}
}
