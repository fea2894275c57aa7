package token_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keywright/keywright/webhook/token"
)

func TestNoClaimsHaveNothing(t *testing.T) {
	for name, claims := range map[string]*token.Claims{"none were read": {}, "an empty object": decoded(t, `{}`)} {
		t.Run(name, func(t *testing.T) {
			if v, ok := claims.Lookup("a.b"); ok || v.Kind() != token.Null {
				t.Errorf("got %v", v.Any())
			}
			if m := claims.Map(); len(m) != 0 {
				t.Errorf("got %v", m)
			}
		})
	}
}

// What a value is not, it has nothing of.
func TestValuesOfOtherKinds(t *testing.T) {
	claims := decoded(t, `{"text":"7","integer":7,"float":7.5,"true":true,"null":null,"array":["7"],"object":{"a":"7"}}`)
	for name := range claims.Map() {
		v, _ := claims.Member(name)
		n := 0
		for range v.Elements() {
			n++
		}
		if (v.Text() != "") != (name == "text") || (v.Integer() != 0) != (name == "integer") || (v.Float() != 0) != (name == "float") ||
			v.IsTrue() != (name == "true") || (n != 0) != (name == "array") {
			t.Errorf("%s: text %q, integer %d, float %g, true %t, %d elements", name, v.Text(), v.Integer(), v.Float(), v.IsTrue(), n)
		}
	}
}

// Names are compared with each other as long as they are few.
func TestAMemberThatComesTwiceIsFoundAmongMany(t *testing.T) {
	for _, n := range []int{1, 2, 15, 16, 17, 18, 100} {
		for twice := range n {
			var text strings.Builder
			for i := range n {
				fmt.Fprintf(&text, `"m%d":{"m%d":0},`, i, i)
			}
			once, again := "{"+strings.TrimSuffix(text.String(), ",")+"}", fmt.Sprintf(`{%s"m\u0025d":0,"\u006d%d":1}`, text.String(), twice)
			decoded(t, once)
			if _, err := token.DecodeClaims(again); err == nil {
				t.Fatalf("took %s", again)
			}
		}
	}
}

func decoded(t *testing.T, text string) *token.Claims {
	t.Helper()
	claims, err := token.DecodeClaims(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return claims
}

// Places in a text are of 16 bits, those of what is unescaped among them.
func TestTextsHavePlaces(t *testing.T) {
	const most = 1<<15 - 1
	long := `{"a":"` + strings.Repeat("x", most-20) + `","b":"`
	text := long + strings.Repeat("y", most-len(long)-4) + `\n"}`
	claims := decoded(t, text)
	for name, want := range map[string]string{"a": strings.Repeat("x", most-20), "b": strings.Repeat("y", most-len(long)-4) + "\n"} {
		if v, _ := claims.Member(name); v.Text() != want {
			t.Errorf("%s is %d bytes: %.20q…", name, len(v.Text()), v.Text())
		}
	}
	escaped := `{"a":"` + strings.Repeat("x", most-10) + `\n"}`
	if v, _ := decoded(t, escaped).Member("a"); v.Text() != strings.Repeat("x", most-10)+"\n" {
		t.Errorf("a is %d bytes: %.20q…", len(v.Text()), v.Text())
	}
	if _, err := token.DecodeClaims(text + " "); err == nil {
		t.Error("took one byte more")
	}
}

func TestTableBytes(t *testing.T) {
	if token.ValueBytes[0] != token.ValueBytes[1] {
		t.Errorf("a value has %d bytes, not %d", token.ValueBytes[0], token.ValueBytes[1])
	}
	if got := decoded(t, `{"a":[`+strings.Repeat("{},", 999)+`{}]}`).TableBytes(); got < 16*1002 || got > 2*16*1002 {
		t.Errorf("got %d", got)
	}
}
