package token

import (
	"errors"
	"reflect"
)

// ValueBytes is how large a value of Claims is, and is said to be.
var ValueBytes = [...]uintptr{reflect.TypeFor[value]().Size(), valueBytes}

// DecodeObject is the JSON decoder, as it is for claims.
func DecodeObject(text string) (map[string]any, error) {
	claims, err := DecodeClaims(text)
	if err != nil {
		return nil, err
	}
	return claims.Map(), nil
}

// Any is the value as in Claims.Map.
func (v Value) Any() any { return v.any() }

// NotUnambiguous says whether err is one of the refusals that go beyond the
// grammar of JSON.
func NotUnambiguous(err error) bool {
	return errors.Is(err, errTwice) || errors.Is(err, errNotUTF8) ||
		errors.Is(err, errTooDeep) || errors.Is(err, errTooMany) || errors.Is(err, errTooLong) || errors.Is(err, errNumberTooBig)
}
