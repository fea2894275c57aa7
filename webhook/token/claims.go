package token

import "strings"

// Claims are verified claims, to be read only. A number written as an integer
// that fits is an int64, any other a float64, which may not hold all its
// digits; the rest is string, bool, nil, []any and map[string]any.
type Claims map[string]any

// Lookup finds a claim by its path: a member of the whole name (names that are
// URLs have dots), else the members named between the dots, one inside the
// other. The whole of what is left is tried first at each step.
func (c Claims) Lookup(path string) (any, bool) {
	for {
		if v, ok := c[path]; ok {
			return v, true
		}
		name, rest, found := strings.Cut(path, ".")
		if !found {
			return nil, false
		}
		inner, ok := c[name].(map[string]any)
		if !ok {
			return nil, false
		}
		c, path = inner, rest
	}
}

// has says whether the claim is there and neither null nor empty. Blank text
// counts as empty: as the value of a header it would be.
func (c Claims) has(path string) bool {
	v, ok := c.Lookup(path)
	if !ok {
		return false
	}
	switch v := v.(type) {
	case nil:
		return false
	case string:
		return strings.TrimSpace(v) != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}
