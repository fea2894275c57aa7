package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

func TestEveryAlgorithmPassesWithItsOwnKeyOnly(t *testing.T) {
	signers, set := everySigner(t)
	for _, alg := range keyset.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			tok, err := token.Verify(signers[alg].good(t), set, orders, now)
			wantReason(t, err, "")
			if err == nil && tok.Key != signers[alg].key {
				t.Errorf("got key %s", tok.Key.ID)
			}
		})
		for _, other := range keyset.Algorithms() {
			if other == alg {
				continue
			}
			t.Run(fmt.Sprintf("%s token that names the key of %s", alg, other), func(t *testing.T) {
				// V05, V20: honest about its algorithm, then lying about it.
				raw := signers[alg].mint(t, `{"alg":"`+string(alg)+`","kid":"k-`+string(other)+`"}`, goodClaims)
				_, err := token.Verify(raw, set, orders, now)
				wantReason(t, err, "algorithm_mismatch")
				raw = signers[alg].mint(t, signers[other].header(), goodClaims)
				_, err = token.Verify(raw, set, orders, now)
				wantReason(t, err, "bad_signature")
			})
		}
	}
}

func TestTokenHoldsWhatItsClaimsSay(t *testing.T) {
	s := newSigner(keyset.ES256)
	payload := `{"iss":"https://auth.shop.example","sub":"u-17","jti":"j-1","aud":["orders","api"],` +
		`"exp":1800000600.5,"nbf":1799999990,"iat":1.8e9,"n":3,"f":1.5,"big":12345678901234567890,"minus":-7,` +
		`"b":true,"z":null,"l":[1,"a"],"o":{"deep":{"er":"x"}},"a.b":"whole","EXP":1,"SUB":"other","u":"\u00e9\ud83d\ude00\/"}`
	got, err := token.Verify(s.mint(t, s.header(), payload), newSet(t, s.key), orders, now)
	if err != nil {
		t.Fatal(err)
	}
	want := &token.Token{
		Key: s.key, Issuer: issuer, Subject: "u-17", ID: "j-1",
		Expiry:    time.Unix(1800000600, 500_000_000),
		NotBefore: time.Unix(1799999990, 0),
		IssuedAt:  now,
	}
	claims := map[string]any{
		"iss": issuer, "sub": "u-17", "jti": "j-1", "aud": []any{"orders", "api"},
		"exp": 1800000600.5, "nbf": int64(1799999990), "iat": 1.8e9,
		"n": int64(3), "f": 1.5, "big": 12345678901234567890.0, "minus": int64(-7), "b": true, "z": nil,
		"l": []any{int64(1), "a"}, "o": map[string]any{"deep": map[string]any{"er": "x"}}, "a.b": "whole",
		"EXP": int64(1), "SUB": "other", "u": "é😀/",
	}
	if got.Key != want.Key {
		t.Errorf("got key %v", got.Key)
	}
	if diff := cmp.Diff(claims, got.Claims.Map()); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	got.Key, want.Key = nil, nil
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(token.Token{}, "Claims")); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
}

func TestLookupOfClaims(t *testing.T) {
	claims, err := token.DecodeClaims(`{"org":{"id":"42","a.b":"dotted","none":null},"https://example.com/roles":["admin"],"org.id.x":"whole name","":"empty"}`)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path   string
		want   any
		wantOK bool
	}{
		"a plain name":                         {"org", claims.Map()["org"], true},
		"a member of a member":                 {"org.id", "42", true},
		"a name with dots that is a URL":       {"https://example.com/roles", []any{"admin"}, true},
		"the whole name goes before nesting":   {"org.id.x", "whole name", true},
		"the whole rest goes before nesting":   {"org.a.b", "dotted", true},
		"null is there":                        {"org.none", nil, true},
		"a name that is not there":             {"nope", nil, false},
		"a member of what is not there":        {"nope.id", nil, false},
		"a member of a string":                 {"org.id.y", nil, false},
		"a member of an array":                 {"https://example.com/roles.0", nil, false},
		"names are compared with case":         {"ORG.id", nil, false},
		"the empty name is a name like others": {"", "empty", true},
		"a dot alone":                          {".", nil, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := claims.Lookup(tc.path)
			if diff := cmp.Diff(tc.want, got.Any()); diff != "" || ok != tc.wantOK {
				t.Errorf("Lookup(%q) = %v, %v, want %v, %v", tc.path, got.Any(), ok, tc.want, tc.wantOK)
			}
		})
	}
}

