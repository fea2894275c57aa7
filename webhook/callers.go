package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// callerHeader carries a caller's secret: a field over HTTP, in canonical
// form, and metadata of the same name over gRPC.
const callerHeader = "X-Keywright-Caller"

const (
	// minCallerSecret is the least length of a secret: shorter ones are
	// guessed.
	minCallerSecret = 16
	// callersEvery is how often the files are read again. They are small.
	callersEvery = time.Second
	// maxCertificates is how many certificates are remembered as verified.
	maxCertificates = 1000
)

// callers knows who may ask for decisions: who shows one of the secrets, or a
// certificate of one of the authorities. One proof is enough, and without
// either file anybody may.
type callers struct {
	secretFile, caFile string
	log                *slog.Logger

	secrets atomic.Pointer[[][sha256.Size]byte]
	roots   atomic.Pointer[roots]
}

// roots are authorities, with the certificates that they have vouched for.
type roots struct {
	pool *x509.CertPool
	raw  []byte

	mu sync.Mutex
	// until is how long a certificate counts that was verified before: a
	// signature is not checked for each request.
	until map[*x509.Certificate]time.Time
}

// newCallers reads the files, which have to be good at the start.
func newCallers(secretFile, caFile string, log *slog.Logger) (*callers, error) {
	c := &callers{secretFile: secretFile, caFile: caFile, log: log}
	return c, c.read()
}

// asked says whether a proof is asked for.
func (c *callers) asked() bool { return c.secretFile != "" || c.caFile != "" }

// read takes over what the files have now. What cannot be used changes
// nothing.
func (c *callers) read() error {
	var faults []error
	if c.secretFile != "" {
		raw, err := os.ReadFile(c.secretFile)
		if err == nil {
			err = c.setSecrets(raw)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("--caller-secret-file: %w", err))
		}
	}
	if c.caFile != "" {
		raw, err := os.ReadFile(c.caFile)
		if err == nil {
			err = c.setRoots(raw)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("--caller-ca-file: %w", err))
		}
	}
	return errors.Join(faults...)
}

// setSecrets takes a secret from each line. Errors tell none of it.
func (c *callers) setSecrets(raw []byte) error {
	var sums [][sha256.Size]byte
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		switch {
		case len(line) == 0:
			continue
		case len(line) < minCallerSecret:
			return fmt.Errorf("line %d: a secret has at least %d characters", n, minCallerSecret)
		}
		for _, b := range line {
			if b <= ' ' || b > '~' {
				return fmt.Errorf("line %d: a secret has printable ASCII characters without spaces", n)
			}
		}
		sums = append(sums, sha256.Sum256(line))
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if len(sums) == 0 {
		return errors.New("holds no secret")
	}
	c.secrets.Store(&sums)
	return nil
}

func (c *callers) setRoots(raw []byte) error {
	if now := c.roots.Load(); now != nil && bytes.Equal(now.raw, raw) {
		return nil // what was verified stays so
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return errors.New("holds no certificate in PEM")
	}
	c.roots.Store(&roots{pool: pool, raw: raw, until: map[*x509.Certificate]time.Time{}})
	return nil
}

// follow reads the files again until ctx ends.
func (c *callers) follow(ctx context.Context) {
	tick := time.NewTicker(callersEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := ""
		if err := c.read(); err != nil {
			now = err.Error()
		}
		if now != last && now != "" {
			c.log.Error("reading what callers prove themselves by: what was read before counts on", "error", now)
		}
		last = now
	}
}

// known says whether a caller that shows these secrets, over a connection with
// this state (nil: without TLS), may ask at now.
func (c *callers) known(secrets []string, state *tls.ConnectionState, now time.Time) bool {
	if sums := c.secrets.Load(); sums != nil && len(secrets) == 1 {
		shown := sha256.Sum256([]byte(secrets[0]))
		found := 0
		for i := range *sums {
			found |= subtle.ConstantTimeCompare(shown[:], (*sums)[i][:])
		}
		if found == 1 {
			return true
		}
	}
	authorities := c.roots.Load()
	return authorities != nil && state != nil && authorities.vouch(state.PeerCertificates, now)
}

// vouch says whether the first of a chain of certificates is a client's, by
// one of the authorities.
func (r *roots) vouch(chain []*x509.Certificate, now time.Time) bool {
	if len(chain) == 0 {
		return false
	}
	leaf := chain[0]
	r.mu.Lock()
	until, verified := r.until[leaf]
	r.mu.Unlock()
	if verified && now.Before(until) {
		return true
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots: r.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil || len(paths) == 0 {
		return false
	}
	until = leaf.NotAfter
	for _, c := range paths[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.until) >= maxCertificates {
		clear(r.until) // most are of connections that are gone
	}
	r.until[leaf] = until
	return true
}
