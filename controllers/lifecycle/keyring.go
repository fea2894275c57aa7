package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// KeyringVersion is the version of the document that this program writes and
// the newest that it reads.
const KeyringVersion = 1

// Errors of DecodeKeyring.
var (
	ErrKeyringUnreadable = errors.New("keyring cannot be read")
	ErrKeyringTooNew     = errors.New("keyring was written by a newer version")
)

// Keyring is every key of one SigningKey: the truth from which status and
// outputs are derived.
type Keyring struct {
	Version int `json:"version"`
	// Sequence grows with each change of Keys and Revoked.
	Sequence int64 `json:"sequence"`
	// Trigger is the last value of rotation.trigger that was answered.
	Trigger string `json:"trigger,omitempty"`
	// TokenTTL is what signers are told.
	TokenTTL TokenTTL `json:"tokenTTL"`
	// Keys, oldest first.
	Keys []Key `json:"keys"`
	// Revoked keys, in the order in which they were revoked.
	Revoked       []Tombstone   `json:"revoked,omitempty"`
	RevokedBefore RevokedBefore `json:"revokedBefore,omitzero"`
}

// TokenTTL is the longest life of a token that signers are told. It is raised
// only when every verifier can know of it.
type TokenTTL struct {
	// Current is what signers are told now.
	Current time.Duration `json:"current"`
	// Raise is what they will be told; zero: no raise is under way.
	Raise time.Duration `json:"raise,omitempty"`
	// RaiseShownAt is when status was seen to allow it.
	RaiseShownAt time.Time `json:"raiseShownAt,omitzero"`
}

// Key is one key and its times. A Key without an ID is planned: its material
// is still to be made.
type Key struct {
	ID string `json:"id"`
	// Sequence at which the key came into the keyring.
	Sequence  int64            `json:"sequence"`
	Algorithm keyset.Algorithm `json:"algorithm"`
	// RSABits is the size of an RSA key, else 0.
	RSABits int32  `json:"rsaBits,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	// Imported says that it came from an application, and WithoutKeyID that
	// tokens without a kid are checked with it.
	Imported     bool `json:"imported,omitempty"`
	WithoutKeyID bool `json:"withoutKeyID,omitempty"`
	// Public is the public half; nil with HS*.
	Public *keyset.Members `json:"public,omitempty"`
	// Private is the private JWK while the key may sign. With HS*, where it
	// also verifies, it stays until the key is retired.
	Private json.RawMessage `json:"private,omitempty"`
	// MaxTokenTTL is L.
	MaxTokenTTL time.Duration `json:"maxTokenTTL"`

	CreatedAt time.Time `json:"createdAt"`
	// PublishedAt is when every publication was last seen to begin showing it.
	PublishedAt time.Time `json:"publishedAt,omitzero"`
	// ActivatedAt is when it was chosen to sign.
	ActivatedAt time.Time `json:"activatedAt,omitzero"`
	// DeactivatedAt is when the signer Secret was seen to hold the successor.
	DeactivatedAt time.Time `json:"deactivatedAt,omitzero"`
	// VerifyUntil is when it ceases to verify; set with DeactivatedAt.
	VerifyUntil time.Time `json:"verifyUntil,omitzero"`
	// Held says that VerifyUntil was put off because of signers that stayed
	// behind. That is done once.
	Held bool `json:"held,omitempty"`
}

// Encode writes the document.
func (r Keyring) Encode() ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding keyring: %w", err)
	}
	return raw, nil
}

// DecodeKeyring reads a document. It never quotes its input.
func DecodeKeyring(raw []byte) (Keyring, error) {
	var r Keyring
	err := json.Unmarshal(raw, &r)
	switch {
	case r.Version > KeyringVersion: // whatever else it may hold
		return Keyring{}, fmt.Errorf("%w: document version %d, this program reads up to %d", ErrKeyringTooNew, r.Version, KeyringVersion)
	case err != nil || r.Version < 1:
		return Keyring{}, ErrKeyringUnreadable
	}
	seen := map[string]bool{}
	for _, k := range r.Keys {
		if k.ID == "" || seen[k.ID] || !k.Algorithm.Known() {
			return Keyring{}, ErrKeyringUnreadable
		}
		seen[k.ID] = true
	}
	for _, t := range r.Revoked {
		if t.ID == "" || seen[t.ID] {
			return Keyring{}, ErrKeyringUnreadable
		}
	}
	return r, nil
}

// Active is the key that signers are given, or nil before the first.
func (r Keyring) Active() *Key {
	for i := len(r.Keys) - 1; i >= 0; i-- {
		if k := &r.Keys[i]; !k.ActivatedAt.IsZero() {
			if k.DeactivatedAt.IsZero() {
				return k
			}
			return nil
		}
	}
	return nil
}

// Standby is the key that is published, or planned, and has not signed; nil
// when there is none.
func (r Keyring) Standby() *Key {
	if n := len(r.Keys); n > 0 && r.Keys[n-1].ActivatedAt.IsZero() {
		return &r.Keys[n-1]
	}
	return nil
}

// switching is the key whose successor is chosen but not yet seen in the
// signer Secret; nil when there is none.
func (r Keyring) switching() *Key {
	active := r.Active()
	for i := range r.Keys {
		k := &r.Keys[i]
		if k != active && !k.ActivatedAt.IsZero() && k.DeactivatedAt.IsZero() {
			return k
		}
	}
	return nil
}

// Find gives the key with an ID, or nil.
func (r Keyring) Find(id string) *Key {
	for i := range r.Keys {
		if r.Keys[i].ID == id {
			return &r.Keys[i]
		}
	}
	return nil
}

// State is where a key of the keyring stands at now.
func (r Keyring) State(k *Key, now time.Time) v1alpha1.KeyState {
	switch {
	case k.ActivatedAt.IsZero():
		return v1alpha1.KeyPublished
	case k.DeactivatedAt.IsZero():
		if active := r.Active(); active != nil && active.ID == k.ID {
			return v1alpha1.KeyActive
		}
		return v1alpha1.KeyVerifying
	case now.Before(k.VerifyUntil):
		return v1alpha1.KeyVerifying
	}
	return v1alpha1.KeyRetired
}

// Verifying lists the keys that count at now, newest first: published, active
// and verifying ones.
func (r Keyring) Verifying(now time.Time) []*Key {
	var out []*Key
	for i := len(r.Keys) - 1; i >= 0; i-- {
		if k := &r.Keys[i]; r.State(k, now) != v1alpha1.KeyRetired {
			out = append(out, k)
		}
	}
	return out
}