// V01, V16, V22, V30, V31.
func TestForm(t *testing.T) {
	s := newSigner(keyset.ES256)
	set := newSet(t, s.key)
	good := s.good(t)
	seg := strings.Split(good, ".")
	// A last character that differs only in bits that are cut off.
	loose := func(s string) string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		i := strings.IndexByte(alphabet, s[len(s)-1])
		return s[:len(s)-1] + string(alphabet[i^1])
	}
	std := func(s string) string { return strings.NewReplacer("-", "+", "_", "/").Replace(s) }
	needsStd := s.mint(t, s.header(), `{"a":"`+"~~~???>>>"+`","exp":1800000600}`)
	sized := func(n int) string { // a good token of n bytes or a few less
		claims := func(pad int) string {
			return strings.TrimSuffix(goodClaims, "}") + `,"pad":"` + strings.Repeat("x", pad) + `"}`
		}
		pad := 0
		for len(s.header())*4/3+len(claims(pad+1))*4/3+90 < n-4 {
			pad++
		}
		return s.mint(t, s.header(), claims(pad))
	}
	if n := len(sized(token.MaxBytes)); n > token.MaxBytes || n < token.MaxBytes-16 {
		t.Fatalf("test makes a token of %d bytes", n)
	}
	tests := map[string]struct{ raw, want string }{
		"nothing":                                    {"", "malformed"},
		"one segment":                                {"abc", "malformed"},
		"two segments":                               {seg[0] + "." + seg[1], "malformed"},
		"four segments":                              {good + ".", "malformed"},
		"dots alone":                                 {"..", "malformed"},
		"five segments as a JWE has":                 {seg[0] + ".a.b.c.d", "malformed"},
		"a million dots":                             {strings.Repeat(".", 1_000_000), "too_large"},
		"dots up to the limit":                       {strings.Repeat(".", token.MaxBytes), "malformed"},
		"as long as is allowed":                      {sized(token.MaxBytes), ""},
		"one byte too long":                          {good + strings.Repeat("A", token.MaxBytes+1-len(good)), "too_large"},
		"64 MiB":                                     {strings.Repeat("A", 64<<20), "too_large"},
		"an empty header":                            {"." + seg[1] + "." + seg[2], "malformed"},
		"an empty payload":                           {s.signSegments(t, seg[0], ""), "malformed"},
		"an empty signature":                         {seg[0] + "." + seg[1] + ".", "bad_signature"},
		"padding after the header":                   {s.signSegments(t, seg[0]+"=", seg[1]), "malformed"},
		"padding after the payload":                  {s.signSegments(t, seg[0], seg[1]+"=="), "malformed"},
		"padding after the signature":                {good + "==", "malformed"},
		"a line feed in the header":                  {s.signSegments(t, seg[0][:8]+"\n"+seg[0][8:], seg[1]), "malformed"},
		"a line feed in the payload":                 {s.signSegments(t, seg[0], seg[1][:8]+"\n"+seg[1][8:]), "malformed"},
		"a line feed in the signature":               {seg[0] + "." + seg[1] + "." + seg[2][:8] + "\n" + seg[2][8:], "malformed"},
		"a carriage return in the signature":         {seg[0] + "." + seg[1] + "." + seg[2][:8] + "\r" + seg[2][8:], "malformed"},
		"a line break at the end":                    {good + "\r\n", "malformed"},
		"a space before":                             {" " + good, "malformed"},
		"a space after":                              {good + " ", "malformed"},
		"a tab inside":                               {seg[0] + "." + seg[1][:4] + "\t" + seg[1][4:] + "." + seg[2], "malformed"},
		"a NUL after":                                {good + "\x00", "malformed"},
		"the alphabet of plain base64":               {std(needsStd), "malformed"},
		"loose last bits in the signature":           {seg[0] + "." + seg[1] + "." + loose(seg[2]), "malformed"},
		"a segment of an impossible length":          {seg[0] + "." + seg[1] + ".A", "malformed"},
		"no ASCII":                                   {seg[0] + "." + seg[1] + "." + seg[2][:4] + "é", "malformed"},
		"a scheme before it":                         {"Bearer " + good, "malformed"},
		"two tokens":                                 {good + "," + good, "malformed"},
		"the flattened JSON serialisation":           {`{"protected":"` + seg[0] + `","payload":"` + seg[1] + `","signature":"` + seg[2] + `"}`, "malformed"},
		"the JSON serialisation with dots in it":     {`{"protected":"..","payload":""}`, "malformed"},
		"a JWE in five parts (RFC 7516 A.1's shape)": {b64(`{"alg":"RSA-OAEP","enc":"A256GCM"}`) + ".OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGe.48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6ji.XFBoMYUZodetZdvTiFvSkQ", "malformed"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(tc.raw, set, orders, now)
			wantReason(t, err, tc.want)
		})
	}
}

