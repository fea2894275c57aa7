package policy

import (
	"math"
	"strconv"
	"strings"

	"github.com/keywright/keywright/webhook/token"
)

// hasScope says whether the token has a scope: in scope, one text separated
// by spaces (RFC 9068 section 2.2.3), or in scp, a list of texts or one text.
// scope as a list is no scope: no specification gives it a meaning.
func hasScope(claims *token.Claims, want string) bool {
	if granted, _ := claims.Member("scope"); listsScope(granted.Text(), want) {
		return true
	}
	granted, _ := claims.Member("scp")
	if listsScope(granted.Text(), want) {
		return true
	}
	for one := range granted.Elements() {
		if one.Kind() == token.Text && one.Text() == want {
			return true
		}
	}
	return false
}

func listsScope(granted, want string) bool {
	for granted != "" {
		var one string
		one, granted, _ = strings.Cut(granted, " ")
		if one == want {
			return true
		}
	}
	return false
}

// claimTest is a compiled ClaimRequirement.
type claimTest struct {
	path string
	kind claimKind
	want []string
}

type claimKind int

const (
	claimEquals claimKind = iota
	claimAnyOf
	claimAllOf
)

func (t *claimTest) fits(claims *token.Claims) bool {
	value, ok := claims.Lookup(t.path)
	if !ok {
		return false
	}
	isList := value.Kind() == token.Array
	switch t.kind {
	case claimEquals:
		return isText(value, t.want[0])
	case claimAnyOf:
		for _, want := range t.want {
			if isList && contains(value, want) || !isList && isText(value, want) {
				return true
			}
		}
		return false
	case claimAllOf:
		for _, want := range t.want {
			if !isList || !contains(value, want) {
				return false
			}
		}
		return true
	}
	return false
}

func contains(list token.Value, want string) bool {
	for one := range list.Elements() {
		if isText(one, want) {
			return true
		}
	}
	return false
}

// isText says whether a claim's value reads as want, which is text a policy
// wrote. See appendText.
func isText(value token.Value, want string) bool {
	if value.Kind() == token.Text {
		return value.Text() == want
	}
	var buf [32]byte
	text, ok := appendText(buf[:0], value)
	return ok && string(text) == want
}

// appendText writes a scalar as policies and headers spell it: a text as it
// is, true or false, and a number in decimal, as short as it can be without
// an exponent (42, -7, 4.5). ok is false for all that has no one spelling:
// null, lists, objects, and whole numbers of 2^53 and more that came as a
// float, because two of them may have become one.
func appendText(dst []byte, value token.Value) (_ []byte, ok bool) {
	switch value.Kind() {
	case token.Text:
		return append(dst, value.Text()...), true
	case token.Bool:
		return strconv.AppendBool(dst, value.IsTrue()), true
	case token.Integer:
		return strconv.AppendInt(dst, value.Integer(), 10), true
	case token.Float:
		v := value.Float()
		if math.Abs(v) >= 1<<53 {
			return dst, false
		}
		if v == 0 {
			v = 0 // not -0
		}
		return strconv.AppendFloat(dst, v, 'f', -1, 64), true
	}
	return dst, false
}
