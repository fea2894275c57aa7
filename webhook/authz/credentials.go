package authz

import (
	"net/textproto"
	"strings"

	"github.com/keywright/keywright/api/v1alpha1"
)

// credential is one place where a token may be.
type credential struct {
	// header is a field's canonical name; scheme stands before the token.
	header, scheme string
	// cookie is a cookie's name.
	cookie string
}

func credentialsOf(named []v1alpha1.Credential) []credential {
	var out []credential
	for _, n := range named {
		switch {
		case n.Header != nil:
			name := textproto.CanonicalMIMEHeaderKey(string(n.Header.Name))
			out = append(out, credential{header: name, scheme: n.Header.Scheme})
		case n.Cookie != nil:
			out = append(out, credential{cookie: n.Cookie.Name})
		}
	}
	return out
}

// find gives the one token of a request. Its characters are not looked at.
func find(places []credential, header map[string][]string) (string, error) {
	var found string
	n := 0
	for i := range places {
		var raw string
		var err error
		if places[i].cookie != "" {
			raw, err = inCookies(places[i].cookie, header["Cookie"])
		} else {
			raw, err = inHeader(&places[i], header[places[i].header])
		}
		if err != nil {
			return "", err
		}
		if raw != "" {
			found = raw
			n++
		}
	}
	switch n {
	case 0:
		return "", ErrNoCredentials
	case 1:
		return found, nil
	}
	return "", ErrSeveralCredentials
}

// inHeader finds a token behind a scheme and exactly one space (RFC 6750
// section 2.1), or as the whole value. Another scheme is no credential.
func inHeader(c *credential, lines []string) (string, error) {
	switch len(lines) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", ErrSeveralCredentials
	}
	value := lines[0]
	if strings.IndexByte(value, ',') >= 0 {
		return "", ErrSeveralCredentials // several lines, joined on the way
	}
	if c.scheme == "" {
		return value, nil
	}
	n := len(c.scheme)
	if len(value) < n || !strings.EqualFold(value[:n], c.scheme) {
		return "", nil
	}
	rest := value[n:]
	if rest == "" {
		return "", ErrMalformedCredentials
	}
	if rest[0] != ' ' {
		if isTokenChar(rest[0]) {
			return "", nil // another scheme that begins like this one
		}
		return "", ErrMalformedCredentials
	}
	if len(rest) == 1 || rest[1] == ' ' || rest[1] == '\t' {
		return "", ErrMalformedCredentials
	}
	return rest[1:], nil
}

// inCookies finds a cookie's value in all Cookie lines. The same name twice is
// more than one credential, whatever the values are: who reads which one
// differs from server to server.
func inCookies(name string, lines []string) (string, error) {
	var found string
	n := 0
	for _, line := range lines {
		for len(line) > 0 {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			key, value, _ := strings.Cut(pair, "=")
			if strings.Trim(key, " \t") != name {
				continue
			}
			found = strings.Trim(value, " \t")
			n++
		}
	}
	if n > 1 {
		return "", ErrSeveralCredentials
	}
	return found, nil
}

// isB64Token says whether s is a b64token (RFC 6750 section 2.1).
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return s != ""
}

// isTokenChar says whether c is a tchar (RFC 9110 section 5.6.2), of which
// schemes are made.
func isTokenChar(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
