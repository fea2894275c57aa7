package keyset

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
)

// Algorithm is a JWS "alg" value, compared exactly (RFC 7515 section 4.1.1).
type Algorithm string

// The signature algorithms (RFC 7518 section 3.1; EdDSA with Ed25519,
// RFC 8037 section 3.1).
const (
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	ES512 Algorithm = "ES512"
	EdDSA Algorithm = "EdDSA"
	RS256 Algorithm = "RS256"
	RS384 Algorithm = "RS384"
	RS512 Algorithm = "RS512"
	PS256 Algorithm = "PS256"
	PS384 Algorithm = "PS384"
	PS512 Algorithm = "PS512"
	HS256 Algorithm = "HS256"
	HS384 Algorithm = "HS384"
	HS512 Algorithm = "HS512"
)

// Family is the kind of key that an algorithm needs.
type Family string

// The kinds of key.
const (
	FamilyEC   Family = "EC"
	FamilyOKP  Family = "OKP"
	FamilyRSA  Family = "RSA"
	FamilyHMAC Family = "oct"
)

// MinRSABits is the smallest RSA modulus that is taken (RFC 7518 sections
// 3.3 and 3.5).
const MinRSABits = 2048

// MaxRSABits is the largest RSA modulus that is taken: what a verification
// costs grows with its square.
const MaxRSABits = 8192

type algorithm struct {
	family Family
	curve  elliptic.Curve
	// minSecret is the size of the hash in bytes, which an HMAC key must
	// at least have (RFC 7518 section 3.2).
	minSecret int
}

var algorithms = map[Algorithm]algorithm{
	ES256: {family: FamilyEC, curve: elliptic.P256()},
	ES384: {family: FamilyEC, curve: elliptic.P384()},
	ES512: {family: FamilyEC, curve: elliptic.P521()},
	EdDSA: {family: FamilyOKP},
	RS256: {family: FamilyRSA},
	RS384: {family: FamilyRSA},
	RS512: {family: FamilyRSA},
	PS256: {family: FamilyRSA},
	PS384: {family: FamilyRSA},
	PS512: {family: FamilyRSA},
	HS256: {family: FamilyHMAC, minSecret: 32},
	HS384: {family: FamilyHMAC, minSecret: 48},
	HS512: {family: FamilyHMAC, minSecret: 64},
}

// Algorithms lists every algorithm.
func Algorithms() []Algorithm {
	return []Algorithm{ES256, ES384, ES512, EdDSA, RS256, RS384, RS512, PS256, PS384, PS512, HS256, HS384, HS512}
}

// Known says whether a is one of Algorithms.
func (a Algorithm) Known() bool { _, ok := algorithms[a]; return ok }

// Family is the kind of key that a needs; empty when a is not known.
func (a Algorithm) Family() Family { return algorithms[a].family }

// Symmetric says whether signers and verifiers share one secret.
func (a Algorithm) Symmetric() bool { return a.Family() == FamilyHMAC }

// Curve is the curve of an EC algorithm, else nil.
func (a Algorithm) Curve() elliptic.Curve { return algorithms[a].curve }

// MinSecretBytes is the least size of an HMAC secret in bytes, else 0.
func (a Algorithm) MinSecretBytes() int { return algorithms[a].minSecret }

// ErrUnusableKey says that a key must not be used with an algorithm.
var ErrUnusableKey = errors.New("key cannot be used with the algorithm")

// CheckVerificationKey says whether pub may verify signatures made with a.
// pub is an *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey or, for HMAC,
// the secret as []byte. Errors wrap ErrUnusableKey.
func (a Algorithm) CheckVerificationKey(pub crypto.PublicKey) error {
	want, ok := algorithms[a]
	if !ok {
		return fmt.Errorf("%w: algorithm %q is not known", ErrUnusableKey, a)
	}
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			return fmt.Errorf("%w: an EC key without a curve", ErrUnusableKey)
		}
		if want.family != FamilyEC || k.Curve != want.curve {
			return fmt.Errorf("%w: an EC key on %s with %s", ErrUnusableKey, k.Curve.Params().Name, a)
		}
		if _, err := k.ECDH(); err != nil { // checks that the point is on the curve
			return fmt.Errorf("%w: %s: point is not on the curve", ErrUnusableKey, a)
		}
	case ed25519.PublicKey:
		if want.family != FamilyOKP || len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: an Ed25519 key of %d bytes with %s", ErrUnusableKey, len(k), a)
		}
	case *rsa.PublicKey:
		if want.family != FamilyRSA {
			return fmt.Errorf("%w: an RSA key with %s", ErrUnusableKey, a)
		}
		if k == nil || k.N == nil || k.N.BitLen() < MinRSABits {
			return fmt.Errorf("%w: an RSA key under %d bits", ErrUnusableKey, MinRSABits)
		}
		if k.N.BitLen() > MaxRSABits {
			return fmt.Errorf("%w: an RSA key over %d bits", ErrUnusableKey, MaxRSABits)
		}
		if k.N.Sign() < 0 || k.N.Bit(0) == 0 {
			return fmt.Errorf("%w: an RSA key whose modulus is not odd and positive", ErrUnusableKey)
		}
		if k.E < 3 || k.E%2 == 0 {
			return fmt.Errorf("%w: an RSA key with exponent %d", ErrUnusableKey, k.E)
		}
	case []byte:
		if want.family != FamilyHMAC {
			return fmt.Errorf("%w: a secret with %s", ErrUnusableKey, a)
		}
		if len(k) < want.minSecret {
			return fmt.Errorf("%w: a secret of %d bytes with %s, which needs %d", ErrUnusableKey, len(k), a, want.minSecret)
		}
	default:
		return fmt.Errorf("%w: a key of type %T", ErrUnusableKey, pub)
	}
	return nil
}
