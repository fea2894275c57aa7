package token

import (
	"encoding/base64"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/trace"
)

// MaxBytes is the length of the longest token that is looked at.
const MaxBytes = 8 << 10

// Token is a token whose signature, form and claim types are right. It is not
// changed after Parse. Whether it counts now and for whom is for Validate.
type Token struct {
	// Key is the key that signed it.
	Key *keyset.Key
	// WithoutKeyID says that the token has no kid, so that Key was found
	// without one.
	WithoutKeyID bool
	// AccessToken says that its typ is at+jwt.
	AccessToken bool
	// Claims are all its claims.
	Claims Claims
	// Issuer, Subject and ID are iss, sub and jti; empty when absent.
	Issuer, Subject, ID string
	// Audience is aud, of which a single one may be given as a string.
	Audience []string
	// Expiry is exp.
	Expiry time.Time
	// NotBefore and IssuedAt are nbf and iat; zero when absent.
	NotBefore, IssuedAt time.Time
}

// Expected is what the asking side demands of a token beyond what its key does.
type Expected struct {
	// Audiences of which aud must name one. When empty, aud is not looked at.
	Audiences []string
	// RequiredClaims are paths (see Claims.Lookup) of claims that must be
	// there and be neither null nor empty.
	RequiredClaims []string
	// AccessToken demands an access token as RFC 9068 section 4 does: typ
	// at+jwt, accessTokenClaims, and a key that names its issuer.
	AccessToken bool
	// Trace, if any, records the steps of Validate.
	Trace *trace.Trace
}

// accessTokenClaims are those that every access token has (RFC 9068 section
// 2.2).
var accessTokenClaims = [...]string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti"}

// Verify is Parse with the keys of set, then Validate.
func Verify(raw string, set *keyset.Set, expected Expected, now time.Time) (*Token, error) {
	t, err := Parse(raw, func(kid string) (*keyset.Key, error) {
		if kid == "" {
			switch keys := set.WithoutKeyID(); len(keys) {
			case 0:
				return nil, ErrMissingKeyID
			case 1:
				return keys[0], nil
			}
			return nil, ErrUnknownKey
		}
		key, ok := set.Lookup(kid)
		if !ok {
			return nil, fmt.Errorf("%w: kid %s", ErrUnknownKey, Quote(kid))
		}
		return key, nil
	})
	if err != nil {
		return nil, err
	}
	if err := t.Validate(expected, now); err != nil {
		return nil, err
	}
	return t, nil
}

// Parse checks everything that depends neither on the time nor on who asks:
// size and form, header, the key by kid, signature, claim types.
//
// lookup finds the key with a kid, or returns an error such as ErrUnknownKey.
// The kid is empty for a token that has none, and for no other: then it finds
// the one key that such tokens are checked with, or returns ErrMissingKeyID.
func Parse(raw string, lookup func(kid string) (*keyset.Key, error)) (*Token, error) {
	return ParseTraced(raw, lookup, nil)
}

// ParseTraced is Parse that records its steps.
func ParseTraced(raw string, lookup func(kid string) (*keyset.Key, error), steps *trace.Trace) (*Token, error) {
	form, err := split(raw)
	if err != nil {
		return nil, steps.Fault("form", "", err)
	}
	steps.Yes("form", "", "three segments of strict base64url")
	kid, alg, accessToken, err := checkHeader(form.header)
	if err != nil {
		return nil, steps.Fault("header", "", err)
	}
	if steps.On() {
		steps.Yes("header", "", "alg "+Quote(alg)+", kid "+Quote(kid))
	}
	key, err := lookup(kid)
	if err == nil && key == nil {
		err = ErrUnknownKey
	}
	if err != nil {
		return nil, steps.Fault("key", "", err)
	}
	steps.Yes("key", key.ID, "found")
	if alg != string(key.Algorithm) {
		return nil, steps.Fault("algorithm", "", fmt.Errorf("%w: alg %s, the key's is %s", ErrAlgorithmMismatch, Quote(alg), key.Algorithm))
	}
	if err := usable(key); err != nil {
		return nil, steps.Fault("algorithm", "", fmt.Errorf("%w: %w", ErrUnusableKey, err))
	}
	steps.Yes("algorithm", alg, "is the key's own")
	if methods[key.Algorithm].Verify(form.signed, form.signature, key.Public) != nil {
		return nil, steps.Fault("signature", "", ErrBadSignature)
	}
	steps.Yes("signature", "", "the key signed this")
	claims, err := decodeObject(form.payload, maxClaimValues)
	if err != nil {
		return nil, steps.Fault("claims", "", fmt.Errorf("%w: claims: %w", ErrMalformed, err))
	}
	t, err := read(key, claims)
	if err != nil {
		return nil, steps.Fault("claims", "", err)
	}
	steps.Yes("claims", "", "registered ones have the right types")
	t.WithoutKeyID, t.AccessToken = kid == "", accessToken
	return t, nil
}

