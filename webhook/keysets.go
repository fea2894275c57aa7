package webhook

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/authz"
)

// keysets tells the controller what this gate has loaded of a SigningKey and
// seen of its tokens, and nobody else: it is behind a certificate that only
// the two have. See keyset.Report.
type keysets struct {
	store *authz.Store
	// synced says whether a SigningKey that is not known does not exist.
	synced func() bool
	pin    *pin
}

func (k *keysets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || !k.pin.trusts(r.TLS.PeerCertificates[0]):
		// The connection is from before its certificate was replaced twice.
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusForbidden)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	ref, ok := cutKeysets(r.RequestURI)
	if !ok {
		refuse(w, http.StatusNotFound)
		return
	}
	known, ok := k.store.Keys(ref)
	switch {
	case !ok && !k.synced():
		retryLater(w)
	case !ok:
		refuse(w, http.StatusNotFound)
	default:
		raw, err := known.Report().Encode()
		if err != nil {
			retryLater(w) // texts and numbers always encode
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(raw) // whoever asked is gone
	}
}

// cutKeysets takes a raw target /keysets/{namespace}/{name} apart.
func cutKeysets(target string) (ref authz.Ref, ok bool) {
	target, _, _ = strings.Cut(target, "?")
	rest, ok := strings.CutPrefix(target, keyset.KeysetsPath)
	if !ok {
		return authz.Ref{}, false
	}
	ref.Namespace, ref.Name, ok = strings.Cut(rest, "/")
	return ref, ok
}

// pin is the certificate of the Secret keyset.GatesSecretName, which controller
// and gates show to each other. It is pinned: no other is trusted, whoever
// signed it.
type pin struct {
	log   *slog.Logger
	clock func() time.Time
	// now is nil as long as there is none.
	now    atomic.Pointer[pinned]
	absent sync.Once
}

// pinned is a certificate with the one before it, which the other side may
// still show.
type pinned struct {
	config       *tls.Config
	leaf, before *x509.Certificate
}

// set takes what the Secret holds. One that holds nothing good, or is gone,
// leaves the last good one: the controller is about to make another.
func (p *pin) set(data map[string][]byte) {
	if data == nil {
		return
	}
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		// The cause could quote what is in the Secret.
		p.log.Warn("Secret cannot be used: tls.crt and tls.key are not a certificate and its key", "secret", keyset.GatesSecretName)
		return
	}
	next := &pinned{leaf: pair.Leaf}
	if last := p.now.Load(); last != nil {
		if last.leaf.Equal(next.leaf) {
			return
		}
		next.before = last.leaf
	}
	roots := x509.NewCertPool()
	roots.AddCert(next.leaf)
	if next.before != nil {
		roots.AddCert(next.before)
	}
	next.config = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    roots,
		VerifyConnection: func(state tls.ConnectionState) error {
			if !next.trusts(state.PeerCertificates[0]) {
				return errOtherCertificate
			}
			return nil
		},
		// A resumed session would be as good as a certificate of before.
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		Time:                   p.clock,
	}
	p.now.Store(next)
	p.log.Info("key sets are told to whoever shows this certificate", "secret", keyset.GatesSecretName, "notAfter", next.leaf.NotAfter.UTC().Format(time.RFC3339))
}

var (
	errNoCertificate    = errors.New("there is no certificate yet")
	errOtherCertificate = errors.New("another certificate than the one that is pinned")
)

func (p *pinned) trusts(leaf *x509.Certificate) bool {
	return bytes.Equal(leaf.Raw, p.leaf.Raw) || p.before != nil && bytes.Equal(leaf.Raw, p.before.Raw)
}

// trusts says whether a peer may show this certificate now.
func (p *pin) trusts(leaf *x509.Certificate) bool {
	now := p.now.Load()
	return now != nil && now.trusts(leaf)
}

// config is that of the listener: each handshake goes by the certificate that
// there is by then.
func (p *pin) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := p.now.Load()
			if now == nil {
				p.absent.Do(func() {
					p.log.Warn("someone asks for key sets, and there is no certificate yet: the controller makes it", "secret", keyset.GatesSecretName)
				})
				return nil, errNoCertificate
			}
			return now.config, nil
		},
	}
}
