package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
)

// signingFile is the file signing.jwk as an application reads it.
type signingFile struct {
	Kid, Alg, Iss string
	// MaxTokenTTL in seconds.
	MaxTokenTTL int64 `json:"maxTokenTTL"`
	private     any
}

// mount is the signer Secret as a pod sees it: every change arrives late.
type mount struct {
	current atomic.Pointer[signingFile]
}

// follow reads the Secret and shows each change after lag, until ctx ends.
func (m *mount) follow(ctx context.Context, c client.Client, lag time.Duration) {
	type change struct {
		at   time.Time
		file *signingFile
	}
	var pending []change
	last := ""
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		read := time.Now()
		secret := &corev1.Secret{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "shop-signing"}, secret); err == nil && secret.ResourceVersion != last {
			last = secret.ResourceVersion
			if file, err := parseSigningFile(secret.Data["signing.jwk"]); err == nil {
				pending = append(pending, change{read.Add(lag), file})
			}
		}
		for len(pending) > 0 && (m.current.Load() == nil || !time.Now().Before(pending[0].at)) {
			m.current.Store(pending[0].file)
			pending = pending[1:]
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func parseSigningFile(raw []byte) (*signingFile, error) {
	f := &signingFile{}
	if err := json.Unmarshal(raw, f); err != nil {
		return nil, fmt.Errorf("reading signing.jwk: %w", err)
	}
	var err error
	f.private, _, err = keyset.DecodePrivate(raw)
	return f, err
}

// sign makes a token. claims go over what a correct signer puts in.
func (f *signingFile) sign(claims jwt.MapClaims) (string, time.Time, error) {
	now := time.Now()
	exp := now.Add(time.Duration(f.MaxTokenTTL) * time.Second)
	all := jwt.MapClaims{"sub": "ada", "aud": "orders", "iss": f.Iss, "iat": now.Unix(), "exp": exp.Unix()}
	for name, value := range claims {
		all[name] = value
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(f.Alg), all)
	token.Header["kid"] = f.Kid
	raw, err := token.SignedString(f.private)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("signing: %w", err)
	}
	return raw, exp.Truncate(time.Second), nil
}
