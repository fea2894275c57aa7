package keyset_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
)

// FuzzMembers: no members panic; what is read as a key comes back as members
// that give the same key.
func FuzzMembers(f *testing.F) {
	for _, alg := range keyset.Algorithms() {
		if alg.Symmetric() {
			continue
		}
		m, err := keyset.MembersOf(pairs()[alg].pub)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.Kty, m.Crv, m.X, m.Y, m.N, m.E)
	}
	f.Add("oct", "", "", "", "", "")
	f.Add("OKP", "X25519", "AAAA", "", "", "")
	f.Add("AKP", "", "AAAA", "", "", "")
	f.Add("RSA", "", "", "", "AAAA", "AQAB")
	f.Fuzz(func(t *testing.T, kty, crv, x, y, n, e string) {
		pub, err := keyset.Members{Kty: kty, Crv: crv, X: x, Y: y, N: n, E: e}.PublicKey()
		if err != nil {
			if !errors.Is(err, keyset.ErrMalformedJWK) {
				t.Fatalf("%v does not wrap ErrMalformedJWK", err)
			}
			return
		}
		for _, alg := range keyset.Algorithms() {
			_ = alg.CheckVerificationKey(pub)
		}
		back, err := keyset.MembersOf(pub)
		if err != nil {
			t.Fatal(err)
		}
		again, err := back.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if !equal(pub, again) {
			t.Fatal("the key that came back is another")
		}
		twice, err := keyset.MembersOf(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(back, twice); diff != "" {
			t.Fatal(diff)
		}
	})
}
