package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/keyset"
)

const (
	issuer  = "https://auth.example.com"
	subject = "u-17"
)

// signer makes the tokens of one key.
type signer struct {
	algorithm keyset.Algorithm
	private   crypto.Signer
	id        string
}

func newSigner(algorithm keyset.Algorithm) (*signer, error) {
	s := &signer{algorithm: algorithm}
	var err error
	switch algorithm {
	case keyset.ES256:
		s.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keyset.EdDSA:
		_, s.private, err = ed25519.GenerateKey(rand.Reader)
	case keyset.RS256:
		s.private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("no key for %s here", algorithm)
	}
	if err == nil {
		s.id, err = keyset.Thumbprint(s.private.Public())
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return s, nil
}

// sign makes a token as an application would. Its id makes it a new one.
func (s *signer) sign(now time.Time, id string) (string, error) {
	t := jwt.NewWithClaims(jwt.GetSigningMethod(string(s.algorithm)), jwt.MapClaims{
		"iss": issuer, "sub": subject, "aud": "orders", "jti": id,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"scope": "orders:read orders:write", "roles": []string{"customer"},
	})
	t.Header["kid"] = s.id
	raw, err := t.SignedString(s.private)
	if err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	return raw, nil
}

// tokens makes n tokens that there have never been, on all cores.
func (s *signer) tokens(n int) ([]string, error) {
	run, now := rand.Text(), time.Now()
	out := make([]string, n)
	workers := runtime.NumCPU()
	errs := make([]error, workers)
	var working sync.WaitGroup
	for w := range workers {
		working.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				out[i], errs[w] = s.sign(now, run+strconv.Itoa(i))
			}
		})
	}
	working.Wait()
	return out, errors.Join(errs...)
}
