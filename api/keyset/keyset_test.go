package keyset_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
)

// pair is a private key and its verification half.
type pair struct {
	priv any
	pub  crypto.PublicKey
}

// pairs has one pair for each algorithm.
var pairs = sync.OnceValue(func() map[keyset.Algorithm]pair {
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, keyset.MinRSABits)
	check(err)
	out := map[keyset.Algorithm]pair{}
	for _, alg := range keyset.Algorithms() {
		switch alg.Family() {
		case keyset.FamilyEC:
			k, err := ecdsa.GenerateKey(alg.Curve(), rand.Reader)
			check(err)
			out[alg] = pair{k, &k.PublicKey}
		case keyset.FamilyOKP:
			pub, k, err := ed25519.GenerateKey(rand.Reader)
			check(err)
			out[alg] = pair{k, pub}
		case keyset.FamilyRSA:
			out[alg] = pair{rsaKey, &rsaKey.PublicKey}
		case keyset.FamilyHMAC:
			k := make([]byte, alg.MinSecretBytes())
			_, err := rand.Read(k)
			check(err)
			out[alg] = pair{k, k}
		}
	}
	return out
})

func TestAlgorithmsAreTheThirteen(t *testing.T) {
	want := map[keyset.Algorithm]struct {
		family    keyset.Family
		curve     elliptic.Curve
		minSecret int
	}{
		"ES256": {"EC", elliptic.P256(), 0}, "ES384": {"EC", elliptic.P384(), 0}, "ES512": {"EC", elliptic.P521(), 0},
		"EdDSA": {"OKP", nil, 0},
		"RS256": {"RSA", nil, 0}, "RS384": {"RSA", nil, 0}, "RS512": {"RSA", nil, 0},
		"PS256": {"RSA", nil, 0}, "PS384": {"RSA", nil, 0}, "PS512": {"RSA", nil, 0},
		"HS256": {"oct", nil, 32}, "HS384": {"oct", nil, 48}, "HS512": {"oct", nil, 64},
	}
	if len(keyset.Algorithms()) != len(want) {
		t.Errorf("got %v", keyset.Algorithms())
	}
	for _, alg := range keyset.Algorithms() {
		w, ok := want[alg]
		if !ok || !alg.Known() {
			t.Errorf("%s is not one of them", alg)
		}
		if alg.Family() != w.family || alg.Curve() != w.curve || alg.MinSecretBytes() != w.minSecret || alg.Symmetric() != (w.family == "oct") {
			t.Errorf("%s: family %s, curve %v, secret %d", alg, alg.Family(), alg.Curve(), alg.MinSecretBytes())
		}
	}
	for _, alg := range []keyset.Algorithm{"", "none", "es256", "ES256K", "Ed25519", "HS1", "RSA-OAEP", "ES256 "} {
		if alg.Known() || alg.Family() != "" || alg.Symmetric() || alg.Curve() != nil || alg.MinSecretBytes() != 0 {
			t.Errorf("%q is taken for an algorithm", alg)
		}
	}
}

// sameKind says whether a key of a also serves b: only among RSA algorithms
// and, when it is long enough, among HMAC ones.
func sameKind(a, b keyset.Algorithm) bool {
	switch a.Family() {
	case keyset.FamilyRSA, keyset.FamilyOKP:
		return b.Family() == a.Family()
	case keyset.FamilyHMAC:
		return b.Symmetric() && a.MinSecretBytes() >= b.MinSecretBytes()
	}
	return a == b
}

// V06, V09, V10.
func TestEachAlgorithmTakesItsOwnKindOfKeyOnly(t *testing.T) {
	for _, alg := range keyset.Algorithms() {
		for of, p := range pairs() {
			err := alg.CheckVerificationKey(p.pub)
			if want := sameKind(of, alg); (err == nil) != want {
				t.Errorf("%s with the key of %s: %v, want usable %v", alg, of, err, want)
			}
			if err != nil && !errors.Is(err, keyset.ErrUnusableKey) {
				t.Errorf("%s with the key of %s: %v does not wrap ErrUnusableKey", alg, of, err)
			}
		}
	}
}

