package httpauth

import (
	"net/http"
	"strings"

	"github.com/keywright/keywright/webhook/authz"
)

// NginxPrefix is where ingress-nginx and plain nginx ask:
// NginxPrefix + namespace + "/" + policy + "?host=$host".
const NginxPrefix = "/auth/nginx/"

// Names of the fields that nginx sets, in canonical form.
const (
	originalURL    = "X-Original-Url"
	originalMethod = "X-Original-Method"
)

// Nginx reads the subrequest of an auth_request directive, as ingress-nginx
// writes it for the annotation auth-url. Where its target names no policy, the
// request does not either.
//
// The original method comes from X-Original-Method, the original target from
// X-Original-URL behind the authority, as it is. The host comes from the query
// of the auth-url, which nginx fills with the host that it routed by, and only
// if X-Original-URL says the same: what that says of the host is the client's
// word (an absolute-form request is routed by one host and reported with
// another).
func Nginx(r *http.Request) authz.Request {
	ref, query, ok := cutPolicy(r.RequestURI, NginxPrefix)
	if !ok {
		return authz.Request{}
	}
	req := authz.Request{Policy: ref, Header: r.Header}
	req.Method, req.HasMethod = only(r.Header[originalMethod])
	raw, ok := only(r.Header[originalURL])
	if !ok {
		return req
	}
	var authority string
	authority, req.Target, req.HasTarget = splitURL(raw)
	if routed, ok := onlyQuery(query, "host"); ok && req.HasTarget && authz.SameHost(routed, authority) {
		req.Host, req.HasHost = routed, true
	}
	return req
}

// splitURL takes scheme://authority/target apart without decoding anything.
// An authority with other characters than hosts and ports have is refused:
// where it ends would be the client's to say.
func splitURL(raw string) (authority, target string, ok bool) {
	rest, ok := strings.CutPrefix(raw, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(raw, "http://"); !ok {
			return "", "", false
		}
	}
	end := strings.IndexByte(rest, '/')
	if end < 0 {
		return "", "", false
	}
	if end > 0 && !IsAuthority(rest[:end]) {
		return "", "", false
	}
	return rest[:end], rest[end:], true
}

// IsAuthority says whether s has only what a host and a port are made of.
func IsAuthority(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._:[]", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// onlyQuery gives the value of a parameter that is there exactly once, as it
// came: nginx writes it without encoding.
func onlyQuery(query, name string) (value string, ok bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, v, _ := strings.Cut(pair, "=")
		if key != name {
			continue
		}
		if ok {
			return "", false
		}
		value, ok = v, true
	}
	return value, ok && value != ""
}
