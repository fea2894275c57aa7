package token

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding/json cannot be told to refuse what two parsers may read in two ways:
// members that come twice, invalid UTF-8, lone surrogates. So JSON is read here,
// in one pass, into the table of Claims.

// maxDepth is how deep arrays and objects may be nested.
const maxDepth = 32

// How many values a token may have, at any depth: [{},{},…] takes five times
// as much memory as text, and verified claims are remembered.
const (
	maxHeaderValues = 64
	maxClaimValues  = 1024
)

var (
	errNotJSON      = errors.New("not a JSON object")
	errTwice        = errors.New("a member that comes twice")
	errNotUTF8      = errors.New("text that is not Unicode")
	errTooDeep      = errors.New("nested too deeply")
	errTooMany      = errors.New("too many values")
	errTooLong      = errors.New("too long a text")
	errNumberTooBig = errors.New("a number that is out of range")
)

// maxTextBytes leaves room for as much again that is unescaped among the places
// that a uint16 can name.
const maxTextBytes = 1<<15 - 1

// decode reads a text that is one JSON object (RFC 8259) with at most so many
// values in it.
func (c *Claims) decode(text string, most int) error {
	if len(text) > maxTextBytes {
		return errTooLong
	}
	const usual = 12
	d := decoder{in: text, left: most, values: make([]value, 0, usual)}
	if d.space() != '{' {
		return errNotJSON
	}
	if err := d.object(1, span{}); err != nil {
		return err
	}
	d.space()
	if d.at != len(d.in) {
		return errNotJSON
	}
	if len(d.unescaped) > 0 {
		text += string(d.unescaped)
	}
	c.text, c.values = text, d.values
	return nil
}

type decoder struct {
	in string
	at int
	// left is how many more values there may be.
	left   int
	values []value
	// unescaped are the texts that have escapes, without them. They come
	// behind in, and are shorter than what they come from.
	unescaped []byte
}