// point is an EC key with any coordinates, also impossible ones.
func point(curve elliptic.Curve, x, y *big.Int) *ecdsa.PublicKey {
	return &ecdsa.PublicKey{Curve: curve, X: x, Y: y} //nolint:staticcheck // the functions that take its place refuse such points
}

// V09, V10, V11.
func TestUnusableKeys(t *testing.T) {
	rsaOf := func(bits uint, e int) *rsa.PublicKey {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: e}
	}
	type otherKey struct{}
	tests := map[string]struct {
		alg keyset.Algorithm
		pub crypto.PublicKey
	}{
		"no key":                             {keyset.ES256, nil},
		"a key of a type that nobody knows":  {keyset.ES256, otherKey{}},
		"a private EC key":                   {keyset.ES256, pairs()[keyset.ES256].priv},
		"a private RSA key":                  {keyset.RS256, pairs()[keyset.RS256].priv},
		"a private Ed25519 key":              {keyset.EdDSA, pairs()[keyset.EdDSA].priv},
		"a secret as a string":               {keyset.HS256, strings.Repeat("x", 64)},
		"an algorithm that nobody knows":     {"none", pairs()[keyset.ES256].pub},
		"no algorithm":                       {"", pairs()[keyset.HS512].pub},
		"an EC point off its curve":          {keyset.ES256, point(elliptic.P256(), big.NewInt(1), big.NewInt(1))},
		"the EC point 0, 0":                  {keyset.ES256, point(elliptic.P256(), new(big.Int), new(big.Int))},
		"a negative EC coordinate":           {keyset.ES256, point(elliptic.P256(), big.NewInt(-1), big.NewInt(1))},
		"an EC coordinate longer than fits":  {keyset.ES256, point(elliptic.P256(), new(big.Int).Lsh(big.NewInt(1), 300), big.NewInt(1))},
		"an EC key without a curve":          {keyset.ES256, &ecdsa.PublicKey{}},
		"an EC pointer to nothing":           {keyset.ES256, (*ecdsa.PublicKey)(nil)},
		"P-224":                              {keyset.ES256, point(elliptic.P224(), big.NewInt(1), big.NewInt(1))},
		"an Ed25519 key that is short":       {keyset.EdDSA, ed25519.PublicKey(make([]byte, 31))},
		"an Ed25519 key that is long, Ed448": {keyset.EdDSA, ed25519.PublicKey(make([]byte, 57))},
		"an Ed25519 key of nothing":          {keyset.EdDSA, ed25519.PublicKey(nil)},
		"an Ed25519 key as plain bytes":      {keyset.EdDSA, make([]byte, 32)},
		"RSA of 2047 bits":                   {keyset.RS256, rsaOf(2047, 65537)},
		"RSA of 1024 bits":                   {keyset.PS512, rsaOf(1024, 65537)},
		"RSA of 8193 bits":                   {keyset.RS256, rsaOf(8193, 65537)},
		"RSA with exponent 1":                {keyset.RS256, rsaOf(2048, 1)},
		"RSA with an even exponent":          {keyset.RS256, rsaOf(2048, 65536)},
		"RSA with a negative exponent":       {keyset.RS256, rsaOf(2048, -3)},
		"RSA without a modulus":              {keyset.RS256, &rsa.PublicKey{E: 65537}},
		"an RSA pointer to nothing":          {keyset.RS256, (*rsa.PublicKey)(nil)},
		"an even RSA modulus":                {keyset.RS256, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}},
		"a secret a byte short, HS256":       {keyset.HS256, make([]byte, 31)},
		"a secret a byte short, HS384":       {keyset.HS384, make([]byte, 47)},
		"a secret a byte short, HS512":       {keyset.HS512, make([]byte, 63)},
		"an empty secret":                    {keyset.HS256, []byte{}},
		"no secret":                          {keyset.HS256, []byte(nil)},
		"a PEM text as a secret of ES256":    {keyset.ES256, []byte("-----BEGIN PUBLIC KEY-----")},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if err := tc.alg.CheckVerificationKey(tc.pub); !errors.Is(err, keyset.ErrUnusableKey) {
				t.Errorf("got %v, want ErrUnusableKey", err)
			}
		})
	}
	if err := keyset.RS256.CheckVerificationKey(rsaOf(2048, 3)); err != nil {
		t.Errorf("RSA of 2048 bits with exponent 3: %v", err)
	}
	if err := keyset.RS256.CheckVerificationKey(rsaOf(4096, 65537)); err != nil {
		t.Errorf("RSA of 4096 bits: %v", err)
	}
}

