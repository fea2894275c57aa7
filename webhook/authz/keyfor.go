package authz

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
	"github.com/keywright/keywright/webhook/trace"
)

// key finds the one key of the policy's issuers that has the ID, or that is
// for tokens without one. It does not try several: a token says which key it
// means. Where two issuers have keys of one ID, the token's word about its
// issuer chooses: a key counts for its own issuer's tokens only.
func (e *entry) key(kid string, issuer func() string) (*keyset.Key, error) {
	if kid == "" {
		return e.keyWithoutID()
	}
	var found *keyset.Key
	for i := range e.issuers {
		k, ok := e.issuers[i].keys.Lookup(kid)
		if !ok || k == found {
			continue
		}
		if found != nil {
			return e.keyOf(kid, issuer())
		}
		found = k
	}
	if found == nil {
		return nil, e.unknown(kid)
	}
	return found, nil
}

// keyOf finds the one key with an ID that is of an issuer, or else the one
// that is of any.
func (e *entry) keyOf(kid, issuer string) (*keyset.Key, error) {
	for _, name := range [...]string{issuer, ""} {
		var found *keyset.Key
		for i := range e.issuers {
			k, ok := e.issuers[i].keys.Lookup(kid)
			if !ok || k == found || k.Issuer != name {
				continue
			}
			if found != nil {
				return nil, ErrAmbiguousKey
			}
			found = k
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, ErrAmbiguousKey
}

// keyWithoutID finds the one key of all the policy's issuers that is for
// tokens without a kid.
func (e *entry) keyWithoutID() (*keyset.Key, error) {
	var found *keyset.Key
	for i := range e.issuers {
		for _, k := range e.issuers[i].keys.WithoutKeyID() {
			if k == found {
				continue // a SigningKey that is named twice
			}
			if found != nil {
				return nil, errSeveralWithoutID
			}
			found = k
		}
	}
	if found == nil {
		return nil, token.ErrMissingKeyID
	}
	return found, nil
}

var errSeveralWithoutID = fmt.Errorf("%w: it has no key ID, and several keys of the policy's issuers are for such tokens", token.ErrUnknownKey)

// unknown says why there is no key with the ID.
func (e *entry) unknown(kid string) error {
	for i := range e.issuers {
		from, of := e.issuers[i].from, e.issuers[i].of
		if from != nil && !from.wanted.Swap(true) {
			e.wake() // it may be new there; this token waits for nobody
		}
		if of != nil && of.revoked[kid] {
			return fmt.Errorf("%w: kid %s", token.ErrKeyRevoked, token.Quote(kid))
		}
	}
	return token.ErrUnknownKey
}

// awaited gives ErrIssuerNotLoaded in the place of err to a token that says it
// is of an issuer whose keys are not loaded, and was refused because no key of
// another one signed it.
func (e *entry) awaited(raw string, err error, steps *trace.Trace) error {
	if !e.awaits || !slices.ContainsFunc(keyFaults[:], func(fault error) bool { return errors.Is(err, fault) }) {
		return err
	}
	name := token.ClaimedIssuer(raw)
	for i := range e.issuers {
		if e.issuers[i].missing && e.issuers[i].from.origin.Issuer == name {
			return steps.Fault("issuer", e.issuers[i].String(), fmt.Errorf("%w: %s", ErrIssuerNotLoaded, e.issuers[i].from.origin.URL))
		}
	}
	return err
}

// keyFaults are those that another key could mend.
var keyFaults = [...]error{token.ErrUnknownKey, token.ErrKeyRevoked, token.ErrAlgorithmMismatch, token.ErrBadSignature, ErrAmbiguousKey}

// holds says whether k is the very object that its ID and a token's issuer, or
// a token without an ID, lead to now.
func (e *entry) holds(k *keyset.Key, withoutKeyID bool, issuer string) bool {
	id := k.ID
	if withoutKeyID {
		id = ""
	}
	found, err := e.key(id, func() string { return issuer })
	return err == nil && found == k
}
