package controllers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
)

// How long the gates' certificate lives, and how often it is looked at. It is
// renewed when a third of its life is left.
const (
	gateCertificateLife = 90 * 24 * time.Hour
	gateCertificateLook = time.Minute
)

// GateCertificate keeps the one certificate that controller and gates show to
// each other, in the Secret keyset.GatesSecretName. Each side trusts that
// certificate and no other.
type GateCertificate struct {
	Live      client.Client
	Namespace string
	// Now is the clock.
	Now func() time.Time

	mu            sync.Mutex
	pair          *tls.Certificate
	leaf, earlier *x509.Certificate
}

// Start looks after the certificate until ctx ends.
func (c *GateCertificate) Start(ctx context.Context) error {
	_ = wait.PollUntilContextCancel(ctx, gateCertificateLook, true, func(ctx context.Context) (bool, error) {
		if err := c.refresh(ctx); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "the certificate between controller and gates; trying again")
		}
		return false, nil
	}) // ends with ctx
	return nil
}

// refresh reads the certificate, and makes one where there is none that will
// do for a while.
func (c *GateCertificate) refresh(ctx context.Context) error {
	secret, err := get(ctx, c.Live, c.Namespace, keyset.GatesSecretName, &corev1.Secret{})
	if err != nil {
		return err
	}
	if secret != nil {
		if pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err == nil && c.willDo(pair.Leaf) {
			c.take(pair)
			return nil
		}
	}
	exists := secret != nil
	if !exists {
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: keyset.GatesSecretName}, Type: corev1.SecretTypeTLS}
	}
	if secret.Data, err = newGateCertificate(c.Now()); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	if exists {
		err = c.Live.Update(ctx, secret)
	} else {
		err = c.Live.Create(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", secret.Name, err)
	}
	c.take(pair)
	return nil
}

func (c *GateCertificate) willDo(leaf *x509.Certificate) bool {
	return !c.Now().Before(leaf.NotBefore) && leaf.NotAfter.Sub(c.Now()) > gateCertificateLife/3 && leaf.VerifyHostname(keyset.GateServerName) == nil
}

func (c *GateCertificate) take(pair tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaf != nil && bytes.Equal(c.leaf.Raw, pair.Leaf.Raw) {
		return
	}
	c.pair, c.leaf, c.earlier = &pair, pair.Leaf, c.leaf
}

var errNoCertificate = errors.New("there is no certificate for it yet")

// client is how gates are asked. A gate may still show the earlier one.
func (c *GateCertificate) client() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair == nil {
		return nil, errNoCertificate
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.leaf)
	if c.earlier != nil {
		roots.AddCert(c.earlier)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: keyset.GateServerName,
		Certificates: []tls.Certificate{*c.pair}, RootCAs: roots, Time: c.Now,
	}, nil
}

// newGateCertificate makes the content of the Secret. The certificate is valid
// from an hour ago, because clocks differ.
func newGateCertificate(now time.Time) (map[string][]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: keyset.GateServerName}, DNSNames: []string{keyset.GateServerName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(gateCertificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}
