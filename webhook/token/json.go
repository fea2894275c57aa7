package token

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding/json cannot be told to refuse what two parsers may read in two ways:
// members that come twice, invalid UTF-8, lone surrogates. So JSON is read here,
// in one pass, into the types of Claims.

// maxDepth is how deep arrays and objects may be nested.
const maxDepth = 32

// How many values a token may have, at any depth: [{},{},…] takes some fifty
// times as much memory as text, and verified claims are remembered.
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
	errNumberTooBig = errors.New("a number that is out of range")
)

// decodeObject reads a text that is one JSON object (RFC 8259) with at most so
// many values in it.
func decodeObject(text string, most int) (map[string]any, error) {
	d := decoder{in: text, left: most}
	if d.space() != '{' {
		return nil, errNotJSON
	}
	members, err := d.object(1)
	if err != nil {
		return nil, err
	}
	d.space()
	if d.at != len(d.in) {
		return nil, errNotJSON
	}
	return members, nil
}

type decoder struct {
	in string
	at int
	// left is how many more values there may be.
	left int
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

func (d *decoder) value(depth int) (any, error) {
	if d.left == 0 {
		return nil, errTooMany
	}
	d.left--
	switch c := d.space(); {
	case c == '"':
		return d.string()
	case c == '{' || c == '[':
		if depth == maxDepth {
			return nil, errTooDeep
		}
		if c == '{' {
			return d.object(depth + 1)
		}
		return d.array(depth + 1)
	case c == '-' || '0' <= c && c <= '9':
		return d.number()
	case d.word("true"):
		return true, nil
	case d.word("false"):
		return false, nil
	case d.word("null"):
		return nil, nil
	}
	return nil, errNotJSON
}

func (d *decoder) word(w string) bool {
	if !strings.HasPrefix(d.in[d.at:], w) {
		return false
	}
	d.at += len(w)
	return true
}

// object reads from '{' on.
func (d *decoder) object(depth int) (map[string]any, error) {
	d.at++
	members := make(map[string]any, 8)
	if d.space() == '}' {
		d.at++
		return members, nil
	}
	for {
		if d.space() != '"' {
			return nil, errNotJSON
		}
		name, err := d.string()
		if err != nil {
			return nil, err
		}
		if _, twice := members[name]; twice {
			return nil, errTwice
		}
		if d.space() != ':' {
			return nil, errNotJSON
		}
		d.at++
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		members[name] = v
		switch d.space() {
		case ',':
			d.at++
		case '}':
			d.at++
			return members, nil
		default:
			return nil, errNotJSON
		}
	}
}

// array reads from '[' on.
func (d *decoder) array(depth int) ([]any, error) {
	d.at++
	elements := []any{}
	if d.space() == ']' {
		d.at++
		return elements, nil
	}
	for {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
		switch d.space() {
		case ',':
			d.at++
		case ']':
			d.at++
			return elements, nil
		default:
			return nil, errNotJSON
		}
	}
}

// string reads from '"' on. A text without escapes is a part of the input and
// costs nothing.
func (d *decoder) string() (string, error) {
	d.at++
	start, ascii := d.at, true
	for ; d.at < len(d.in); d.at++ {
		switch c := d.in[d.at]; {
		case c == '"':
			s := d.in[start:d.at]
			d.at++
			if !ascii && !utf8.ValidString(s) {
				return "", errNotUTF8
			}
			return s, nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return "", errNotJSON
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", errNotJSON
}

// escaped reads on from the first backslash of a string that began at start.
func (d *decoder) escaped(start int) (string, error) {
	out := append(make([]byte, 0, d.at-start+32), d.in[start:d.at]...)
	for d.at < len(d.in) {
		c := d.in[d.at]
		d.at++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", errNotUTF8
			}
			return string(out), nil
		case c < ' ':
			return "", errNotJSON
		case c != '\\':
			out = append(out, c)
			continue
		}
		if d.at == len(d.in) {
			return "", errNotJSON
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
				return "", errNotJSON
			}
			if utf16.IsSurrogate(r) {
				if !d.word(`\u`) {
					return "", errNotUTF8
				}
				low, ok := d.hex()
				if !ok {
					return "", errNotJSON
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return "", errNotUTF8
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", errNotJSON
		}
	}
	return "", errNotJSON
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

func (d *decoder) number() (any, error) {
	start := d.at
	d.sign("-")
	if first := d.at; !d.digits() || d.in[first] == '0' && d.at > first+1 {
		return nil, errNotJSON
	}
	integer := true
	if d.at < len(d.in) && d.in[d.at] == '.' {
		d.at++
		integer = false
		if !d.digits() {
			return nil, errNotJSON
		}
	}
	if d.at < len(d.in) && (d.in[d.at] == 'e' || d.in[d.at] == 'E') {
		d.at++
		integer = false
		d.sign("+-")
		if !d.digits() {
			return nil, errNotJSON
		}
	}
	text := d.in[start:d.at]
	if integer {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil { // the form is right, so it is the range
		return nil, errNumberTooBig
	}
	return f, nil
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