// space skips white space and gives the byte after it, 0 at the end. A NUL
// byte is the start of nothing in JSON, so the two are not mixed up.
func (d *decoder) space() byte {
	for ; d.at < len(d.in); d.at++ {
		switch c := d.in[d.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// value reads one value, the member name of an object or, without a name, an
// element.
func (d *decoder) value(depth int, name span) error {
	if d.left == 0 {
		return errTooMany
	}
	d.left--
	switch c := d.space(); {
	case c == '"':
		text, err := d.string()
		if err != nil {
			return err
		}
		d.add(value{kind: Text, name: name, bits: text.bits()})
	case c == '{' || c == '[':
		if depth == maxDepth {
			return errTooDeep
		}
		if c == '{' {
			return d.object(depth+1, name)
		}
		return d.array(depth+1, name)
	case c == '-' || '0' <= c && c <= '9':
		return d.number(name)
	case d.word("true"):
		d.add(value{kind: Bool, name: name, bits: 1})
	case d.word("false"):
		d.add(value{kind: Bool, name: name})
	case d.word("null"):
		d.add(value{kind: Null, name: name})
	default:
		return errNotJSON
	}
	return nil
}

// add appends a value that has nothing in it so far, and gives its place.
func (d *decoder) add(v value) int {
	at := len(d.values)
	d.values = append(d.values, v)
	d.end(at)
	return at
}

// end says that all that is in the value at a place has been read.
func (d *decoder) end(at int) { d.values[at].next = uint16(len(d.values)) } //nolint:gosec // at most maxClaimValues and one

func (d *decoder) word(w string) bool {
	if !strings.HasPrefix(d.in[d.at:], w) {
		return false
	}
	d.at += len(w)
	return true
}

// object reads from '{' on.
func (d *decoder) object(depth int, name span) error {
	at := d.add(value{kind: Object, name: name})
	defer d.end(at)
	d.at++
	if d.space() == '}' {
		d.at++
		return nil
	}
	members := members{of: d, object: at}
	for {
		if d.space() != '"' {
			return errNotJSON
		}
		name, err := d.string()
		if err != nil {
			return err
		}
		if !members.isNew(name) {
			return errTwice
		}
		if d.space() != ':' {
			return errNotJSON
		}
		d.at++
		if err := d.value(depth, name); err != nil {
			return err
		}
		switch d.space() {
		case ',':
			d.at++
		case '}':
			d.at++
			return nil
		default:
			return errNotJSON
		}
	}
}

// members are the names of an object that is being read.
type members struct {
	of     *decoder
	object int
	n      int
	// many has them all once they are too many to compare with each.
	many map[string]bool
}

// isNew says whether a name comes for the first time.
func (m *members) isNew(name span) bool {
	const few = 16
	text := m.of.textOf(name)
	if m.n++; m.n <= few {
		for i := m.object + 1; i < len(m.of.values); i = int(m.of.values[i].next) {
			if m.of.textOf(m.of.values[i].name) == text {
				return false
			}
		}
		return true
	}
	if m.many == nil {
		m.many = map[string]bool{}
		for i := m.object + 1; i < len(m.of.values); i = int(m.of.values[i].next) {
			m.many[m.of.textOf(m.of.values[i].name)] = true
		}
	}
	if m.many[text] {
		return false
	}
	m.many[text] = true
	return true
}

// array reads from '[' on.
func (d *decoder) array(depth int, name span) error {
	at := d.add(value{kind: Array, name: name})
	defer d.end(at)
	d.at++
	if d.space() == ']' {
		d.at++
		return nil
	}
	for {
		if err := d.value(depth, span{}); err != nil {
			return err
		}
		switch d.space() {
		case ',':
			d.at++
		case ']':
			d.at++
			return nil
		default:
			return errNotJSON
		}
	}
}

// place is a span, which has room: see maxTextBytes.
func place(from, to int) span { return span{uint16(from), uint16(to)} } //nolint:gosec // see maxTextBytes

func (d *decoder) textOf(s span) string {
	if from, to := int(s.from)-len(d.in), int(s.to)-len(d.in); from >= 0 {
		return string(d.unescaped[from:to])
	}
	return d.in[s.from:s.to]
}

// string reads from '"' on. A text without escapes is a part of the input.
func (d *decoder) string() (span, error) {
	d.at++
	start, ascii := d.at, true
	for ; d.at < len(d.in); d.at++ {
		switch c := d.in[d.at]; {
		case c == '"':
			if !ascii && !utf8.ValidString(d.in[start:d.at]) {
				return span{}, errNotUTF8
			}
			d.at++
			return place(start, d.at-1), nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return span{}, errNotJSON
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return span{}, errNotJSON
}

// escaped reads on from the first backslash of a string that began at start.
func (d *decoder) escaped(start int) (span, error) {
	begin := len(d.unescaped)
	out := append(d.unescaped, d.in[start:d.at]...)
	for d.at < len(d.in) {
		c := d.in[d.at]
		d.at++
		switch {
		case c == '"':
			if !utf8.Valid(out[begin:]) {
				return span{}, errNotUTF8
			}
			d.unescaped = out
			return place(len(d.in)+begin, len(d.in)+len(out)), nil
		case c < ' ':
			return span{}, errNotJSON
		case c != '\\':
			out = append(out, c)
			continue
		}
		if d.at == len(d.in) {
			return span{}, errNotJSON
		}
		c = d.in[d.at]
		d.at++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := d.hex()
			if !ok {
				return span{}, errNotJSON
			}
			if utf16.IsSurrogate(r) {
				if !d.word(`\u`) {
					return span{}, errNotUTF8
				}
				low, ok := d.hex()
				if !ok {
					return span{}, errNotJSON
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return span{}, errNotUTF8
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return span{}, errNotJSON
		}
	}
	return span{}, errNotJSON
}

// hex reads the four digits of a \u escape.
func (d *decoder) hex() (rune, bool) {
	if len(d.in)-d.at < 4 {
		return 0, false
	}
	var r rune
	for _, c := range []byte(d.in[d.at : d.at+4]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	d.at += 4
	return r, true
}

func (d *decoder) number(name span) error {
	start := d.at
	d.sign("-")
	if first := d.at; !d.digits() || d.in[first] == '0' && d.at > first+1 {
		return errNotJSON
	}
	integer := true
	if d.at < len(d.in) && d.in[d.at] == '.' {
		d.at++
		integer = false
		if !d.digits() {
			return errNotJSON
		}
	}
	if d.at < len(d.in) && (d.in[d.at] == 'e' || d.in[d.at] == 'E') {
		d.at++
		integer = false
		d.sign("+-")
		if !d.digits() {
			return errNotJSON
		}
	}
	text := d.in[start:d.at]
	if integer {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			d.add(value{kind: Integer, name: name, bits: uint64(n)}) //nolint:gosec // the same bits
			return nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil { // the form is right, so it is the range
		return errNumberTooBig
	}
	d.add(value{kind: Float, name: name, bits: math.Float64bits(f)})
	return nil
}

func (d *decoder) sign(signs string) {
	if d.at < len(d.in) && strings.IndexByte(signs, d.in[d.at]) >= 0 {
		d.at++
	}
}

func (d *decoder) digits() bool {
	start := d.at
	for d.at < len(d.in) && '0' <= d.in[d.at] && d.in[d.at] <= '9' {
		d.at++
	}
	return d.at > start
}
