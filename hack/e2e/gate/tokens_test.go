//go:build linux

package gate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// signer is what an application makes of signing.jwk.
type signer struct {
	kid, alg, issuer string
	// typ is the header of that name; JWT when empty.
	typ string
	ttl time.Duration
	key any
}

// readSigner reads a signer Secret as an application would that mounts it, with
// nothing of the product's own code.
func readSigner(ctx context.Context, namespace, secretName string) (*signer, error) {
	secret := &corev1.Secret{}
	if err := env.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: secretName}, secret); err != nil {
		return nil, fmt.Errorf("reading the signer Secret: %w", err)
	}
	var jwk struct {
		Kty, Crv, Kid, Alg, Iss, D, K string
		MaxTokenTTL                   int64
	}
	if err := json.Unmarshal(secret.Data["signing.jwk"], &jwk); err != nil {
		return nil, fmt.Errorf("reading signing.jwk: %w", err)
	}
	s := &signer{kid: jwk.Kid, alg: jwk.Alg, issuer: jwk.Iss, ttl: time.Duration(jwk.MaxTokenTTL) * time.Second}
	raw, err := base64.RawURLEncoding.DecodeString(jwk.D + jwk.K)
	if err != nil {
		return nil, fmt.Errorf("reading signing.jwk: %w", err)
	}
	switch {
	case jwk.Kty == "oct":
		s.key = raw
	case jwk.Kty == "EC" && jwk.Crv == "P-256":
		if s.key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err != nil {
			return nil, fmt.Errorf("reading signing.jwk: %w", err)
		}
	default:
		return nil, fmt.Errorf("reading signing.jwk: kty %q, crv %q", jwk.Kty, jwk.Crv)
	}
	leaks.add(jwk.D, jwk.K)
	return s, nil
}

// sign signs claims. All that was ever signed is searched for in the end.
func (s *signer) sign(claims jwt.MapClaims) (string, error) {
	t := jwt.NewWithClaims(jwt.GetSigningMethod(s.alg), claims)
	t.Header["kid"] = s.kid
	if s.typ != "" {
		t.Header["typ"] = s.typ
	}
	raw, err := t.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	leaks.add(raw)
	return raw, nil
}

// claims are good ones, with what is given on top; nil leaves one out.
func (s *signer) claims(now time.Time, life time.Duration, extra jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"aud": "orders", "sub": "u-17", "iat": now.Unix(), "exp": now.Add(life).Unix()}
	if s.issuer != "" {
		c["iss"] = s.issuer
	}
	maps.Copy(c, extra)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// mintAll makes the tokens that scenarios name.
func mintAll(ctx context.Context) (map[string]string, error) {
	shop, err := readSigner(ctx, "shop", "shop-signing")
	if err != nil {
		return nil, err
	}
	partner, err := readSigner(ctx, "shop", "partner-signing")
	if err != nil {
		return nil, err
	}
	secret, err := readSigner(ctx, "shop", "secret-signing")
	if err != nil {
		return nil, err
	}
	thief, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	forger := &signer{kid: shop.kid, alg: shop.alg, issuer: shop.issuer, key: thief}
	stranger := &signer{kid: "no-such-key", alg: shop.alg, issuer: shop.issuer, key: thief}
	public, err := x509.MarshalPKIXPublicKey(&shop.key.(*ecdsa.PrivateKey).PublicKey)
	if err != nil {
		return nil, err
	}
	// The confusion of algorithms: the public key, taken for a secret.
	confuser := &signer{kid: shop.kid, alg: "HS256", issuer: shop.issuer, key: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})}
	unsigned := &signer{kid: shop.kid, alg: "none", issuer: shop.issuer, key: jwt.UnsafeAllowNoneSignatureType}

	now := time.Now()
	const life = 50 * time.Minute
	out := map[string]string{}
	for name, t := range map[string]struct {
		by     *signer
		claims jwt.MapClaims
	}{
		"user":           {shop, shop.claims(now, life, jwt.MapClaims{"roles": []string{"customer"}})},
		"admin":          {shop, shop.claims(now, life, jwt.MapClaims{"sub": "root-1", "roles": []string{"admin", "ops"}})},
		"reader":         {shop, shop.claims(now, life, jwt.MapClaims{"scope": "orders:read"})},
		"reporter":       {shop, shop.claims(now, life, jwt.MapClaims{"scope": "orders:report x orders:read"})},
		"two factors":    {shop, shop.claims(now, life, jwt.MapClaims{"amr": []string{"pwd", "mfa"}})},
		"expired":        {shop, shop.claims(now.Add(-time.Hour), 50*time.Minute, nil)},
		"early":          {shop, shop.claims(now, life, jwt.MapClaims{"nbf": now.Add(30 * time.Minute).Unix()})},
		"long-lived":     {shop, shop.claims(now, 3*time.Hour, nil)},
		"wrong audience": {shop, shop.claims(now, life, jwt.MapClaims{"aud": "invoices"})},
		"wrong issuer":   {shop, shop.claims(now, life, jwt.MapClaims{"iss": "https://auth.shop.example/"})},
		"no subject":     {shop, shop.claims(now, life, jwt.MapClaims{"sub": nil})},
		"CRLF":           {shop, shop.claims(now, life, jwt.MapClaims{"sub": "u\r\nX-Auth-Roles: admin"})},
		"large":          {shop, shop.claims(now, life, jwt.MapClaims{"padding": strings.Repeat("padding ", 1<<10)})},
		"forged":         {forger, forger.claims(now, life, nil)},
		"unknown key":    {stranger, stranger.claims(now, life, nil)},
		"confused":       {confuser, confuser.claims(now, life, nil)},
		"unsigned":       {unsigned, unsigned.claims(now, life, nil)},
		"partner":        {partner, partner.claims(now, life, nil)},
		"secret":         {secret, secret.claims(now, life, nil)},
	} {
		if out[name], err = t.by.sign(t.claims); err != nil {
			return nil, fmt.Errorf("token %q: %w", name, err)
		}
	}
	out["garbage"] = "not.a.token"
	head, _, _ := strings.Cut(out["user"], ".")
	_, tail, _ := strings.Cut(out["admin"], ".")
	out["spliced"] = head + "." + tail[:strings.IndexByte(tail, '.')] + out["user"][strings.LastIndexByte(out["user"], '.'):]
	leaks.add(out["spliced"])
	return out, nil
}
