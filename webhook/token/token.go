package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
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
	header, err := readHeader(form.header)
	if errors.Is(err, errNotBase64) {
		return nil, steps.Fault("form", "", err)
	}
	steps.Yes("form", "", "three segments of strict base64url")
	if err != nil {
		return nil, steps.Fault("header", "", err)
	}
	kid, alg := header.kid, header.alg
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
	t := &Token{Key: key, WithoutKeyID: kid == "", AccessToken: header.accessToken}
	if err := t.Claims.decode(form.payload, maxClaimValues); err != nil {
		return nil, steps.Fault("claims", "", fmt.Errorf("%w: claims: %w", ErrMalformed, err))
	}
	if err := t.read(); err != nil {
		return nil, steps.Fault("claims", "", err)
	}
	steps.Yes("claims", "", "registered ones have the right types")
	return t, nil
}

// form is a token in its parts, of which the header is not decoded.
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
	f := form{header: header, signed: raw[:len(header)+1+len(payload)]}
	var err error
	if f.payload, err = decodeSegment(payload); err != nil {
		return form{}, err
	}
	if f.signature, err = strict.DecodeString(signature); err != nil {
		return form{}, errNotBase64
	}
	return f, nil
}

// strict refuses padding, and set bits after the last byte.
var strict = base64.RawURLEncoding.Strict()

var errNotBase64 = fmt.Errorf("%w: a segment is not base64url", ErrMalformed)

// decodeSegment gives the text in a segment, in which there are no line breaks.
// It is decoded by parts, into the one place where it stays.
func decodeSegment(segment string) (string, error) {
	const most = 512 // a multiple of four characters, which are three bytes
	var text strings.Builder
	text.Grow(strict.DecodedLen(len(segment)))
	var decoded [most / 4 * 3]byte
	for segment != "" {
		part := segment[:min(most, len(segment))]
		n, err := strict.Decode(decoded[:], []byte(part))
		if err != nil {
			return "", errNotBase64
		}
		text.Write(decoded[:n])
		segment = segment[len(part):]
	}
	return text.String(), nil
}

// read takes the registered claims out of verified ones. Names are compared
// exactly: EXP is a claim like any other.
func (t *Token) read() error {
	for _, c := range [...]struct {
		name string
		into *string
	}{{"iss", &t.Issuer}, {"sub", &t.Subject}, {"jti", &t.ID}} {
		if v, there := t.Claims.Member(c.name); there {
			if v.Kind() != Text {
				return fmt.Errorf("%w: %s is not a string", ErrBadClaim, c.name)
			}
			*c.into = v.Text()
		}
	}
	for _, c := range [...]struct {
		name string
		into *time.Time
	}{{"exp", &t.Expiry}, {"nbf", &t.NotBefore}, {"iat", &t.IssuedAt}} {
		if v, there := t.Claims.Member(c.name); there {
			at, ok := numericDate(v)
			if !ok {
				return fmt.Errorf("%w: %s is not a number of seconds between the years 1970 and 9999", ErrBadClaim, c.name)
			}
			*c.into = at
		}
	}
	if t.Expiry.IsZero() {
		return fmt.Errorf("%w: exp", ErrMissingClaim)
	}
	if aud, there := t.Claims.Member("aud"); there {
		if !isAudience(aud) {
			return fmt.Errorf("%w: aud is neither a string nor an array of strings", ErrBadClaim)
		}
	}
	return nil
}

// lastDate is the last second of the year 9999: far enough from where a time
// or a difference of two would overflow.
const lastDate = 253402300799

// numericDate reads a NumericDate (RFC 7519 section 2), a fraction of a second
// to the nearest microsecond.
func numericDate(v Value) (time.Time, bool) {
	switch v.Kind() {
	case Integer:
		n := v.Integer()
		return time.Unix(n, 0), 0 <= n && n <= lastDate
	case Float:
		n := v.Float()
		if !(0 <= n && n <= lastDate) {
			return time.Time{}, false
		}
		seconds, fraction := math.Modf(n)
		return time.Unix(int64(seconds), int64(math.Round(fraction*1e6))*1e3), true
	}
	return time.Time{}, false
}

// isAudience says whether a value is a text or a list of texts.
func isAudience(v Value) bool {
	if v.Kind() == Text {
		return true
	}
	for one := range v.Elements() {
		if one.Kind() != Text {
			return false
		}
	}
	return v.Kind() == Array
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
		if !t.isFor(expected.Audiences) {
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

// isFor says whether aud, which may be given as a single text, names one of
// the audiences.
func (t *Token) isFor(audiences []string) bool {
	aud, _ := t.Claims.Member("aud")
	if aud.Kind() == Text {
		return slices.Contains(audiences, aud.Text())
	}
	for one := range aud.Elements() {
		if slices.Contains(audiences, one.Text()) {
			return true
		}
	}
	return false
}
