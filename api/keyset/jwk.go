package keyset

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // thumbprints
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
)

// ErrMalformedJWK says that a JWK cannot be read.
var ErrMalformedJWK = errors.New("malformed JWK")

// Members are the public members of a JWK (RFC 7518 section 6, RFC 8037
// section 2). There is no place for a private one.
type Members struct {
	Kty string `json:"kty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
}

// MembersOf gives the public members of an asymmetric public key. A secret
// has none: that is ErrUnusableKey.
func MembersOf(pub crypto.PublicKey) (Members, error) {
	switch pub.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
	default:
		return Members{}, fmt.Errorf("%w: a key of type %T has no public half", ErrUnusableKey, pub)
	}
	raw, err := jose.JSONWebKey{Key: pub}.MarshalJSON()
	if err != nil {
		return Members{}, fmt.Errorf("encoding public key: %w", err)
	}
	var m Members
	if err := json.Unmarshal(raw, &m); err != nil {
		return Members{}, fmt.Errorf("encoding public key: %w", err)
	}
	return m, nil
}

// PublicKey reads the members. Errors wrap ErrMalformedJWK.
func (m Members) PublicKey() (crypto.PublicKey, error) {
	if strings.ContainsAny(m.X+m.Y+m.N+m.E, "\r\n") { // base64 skips them
		return nil, fmt.Errorf("%w: a line break", ErrMalformedJWK)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedJWK, err)
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedJWK, err)
	}
	switch pub := k.Key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return pub, nil
	case *rsa.PublicKey:
		if pub.N.Sign() > 0 {
			return pub, nil
		}
	}
	return nil, fmt.Errorf("%w: kty %q", ErrMalformedJWK, m.Kty)
}

// Thumbprint is the RFC 7638 SHA-256 thumbprint of a public key, in base64url.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: pub}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// PublicJWK is a public key as a JWKS shows it.
type PublicJWK struct {
	Kid string `json:"kid"`
	Use string `json:"use"`
	Alg string `json:"alg"`
	Members
}

// Document is a JWK Set (RFC 7517 section 5).
type Document struct {
	Keys []PublicJWK `json:"keys"`
}

// DocumentOf gives the public document of keys, in their order. Secrets are
// left out: they have no public half.
func DocumentOf(keys []*Key) (Document, error) {
	doc := Document{Keys: []PublicJWK{}}
	for _, k := range keys {
		if k.Algorithm.Symmetric() {
			continue
		}
		m, err := MembersOf(k.Public)
		if err != nil {
			return Document{}, fmt.Errorf("key %s: %w", k.ID, err)
		}
		doc.Keys = append(doc.Keys, PublicJWK{Kid: k.ID, Use: "sig", Alg: string(k.Algorithm), Members: m})
	}
	return doc, nil
}

// EncodePrivate writes a private key (an *ecdsa.PrivateKey, *rsa.PrivateKey,
// ed25519.PrivateKey or a secret as []byte) as a JWK with its ID and
// algorithm.
func EncodePrivate(priv any, id string, alg Algorithm) (json.RawMessage, error) {
	raw, err := jose.JSONWebKey{Key: priv, KeyID: id, Algorithm: string(alg), Use: "sig"}.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	return raw, nil
}

// DecodePrivate reads what EncodePrivate wrote: the private key and its
// verification half (for HMAC, the secret itself). Halves that do not belong
// together are refused: nobody could verify what such a key signs. It never
// quotes its input. Errors wrap ErrMalformedJWK.
func DecodePrivate(raw []byte) (priv any, pub crypto.PublicKey, err error) {
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil {
		return nil, nil, ErrMalformedJWK // the cause could quote the key
	}
	switch p := k.Key.(type) {
	case *ecdsa.PrivateKey:
		whole, err := p.ECDH()
		if err != nil {
			return nil, nil, ErrMalformedJWK
		}
		if half, err := p.PublicKey.ECDH(); err != nil || !whole.PublicKey().Equal(half) {
			return nil, nil, ErrMalformedJWK
		}
		return p, &p.PublicKey, nil
	case *rsa.PrivateKey: // go-jose has compared its halves
		return p, &p.PublicKey, nil
	case ed25519.PrivateKey:
		if !ed25519.NewKeyFromSeed(p.Seed()).Equal(p) {
			return nil, nil, ErrMalformedJWK
		}
		return p, p.Public(), nil
	case []byte:
		return p, p, nil
	}
	return nil, nil, fmt.Errorf("%w: not a private key", ErrMalformedJWK)
}