// V02, V03, V04, V05, V16, V25, V28, V29.
func TestHeader(t *testing.T) {
	s := newSigner(keyset.ES256)
	set := newSet(t, s.key)
	with := func(more string) string { return `{"alg":"ES256","kid":"k-ES256",` + more + `}` }
	own, err := keyset.MembersOf(s.key.Public)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(own)
	if err != nil {
		t.Fatal(err)
	}
	utf16 := "\xff\xfe" + strings.Join(strings.Split(s.header(), ""), "\x00") + "\x00"
	tests := map[string]struct{ header, want string }{
		"as it should be":                       {s.header(), ""},
		"white space is JSON":                   {" {\t\"alg\":\r\n\"ES256\" , \"kid\":\"k-ES256\"}\n", ""},
		"unknown members are ignored":           {with(`"foo":{"alg":"none"}`), ""},
		"escapes are read":                      {`{"\u0061lg":"ES256","kid":"k-\u0045S256"}`, ""},
		"certificate thumbprints are ignored":   {with(`"x5t":"AAAA","x5t#S256":"AAAA"`), ""},
		"not an object":                         {`["alg","ES256"]`, "malformed"},
		"a string":                              {`"ES256"`, "malformed"},
		"null":                                  {`null`, "malformed"},
		"not JSON":                              {`{alg:ES256}`, "malformed"},
		"cut off":                               {`{"alg":"ES256","kid":"k-ES256"`, "malformed"},
		"something after the object":            {s.header() + `{}`, "malformed"},
		"a trailing comma":                      {`{"alg":"ES256","kid":"k-ES256",}`, "malformed"},
		"a NUL after the object":                {s.header() + "\x00", "malformed"},
		"a byte order mark":                     {"\ufeff" + s.header(), "malformed"},
		"UTF-16":                                {utf16, "malformed"},
		"invalid UTF-8":                         {with("\"x\":\"\xff\""), "malformed"},
		"alg twice, none first":                 {`{"alg":"none","alg":"ES256","kid":"k-ES256"}`, "malformed"},
		"alg twice, none last":                  {`{"alg":"ES256","kid":"k-ES256","alg":"none"}`, "malformed"},
		"alg twice, one escaped":                {`{"alg":"ES256","kid":"k-ES256","\u0061lg":"ES256"}`, "malformed"},
		"kid twice":                             {with(`"kid":"k-ES256"`), "malformed"},
		"a member twice at depth":               {with(`"x":{"a":[{"b":1,"b":1}]}`), "malformed"},
		"nested up to the limit":                {with(`"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31)), ""},
		"nested beyond the limit":               {with(`"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32)), "malformed"},
		"crit with an unknown name":             {with(`"crit":["foo"],"foo":1`), "unsupported_header"},
		"crit that is empty":                    {with(`"crit":[]`), "unsupported_header"},
		"crit that is no array":                 {with(`"crit":"foo","foo":1`), "unsupported_header"},
		"crit with a name that is absent":       {with(`"crit":["foo"]`), "unsupported_header"},
		"crit with a registered name":           {with(`"crit":["alg"]`), "unsupported_header"},
		"crit with one name twice":              {with(`"crit":["foo","foo"],"foo":1`), "unsupported_header"},
		"crit that is null":                     {with(`"crit":null`), "unsupported_header"},
		"crit b64 with b64 false (RFC 7797)":    {with(`"crit":["b64"],"b64":false`), "unsupported_header"},
		"b64 true":                              {with(`"b64":true`), "unsupported_header"},
		"zip":                                   {with(`"zip":"DEF"`), "unsupported_header"},
		"enc, as a JWE has":                     {with(`"enc":"A256GCM"`), "unsupported_header"},
		"cty JWT, a nested token":               {with(`"cty":"JWT"`), "unsupported_header"},
		"cty of another kind":                   {with(`"cty":"json"`), "unsupported_header"},
		"jwk, even the key itself":              {with(`"jwk":` + string(jwk)), "unsupported_header"},
		"jku":                                   {with(`"jku":"https://attacker.example/jwks.json"`), "unsupported_header"},
		"x5u":                                   {with(`"x5u":"https://attacker.example/c.pem"`), "unsupported_header"},
		"x5c":                                   {with(`"x5c":["MIIB"]`), "unsupported_header"},
		"no alg":                                {`{"kid":"k-ES256"}`, "malformed"},
		"alg null":                              {`{"alg":null,"kid":"k-ES256"}`, "malformed"},
		"alg a number":                          {`{"alg":256,"kid":"k-ES256"}`, "malformed"},
		"alg an array":                          {`{"alg":["ES256"],"kid":"k-ES256"}`, "malformed"},
		"ALG in capitals is no alg":             {`{"ALG":"ES256","kid":"k-ES256"}`, "malformed"},
		"alg none":                              {`{"alg":"none","kid":"k-ES256"}`, "algorithm_mismatch"},
		"alg None":                              {`{"alg":"None","kid":"k-ES256"}`, "algorithm_mismatch"},
		"alg nOnE":                              {`{"alg":"nOnE","kid":"k-ES256"}`, "algorithm_mismatch"},
		"alg empty":                             {`{"alg":"","kid":"k-ES256"}`, "algorithm_mismatch"},
		"alg in lower case":                     {`{"alg":"es256","kid":"k-ES256"}`, "algorithm_mismatch"},
		"alg with a space":                      {`{"alg":"ES256 ","kid":"k-ES256"}`, "algorithm_mismatch"},
		"alg ES256K":                            {`{"alg":"ES256K","kid":"k-ES256"}`, "algorithm_mismatch"},
		"no kid":                                {`{"alg":"ES256"}`, "missing_key_id"},
		"kid null":                              {`{"alg":"ES256","kid":null}`, "malformed"},
		"kid a number":                          {`{"alg":"ES256","kid":1}`, "malformed"},
		"kid empty":                             {`{"alg":"ES256","kid":""}`, "malformed"},
		"kid in another case":                   {`{"alg":"ES256","kid":"K-es256"}`, "unknown_key"},
		"kid with a space":                      {`{"alg":"ES256","kid":"k-ES256 "}`, "unknown_key"},
		"kid with a NUL":                        {`{"alg":"ES256","kid":"k-ES256\u0000"}`, "unknown_key"},
		"kid that is a path":                    {`{"alg":"ES256","kid":"../../dev/null"}`, "unknown_key"},
		"kid that is SQL":                       {`{"alg":"ES256","kid":"x' UNION SELECT 'k"}`, "unknown_key"},
		"kid that is a command":                 {`{"alg":"ES256","kid":"|sleep 10"}`, "unknown_key"},
		"kid that is a URL":                     {`{"alg":"ES256","kid":"https://attacker.example@x?#"}`, "unknown_key"},
		"kid of 5 KiB":                          {`{"alg":"ES256","kid":"` + strings.Repeat("k", 5<<10) + `"}`, "unknown_key"},
		"typ JWT":                               {with(`"typ":"JWT"`), ""},
		"typ jwt":                               {with(`"typ":"jwt"`), ""},
		"typ at+jwt":                            {with(`"typ":"at+jwt"`), ""},
		"typ AT+JWT":                            {with(`"typ":"AT+JWT"`), ""},
		"typ application/at+jwt":                {with(`"typ":"application/at+jwt"`), ""},
		"typ Application/JWT":                   {with(`"typ":"Application/JWT"`), ""},
		"typ of an ID token's logout":           {with(`"typ":"logout+jwt"`), "wrong_type"},
		"typ of a DPoP proof":                   {with(`"typ":"dpop+jwt"`), "wrong_type"},
		"typ JOSE":                              {with(`"typ":"JOSE"`), "wrong_type"},
		"typ application/ alone":                {with(`"typ":"application/"`), "wrong_type"},
		"typ application/application/jwt":       {with(`"typ":"application/application/jwt"`), "wrong_type"},
		"typ with a parameter":                  {with(`"typ":"JWT;v=1"`), "wrong_type"},
		"typ empty":                             {with(`"typ":""`), "wrong_type"},
		"typ null":                              {with(`"typ":null`), "wrong_type"},
		"typ an array":                          {with(`"typ":["JWT"]`), "wrong_type"},
		"the header goes before the kid":        {`{"alg":"ES256","kid":"nobody","crit":["a"]}`, "unsupported_header"},
		"the kid goes before the alg":           {`{"alg":"none","kid":"nobody"}`, "unknown_key"},
		"Ed25519 (RFC 9864) is not this key's":  {`{"alg":"Ed25519","kid":"k-ES256"}`, "algorithm_mismatch"},
		"members of a prototype mean nothing":   {with(`"__proto__":{"alg":"none"}`), ""},
		"a lone surrogate":                      {with(`"x":"\ud800"`), "malformed"},
		"surrogates in the wrong order":         {with(`"x":"\udc00\ud800"`), "malformed"},
		"a high surrogate before a plain one":   {with(`"x":"\ud800\u0041"`), "malformed"},
		"a control character in a string":       {with("\"x\":\"\x01\""), "malformed"},
		"a name that is not quoted":             {`{alg:"ES256"}`, "malformed"},
		"a number that is not finite":           {with(`"x":1e400`), "malformed"},
		"NaN":                                   {with(`"x":NaN`), "malformed"},
		"a number with a leading zero":          {with(`"x":01`), "malformed"},
		"a comment":                             {`{/**/"alg":"ES256","kid":"k-ES256"}`, "malformed"},
		"single quotes":                         {`{'alg':'ES256','kid':'k-ES256'}`, "malformed"},
		"an escape that JSON does not know":     {with(`"x":"\x41"`), "malformed"},
		"an unfinished escape":                  {`{"alg":"ES256","kid":"\u00`, "malformed"},
		"an unfinished string after backslash":  {`{"alg":"ES256","kid":"\`, "malformed"},
		"an array that does not end":            {`{"alg":"ES256","kid":[1,`, "malformed"},
		"an array without commas":               {with(`"x":[1 2]`), "malformed"},
		"an object without a colon":             {with(`"x" 1`), "malformed"},
		"a lone minus":                          {with(`"x":-`), "malformed"},
		"a number that ends in a dot":           {with(`"x":1.`), "malformed"},
		"a number that ends in an e":            {with(`"x":1e+`), "malformed"},
		"an empty object and an empty array":    {with(`"x":{},"y":[]`), ""},
		"all escapes that JSON knows":           {with(`"x":"\"\\\/\b\f\n\r\t\u00Af"`), ""},
		"the header of an honest EdDSA token":   {`{"alg":"EdDSA","kid":"k-ES256"}`, "algorithm_mismatch"},
		"the header of an honest HS256 token":   {`{"alg":"HS256","kid":"k-ES256"}`, "algorithm_mismatch"},
		"invalid UTF-8 after an escape":         {with("\"x\":\"\\n\xc0\xaf\""), "malformed"},
		"UTF-8 that encodes a surrogate":        {with("\"x\":\"\xed\xa0\x80\""), "malformed"},
		"a second surrogate that is not hex":    {with(`"x":"\ud800\uzzzz"`), "malformed"},
		"a control character after an escape":   {with("\"x\":\"\\n\x01\""), "malformed"},
		"a string cut off after an escape":      {`{"alg":"\n`, "malformed"},
		"a value that is missing":               {`{"alg":}`, "malformed"},
		"an object in an array that is cut off": {`{"alg":[{"a":1`, "malformed"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(s.mint(t, tc.header, goodClaims), set, orders, now)
			wantReason(t, err, tc.want)
		})
	}
}

// V02, V12 to V15, V17, V31: what is signed and yet not good.
func TestClaims(t *testing.T) {
	s := newSigner(keyset.ES256)
	set := newSet(t, s.key)
	const (
		iss  = `"iss":"https://auth.shop.example"`
		sub  = `"sub":"u-17"`
		aud  = `"aud":"orders"`
		exp  = `"exp":1800000600`
		rest = iss + "," + sub + "," + aud
	)
	with := func(members ...string) string { return "{" + strings.Join(members, ",") + "}" }
	withExp := func(v string) string { return with(rest, `"exp":`+v) }
	withNbf := func(v string) string { return with(rest, exp, `"nbf":`+v) }
	withIat := func(v string) string { return with(rest, exp, `"iat":`+v) }
	withIss := func(v string) string { return with(sub, aud, exp, `"iss":`+v) }
	withAud := func(v string) string { return with(iss, sub, exp, `"aud":`+v) }
	withSub := func(v string) string { return with(iss, aud, exp, `"sub":`+v) }
	tests := map[string]struct{ claims, want string }{
		"as it should be":                     {with(rest, exp), ""},
		"not an object":                       {`[1]`, "malformed"},
		"a nested token":                      {s.good(t), "malformed"},
		"a string":                            {`"` + s.good(t) + `"`, "malformed"},
		"invalid UTF-8":                       {with(rest, exp, "\"x\":\"\xff\""), "malformed"},
		"invalid UTF-8 in a name":             {with(rest, exp, "\"\xff\":1"), "malformed"},
		"a lone surrogate in sub":             {withSub(`"\ud800"`), "malformed"},
		"sub twice":                           {with(rest, exp, `"sub":"other"`), "malformed"},
		"sub twice, one escaped":              {with(rest, exp, `"\u0073ub":"other"`), "malformed"},
		"a member twice at depth":             {with(rest, exp, `"o":{"a":1,"a":2}`), "malformed"},
		"thousands of nested arrays":          {with(rest, exp, `"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)), "malformed"},
		"thousands of nested objects cut off": {with(rest, exp, `"x":`+strings.Repeat(`{"":`, 1000)), "malformed"},
		"a number that is not finite":         {with(rest, exp, `"x":1e400`), "malformed"},

		"no exp":                              {with(rest), "missing_claim"},
		"EXP is not exp":                      {with(rest, `"EXP":1800000600`), "missing_claim"},
		"EXP does not replace an expired exp": {with(rest, `"exp":1,"EXP":1800000600`), "expired"},
		"Exp far away does no harm":           {with(rest, exp, `"Exp":1`), ""},
		"exp a string":                        {withExp(`"1800000600"`), "bad_claim"},
		"exp true":                            {withExp(`true`), "bad_claim"},
		"exp null":                            {withExp(`null`), "bad_claim"},
		"exp an array":                        {withExp(`[1800000600]`), "bad_claim"},
		"exp an object":                       {withExp(`{}`), "bad_claim"},
		"exp 1e19":                            {withExp(`1e19`), "bad_claim"},
		"exp 1e300":                           {withExp(`1e300`), "bad_claim"},
		"exp at the end of int64":             {withExp(`9223372036854775807`), "bad_claim"},
		"exp beyond int64":                    {withExp(`9223372036854775808`), "bad_claim"},
		"exp in the year 10000":               {withExp(`253402300800`), "bad_claim"},
		"exp in the year 9999":                {withExp(`253402300799`), "lives_too_long"},
		"exp -1":                              {withExp(`-1`), "bad_claim"},
		"exp 0":                               {withExp(`0`), "expired"},
		"exp -0":                              {withExp(`-0`), "expired"},
		"exp in milliseconds":                 {withExp(`1800000600000`), "bad_claim"},
		"exp now":                             {withExp(`1800000000`), ""}, // within the leeway
		"exp one second before the leeway":    {withExp(`1799999941`), ""},
		"exp a fraction before the leeway":    {withExp(`1799999940.000001`), ""},
		"exp at the leeway":                   {withExp(`1799999940`), "expired"},
		"exp with a fraction":                 {withExp(`1800000600.25`), ""},
		"exp with an exponent":                {withExp(`1.8000006e9`), ""},
		"exp with a hundred digits":           {withExp(`1800000600.` + strings.Repeat("0", 100)), ""},

		"nbf now":                          {withNbf(`1800000000`), ""},
		"nbf 0":                            {withNbf(`0`), ""},
		"nbf at the leeway":                {withNbf(`1800000060`), ""},
		"nbf a fraction beyond the leeway": {withNbf(`1800000060.000001`), "not_yet_valid"},
		"nbf beyond the leeway":            {withNbf(`1800000061`), "not_yet_valid"},
		"nbf that overflows (golang-jwt)":  {withNbf(`9300000000000000000`), "bad_claim"},
		"nbf at the end of int64":          {withNbf(`9223372036854775807`), "bad_claim"},
		"nbf 1e300":                        {withNbf(`1e300`), "bad_claim"},
		"nbf a string":                     {withNbf(`"0"`), "bad_claim"},
		"nbf null":                         {withNbf(`null`), "bad_claim"},
		"nbf -1":                           {withNbf(`-1`), "bad_claim"},

		"iat at the leeway":                       {withIat(`1800000060`), ""},
		"iat beyond the leeway":                   {withIat(`1800000061`), "issued_in_future"},
		"iat as far back as the TTL and leeway":   {withIat(`1799996940`), ""},
		"iat further back":                        {withIat(`1799996939`), "lives_too_long"},
		"iat 0":                                   {withIat(`0`), "lives_too_long"},
		"iat a string":                            {withIat(`"1800000000"`), "bad_claim"},
		"iat null":                                {withIat(`null`), "bad_claim"},
		"iat 1e19":                                {withIat(`1e19`), "bad_claim"},
		"no iat, exp as far as the TTL allows":    {withExp(`1800003660`), ""},
		"no iat, exp further":                     {withExp(`1800003661`), "lives_too_long"},
		"no iat, exp a fraction further":          {withExp(`1800003660.5`), "lives_too_long"},
		"iat that hides how long the token lives": {with(rest, `"iat":1800000060,"exp":1800003721`), "lives_too_long"},

		"no iss":                {with(sub, aud, exp), "wrong_issuer"},
		"iss with a slash":      {withIss(`"https://auth.shop.example/"`), "wrong_issuer"},
		"iss in another case":   {withIss(`"https://AUTH.shop.example"`), "wrong_issuer"},
		"iss that is a prefix":  {withIss(`"https://auth.shop.exampl"`), "wrong_issuer"},
		"iss that goes on":      {withIss(`"https://auth.shop.example.attacker.example"`), "wrong_issuer"},
		"iss with a space":      {withIss(`" https://auth.shop.example"`), "wrong_issuer"},
		"iss empty":             {withIss(`""`), "wrong_issuer"},
		"iss an array":          {withIss(`["https://auth.shop.example"]`), "bad_claim"},
		"iss null":              {withIss(`null`), "bad_claim"},
		"iss escaped":           {withIss(`"https:\/\/auth.shop.example"`), ""},
		"Iss is not iss":        {with(sub, aud, exp, `"Iss":"https://auth.shop.example"`), "wrong_issuer"},
		"ISS replaces nothing":  {with(rest, exp, `"ISS":"https://attacker.example"`), ""},
		"jti a number":          {with(rest, exp, `"jti":1`), "bad_claim"},
		"jti a string is taken": {with(rest, exp, `"jti":"1"`), ""},

		"no aud":                                {with(iss, sub, exp), "wrong_audience"},
		"aud in an array":                       {withAud(`["api","orders"]`), ""},
		"aud in another case":                   {withAud(`"Orders"`), "wrong_audience"},
		"aud that goes on":                      {withAud(`"ordersx"`), "wrong_audience"},
		"aud that is a prefix":                  {withAud(`"order"`), "wrong_audience"},
		"aud a list in a string":                {withAud(`"api orders"`), "wrong_audience"},
		"aud an empty array":                    {withAud(`[]`), "wrong_audience"},
		"aud an array with an empty string":     {withAud(`[""]`), "wrong_audience"},
		"aud an empty string":                   {withAud(`""`), "wrong_audience"},
		"aud null":                              {withAud(`null`), "bad_claim"},
		"aud an array with null":                {withAud(`[null,"orders"]`), "bad_claim"},
		"aud an array with a number":            {withAud(`["orders",1]`), "bad_claim"},
		"aud an array in an array":              {withAud(`[["orders"]]`), "bad_claim"},
		"aud an object":                         {withAud(`{"orders":1}`), "bad_claim"},
		"aud a number":                          {withAud(`1`), "bad_claim"},
		"AUD is not aud":                        {with(iss, sub, exp, `"AUD":"orders"`), "wrong_audience"},
		"an expired token for another audience": {with(iss, sub, `"aud":"x","exp":1`), "expired"},

		"no sub where it is required":     {with(iss, aud, exp), "missing_claim"},
		"SUB is not sub":                  {with(iss, aud, exp, `"SUB":"u-17"`), "missing_claim"},
		"sub empty":                       {withSub(`""`), "missing_claim"},
		"sub blank":                       {withSub(`" \t"`), "missing_claim"},
		"sub null":                        {withSub(`null`), "bad_claim"},
		"sub a number":                    {withSub(`17`), "bad_claim"},
		"sub an array":                    {withSub(`["u-17"]`), "bad_claim"},
		"sub that is not ASCII is a name": {withSub(`"üser"`), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(s.mint(t, s.header(), tc.claims), set, orders, now)
			wantReason(t, err, tc.want)
		})
	}
}

func TestRequiredClaims(t *testing.T) {
	s := newSigner(keyset.ES256)
	set := newSet(t, s.key)
	tests := map[string]struct {
		claim, required, want string
	}{
		"there":                      {`"c":"x"`, "c", ""},
		"false is a value":           {`"c":false`, "c", ""},
		"0 is a value":               {`"c":0`, "c", ""},
		"absent":                     {`"d":"x"`, "c", "missing_claim"},
		"null":                       {`"c":null`, "c", "missing_claim"},
		"an empty string":            {`"c":""`, "c", "missing_claim"},
		"a blank string":             {`"c":"  "`, "c", "missing_claim"},
		"an empty array":             {`"c":[]`, "c", "missing_claim"},
		"an empty object":            {`"c":{}`, "c", "missing_claim"},
		"an array with an element":   {`"c":[null]`, "c", ""},
		"an object with a member":    {`"c":{"d":1}`, "c", ""},
		"nested":                     {`"c":{"d":1}`, "c.d", ""},
		"nested and absent":          {`"c":{"e":1}`, "c.d", "missing_claim"},
		"a URL":                      {`"https://x.example/c":1`, "https://x.example/c", ""},
		"another case":               {`"C":"x"`, "c", "missing_claim"},
		"a registered one, aud":      {`"d":1`, "aud", ""},
		"a registered one, not here": {`"d":1`, "nbf", "missing_claim"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			raw := s.mint(t, s.header(), strings.TrimSuffix(goodClaims, "}")+","+tc.claim+"}")
			_, err := token.Verify(raw, set, token.Expected{RequiredClaims: []string{"sub", tc.required}}, now)
			wantReason(t, err, tc.want)
		})
	}
}

// V09, V05: signatures that a lax library takes.
func TestSignature(t *testing.T) {
	signers, set := everySigner(t)
	sign := func(alg keyset.Algorithm, sig func(input string, sum [32]byte) []byte) string {
		input := b64(signers[alg].header()) + "." + b64(goodClaims)
		return input + "." + base64.RawURLEncoding.EncodeToString(sig(input, sha256.Sum256([]byte(input))))
	}
	ec := signers[keyset.ES256].priv.(*ecdsa.PrivateKey)
	rs := func(r, s *big.Int) []byte {
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	rsOf := func(sum [32]byte) []byte {
		r, s, err := ecdsa.Sign(rand.Reader, ec, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return rs(r, s)
	}
	n, zero, one := ec.Params().N, big.NewInt(0), big.NewInt(1)
	rsaKey := signers[keyset.PS256].priv.(*rsa.PrivateKey)
	pss := func(salt int) func(string, [32]byte) []byte {
		return func(_ string, sum [32]byte) []byte {
			sig, err := rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
			if err != nil {
				t.Fatal(err)
			}
			return sig
		}
	}
	tests := map[string]struct{ raw, want string }{
		"ECDSA in r and s": {sign(keyset.ES256, func(_ string, sum [32]byte) []byte { return rsOf(sum) }), ""},
		"ECDSA in DER": {sign(keyset.ES256, func(_ string, sum [32]byte) []byte {
			der, err := ecdsa.SignASN1(rand.Reader, ec, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			return der
		}), "bad_signature"},
		"ECDSA with a byte more": {sign(keyset.ES256, func(_ string, sum [32]byte) []byte { return append(rsOf(sum), 0) }), "bad_signature"},
		"ECDSA with a byte less": {sign(keyset.ES256, func(_ string, sum [32]byte) []byte { return rsOf(sum)[:63] }), "bad_signature"},
		"ECDSA padded to the size of ES384": {sign(keyset.ES256, func(_ string, sum [32]byte) []byte {
			sig := rsOf(sum)
			return append(append(make([]byte, 16), sig[:32]...), append(make([]byte, 16), sig[32:]...)...)
		}), "bad_signature"},
		"ECDSA 0, 0":       {sign(keyset.ES256, func(string, [32]byte) []byte { return rs(zero, zero) }), "bad_signature"},
		"ECDSA 1, 1":       {sign(keyset.ES256, func(string, [32]byte) []byte { return rs(one, one) }), "bad_signature"},
		"ECDSA n, n":       {sign(keyset.ES256, func(string, [32]byte) []byte { return rs(n, n) }), "bad_signature"},
		"ECDSA 1, 0":       {sign(keyset.ES256, func(string, [32]byte) []byte { return rs(one, zero) }), "bad_signature"},
		"PSS, salt 32":     {sign(keyset.PS256, pss(32)), ""},
		"PSS, no salt":     {sign(keyset.PS256, pss(0)), "bad_signature"},
		"PSS, salt 20":     {sign(keyset.PS256, pss(20)), "bad_signature"},
		"PSS, salt 64":     {sign(keyset.PS256, pss(64)), "bad_signature"},
		"PSS, auto":        {sign(keyset.PS256, pss(rsa.PSSSaltLengthAuto)), "bad_signature"},
		"RSA, all zeros":   {sign(keyset.RS256, func(string, [32]byte) []byte { return make([]byte, 256) }), "bad_signature"},
		"RSA, a zero less": {sign(keyset.RS256, func(string, [32]byte) []byte { return make([]byte, 255) }), "bad_signature"},
		"HMAC cut short": {sign(keyset.HS256, func(string, [32]byte) []byte {
			_, sig := cutSignature(t, signers[keyset.HS256].good(t))
			return sig[:16]
		}), "bad_signature"},
		"EdDSA, all zeros": {sign(keyset.EdDSA, func(string, [32]byte) []byte { return make([]byte, 64) }), "bad_signature"},
		"EdDSA with a byte more": {sign(keyset.EdDSA, func(input string, _ [32]byte) []byte {
			return append(ed25519.Sign(signers[keyset.EdDSA].priv.(ed25519.PrivateKey), []byte(input)), 0)
		}), "bad_signature"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(tc.raw, set, orders, now)
			wantReason(t, err, tc.want)
		})
	}
}

// V05, V24: HS* signed with something that is public.
func TestPublicKeyIsNoSecret(t *testing.T) {
	signers, set := everySigner(t)
	for _, alg := range []keyset.Algorithm{keyset.RS256, keyset.ES256, keyset.EdDSA} {
		pub := signers[alg].key.Public
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := keyset.DocumentOf([]*keyset.Key{signers[alg].key})
		if err != nil {
			t.Fatal(err)
		}
		jwk, err := json.Marshal(doc.Keys[0])
		if err != nil {
			t.Fatal(err)
		}
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		for name, secret := range map[string][]byte{
			"PEM": block, "PEM without its last newline": block[:len(block)-1], "PEM after a space": append([]byte(" "), block...),
			"DER": der, "JWK": jwk, "n": []byte(doc.Keys[0].N), "x": []byte(doc.Keys[0].X), "nothing": {}, "a common word": []byte("secret"),
		} {
			t.Run(string(alg)+" "+name, func(t *testing.T) {
				forger := newSigner(keyset.HS256)
				forger.priv = secret
				for _, claimed := range []string{"HS256", string(alg)} {
					_, err := token.Verify(forger.mint(t, `{"alg":"`+claimed+`","kid":"k-`+string(alg)+`"}`, goodClaims), set, orders, now)
					want := "algorithm_mismatch"
					if claimed != "HS256" {
						want = "bad_signature"
					}
					wantReason(t, err, want)
				}
				_, err := token.Verify(forger.good(t), set, orders, now)
				wantReason(t, err, "bad_signature")
			})
		}
	}
}

// A key that no Set would take is refused by Parse as well.
func TestKeysThatMustNotBeUsed(t *testing.T) {
	es := newSigner(keyset.ES256)
	hs := newSigner(keyset.HS256)
	//nolint:staticcheck // the functions that take the place of X and Y refuse such points
	offCurve := &ecdsa.PublicKey{Curve: keyset.ES256.Curve(), X: big.NewInt(1), Y: big.NewInt(1)}
	small := new(big.Int).Lsh(big.NewInt(1), 1023)
	tests := map[string]struct {
		signer signer
		public crypto.PublicKey
		alg    keyset.Algorithm
	}{
		"RSA of 1024 bits":               {newSigner(keyset.RS256), &rsa.PublicKey{N: small.SetBit(small, 0, 1), E: 65537}, keyset.RS256},
		"a secret shorter than the hash": {hs, []byte("short"), keyset.HS256},
		"no secret":                      {hs, []byte{}, keyset.HS256},
		"a secret for ES256":             {es, []byte(strings.Repeat("x", 64)), keyset.ES256},
		"an EC key of another curve":     {es, newSigner(keyset.ES384).key.Public, keyset.ES256},
		"an EC key for HS256":            {hs, es.key.Public, keyset.HS256},
		"no key at all":                  {es, nil, keyset.ES256},
		"an algorithm that nobody knows": {es, es.key.Public, "none"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			key := &keyset.Key{ID: "k", Algorithm: tc.alg, Public: tc.public, MaxTokenTTL: ttl}
			raw := tc.signer.mint(t, `{"alg":"`+string(tc.alg)+`","kid":"k"}`, goodClaims)
			_, err := token.Parse(raw, func(string) (*keyset.Key, error) { return key, nil })
			wantReason(t, err, "unusable_key")
		})
	}
	t.Run("a point that is not on its curve", func(t *testing.T) {
		key := *es.key
		key.Public = offCurve
		_, err := token.Parse(es.good(t), func(string) (*keyset.Key, error) { return &key, nil })
		wantReason(t, err, "bad_signature")
	})
}

// V26: one kid, two issuers.
func TestKeysBelongToTheirIssuer(t *testing.T) {
	a, b := newSigner(keyset.ES256), newSigner(keyset.ES384)
	keyA := *a.key
	keyA.ID, keyA.Issuer = "same", "https://a.example"
	keyB := *b.key
	keyB.ID, keyB.Issuer = "same", "https://b.example"
	claims := `{"iss":"https://a.example","sub":"u","exp":1800000600}`
	fromA := a.mint(t, `{"alg":"ES256","kid":"same"}`, claims)
	fromB := b.mint(t, `{"alg":"ES384","kid":"same"}`, claims)
	for name, tc := range map[string]struct {
		raw  string
		key  *keyset.Key
		want string
	}{
		"a's token and a's key":                       {fromA, &keyA, ""},
		"a's token and b's key":                       {fromA, &keyB, "algorithm_mismatch"},
		"a token that b signed in a's name, a's key":  {fromB, &keyA, "algorithm_mismatch"},
		"a token that b signed in a's name, b's key":  {fromB, &keyB, "wrong_issuer"},
		"a key without an issuer does not look at it": {fromB, &keyset.Key{ID: "same", Algorithm: keyset.ES384, Public: b.key.Public, MaxTokenTTL: ttl}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(tc.raw, newSet(t, tc.key), token.Expected{}, now)
			wantReason(t, err, tc.want)
		})
	}
}

func TestKeyIsValidUntilItsTime(t *testing.T) {
	s := newSigner(keyset.ES256)
	for name, tc := range map[string]struct {
		until time.Time
		want  string
	}{
		"no end yet":          {time.Time{}, ""},
		"just before the end": {now.Add(time.Nanosecond), ""},
		"at the end":          {now, "key_retired"},
		"after the end":       {now.Add(-time.Hour), "key_retired"},
	} {
		t.Run(name, func(t *testing.T) {
			key := *s.key
			key.VerifyUntil = tc.until
			_, err := token.Verify(s.good(t), newSet(t, &key), orders, now)
			wantReason(t, err, tc.want)
		})
	}
}

func TestTokenWithoutAKeyID(t *testing.T) {
	imported, other := newSigner(keyset.ES256), newSigner(keyset.ES384)
	flagged := func(s signer, change func(*keyset.Key)) *keyset.Key {
		key := *s.key
		key.WithoutKeyID = true
		if change != nil {
			change(&key)
		}
		return &key
	}
	const bare = `{"alg":"ES256"}`
	good, named := imported.mint(t, bare, goodClaims), imported.good(t)
	for name, tc := range map[string]struct {
		raw  string
		keys []*keyset.Key
		want string
	}{
		"no key is for such tokens":      {good, []*keyset.Key{imported.key, other.key}, "missing_key_id"},
		"there are no keys":              {good, nil, "missing_key_id"},
		"one key is":                     {good, []*keyset.Key{flagged(imported, nil), other.key}, ""},
		"one key is, and it has its kid": {named, []*keyset.Key{flagged(imported, nil), other.key}, ""},
		"two keys are":                   {good, []*keyset.Key{flagged(imported, nil), flagged(other, nil)}, "unknown_key"},
		"another key is":                 {good, []*keyset.Key{imported.key, flagged(other, nil)}, "algorithm_mismatch"},
		"another key of its kind is": {good, []*keyset.Key{imported.key, flagged(newSigner(keyset.EdDSA), func(k *keyset.Key) {
			k.Algorithm, k.Public = keyset.ES256, freshKey(t)
		})}, "bad_signature"},
		"kid null":                     {imported.mint(t, `{"alg":"ES256","kid":null}`, goodClaims), []*keyset.Key{flagged(imported, nil)}, "malformed"},
		"kid empty":                    {imported.mint(t, `{"alg":"ES256","kid":""}`, goodClaims), []*keyset.Key{flagged(imported, nil)}, "malformed"},
		"kid false":                    {imported.mint(t, `{"alg":"ES256","kid":false}`, goodClaims), []*keyset.Key{flagged(imported, nil)}, "malformed"},
		"a kid that there is not":      {imported.mint(t, `{"alg":"ES256","kid":"x"}`, goodClaims), []*keyset.Key{flagged(imported, nil)}, "unknown_key"},
		"KID in capitals is no kid":    {imported.mint(t, `{"alg":"ES256","KID":"x"}`, goodClaims), []*keyset.Key{flagged(imported, nil)}, ""},
		"alg none":                     {imported.mint(t, `{"alg":"none"}`, goodClaims), []*keyset.Key{flagged(imported, nil)}, "algorithm_mismatch"},
		"signed by another":            {other.mint(t, bare, goodClaims), []*keyset.Key{flagged(imported, nil)}, "bad_signature"},
		"expired":                      {imported.mint(t, bare, `{"exp":1}`), []*keyset.Key{flagged(imported, nil)}, "expired"},
		"the key's time is over":       {good, []*keyset.Key{flagged(imported, func(k *keyset.Key) { k.VerifyUntil = now })}, "key_retired"},
		"the key is of another issuer": {good, []*keyset.Key{flagged(imported, func(k *keyset.Key) { k.Issuer = "https://x" })}, "wrong_issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := token.Verify(tc.raw, newSet(t, tc.keys...), orders, now)
			wantReason(t, err, tc.want)
			if err == nil && (tok.Key != tc.keys[0] || tok.WithoutKeyID == (tc.raw == named)) {
				t.Errorf("key %s, without a key ID: %t", tok.Key.ID, tok.WithoutKeyID)
			}
		})
	}
}

// freshKey is a public key of which nobody has the private half.
func freshKey(t *testing.T) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(keyset.ES256.Curve(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

// The first fault in the order of the package's doc is the one reported.
func TestOrderOfFaults(t *testing.T) {
	s, other := newSigner(keyset.ES256), newSigner(keyset.ES256)
	key, err := ecdsa.GenerateKey(keyset.ES256.Curve(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other.priv = key
	retired := *s.key
	retired.VerifyUntil = now
	for name, tc := range map[string]struct {
		raw  string
		key  *keyset.Key
		want string
	}{
		"expired and badly signed":             {other.mint(t, s.header(), `{"exp":1}`), s.key, "bad_signature"},
		"no claims set and badly signed":       {other.mint(t, s.header(), `nonsense`), s.key, "bad_signature"},
		"a bad claim and badly signed":         {other.mint(t, s.header(), `{"exp":"x"}`), s.key, "bad_signature"},
		"a retired key and badly signed":       {other.mint(t, s.header(), goodClaims), &retired, "bad_signature"},
		"a retired key and expired":            {s.mint(t, s.header(), `{"exp":1}`), &retired, "key_retired"},
		"another algorithm and badly signed":   {other.mint(t, `{"alg":"ES384","kid":"k-ES256"}`, `{"exp":1}`), s.key, "algorithm_mismatch"},
		"an unknown key and badly signed":      {other.mint(t, `{"alg":"ES256","kid":"x"}`, `{"exp":1}`), s.key, "unknown_key"},
		"expired, and from nobody, for nobody": {s.mint(t, s.header(), `{"exp":1}`), s.key, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(tc.raw, newSet(t, tc.key), orders, now)
			wantReason(t, err, tc.want)
		})
	}
}

func TestLookupDecides(t *testing.T) {
	s := newSigner(keyset.ES256)
	broken := errors.New("lookup is broken")
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"unknown":       {fmt.Errorf("%w: x", token.ErrUnknownKey), "unknown_key"},
		"retired":       {token.ErrKeyRetired, "key_retired"},
		"unusable":      {keyset.ErrUnusableKey, "unusable_key"},
		"anything else": {broken, "internal"},
		"no key":        {nil, "unknown_key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.Parse(s.good(t), func(kid string) (*keyset.Key, error) {
				if kid != s.key.ID {
					t.Errorf("asked for kid %q", kid)
				}
				return nil, tc.err
			})
			wantReason(t, err, tc.want)
			if tc.err != nil && !errors.Is(err, tc.err) {
				t.Errorf("%v does not wrap %v", err, tc.err)
			}
		})
	}
	if _, err := token.Verify(s.good(t), nil, orders, now); token.Reason(err) != "unknown_key" {
		t.Errorf("without a set: %v", err)
	}
}

// V28, H07: errors go to logs.
func TestErrorsHoldNoTokenAndNoRawText(t *testing.T) {
	s := newSigner(keyset.ES256)
	set := newSet(t, s.key)
	nasty := "\u001b[31m\r\nlevel=info msg=\"allowed\"" + strings.Repeat("A", 3000)
	quoted, err := json.Marshal(nasty)
	if err != nil {
		t.Fatal(err)
	}
	q := string(quoted)
	good := s.good(t)
	for name, raw := range map[string]string{
		"kid":               s.mint(t, `{"alg":"ES256","kid":`+q+`}`, goodClaims),
		"alg":               s.mint(t, `{"alg":`+q+`,"kid":"k-ES256"}`, goodClaims),
		"typ":               s.mint(t, `{"alg":"ES256","kid":"k-ES256","typ":`+q+`}`, goodClaims),
		"iss":               s.mint(t, s.header(), `{"exp":1800000600,"iss":`+q+`}`),
		"aud":               s.mint(t, s.header(), `{"exp":1800000600,"iss":"`+issuer+`","aud":`+q+`}`),
		"sub twice":         s.mint(t, s.header(), `{"exp":1800000600,`+q+`:1,`+q+`:1}`),
		"not JSON":          s.mint(t, s.header(), nasty),
		"a token, damaged":  good[:len(good)-8] + "AAAAAAAA",
		"a token, cut":      good[:len(good)-8],
		"a token, extended": good + "." + good,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(raw, set, orders, now)
			if err == nil {
				t.Fatal("passed")
			}
			text := err.Error()
			if len(text) > 400 {
				t.Errorf("an error of %d bytes", len(text))
			}
			if strings.ContainsAny(text, "\r\n\x1b") {
				t.Errorf("error holds raw text: %q", text)
			}
			for _, segment := range strings.Split(raw, ".") {
				if len(segment) >= 16 && strings.Contains(text, segment[:16]) {
					t.Errorf("error holds a part of the token: %q", text)
				}
			}
		})
	}
}

func TestReasonsAreDistinctAndStable(t *testing.T) {
	for want, err := range map[string]error{
		"malformed": token.ErrMalformed, "too_large": token.ErrTooLarge, "unsupported_header": token.ErrUnsupportedHeader,
		"wrong_type": token.ErrWrongType, "missing_key_id": token.ErrMissingKeyID, "unknown_key": token.ErrUnknownKey,
		"key_retired": token.ErrKeyRetired, "unusable_key": token.ErrUnusableKey, "algorithm_mismatch": token.ErrAlgorithmMismatch,
		"bad_signature": token.ErrBadSignature, "bad_claim": token.ErrBadClaim, "missing_claim": token.ErrMissingClaim,
		"expired": token.ErrExpired, "not_yet_valid": token.ErrNotYetValid, "issued_in_future": token.ErrIssuedInFuture,
		"lives_too_long": token.ErrLivesTooLong, "wrong_issuer": token.ErrWrongIssuer, "wrong_audience": token.ErrWrongAudience,
		"": nil, "internal": errors.New("other"),
	} {
		if got := token.Reason(err); got != want {
			t.Errorf("Reason(%v) = %q, want %q", err, got, want)
		}
		if err != nil && !errors.Is(fmt.Errorf("more: %w", err), err) {
			t.Errorf("%v is not itself", err)
		}
	}
}

// V22: each character changed in each of its bits, and each removed.
func TestTamperedTokensAreRefused(t *testing.T) {
	signers, set := everySigner(t)
	for _, alg := range keyset.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			good := signers[alg].good(t)
			step := 1
			if alg == keyset.ES384 || alg == keyset.ES512 { // a check takes about a millisecond
				step = 17
			}
			try := func(raw, how string, at int) {
				if _, err := token.Verify(raw, set, orders, now); err == nil {
					t.Errorf("passed with character %d %s", at, how)
				}
			}
			for i := 0; i < len(good); i += step {
				for bit := range 8 {
					try(good[:i]+string([]byte{good[i] ^ 1<<bit})+good[i+1:], fmt.Sprintf("changed in bit %d", bit), i)
				}
				try(good[:i]+good[i+1:], "removed", i)
				try(good[:i]+good[i:i+1]+good[i:], "doubled", i)
			}
		})
	}
}
