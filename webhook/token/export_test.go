package token

import (
	"errors"

	"github.com/keywright/keywright/api/keyset"
)

// CheckSignature is Parse's own check of a signature, for tokens of RFCs that
// Parse refuses before it for want of a kid.
func CheckSignature(raw string, key *keyset.Key) error {
	f, err := split(raw)
	if err != nil {
		return err
	}
	if methods[key.Algorithm].Verify(f.signed, f.signature, key.Public) != nil {
		return ErrBadSignature
	}
	return nil
}

// DecodeObject is the JSON decoder, as it is for claims.
func DecodeObject(text string) (map[string]any, error) { return decodeObject(text, maxClaimValues) }

// NotUnambiguous says whether err is one of the refusals that go beyond the
// grammar of JSON.
func NotUnambiguous(err error) bool {
	return errors.Is(err, errTwice) || errors.Is(err, errNotUTF8) ||
		errors.Is(err, errTooDeep) || errors.Is(err, errTooMany) || errors.Is(err, errNumberTooBig)
}
