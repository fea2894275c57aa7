package token_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

// FuzzDecodeObject compares the decoder with encoding/json: it takes nothing
// that encoding/json does not, reads it the same, and refuses more only where
// it means to.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		goodClaims, `{}`, ` { } `, `{"a":[]}`, `{"a":{"b":[1,-2.5e-3,true,false,null,"x"]}}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`,
		`{"a":"\ud83d\ude00\u0000\/\b"}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":1e400}`, `{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":-0}`,
		`{"a":9223372036854775807,"b":9223372036854775808,"c":-9223372036854775808}`, `[1]`, `null`, "{\"a\":1}\x00", `{"a":tru}`, `{"a" :1 ,"b": 2}`,
		`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, `{"a":1e5,"b":1E+5,"c":1.0}`, "{\"a\":\"\u2028\x7f\"}", "\ufeff{}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := token.DecodeObject(text)
		var want map[string]any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		valid := json.Valid([]byte(text)) && d.Decode(&want) == nil && want != nil
		switch {
		case err == nil && !valid:
			t.Fatalf("took %q, which is not a JSON object", text)
		case err != nil && valid && !token.NotUnambiguous(err):
			t.Fatalf("refused %q: %v", text, err)
		case err == nil && !reflect.DeepEqual(got, numbers(t, want)):
			t.Fatalf("read %q as %v, want %v", text, got, want)
		}
	})
}

// numbers gives json.Numbers the types of Claims.
func numbers(t *testing.T, v any) any {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			if n, err := v.Int64(); err == nil {
				return n
			}
		}
		n, err := v.Float64()
		if err != nil {
			t.Fatalf("took the number %s", v)
		}
		return n
	case []any:
		for i := range v {
			v[i] = numbers(t, v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(t, v[k])
		}
	}
	return v
}

// A claim set of some kilobytes must not hold hundreds of them in memory.
func TestATokenHasOnlySoManyValues(t *testing.T) {
	s := newSigner(keyset.ES256)
	set := newSet(t, s.key)
	list := func(n int, value string) string { return "[" + strings.Repeat(value+",", n-1) + value + "]" }
	claims := func(more string) string { return strings.TrimSuffix(goodClaims, "}") + `,"x":` + more + "}" }
	header := func(more string) string { return strings.TrimSuffix(s.header(), "}") + `,"x":` + more + "}" }
	for name, tc := range map[string]struct{ header, claims, want string }{
		"many values":           {header(list(50, "1")), claims(list(1000, "{}")), ""},
		"claims, too many":      {s.header(), claims(list(1024, "1")), "malformed"},
		"claims, empty objects": {s.header(), claims(list(1800, "{}")), "malformed"},
		"claims, nested":        {s.header(), claims(list(520, `{"":0}`)), "malformed"},
		"header, too many":      {header(list(64, "1")), goodClaims, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.Verify(s.mint(t, tc.header, tc.claims), set, orders, now)
			wantReason(t, err, tc.want)
		})
	}
}

// FuzzParse: no input panics, and none passes but what was signed.
func FuzzParse(f *testing.F) {
	signers, set := everySigner(f)
	signed := map[string]bool{} // what each good token's signature covers
	for _, s := range signers {
		good := s.good(f)
		signed[good[:strings.LastIndexByte(good, '.')]] = true
		f.Add(good)
	}
	for _, v := range rfcVectors(f) {
		f.Add(v.raw)
	}
	f.Add("..")
	f.Add(b64(`{"alg":"none","kid":"k-ES256"}`) + "." + b64(goodClaims) + ".")
	f.Fuzz(func(t *testing.T, raw string) {
		_, err := token.Verify(raw, set, orders, now)
		if err != nil {
			if token.Reason(err) == "internal" {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if !signed[raw[:strings.LastIndexByte(raw, '.')]] {
			t.Fatalf("%q passed, which nobody signed", raw)
		}
	})
}
