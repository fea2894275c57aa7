package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/keyset"
)

// tokenKind says who made a token.
type tokenKind int

const (
	soundToken  tokenKind = iota // by an application that keeps to the rules
	longToken                    // by one that lets it live too long
	forgedToken                  // by another key under a real key ID
	stolenToken                  // by a thief of a key
)

// token is one token and all that is true of it. Times are those of the claims;
// signed is by the true clock.
type token struct {
	raw, of, kid string
	kind         tokenKind
	signed       time.Time
	iat, exp     time.Time
	// signsAgain: its key had ended before a restore.
	signsAgain bool
}

// signingFile is the file signing.jwk as an application reads it.
type signingFile struct {
	Kid, Alg, Iss string
	// MaxTokenTTL in seconds.
	MaxTokenTTL int64 `json:"maxTokenTTL"`
	private     any
}

func parseSigningFile(raw []byte) (*signingFile, error) {
	f := &signingFile{}
	if err := json.Unmarshal(raw, f); err != nil {
		return nil, fmt.Errorf("reading signing.jwk: %w", err)
	}
	var err error
	if f.private, _, err = keyset.DecodePrivate(raw); err != nil {
		return nil, fmt.Errorf("reading signing.jwk: %w", err)
	}
	return f, nil
}

// sign makes a token, by a clock that says iat.
func (t token) sign(private any, alg, iss string) (*token, error) {
	made := jwt.NewWithClaims(jwt.GetSigningMethod(alg), jwt.MapClaims{
		"sub": "ada", "aud": "orders", "iss": iss, "iat": t.iat.Unix(), "exp": t.exp.Unix(), "jti": rand.Text(),
	})
	made.Header["kid"] = t.kid
	var err error
	if t.raw, err = made.SignedString(private); err != nil {
		return nil, fmt.Errorf("signing with key %s: %w", t.kid, err)
	}
	return &t, nil
}

// forgers are keys that no gate has ever heard of, one of each kind.
type forgers map[keyset.Algorithm]any

func newForgers() (forgers, error) {
	ec, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, err2 := ed25519.GenerateKey(rand.Reader)
	rs, err3 := rsa.GenerateKey(rand.Reader, 2048)
	hs := make([]byte, 32)
	_, err4 := rand.Read(hs)
	return forgers{keyset.ES256: ec, keyset.EdDSA: ed, keyset.RS256: rs, keyset.HS256: hs}, errors.Join(err1, err2, err3, err4)
}
