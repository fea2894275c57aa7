package token

import (
	"errors"
	"strconv"

	"github.com/keywright/keywright/api/keyset"
)

// class is a kind of fault; the exported errors are its only values.
type class struct{ reason, text string }

func (c *class) Error() string { return c.text }

// The classes of fault, for errors.Is. No error of this package holds a token
// or a part of one, except for a quoted and shortened kid, alg, typ, iss.
var (
	// ErrMalformed: not a compact JWS of strict base64url and strict JSON.
	ErrMalformed error = &class{"malformed", "token is malformed"}
	// ErrTooLarge: longer than MaxBytes.
	ErrTooLarge error = &class{"too_large", "token is too large"}
	// ErrUnsupportedHeader: a header that changes how the token would have to
	// be read, or that brings its own key.
	ErrUnsupportedHeader error = &class{"unsupported_header", "token has an unsupported header"}
	// ErrWrongType: typ is there and neither JWT nor at+jwt; or at+jwt is
	// expected and it is not that.
	ErrWrongType error = &class{"wrong_type", "token is of another type"}
	// ErrMissingKeyID: no kid, and no key is for tokens without one. For
	// lookups to return.
	ErrMissingKeyID error = &class{"missing_key_id", "token has no key ID"}
	// ErrUnknownKey: no key has the kid. For lookups to return.
	ErrUnknownKey error = &class{"unknown_key", "token's key is not known"}
	// ErrKeyRetired: the key no longer verifies.
	ErrKeyRetired error = &class{"key_retired", "token's key is retired"}
	// ErrKeyRevoked: the key was revoked. For lookups to return.
	ErrKeyRevoked error = &class{"key_revoked", "token's key is revoked"}
	// ErrUnusableKey: the key that was looked up must not be used.
	ErrUnusableKey error = &class{"unusable_key", "token's key cannot be used"}
	// ErrAlgorithmMismatch: alg is not the key's own.
	ErrAlgorithmMismatch error = &class{"algorithm_mismatch", "token's algorithm is not the key's"}
	// ErrBadSignature: the key did not sign this.
	ErrBadSignature error = &class{"bad_signature", "token's signature is wrong"}
	// ErrBadClaim: a registered claim of the wrong JSON type or out of range.
	ErrBadClaim error = &class{"bad_claim", "token has a bad claim"}
	// ErrMissingClaim: a required claim is absent, null or empty.
	ErrMissingClaim error = &class{"missing_claim", "token lacks a claim"}
	// ErrExpired: exp has come.
	ErrExpired error = &class{"expired", "token is expired"}
	// ErrNotYetValid: nbf is still to come.
	ErrNotYetValid error = &class{"not_yet_valid", "token is not valid yet"}
	// ErrIssuedInFuture: iat is still to come.
	ErrIssuedInFuture error = &class{"issued_in_future", "token is issued in the future"}
	// ErrLivesTooLong: it lives longer than tokens of its key may.
	ErrLivesTooLong error = &class{"lives_too_long", "token lives too long"}
	// ErrWrongIssuer: iss is not the key's.
	ErrWrongIssuer error = &class{"wrong_issuer", "token is from another issuer"}
	// ErrWrongAudience: aud names none of those expected.
	ErrWrongAudience error = &class{"wrong_audience", "token is for another audience"}
)

// Reason is a short, stable name of an error's class, for logs and metrics:
// empty for nil, "internal" for an error that is of no class.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	var c *class
	if errors.As(err, &c) {
		return c.reason
	}
	if errors.Is(err, keyset.ErrUnusableKey) {
		return Reason(ErrUnusableKey)
	}
	return "internal"
}

// maxQuoted is how much of a text from a client is shown, in bytes.
const maxQuoted = 64

// Quote shows a text that a client sent: quoted, and cut.
func Quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}
