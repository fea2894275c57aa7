package keyset

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// HMACSecretName is the Secret, in the controller's namespace, from which the
// gate reads the verification secrets of HS* keys: one entry a SigningKey.
const HMACSecretName = "keywright-hmac"

// ErrMalformedHMACEntry says that an entry of the Secret HMACSecretName
// cannot be read or belongs to another SigningKey.
var ErrMalformedHMACEntry = errors.New("malformed HMAC entry")

// HMACEntryName is the entry of a SigningKey in the Secret HMACSecretName: a
// hash, because names can be longer than entry names and could collide when
// joined.
func HMACEntryName(namespace, name string) string {
	sum := sha256.Sum256([]byte(namespace + "/" + name))
	return hex.EncodeToString(sum[:])
}

// HMACEntry holds the verification secrets of one SigningKey by key ID.
type HMACEntry struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Secrets   map[string][]byte `json:"secrets"`
}

// Encode writes the entry; equal entries give equal texts.
func (e HMACEntry) Encode() ([]byte, error) {
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding HMAC entry of %s/%s: %w", e.Namespace, e.Name, err)
	}
	return raw, nil
}

// DecodeHMACEntry reads the entry of a SigningKey. It never quotes its input.
func DecodeHMACEntry(raw []byte, namespace, name string) (HMACEntry, error) {
	var e HMACEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return HMACEntry{}, ErrMalformedHMACEntry
	}
	if e.Namespace != namespace || e.Name != name {
		return HMACEntry{}, fmt.Errorf("%w: it belongs to another SigningKey than %s/%s", ErrMalformedHMACEntry, namespace, name)
	}
	return e, nil
}
