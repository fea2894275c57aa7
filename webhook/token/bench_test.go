package token_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

// BenchmarkParse is the whole of Parse; BenchmarkLibraryVerify and
// BenchmarkBareVerify are its floors, the signature alone.
func BenchmarkParse(b *testing.B) {
	signers, set := everySigner(b)
	lookup := func(kid string) (*keyset.Key, error) {
		k, _ := set.Lookup(kid)
		return k, nil
	}
	for _, alg := range keyset.Algorithms() {
		raw := signers[alg].good(b)
		b.Run(string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := token.Parse(raw, lookup); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLibraryVerify(b *testing.B) {
	signers, _ := everySigner(b)
	for _, alg := range keyset.Algorithms() {
		raw := signers[alg].good(b)
		input, sig := cutSignature(b, raw)
		method := jwt.GetSigningMethod(string(alg))
		b.Run(string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := method.Verify(input, sig, signers[alg].key.Public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBareVerify(b *testing.B) {
	s := newSigner(keyset.ES256)
	input, sig := cutSignature(b, s.good(b))
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ES256", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sum := sha256.Sum256([]byte(input))
			if !ecdsa.VerifyASN1(s.key.Public.(*ecdsa.PublicKey), sum[:], der) {
				b.Fatal("refused")
			}
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	s := newSigner(keyset.ES256)
	t, err := token.Verify(s.good(b), newSet(b, s.key), orders, now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := t.Validate(orders, now); err != nil {
			b.Fatal(err)
		}
	}
}

// TestValidateAllocatesNothing holds the cost of a token seen before.
func TestValidateAllocatesNothing(t *testing.T) {
	s := newSigner(keyset.ES256)
	tok, err := token.Verify(s.good(t), newSet(t, s.key), orders, now)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { err = tok.Validate(orders, now) }); n != 0 || err != nil {
		t.Errorf("%v allocations, error %v; want none", n, err)
	}
}

func cutSignature(t testing.TB, raw string) (string, []byte) {
	t.Helper()
	dot := strings.LastIndexByte(raw, '.')
	sig, err := base64.RawURLEncoding.DecodeString(raw[dot+1:])
	if err != nil {
		t.Fatal(err)
	}
	return raw[:dot], sig
}
