package controllers

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// generate makes the material of a planned key. The ID of an asymmetric key is
// its RFC 7638 thumbprint; that of a secret is random, because a thumbprint
// would let anyone test guesses of it.
func generate(k *lifecycle.Key) error {
	priv, err := newPrivate(k.Algorithm, k.RSABits)
	if err != nil {
		return fmt.Errorf("generating a key for %s: %w", k.Algorithm, err)
	}
	if signer, ok := priv.(crypto.Signer); ok {
		members, err := keyset.MembersOf(signer.Public())
		if err != nil {
			return err
		}
		k.Public = &members
		if k.ID, err = keyset.Thumbprint(signer.Public()); err != nil {
			return err
		}
	} else {
		id := make([]byte, 16)
		_, _ = rand.Read(id) // never fails (crypto/rand)
		k.ID = base64.RawURLEncoding.EncodeToString(id)
	}
	k.Private, err = keyset.EncodePrivate(priv, k.ID, k.Algorithm)
	return err
}

func newPrivate(alg keyset.Algorithm, rsaBits int32) (any, error) {
	switch alg.Family() {
	case keyset.FamilyEC:
		return ecdsa.GenerateKey(alg.Curve(), rand.Reader)
	case keyset.FamilyOKP:
		_, priv, err := ed25519.GenerateKey(rand.Reader)
		return priv, err
	case keyset.FamilyRSA:
		return rsa.GenerateKey(rand.Reader, int(rsaBits))
	case keyset.FamilyHMAC:
		secret := make([]byte, alg.MinSecretBytes())
		_, _ = rand.Read(secret) // never fails (crypto/rand)
		return secret, nil
	}
	return nil, fmt.Errorf("%w: algorithm %q is not known", keyset.ErrUnusableKey, alg)
}
