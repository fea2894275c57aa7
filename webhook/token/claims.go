package token

import (
	"iter"
	"math"
	"strings"
)

// Claims are verified claims, to be read only: the members of one JSON object.
//
// They are a text and a table of places in it, which is next to nothing for the
// garbage collector to follow: a gate remembers 100,000 tokens.
type Claims struct {
	// text is what the claims were read from. Behind it are the texts that
	// have escapes, without them.
	text string
	// values in the order of the text: the object, then what is in it, each
	// value followed by what is in that.
	values []value
}

// value is one value.
type value struct {
	kind Kind
	// next is the place in Claims.values behind all that is in the value.
	next uint16
	// name is a member's, in Claims.text.
	name span
	// bits are an Integer's or a Float's, 1 for true, or the span of a Text.
	bits uint64
}

// valueBytes is how large a value is.
const valueBytes = 16

// span is a part of Claims.text.
type span struct{ from, to uint16 }

func (s span) bits() uint64 { return uint64(s.from)<<16 | uint64(s.to) }

// text is that of a Text.
func (v *value) text() span { return span{uint16(v.bits >> 16), uint16(v.bits)} } //nolint:gosec // see bits

// Kind is a kind of value.
type Kind uint8

// The kinds. A number written as an integer that fits is an Integer, any other
// a Float, which may not hold all its digits.
const (
	Null Kind = iota
	Bool
	Integer
	Float
	Text
	Array
	Object
)

// DecodeClaims reads claims from JSON of less than 32 KiB, of which no token has
// more than MaxBytes.
func DecodeClaims(text string) (*Claims, error) {
	c := &Claims{}
	return c, c.decode(text, maxClaimValues)
}

// Member finds a claim by its name.
func (c *Claims) Member(name string) (Value, bool) { return c.root().member(name) }

// Lookup finds a claim by its path: a member of the whole name (names that are
// URLs have dots), else the members named between the dots, one inside the
// other. The whole of what is left is tried first at each step.
func (c *Claims) Lookup(path string) (Value, bool) {
	within := c.root()
	for {
		if v, ok := within.member(path); ok {
			return v, true
		}
		name, rest, found := strings.Cut(path, ".")
		if !found {
			return Value{}, false
		}
		within, _ = within.member(name) // null has no members
		path = rest
	}
}

// Map makes a map of the claims: an Integer is an int64 and a Float a float64;
// the rest is string, bool, nil, []any and map[string]any. It may take twenty
// times as much memory as text.
func (c *Claims) Map() map[string]any { return c.root().object() }

// TableBytes is how much memory the table takes, which the length of the text
// says little about.
func (c *Claims) TableBytes() int { return cap(c.values) * valueBytes }

func (c *Claims) textOf(s span) string { return c.text[s.from:s.to] }

// root is the object, or null where there are no claims.
func (c *Claims) root() Value {
	if len(c.values) == 0 {
		return Value{}
	}
	return Value{c, 0}
}

// has says whether the claim is there and neither null nor empty. Blank text
// counts as empty: as the value of a header it would be.
func (c *Claims) has(path string) bool {
	v, ok := c.Lookup(path)
	if !ok {
		return false
	}
	switch v.Kind() {
	case Null:
		return false
	case Text:
		return strings.TrimSpace(v.Text()) != ""
	case Array, Object:
		return !v.isEmpty()
	}
	return true
}

// Value is one of the values of Claims, or null.
type Value struct {
	of *Claims
	at int
}

// Kind says what it is.
func (v Value) Kind() Kind {
	if v.of == nil {
		return Null
	}
	return v.of.values[v.at].kind
}

// Text is that of a Text; empty for all others.
func (v Value) Text() string {
	if v.Kind() != Text {
		return ""
	}
	return v.of.textOf(v.of.values[v.at].text())
}

// IsTrue says whether it is the Bool true.
func (v Value) IsTrue() bool { return v.Kind() == Bool && v.of.values[v.at].bits == 1 }

// Integer is the number of an Integer; 0 for all others.
func (v Value) Integer() int64 {
	if v.Kind() != Integer {
		return 0
	}
	return int64(v.of.values[v.at].bits) //nolint:gosec // the same bits
}

// Float is the number of a Float; 0 for all others.
func (v Value) Float() float64 {
	if v.Kind() != Float {
		return 0
	}
	return math.Float64frombits(v.of.values[v.at].bits)
}

// Elements are those of an Array; none for all others.
func (v Value) Elements() iter.Seq[Value] { return v.within(Array) }

// within goes through the elements or the members of a value of a kind.
func (v Value) within(kind Kind) iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != kind {
			return
		}
		for one := (Value{v.of, v.at + 1}); one.at < v.next(); one.at = one.next() {
			if !yield(one) {
				return
			}
		}
	}
}

// next is the place behind all that is in the value.
func (v Value) next() int { return int(v.of.values[v.at].next) }

func (v Value) isEmpty() bool { return v.next() == v.at+1 }

func (v Value) name() string {
	return v.of.textOf(v.of.values[v.at].name)
}

// member finds a member of an Object.
func (v Value) member(name string) (Value, bool) {
	for one := range v.within(Object) {
		if one.name() == name {
			return one, true
		}
	}
	return Value{}, false
}

// any is the value as in Claims.Map.
func (v Value) any() any {
	switch v.Kind() {
	case Bool:
		return v.IsTrue()
	case Integer:
		return v.Integer()
	case Float:
		return v.Float()
	case Text:
		return v.Text()
	case Array:
		elements := []any{}
		for one := range v.Elements() {
			elements = append(elements, one.any())
		}
		return elements
	case Object:
		return v.object()
	}
	return nil
}

func (v Value) object() map[string]any {
	members := map[string]any{}
	for one := range v.within(Object) {
		members[one.name()] = one.any()
	}
	return members
}
