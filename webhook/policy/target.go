package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// ParseTarget reads a raw request target in origin form (RFC 9112 section
// 3.2.1), such as "/a/%2e%2e/b?x=1". The path comes back decoded once, with
// dot segments resolved and slashes merged, and begins with '/'; the query
// comes back raw. A path is resolved as nginx does it: slashes are merged
// first, and ".." above the root stays at the root.
//
// Refused, with an error that wraps ErrBadPath:
//
//   - a target that does not begin with '/'
//   - control characters and spaces in path or query, raw; controls in the path encoded
//   - '#' anywhere, '\' in the path
//   - a '%' in the path without two hexadecimal digits
//   - encoded '/', '\' and NUL
//   - a path that is not UTF-8 once decoded (overlong forms of '.' and '/' among it)
//   - dot segments with parameters, such as "..;x": servers that know path
//     parameters climb there, all others do not
//
// Ambiguous is a path that a server behind the gate could route differently
// from what is returned:
//
//   - dot segments and empty segments
//   - encoded characters that need no encoding: letters, digits and "-._~"
//     (RFC 3986 section 2.3)
//   - an encoded '%' (whoever decodes twice sees another path), '?' and '#'
//   - ';', raw or encoded: servers that know path parameters cut there
//   - raw characters outside ASCII, which a target may not have
//   - encoded forms of ASCII characters and slashes that some systems fold
//     to the plain ones (fullwidth and small forms, dot leaders, U+2044, U+2215)
//
// Encoded reserved characters other than those (such as %40 for '@') are not
// ambiguous: clients encode them rightly and servers decode them. Paths are
// compared byte by byte: no case folding, no Unicode normalisation.
func ParseTarget(raw string) (path, query string, ambiguous bool, err error) {
	if raw == "" || raw[0] != '/' {
		return "", "", false, errNotOrigin
	}
	path = raw
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f:
			return "", "", false, errControl
		case c == '#':
			return "", "", false, errFragment
		case c == '?' && len(path) == len(raw):
			path, query = raw[:i], raw[i+1:]
		}
	}
	if isPlain(path) {
		return path, query, false, nil
	}
	path, ambiguous, err = normalizePath(path)
	if err != nil {
		return "", "", false, err
	}
	return path, query, ambiguous, nil
}

// The refusals of ParseTarget. Nothing of the target is in them.
var (
	errNotOrigin    = badPath("does not begin with '/'")
	errControl      = badPath("has a control character or a space")
	errFragment     = badPath("has a '#'")
	errBackslash    = badPath("has a '\\'")
	errEscape       = badPath("has a '%' without two hexadecimal digits")
	errEncodedSlash = badPath("has an encoded '/', '\\' or NUL")
	errNotUTF8      = badPath("is not UTF-8")
	errDotParameter = badPath("has a dot segment with parameters")
)

func badPath(what string) error {
	return &detail{class: ErrBadPath, about: "request target", what: what}
}

// isPlain says whether a path is its own normal form: the common case, which
// costs no allocation. It may say no to one that is.
func isPlain(path string) bool {
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '%' || c == ';' || c == '\\' || c >= utf8.RuneSelf:
			return false
		case c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.'):
			return false
		}
	}
	return true
}

func normalizePath(raw string) (path string, ambiguous bool, err error) {
	decoded, ambiguous, err := decodePath(raw)
	if err != nil {
		return "", false, err
	}

	// Segments are moved to the front of decoded as they are kept: what is
	// written never overtakes what is read.
	out := decoded[:0]
	closed := false // whether the path so far ends in '/'
	for rest := decoded[1:]; ; {
		end := indexSlash(rest)
		last := end == len(rest)
		switch segment := rest[:end]; {
		case len(segment) == 0 && last:
			closed = true
		case len(segment) == 0:
			ambiguous = true
		case string(segment) == ".":
			ambiguous, closed = true, true
		case string(segment) == "..":
			ambiguous, closed = true, true
			for len(out) > 0 {
				out = out[:len(out)-1]
				if decoded[len(out)] == '/' {
					break
				}
			}
		case hasDotParameter(segment):
			return "", false, errDotParameter
		default:
			closed = false
			out = append(out, '/')
			out = append(out, segment...)
		}
		if last {
			break
		}
		rest = rest[end+1:]
	}
	if closed || len(out) == 0 {
		out = append(out, '/')
	}
	return string(out), ambiguous, nil
}

func decodePath(raw string) (decoded []byte, ambiguous bool, err error) {
	decoded = make([]byte, 0, len(raw))
	ascii := true
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '\\':
			return nil, false, errBackslash
		case c == ';' || c >= utf8.RuneSelf:
			ambiguous = true
		case c == '%':
			if i+2 >= len(raw) || unhex(raw[i+1]) < 0 || unhex(raw[i+2]) < 0 {
				return nil, false, errEscape
			}
			c = byte(unhex(raw[i+1])<<4 | unhex(raw[i+2]))
			i += 2
			switch {
			case c == '/' || c == '\\' || c == 0:
				return nil, false, errEncodedSlash
			case c < ' ' || c == 0x7f:
				return nil, false, errControl
			case isUnreserved(c) || c == '%' || c == '?' || c == '#' || c == ';':
				ambiguous = true
			}
		}
		ascii = ascii && c < utf8.RuneSelf
		decoded = append(decoded, c)
	}
	if ascii {
		return decoded, ambiguous, nil
	}
	if !utf8.Valid(decoded) {
		return nil, false, errNotUTF8
	}
	for _, r := range string(decoded) {
		if isControl(r) {
			return nil, false, errControl
		}
		ambiguous = ambiguous || foldsToASCII(r)
	}
	return decoded, ambiguous, nil
}

func indexSlash(b []byte) int {
	for i, c := range b {
		if c == '/' {
			return i
		}
	}
	return len(b)
}

func hasDotParameter(segment []byte) bool {
	name, _, found := strings.Cut(string(segment), ";")
	return found && (name == "." || name == "..")
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// isControl says whether a character moves the cursor or ends a line
// somewhere: controls, and the line and paragraph separators.
func isControl(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

// foldsToASCII says whether some system reads r as ASCII punctuation or a
// letter: by Unicode's compatibility forms or by a code page's best fit.
func foldsToASCII(r rune) bool {
	return 0xff01 <= r && r <= 0xff5e || // fullwidth forms
		0xfe50 <= r && r <= 0xfe6f || // small form variants
		0x2024 <= r && r <= 0x2026 || // dot leaders
		r == 0x2044 || r == 0x2215 // fraction slash, division slash
}

// escapePath writes a decoded path as a target would.
func escapePath(path string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		if isUnreserved(c) || strings.IndexByte("/!$&'()*+,=:@", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