func TestPrivateKeysComeBackFromTheirJWK(t *testing.T) {
	for alg, p := range pairs() {
		t.Run(string(alg), func(t *testing.T) {
			raw, err := keyset.EncodePrivate(p.priv, "some-id", alg)
			if err != nil {
				t.Fatal(err)
			}
			var head struct{ Kid, Alg, Use, Kty string }
			if err := json.Unmarshal(raw, &head); err != nil {
				t.Fatal(err)
			}
			if head.Kid != "some-id" || head.Alg != string(alg) || head.Use != "sig" || head.Kty != string(alg.Family()) {
				t.Errorf("got %+v", head)
			}
			priv, pub, err := keyset.DecodePrivate(raw)
			if err != nil {
				t.Fatal(err)
			}
			if !equal(priv, p.priv) || !equal(pub, p.pub) {
				t.Error("the key that came back is another")
			}
			if err := alg.CheckVerificationKey(pub); err != nil {
				t.Error(err)
			}
		})
	}
}

func equal(a, b any) bool {
	if a, ok := a.([]byte); ok {
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	}
	switch a := a.(type) {
	case interface{ Equal(crypto.PrivateKey) bool }:
		return a.Equal(b)
	case interface{ Equal(crypto.PublicKey) bool }:
		return a.Equal(b)
	}
	return false
}

