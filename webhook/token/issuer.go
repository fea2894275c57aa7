package token

import "strings"

// ClaimedIssuer is what a token says about its issuer, before anything about it
// is known to be true: it may only choose among keys, each of which then has to
// have signed the token and to be that issuer's. Empty when it says nothing
// that can be read.
func ClaimedIssuer(raw string) string {
	if len(raw) > MaxBytes || strings.ContainsAny(raw, "\r\n") {
		return ""
	}
	_, rest, _ := strings.Cut(raw, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := decodeSegment(payload)
	if err != nil {
		return ""
	}
	claims, err := DecodeClaims(text)
	if err != nil {
		return ""
	}
	iss, _ := claims.Member("iss")
	return iss.Text()
}