// form is a token in its parts, decoded.
type form struct {
	header, payload string
	signature       []byte
	// signed is what the signature covers, as it came.
	signed string
}

// split takes a token apart. It counts the segments before it decodes any, and
// never makes more than three.
func split(raw string) (form, error) {
	if len(raw) > MaxBytes {
		return form{}, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLarge, len(raw), MaxBytes)
	}
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, found := strings.Cut(rest, ".")
	if !found || strings.IndexByte(signature, '.') >= 0 {
		return form{}, fmt.Errorf("%w: not three segments", ErrMalformed)
	}
	// base64 skips line breaks, also when strict.
	if strings.IndexByte(raw, '\n') >= 0 || strings.IndexByte(raw, '\r') >= 0 {
		return form{}, fmt.Errorf("%w: a line break", ErrMalformed)
	}
	signed := raw[:len(header)+1+len(payload)]
	// One buffer and one string for all three cost half of a pair each.
	in, out := []byte(raw), make([]byte, 0, len(raw))
	var ends [3]int
	for i, segment := range [3][]byte{in[:len(header)], in[len(header)+1 : len(signed)], in[len(signed)+1:]} {
		var err error
		if out, err = strict.AppendDecode(out, segment); err != nil {
			return form{}, fmt.Errorf("%w: segment %d is not base64url", ErrMalformed, i+1)
		}
		ends[i] = len(out)
	}
	text := string(out[:ends[1]])
	return form{header: text[:ends[0]], payload: text[ends[0]:], signature: out[ends[1]:], signed: signed}, nil
}

// strict refuses padding, and set bits after the last byte.
var strict = base64.RawURLEncoding.Strict()

// refusedHeaders would have to be understood (crit, zip, b64), make the token
// something else (cty, enc) or bring a key of the sender's own (jwk, jku, x5u,
// x5c). The certificate thumbprints x5t and x5t#S256 are not among them: they
// are no key and lead to none, kid alone decides, and large issuers send them.
var refusedHeaders = [...]string{"crit", "zip", "b64", "cty", "enc", "jwk", "jku", "x5u", "x5c"}

// checkHeader gives kid, which is empty when there is none, alg, and whether
// typ is that of access tokens.
func checkHeader(text string) (kid, alg string, accessToken bool, err error) {
	header, err := decodeObject(text, maxHeaderValues)
	if err != nil {
		return "", "", false, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	for _, name := range refusedHeaders {
		if _, there := header[name]; there {
			return "", "", false, fmt.Errorf("%w: %s", ErrUnsupportedHeader, name)
		}
	}
	if typ, there := header["typ"]; there {
		text, ok := typ.(string)
		if !ok {
			return "", "", false, fmt.Errorf("%w: typ is not a string", ErrWrongType)
		}
		accessToken = isType(text, "at+jwt")
		if !accessToken && !isType(text, "JWT") {
			return "", "", false, fmt.Errorf("%w: typ %s", ErrWrongType, Quote(text))
		}
	}
	alg, ok := header["alg"].(string)
	if !ok {
		return "", "", false, fmt.Errorf("%w: header: alg is not a string", ErrMalformed)
	}
	if id, there := header["kid"]; there {
		if kid, ok = id.(string); !ok || kid == "" { // it would pass for none
			return "", "", false, fmt.Errorf("%w: header: kid is not a string with something in it", ErrMalformed)
		}
	}
	return kid, alg, accessToken, nil
}

// isType compares media types as RFC 7515 section 4.1.9 says: without regard
// to case, "application/" may be left out.
func isType(typ, want string) bool {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return strings.EqualFold(typ, want)
}

// read takes the registered claims out of verified ones. Names are compared
// exactly: EXP is a claim like any other.
func read(key *keyset.Key, claims Claims) (*Token, error) {
	t := &Token{Key: key, Claims: claims}
	for _, c := range [...]struct {
		name string
		into *string
	}{{"iss", &t.Issuer}, {"sub", &t.Subject}, {"jti", &t.ID}} {
		if v, there := claims[c.name]; there {
			text, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("%w: %s is not a string", ErrBadClaim, c.name)
			}
			*c.into = text
		}
	}
	for _, c := range [...]struct {
		name string
		into *time.Time
	}{{"exp", &t.Expiry}, {"nbf", &t.NotBefore}, {"iat", &t.IssuedAt}} {
		if v, there := claims[c.name]; there {
			at, ok := numericDate(v)
			if !ok {
				return nil, fmt.Errorf("%w: %s is not a number of seconds between the years 1970 and 9999", ErrBadClaim, c.name)
			}
			*c.into = at
		}
	}
	if t.Expiry.IsZero() {
		return nil, fmt.Errorf("%w: exp", ErrMissingClaim)
	}
	if v, there := claims["aud"]; there {
		var ok bool
		if t.Audience, ok = audience(v); !ok {
			return nil, fmt.Errorf("%w: aud is neither a string nor an array of strings", ErrBadClaim)
		}
	}
	return t, nil
}