func TestDecodePrivateRefusesAndQuotesNothing(t *testing.T) {
	mixed := *pairs()[keyset.RS256].priv.(*rsa.PrivateKey)
	mixed.D = new(big.Int).Add(mixed.D, big.NewInt(2))
	mixedRSA, err := keyset.EncodePrivate(&mixed, "id", keyset.RS256)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := keyset.EncodePrivate(pairs()[keyset.ES256].priv, "id", keyset.ES256)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(member, value string) []byte {
		var m map[string]any
		if err := json.Unmarshal(ec, &m); err != nil {
			t.Fatal(err)
		}
		m[member] = value
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	doc, err := keyset.MembersOf(pairs()[keyset.ES256].pub)
	if err != nil {
		t.Fatal(err)
	}
	public, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "c2VjcmV0c2VjcmV0c2VjcmV0"
	for name, raw := range map[string][]byte{
		"nothing":                             nil,
		"no JSON":                             []byte(secret),
		"an array":                            []byte(`["` + secret + `"]`),
		"no kty":                              []byte(`{"d":"` + secret + `"}`),
		"a kty that nobody knows":             []byte(`{"kty":"` + secret + `","d":"` + secret + `"}`),
		"a public key":                        public,
		"d that is no base64url":              edit("d", secret+"!"),
		"d that is too short":                 edit("d", secret),
		"another crv":                         edit("crv", "P-384"),
		"x that is off the curve":             edit("x", base64.RawURLEncoding.EncodeToString(make([]byte, 32))),
		"an RSA key without primes":           []byte(`{"kty":"RSA","n":"` + secret + `","e":"AQAB","d":"` + secret + `"}`),
		"an Ed25519 key that is short":        []byte(`{"kty":"OKP","crv":"Ed25519","x":"` + secret + `","d":"` + secret + `"}`),
		"an X25519 key":                       []byte(`{"kty":"OKP","crv":"X25519","x":"` + secret + `","d":"` + secret + `"}`),
		"a key whose d belongs elsewhere":     edit("d", base64.RawURLEncoding.EncodeToString(append(make([]byte, 31), 1))),
		"an Ed25519 d that belongs elsewhere": []byte(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"` + base64.RawURLEncoding.EncodeToString(make([]byte, 32)) + `"}`),
		"an RSA d that belongs elsewhere":     mixedRSA,
		"an EC d of nothing":                  edit("d", base64.RawURLEncoding.EncodeToString(make([]byte, 32))),
	} {
		t.Run(name, func(t *testing.T) {
			priv, pub, err := keyset.DecodePrivate(raw)
			if !errors.Is(err, keyset.ErrMalformedJWK) || priv != nil || pub != nil {
				t.Fatalf("got error %v, want ErrMalformedJWK and no key", err)
			}
			if strings.Contains(err.Error(), secret[:8]) {
				t.Errorf("error quotes its input: %v", err)
			}
		})
	}
}

// RFC 7638 section 3.1, RFC 8037 A.3, and RFC 7520 section 3.
func TestThumbprintsOfRFCs(t *testing.T) {
	for name, tc := range map[string]struct {
		members keyset.Members
		want    string
	}{
		"RFC 7638 3.1, RSA": {keyset.Members{Kty: "RSA", E: "AQAB", N: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"},
			"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		"RFC 8037 A.3, Ed25519": {keyset.Members{Kty: "OKP", Crv: "Ed25519", X: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
			"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	} {
		t.Run(name, func(t *testing.T) {
			pub, err := tc.members.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			got, err := keyset.Thumbprint(pub)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
			back, err := keyset.MembersOf(pub)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.members, back); diff != "" {
				t.Errorf("members that came back (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := keyset.Thumbprint(nil); err == nil {
		t.Error("a thumbprint of nothing")
	}
}

// V07, V10, V11.
func TestMembersThatAreNoKey(t *testing.T) {
	good, err := keyset.MembersOf(pairs()[keyset.ES256].pub)
	if err != nil {
		t.Fatal(err)
	}
	with := func(edit func(*keyset.Members)) keyset.Members { m := good; edit(&m); return m }
	short := base64.RawURLEncoding.EncodeToString(make([]byte, 31))
	long := base64.RawURLEncoding.EncodeToString(make([]byte, 33))
	for name, m := range map[string]keyset.Members{
		"nothing":                    {},
		"no kty":                     with(func(m *keyset.Members) { m.Kty = "" }),
		"kty that nobody knows":      with(func(m *keyset.Members) { m.Kty = "XX" }),
		"kty in lower case":          with(func(m *keyset.Members) { m.Kty = "ec" }),
		"a secret":                   {Kty: "oct"},
		"no crv":                     with(func(m *keyset.Members) { m.Crv = "" }),
		"crv of another algorithm":   with(func(m *keyset.Members) { m.Crv = "P-521" }),
		"secp256k1":                  with(func(m *keyset.Members) { m.Crv = "secp256k1" }),
		"no x":                       with(func(m *keyset.Members) { m.X = "" }),
		"no y":                       with(func(m *keyset.Members) { m.Y = "" }),
		"a short x":                  with(func(m *keyset.Members) { m.X = short }),
		"a long x":                   with(func(m *keyset.Members) { m.X = long }),
		"x with padding":             with(func(m *keyset.Members) { m.X += "=" }),
		"x with a line break":        with(func(m *keyset.Members) { m.X = m.X[:5] + "\n" + m.X[5:] }),
		"x of plain base64":          with(func(m *keyset.Members) { m.X = "+/" + m.X[2:] }),
		"x and y swapped":            with(func(m *keyset.Members) { m.X, m.Y = m.Y, m.X }),
		"an Ed25519 x that is short": {Kty: "OKP", Crv: "Ed25519", X: short},
		"an Ed25519 x that is long":  {Kty: "OKP", Crv: "Ed25519", X: long},
		"an Ed25519 without x":       {Kty: "OKP", Crv: "Ed25519"},
		"Ed448":                      {Kty: "OKP", Crv: "Ed448", X: base64.RawURLEncoding.EncodeToString(make([]byte, 57))},
		"X25519":                     {Kty: "OKP", Crv: "X25519", X: base64.RawURLEncoding.EncodeToString(make([]byte, 32))},
		"RSA without n":              {Kty: "RSA", E: "AQAB"},
		"RSA without e":              {Kty: "RSA", N: strings.Repeat("A", 300)},
		"RSA with the modulus 0":     {Kty: "RSA", N: "AAAA", E: "AQAB"},
		"RSA with a huge e":          {Kty: "RSA", N: strings.Repeat("B", 342), E: strings.Repeat("A", 20) + "B"},
		"a post-quantum key":         {Kty: "AKP"},
	} {
		t.Run(name, func(t *testing.T) {
			pub, err := m.PublicKey()
			if !errors.Is(err, keyset.ErrMalformedJWK) || pub != nil {
				t.Errorf("got %T and error %v, want ErrMalformedJWK", pub, err)
			}
		})
	}
}

func key(alg keyset.Algorithm) *keyset.Key {
	return &keyset.Key{ID: "k-" + string(alg), Algorithm: alg, Public: pairs()[alg].pub}
}

// I13: private members are d, p, q, dp, dq, qi, oth and k.
func TestDocumentNeverHoldsAPrivateMember(t *testing.T) {
	var keys []*keyset.Key
	for _, alg := range keyset.Algorithms() {
		keys = append(keys, key(alg))
	}
	doc, err := keyset.DocumentOf(keys)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Keys []map[string]any }
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, k := range got.Keys {
		order = append(order, k["kid"].(string))
		want := map[string][]string{"EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}, "RSA": {"n", "e"}}[k["kty"].(string)]
		allowed := map[string]bool{"kid": true, "use": true, "alg": true, "kty": true}
		for _, member := range want {
			allowed[member] = true
			if k[member] == "" || k[member] == nil {
				t.Errorf("%s has no %s", k["kid"], member)
			}
		}
		for member := range k {
			if !allowed[member] {
				t.Errorf("%s has a member %s", k["kid"], member)
			}
		}
		if k["use"] != "sig" || "k-"+k["alg"].(string) != k["kid"] {
			t.Errorf("got %v", k)
		}
	}
	want := []string{"k-ES256", "k-ES384", "k-ES512", "k-EdDSA", "k-RS256", "k-RS384", "k-RS512", "k-PS256", "k-PS384", "k-PS512"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for _, alg := range []keyset.Algorithm{keyset.HS256, keyset.HS384, keyset.HS512} {
		if strings.Contains(string(raw), base64.RawURLEncoding.EncodeToString(pairs()[alg].pub.([]byte))) {
			t.Errorf("the document holds the secret of %s", alg)
		}
	}
}

func TestDocumentOfNoKeysIsAnEmptySet(t *testing.T) {
	for name, keys := range map[string][]*keyset.Key{"no keys": nil, "secrets alone": {key(keyset.HS256)}} {
		t.Run(name, func(t *testing.T) {
			doc, err := keyset.DocumentOf(keys)
			if err != nil {
				t.Fatal(err)
			}
			if raw, err := json.Marshal(doc); err != nil || string(raw) != `{"keys":[]}` {
				t.Errorf("got %s, %v", raw, err)
			}
		})
	}
}

// A private key where a public one belongs must not slip into a document.
func TestDocumentRefusesAPrivateKeyInPlaceOfAPublicOne(t *testing.T) {
	for _, alg := range keyset.Algorithms() {
		if alg.Symmetric() {
			continue
		}
		bad := key(alg)
		bad.Public = pairs()[alg].priv
		if doc, err := keyset.DocumentOf([]*keyset.Key{bad}); !errors.Is(err, keyset.ErrUnusableKey) {
			t.Errorf("%s: got %v and error %v, want ErrUnusableKey", alg, doc, err)
		}
		mislabelled := key(alg)
		mislabelled.Public = pairs()[keyset.HS512].pub
		if doc, err := keyset.DocumentOf([]*keyset.Key{mislabelled}); !errors.Is(err, keyset.ErrUnusableKey) {
			t.Errorf("%s with a secret: got %v and error %v, want ErrUnusableKey", alg, doc, err)
		}
	}
}

// V08.
func TestNewSetRefuses(t *testing.T) {
	same := key(keyset.ES384)
	same.ID = "k-ES256"
	mixed := key(keyset.HS256)
	mixed.ID = "k-ES256"
	wrong := key(keyset.ES256)
	wrong.Public = pairs()[keyset.RS256].pub
	anonymous := key(keyset.ES256)
	anonymous.ID = ""
	for name, tc := range map[string]struct {
		keys []*keyset.Key
		want error
	}{
		"a key without an ID":                 {[]*keyset.Key{anonymous}, keyset.ErrNoKeyID},
		"two keys with one ID":                {[]*keyset.Key{key(keyset.ES256), same}, keyset.ErrDuplicateKeyID},
		"a secret with the ID of another key": {[]*keyset.Key{key(keyset.ES256), mixed}, keyset.ErrDuplicateKeyID},
		"one key twice":                       {[]*keyset.Key{same, same}, keyset.ErrDuplicateKeyID},
		"a key that its algorithm cannot use": {[]*keyset.Key{key(keyset.EdDSA), wrong}, keyset.ErrUnusableKey},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := keyset.NewSet(tc.keys...)
			if !errors.Is(err, tc.want) || set != nil {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if !errors.Is(tc.want, keyset.ErrNoKeyID) && err != nil && !strings.Contains(err.Error(), "k-ES256") {
				t.Errorf("%v does not name the key", err)
			}
		})
	}
}

func TestSetFindsByIDAndListsInOrder(t *testing.T) {
	set, err := keyset.NewSet(key(keyset.RS256), key(keyset.ES256), key(keyset.HS256))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys() {
		ids = append(ids, k.ID)
		if got, ok := set.Lookup(k.ID); !ok || got != k {
			t.Errorf("Lookup(%q) = %v, %v", k.ID, got, ok)
		}
	}
	if diff := cmp.Diff([]string{"k-ES256", "k-HS256", "k-RS256"}, ids); diff != "" {
		t.Errorf("IDs (-want +got):\n%s", diff)
	}
	for _, id := range []string{"", "k-es256", "k-ES256 ", "k-EdDSA"} {
		if got, ok := set.Lookup(id); ok || got != nil {
			t.Errorf("Lookup(%q) = %v", id, got)
		}
	}
	var none *keyset.Set
	if _, ok := none.Lookup("x"); ok || none.Keys() != nil || none.WithoutKeyID() != nil {
		t.Error("no set has keys")
	}
}

func TestSetListsTheKeysForTokensWithoutAKeyID(t *testing.T) {
	imported := key(keyset.ES256)
	imported.WithoutKeyID = true
	for name, tc := range map[string]struct{ keys, want []*keyset.Key }{
		"none":        {[]*keyset.Key{key(keyset.RS256)}, nil},
		"one of some": {[]*keyset.Key{key(keyset.RS256), imported}, []*keyset.Key{imported}},
	} {
		set, err := keyset.NewSet(tc.keys...)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.WithoutKeyID(); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestKeyIsValidUntilItsTimeAndNotAtIt(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	k := keyset.Key{VerifyUntil: at}
	for when, want := range map[time.Time]bool{at.Add(-time.Nanosecond): true, at: false, at.Add(time.Hour): false} {
		if got := k.ValidAt(when); got != want {
			t.Errorf("ValidAt(%s) = %v", when, got)
		}
	}
	if !(&keyset.Key{}).ValidAt(at) {
		t.Error("a key without an end is not valid")
	}
}
