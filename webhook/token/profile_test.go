package token_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

// The requirements of RFC 9068 section 4, one after another.
func TestAccessTokens(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_800_000_000, 0)
	whole := map[string]any{
		"iss": "https://auth.example", "exp": at.Unix() + 60, "aud": "orders", "sub": "u",
		"client_id": "web", "iat": at.Unix(), "jti": "1",
	}
	with := func(name string, value any) map[string]any {
		claims := maps.Clone(whole)
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		return claims
	}
	type test struct {
		typ    any // at+jwt when nil
		claims map[string]any
		keyIss string
		want   string
	}
	tests := map[string]test{
		"a whole one":                      {claims: whole},
		"typ with its tree":                {typ: "application/at+jwt", claims: whole},
		"typ in capitals":                  {typ: "AT+JWT", claims: whole},
		"typ with its tree, in capitals":   {typ: "Application/AT+jwt", claims: whole},
		"typ JWT":                          {typ: "JWT", claims: whole, want: "wrong_type"},
		"no typ":                           {typ: false, claims: whole, want: "wrong_type"},
		"typ with a parameter":             {typ: "at+jwt; x", claims: whole, want: "wrong_type"},
		"typ of a logout token":            {typ: "logout+jwt", claims: whole, want: "wrong_type"},
		"another issuer":                   {claims: with("iss", "https://auth.example/"), want: "wrong_issuer"},
		"a key that names no issuer":       {keyIss: "none", claims: whole, want: "wrong_issuer"},
		"another audience":                 {claims: with("aud", "invoices"), want: "wrong_audience"},
		"an empty list of audiences":       {claims: with("aud", []string{}), want: "wrong_audience"},
		"an empty subject":                 {claims: with("sub", ""), want: "missing_claim"},
		"a blank client":                   {claims: with("client_id", " "), want: "missing_claim"},
		"a client that is null":            {claims: with("client_id", json.RawMessage("null")), want: "missing_claim"},
		"a subject that is a number":       {claims: with("sub", 1), want: "bad_claim"},
		"a scope beside, whatever it says": {claims: with("scope", "a b")},
	}
	for _, name := range []string{"sub", "client_id", "iat", "jti", "exp"} {
		tests["no "+name] = test{claims: with(name, nil), want: "missing_claim"}
	}
	tests["no iss"] = test{claims: with("iss", nil), want: "wrong_issuer"}
	tests["no aud"] = test{claims: with("aud", nil), want: "wrong_audience"}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			header := map[string]any{"alg": "EdDSA", "kid": "k", "typ": "at+jwt"}
			if tc.typ != nil {
				header["typ"] = tc.typ
			}
			if tc.typ == false {
				delete(header, "typ")
			}
			key := &keyset.Key{ID: "k", Algorithm: keyset.EdDSA, Public: public, Issuer: "https://auth.example", MaxTokenTTL: time.Hour}
			if tc.keyIss != "" {
				key.Issuer = ""
			}
			set, err := keyset.NewSet(key)
			if err != nil {
				t.Fatal(err)
			}
			var parts [2]string
			for i, part := range []any{header, tc.claims} {
				raw, err := json.Marshal(part)
				if err != nil {
					t.Fatal(err)
				}
				parts[i] = base64.RawURLEncoding.EncodeToString(raw)
			}
			signed := parts[0] + "." + parts[1]
			raw := signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(signed)))
			_, err = token.Verify(raw, set, token.Expected{Audiences: []string{"orders"}, AccessToken: true}, at)
			if got := token.Reason(err); got != tc.want {
				t.Errorf("%q (%v), want %q", got, err, tc.want)
			}
		})
	}
}
