package controllers

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// importEntries are looked for in this order.
var importEntries = []string{SigningJWKEntry, "jwk.json", "tls.key", SigningPEMEntry, "private.pem", "secret"}

// loadImport reads the key that spec.import names. Errors name the field and
// never quote what was read.
func (r *SigningKeyReconciler) loadImport(ctx context.Context, sk *v1alpha1.SigningKey) (*lifecycle.Key, error) {
	from := sk.Spec.Import
	secret, err := get(ctx, r.Live, sk.Namespace, from.SecretName, &corev1.Secret{})
	switch {
	case err != nil:
		return nil, fmt.Errorf("secretName: %w", err)
	case secret == nil:
		return nil, fmt.Errorf("secretName: Secret %s does not exist", from.SecretName)
	}
	entry, raw, err := importEntry(secret)
	if err != nil {
		return nil, fmt.Errorf("secretName: Secret %s %w", from.SecretName, err)
	}
	k, err := importedKey(raw, keyset.Algorithm(sk.Spec.Algorithm), from.KeyID)
	if err != nil {
		return nil, fmt.Errorf("secretName: entry %s of Secret %s: %w", entry, from.SecretName, err)
	}
	k.WithoutKeyID = from.WithoutKeyID
	for _, revoked := range sk.Spec.RevokedKeys {
		if revoked.KeyID == k.ID {
			return nil, fmt.Errorf("keyID: %s is in revokedKeys", k.ID)
		}
	}
	return k, nil
}

func importEntry(secret *corev1.Secret) (name string, raw []byte, err error) {
	for _, name := range importEntries {
		if raw, ok := secret.Data[name]; ok {
			return name, raw, nil
		}
	}
	if len(secret.Data) == 1 {
		for name, raw := range secret.Data {
			return name, raw, nil
		}
	}
	return "", nil, fmt.Errorf("has none of the entries %v, and not a single one", importEntries)
}

// What an import can be wrong about.
var (
	errNotPrivate  = errors.New("it is not a private key: neither a JWK nor PEM as PKCS#8, PKCS#1 or SEC 1 without a passphrase")
	errPublicOnly  = errors.New("it is a public key: nothing can be signed with it")
	errNotForHMAC  = errors.New("it is an asymmetric key, which must never be an HS* secret")
	errOtherAlgJWK = errors.New("its alg is another than spec.algorithm")
)

// importedKey makes of a text the key of an algorithm.
func importedKey(raw []byte, alg keyset.Algorithm, id string) (*lifecycle.Key, error) {
	priv, pub, own, err := readPrivate(raw, alg)
	if err != nil {
		return nil, err
	}
	if err := alg.CheckVerificationKey(pub); err != nil {
		return nil, err
	}
	k := &lifecycle.Key{ID: id}
	if k.ID == "" {
		k.ID = own
	}
	if alg.Symmetric() {
		if k.ID == "" {
			random := make([]byte, 16)
			_, _ = rand.Read(random) // never fails (crypto/rand)
			k.ID = base64.RawURLEncoding.EncodeToString(random)
		}
	} else {
		members, err := keyset.MembersOf(pub)
		if err != nil {
			return nil, err
		}
		k.Public = &members
		if k.ID == "" {
			if k.ID, err = keyset.Thumbprint(pub); err != nil {
				return nil, err
			}
		}
		if rsaKey, ok := pub.(*rsa.PublicKey); ok {
			k.RSABits = int32(rsaKey.N.BitLen()) //nolint:gosec // at most keyset.MaxRSABits
		}
	}
	k.Private, err = keyset.EncodePrivate(priv, k.ID, alg)
	return k, err
}

// readPrivate reads a JWK, PEM or, for HS*, a secret as it is.
func readPrivate(raw []byte, alg keyset.Algorithm) (priv any, pub crypto.PublicKey, kid string, err error) {
	var head struct{ Kty, Kid, Alg, D string }
	isJSON := json.Unmarshal(raw, &head) == nil && head.Kty != ""
	block, _ := pem.Decode(raw)
	switch {
	case isJSON && head.Kty != string(keyset.FamilyHMAC) && head.D == "":
		return nil, nil, "", errPublicOnly
	case isJSON:
		if priv, pub, err = keyset.DecodePrivate(raw); err != nil {
			return nil, nil, "", err
		}
		if head.Alg != "" && head.Alg != string(alg) {
			return nil, nil, "", errOtherAlgJWK
		}
	case block != nil:
		if priv, pub, err = readPEM(block); err != nil {
			return nil, nil, "", err
		}
	case alg.Symmetric():
		if asymmetricDER(raw) {
			return nil, nil, "", errNotForHMAC
		}
		priv, pub = raw, raw
	default:
		return nil, nil, "", errNotPrivate
	}
	if _, secret := priv.([]byte); alg.Symmetric() && !secret {
		return nil, nil, "", errNotForHMAC
	}
	return priv, pub, head.Kid, nil
}

func readPEM(block *pem.Block) (priv any, pub crypto.PublicKey, err error) {
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE":
		return nil, nil, errPublicOnly
	default:
		return nil, nil, errNotPrivate
	}
	signer, ok := parsed.(crypto.Signer)
	if err != nil || !ok { // the cause could quote the key
		return nil, nil, errNotPrivate
	}
	return signer, signer.Public(), nil
}

// asymmetricDER says whether a text is a key in DER: whoever knows the public
// half could forge tokens if it were taken for a secret.
func asymmetricDER(raw []byte) bool {
	for _, parse := range []func([]byte) error{
		func(b []byte) error { _, err := x509.ParsePKIXPublicKey(b); return err },
		func(b []byte) error { _, err := x509.ParsePKCS1PublicKey(b); return err },
		func(b []byte) error { _, err := x509.ParsePKCS8PrivateKey(b); return err },
		func(b []byte) error { _, err := x509.ParsePKCS1PrivateKey(b); return err },
		func(b []byte) error { _, err := x509.ParseECPrivateKey(b); return err },
		func(b []byte) error { _, err := x509.ParseCertificate(b); return err },
	} {
		if parse(raw) == nil {
			return true
		}
	}
	return false
}
