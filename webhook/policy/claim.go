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
func hasScope(claims token.Claims, want string) bool {
	if granted, ok := claims["scope"].(string); ok && listsScope(granted, want) {
		return true
	}
	switch granted := claims["scp"].(type) {
	case string:
		return listsScope(granted, want)
	case []any:
		for _, one := range granted {
			if s, ok := one.(string); ok && s == want {
				return true
			}
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

func (t *claimTest) fits(claims token.Claims) bool {
	value, ok := claims.Lookup(t.path)
	if !ok {
		return false
	}
	list, isList := value.([]any)
	switch t.kind {
	case claimEquals:
		return isText(value, t.want[0])
	case claimAnyOf:
		for _, want := range t.want {
			if isList && contains(list, want) || !isList && isText(value, want) {
				return true
			}
		}
		return false
	case claimAllOf:
		for _, want := range t.want {
			if !isList || !contains(list, want) {
				return false
			}
		}
		return true
	}
	return false
}

func contains(list []any, want string) bool {
	for _, one := range list {
		if isText(one, want) {
			return true
		}
	}
	return false
}

// isText says whether a claim's value reads as want, which is text a policy
// wrote. See appendText.
func isText(value any, want string) bool {
	if s, ok := value.(string); ok {
		return s == want
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
func appendText(dst []byte, value any) (_ []byte, ok bool) {
	switch v := value.(type) {
	case string:
		return append(dst, v...), true
	case bool:
		return strconv.AppendBool(dst, v), true
	case int64:
		return strconv.AppendInt(dst, v, 10), true
	case float64:
		if math.IsNaN(v) || math.Abs(v) >= 1<<53 {
			return dst, false
		}
		if v == 0 {
			v = 0 // not -0
		}
		return strconv.AppendFloat(dst, v, 'f', -1, 64), true
	}
	return dst, false
}
