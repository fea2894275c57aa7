package token

import (
	"crypto/ecdsa"
	"crypto/rsa"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/keyset"
)

// methods check signatures. There is no "none" here, and one entry an
// algorithm: nothing is ever chosen by what a token says.
var methods = map[keyset.Algorithm]jwt.SigningMethod{
	keyset.ES256: jwt.SigningMethodES256,
	keyset.ES384: jwt.SigningMethodES384,
	keyset.ES512: jwt.SigningMethodES512,
	keyset.EdDSA: jwt.SigningMethodEdDSA,
	keyset.RS256: jwt.SigningMethodRS256,
	keyset.RS384: jwt.SigningMethodRS384,
	keyset.RS512: jwt.SigningMethodRS512,
	keyset.PS256: pss(jwt.SigningMethodPS256),
	keyset.PS384: pss(jwt.SigningMethodPS384),
	keyset.PS512: pss(jwt.SigningMethodPS512),
	keyset.HS256: jwt.SigningMethodHS256,
	keyset.HS384: jwt.SigningMethodHS384,
	keyset.HS512: jwt.SigningMethodHS512,
}

// pss is m with the one salt length that RFC 7518 section 3.5 allows, where
// golang-jwt takes any.
func pss(m *jwt.SigningMethodRSAPSS) jwt.SigningMethod {
	strict := *m
	strict.VerifyOptions = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return &strict
}

// usable checks a key again, which a key of a Set has passed before and one
// made by hand has not. Whether an EC point is on its curve is left to
// crypto/ecdsa, which looks each time: twice would cost a microsecond.
func usable(key *keyset.Key) error {
	if ec, ok := key.Public.(*ecdsa.PublicKey); ok && ec != nil && ec.Curve != nil && ec.Curve == key.Algorithm.Curve() {
		return nil
	}
	return key.Algorithm.CheckVerificationKey(key.Public)
}