// lastDate is the last second of the year 9999: far enough from where a time
// or a difference of two would overflow.
const lastDate = 253402300799

// numericDate reads a NumericDate (RFC 7519 section 2), a fraction of a second
// to the nearest microsecond.
func numericDate(v any) (time.Time, bool) {
	switch n := v.(type) {
	case int64:
		return time.Unix(n, 0), 0 <= n && n <= lastDate
	case float64:
		if !(0 <= n && n <= lastDate) {
			return time.Time{}, false
		}
		seconds, fraction := math.Modf(n)
		return time.Unix(int64(seconds), int64(math.Round(fraction*1e6))*1e3), true
	}
	return time.Time{}, false
}

func audience(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			text, ok := e.(string)
			if !ok {
				return nil, false
			}
			out[i] = text
		}
		return out, true
	}
	return nil, false
}

// Validate checks what depends on the time and on who asks: that the key is
// valid at now, exp, nbf, iat and how long the token lives, iss, aud and the
// required claims. It allocates nothing when the token is good.
func (t *Token) Validate(expected Expected, now time.Time) error {
	steps := expected.Trace
	leeway := t.Key.Leeway
	if !t.Key.ValidAt(now) {
		return steps.Fault("key", t.Key.ID, fmt.Errorf("%w: kid %s", ErrKeyRetired, Quote(t.Key.ID)))
	}
	steps.Yes("key", t.Key.ID, "verifies now")
	if !now.Before(t.Expiry.Add(leeway)) {
		return steps.Fault("exp", "", fmt.Errorf("%w: exp is %s ago", ErrExpired, now.Sub(t.Expiry)))
	}
	steps.Yes("exp", "", "is still to come, leeway included")
	if !t.NotBefore.IsZero() {
		if now.Before(t.NotBefore.Add(-leeway)) {
			return steps.Fault("nbf", "", fmt.Errorf("%w: nbf is in %s", ErrNotYetValid, t.NotBefore.Sub(now)))
		}
		steps.Yes("nbf", "", "has come")
	}
	issued := now
	if !t.IssuedAt.IsZero() {
		issued = t.IssuedAt
		if issued.After(now.Add(leeway)) {
			return steps.Fault("iat", "", fmt.Errorf("%w: iat is in %s", ErrIssuedInFuture, issued.Sub(now)))
		}
		steps.Yes("iat", "", "has come")
	}
	if life := t.Expiry.Sub(issued); life-leeway > t.Key.MaxTokenTTL {
		return steps.Fault("life", "", fmt.Errorf("%w: for %s, at most %s with %s of leeway are allowed", ErrLivesTooLong, life, t.Key.MaxTokenTTL, leeway))
	}
	steps.Yes("life", "", "is no longer than the key's tokens may live")
	if t.Key.Issuer != "" {
		if t.Issuer != t.Key.Issuer {
			return steps.Fault("iss", "", fmt.Errorf("%w: iss %s, the key's is %s", ErrWrongIssuer, Quote(t.Issuer), Quote(t.Key.Issuer)))
		}
		steps.Yes("iss", "", "is the key's")
	}
	if len(expected.Audiences) > 0 {
		if !intersect(expected.Audiences, t.Audience) {
			return steps.Fault("aud", "", ErrWrongAudience)
		}
		steps.Yes("aud", "", "names one that is expected")
	}
	if expected.AccessToken {
		if !t.AccessToken {
			return steps.Fault("typ", "", fmt.Errorf("%w: typ is not at+jwt", ErrWrongType))
		}
		steps.Yes("typ", "", "is at+jwt")
		if t.Key.Issuer == "" {
			return steps.Fault("iss", "", fmt.Errorf("%w: the key names none to compare with", ErrWrongIssuer))
		}
		for _, name := range accessTokenClaims {
			if !t.Claims.has(name) {
				return steps.Fault("required claim", name, fmt.Errorf("%w: %s", ErrMissingClaim, name))
			}
			steps.Yes("required claim", name, "is there")
		}
	}
	for _, name := range expected.RequiredClaims {
		if !t.Claims.has(name) {
			return steps.Fault("required claim", name, fmt.Errorf("%w: %s", ErrMissingClaim, Quote(name)))
		}
		steps.Yes("required claim", name, "is there")
	}
	return nil
}

func intersect(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}
