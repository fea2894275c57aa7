package keyset

import (
	"crypto"
	"errors"
	"fmt"
	"sort"
	"time"
)

// Key is one key that verifies tokens. It is never changed once it is in a
// Set, so that a pointer to it can stand for it.
type Key struct {
	// ID is the kid.
	ID string
	// Algorithm is the only one that the key is used with.
	Algorithm Algorithm
	// Public is an *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey or,
	// for HMAC, the secret as []byte.
	Public crypto.PublicKey
	// Issuer is the iss of the key's tokens; empty: not looked at.
	Issuer string
	// MaxTokenTTL is the longest exp - iat of the key's tokens.
	MaxTokenTTL time.Duration
	// Leeway is what is allowed on exp, nbf, iat and MaxTokenTTL.
	Leeway time.Duration
	// VerifyUntil is when the key ceases to verify; zero: not known yet.
	VerifyUntil time.Time
	// WithoutKeyID says that tokens that carry no kid are checked with the
	// key: one from before Keywright.
	WithoutKeyID bool
}

// ValidAt says whether the key verifies at now.
func (k *Key) ValidAt(now time.Time) bool {
	return k.VerifyUntil.IsZero() || now.Before(k.VerifyUntil)
}

// Errors of NewSet.
var (
	ErrNoKeyID        = errors.New("key has no ID")
	ErrDuplicateKeyID = errors.New("two keys have the same ID")
)

// Set is an immutable set of keys with distinct IDs.
type Set struct {
	byID map[string]*Key
	// withoutKeyID are those with the flag of that name.
	withoutKeyID []*Key
}

// NewSet makes a set. A key without an ID, two keys with one ID, and a key
// that its algorithm cannot use (ErrUnusableKey) are errors that name the key.
func NewSet(keys ...*Key) (*Set, error) {
	s := &Set{byID: make(map[string]*Key, len(keys))}
	for _, k := range keys {
		if k.ID == "" {
			return nil, ErrNoKeyID
		}
		if _, dup := s.byID[k.ID]; dup {
			return nil, fmt.Errorf("%w: %s", ErrDuplicateKeyID, k.ID)
		}
		if err := k.Algorithm.CheckVerificationKey(k.Public); err != nil {
			return nil, fmt.Errorf("key %s: %w", k.ID, err)
		}
		s.byID[k.ID] = k
		if k.WithoutKeyID {
			s.withoutKeyID = append(s.withoutKeyID, k)
		}
	}
	return s, nil
}

// Lookup finds the key with an ID, whether or not it is valid now.
func (s *Set) Lookup(id string) (*Key, bool) {
	if s == nil {
		return nil, false
	}
	k, ok := s.byID[id]
	return k, ok
}

// WithoutKeyID lists the keys that a token without a kid may be checked with,
// whether or not they are valid now. More than one is none: nothing says which
// of them such a token means, and keys are not tried in turn. The slice must
// not be changed.
func (s *Set) WithoutKeyID() []*Key {
	if s == nil {
		return nil
	}
	return s.withoutKeyID
}

// Keys lists the keys, ordered by ID.
func (s *Set) Keys() []*Key {
	if s == nil {
		return nil
	}
	out := make([]*Key, 0, len(s.byID))
	for _, k := range s.byID {
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}
