package policy

import (
	"net/netip"
	"strings"
)

// NormalizeHost gives a host as rules compare it: lower case, without a port
// and without one trailing dot; an IPv6 address in its canonical form, in
// brackets. What is not a host name (letters, digits, '-' and '_', in labels
// joined by dots, at most 253 bytes) or an address is refused with an error
// that wraps ErrBadHost: lists, user names, spaces and raw international names
// among it.
func NormalizeHost(raw string) (string, error) {
	if strings.HasPrefix(raw, "[") {
		return normalizeIPv6(raw)
	}
	host, port, hasPort := strings.Cut(raw, ":")
	if hasPort && !isPort(port) {
		return "", errHostPort
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return "", errHostLength
	}
	for i := 0; i < len(host); i++ {
		switch c := host[i]; {
		case c == '.':
			if i == 0 || i == len(host)-1 || host[i-1] == '.' {
				return "", errHostLabel
			}
		case c == '~' || !isUnreserved(c):
			return "", errHostCharacter
		}
	}
	return strings.ToLower(host), nil
}

// The refusals of NormalizeHost. Nothing of the host is in them.
var (
	errHostPort      = badHost("its port is not a number")
	errHostLength    = badHost("it is empty or longer than 253 bytes")
	errHostLabel     = badHost("it has an empty label")
	errHostCharacter = badHost("it has a character other than letters, digits, '-', '_' and '.'")
	errHostAddress   = badHost("it is not an IPv6 address in brackets")
)

func badHost(what string) error {
	return &detail{class: ErrBadHost, about: "host", what: what}
}

func normalizeIPv6(raw string) (string, error) {
	inner, rest, closed := strings.Cut(raw[1:], "]")
	if !closed {
		return "", errHostAddress
	}
	if port, hasPort := strings.CutPrefix(rest, ":"); hasPort {
		if !isPort(port) {
			return "", errHostPort
		}
	} else if rest != "" {
		return "", errHostAddress
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", errHostAddress
	}
	return "[" + addr.String() + "]", nil
}

// isPort says whether s is what may follow the colon (RFC 3986 section 3.2.3:
// also nothing).
func isPort(s string) bool {
	if len(s) > 5 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
