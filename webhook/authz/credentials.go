package authz

import (
	"fmt"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/policy"
	"github.com/keywright/keywright/webhook/trace"
)

// credential is one place where a token may be.
type credential struct {
	// header is a field's canonical name; scheme stands before the token.
	header, scheme string
	// cookie is a cookie's name.
	cookie string
	// query is a parameter's name.
	query string
	// subprotocol is what stands before a token among the subprotocols that
	// a WebSocket client offers.
	subprotocol string
}

// subprotocols is the field in which they are, in canonical form.
const subprotocols = "Sec-Websocket-Protocol"

// String says where it is.
func (c *credential) String() string {
	switch {
	case c.cookie != "":
		return "cookie " + c.cookie
	case c.query != "":
		return "query parameter " + c.query
	case c.subprotocol != "":
		return "subprotocol " + c.subprotocol + "…"
	case c.scheme != "":
		return "header " + c.header + " with scheme " + c.scheme
	}
	return "header " + c.header
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
		case n.Query != nil:
			out = append(out, credential{query: n.Query.Name})
		case n.WebSocketProtocol != nil:
			out = append(out, credential{subprotocol: n.WebSocketProtocol.Prefix})
		}
	}
	return out
}

// varyOn lists the header fields in which credentials may be.
func varyOn(places []credential) string {
	var names []string
	for i := range places {
		name := places[i].header
		switch {
		case places[i].cookie != "":
			name = "Cookie"
		case places[i].subprotocol != "":
			name = subprotocols
		}
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// find gives the one token of a request. Its characters are not looked at.
// Where a token may be in the query and the request does not say what that is,
// no one can tell how many there are: ErrPathUnknown.
func find(places []credential, header map[string][]string, asked *policy.Request) (string, error) {
	var found string
	n := 0
	for i := range places {
		var raw string
		var err error
		switch c := &places[i]; {
		case c.cookie != "":
			raw, err = inCookies(c.cookie, header["Cookie"])
		case c.query != "" && !asked.HasPath:
			err = policy.ErrPathUnknown
		case c.query != "":
			raw, err = inQuery(c.query, asked.Query)
		case c.subprotocol != "":
			raw, err = inSubprotocols(c.subprotocol, header[subprotocols])
		case hasOtherSpelling(c.header, header):
			err = ErrSeveralCredentials // the application may read that one
		default:
			raw, err = inHeader(c, header[c.header])
		}
		if asked.Trace.On() {
			places[i].describe(asked.Trace, raw, err)
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
		return "", asked.Trace.Fault("credentials", "", ErrNoCredentials)
	case 1:
		return found, nil
	}
	return "", asked.Trace.Fault("credentials", "", ErrSeveralCredentials)
}

// describe records what was found at a place, and nothing of the token itself.
func (c *credential) describe(steps *trace.Trace, raw string, err error) {
	switch {
	case err != nil:
		steps.No("credential", c.String(), err.Error())
	case raw == "":
		steps.No("credential", c.String(), "nothing is there")
	default:
		steps.Yes("credential", c.String(), fmt.Sprintf("a token of %d bytes", len(raw)))
	}
}

// hasOtherSpelling says whether a header is there under a name with '_' or '.'
// in place of '-', which some servers know as the same.
func hasOtherSpelling(name string, header map[string][]string) bool {
	if strings.IndexByte(name, '-') < 0 {
		return false
	}
	for other := range header {
		if other != name && policy.IsSpelling(other, name) {
			return true
		}
	}
	return false
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

// inCookies finds a cookie's value in all Cookie lines. A second one that some
// server reads by this name (see looseName) is more than one credential,
// whatever the values are: who reads which one differs from server to server.
func inCookies(name string, lines []string) (string, error) {
	var found string
	n := 0
	for _, line := range lines {
		for len(line) > 0 {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			key, value, _ := strings.Cut(pair, "=")
			switch key = strings.Trim(key, " \t"); {
			case key == name:
				found = strings.Trim(value, " \t")
				n++
			case isLooselyNamed(key, name):
				n++
			}
		}
	}
	if n > 1 {
		return "", ErrSeveralCredentials
	}
	return found, nil
}

// inQuery finds a parameter's value, as it came: a token needs no encoding, and
// one that has any is malformed. Beside it there must be no second parameter
// that some server reads by this name (see looseName), also not behind ';',
// where some begin one: the application must not read another token than the
// one that is judged.
func inQuery(name, query string) (string, error) {
	var found string
	n := 0
	for query != "" {
		var pair string
		if end := strings.IndexAny(query, "&;"); end >= 0 {
			pair, query = query[:end], query[end+1:]
		} else {
			pair, query = query, ""
		}
		key, value, _ := strings.Cut(pair, "=")
		switch {
		case unescape(key) == name:
			found = value
			n++
		case isLooselyNamed(key, name):
			n++
		}
	}
	if n > 1 {
		return "", ErrSeveralCredentials
	}
	return found, nil
}

// isLooselyNamed says whether some server may read what is sent as key, a
// parameter or a cookie, by a name.
func isLooselyNamed(key, name string) bool {
	return strings.EqualFold(looseName(unescape(key)), looseName(name))
}

func unescape(key string) string {
	if decoded, err := url.QueryUnescape(key); err == nil {
		return decoded
	}
	return key
}

// looseName is what a name of a parameter or a cookie becomes where servers are
// loose: without blanks before it, without what follows '[' (PHP, Rails) or NUL,
// and with '_' for '.' and blanks (PHP). Others do not look at case (ASP.NET).
func looseName(name string) string {
	name = strings.TrimLeft(name, " ")
	if end := strings.IndexAny(name, "[\x00"); end >= 0 {
		name = name[:end]
	}
	return loose.Replace(name)
}

var loose = strings.NewReplacer(".", "_", " ", "_")

// inSubprotocols finds the token behind a prefix in a list of subprotocols,
// which may come in several lines (RFC 6455 section 11.3.4).
func inSubprotocols(prefix string, lines []string) (string, error) {
	var found string
	n := 0
	for _, line := range lines {
		for line != "" {
			var one string
			one, line, _ = strings.Cut(line, ",")
			one, ok := strings.CutPrefix(strings.Trim(one, " \t"), prefix)
			if !ok {
				continue
			}
			if one == "" {
				return "", ErrMalformedCredentials
			}
			found = one
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
