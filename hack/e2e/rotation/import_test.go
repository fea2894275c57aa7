package rotation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/hack/e2e/stack"
	"github.com/keywright/keywright/webhook/token"
)

// legacyID is the kid that the application gives its tokens, where it gives
// them one.
const legacyID = "legacy-2019"

// legacy is an application with a key of its own and the Secret that holds it.
func legacy(t *testing.T, s *v1alpha1.SigningKeySpec) (signer, *corev1.Secret) {
	t.Helper()
	app := signer{kid: legacyID, alg: string(s.Algorithm), iss: s.Issuer, ttl: s.MaxTokenTTL.Duration}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "legacy"}}
	if s.Algorithm == "HS256" {
		private := make([]byte, 48)
		_, _ = rand.Read(private) // never fails (crypto/rand)
		app.priv, secret.Data = private, map[string][]byte{"secret": private}
		return app, secret
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	app.priv = private
	secret.Data = map[string][]byte{"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	return app, secret
}

// bare is the application where it writes no kid.
func (s signer) bare() signer { s.kid = ""; return s }

func importing(s *v1alpha1.SigningKeySpec) {
	s.Import = &v1alpha1.Import{SecretName: "legacy", KeyID: legacyID, WithoutKeyID: true}
}

// Row 36: tokens from before pass before, during and after; the next rotation
// replaces the key.
func importedES256(t *testing.T) { imported(t, "ES256") }

func importedHS256(t *testing.T) { imported(t, "HS256") }

func imported(t *testing.T, algorithm v1alpha1.Algorithm) {
	w := newWorld(t)
	s := ofAlgorithm(algorithm)
	importing(&s)
	app, secret := legacy(t, &s)
	secret.Namespace = w.ns

	// Without the Secret no key is made, and status says what is missing.
	w.create(s)
	w.settle()
	if c := meta.FindStatusCondition(w.sk().Status.Conditions, v1alpha1.ConditionDegraded); c == nil || c.Reason != string(lifecycle.HoldImport) || !strings.Contains(c.Message, "spec.import.secretName: Secret legacy does not exist") {
		t.Errorf("without the Secret to import Degraded is %+v", c)
	}
	if keys := w.sk().Status.Keys; len(keys) > 0 || w.wake.IsZero() {
		t.Fatalf("without the Secret to import there are keys: %v, or nobody looks again (%s)", keys, w.wake)
	}
	if err := w.api.Create(w.ctx, secret); err != nil {
		t.Fatal(err)
	}
	w.advance(20 * time.Second)
	if got := w.condition(v1alpha1.ConditionDegraded); got != "False AsWanted" {
		t.Fatalf("with the Secret to import Degraded is %s", got)
	}
	k := w.key(legacyID)
	if k.State != v1alpha1.KeyActive || !k.WithoutKeyID || w.active() != legacyID || k.ActivatedAt.Sub(k.PublishedAt.Time) > firstWait {
		t.Fatalf("the imported key is %+v", k)
	}
	if got := w.app(); got.kid != legacyID || !bytes.Equal(got.jwk(t), app.jwk(t)) || got.alg != app.alg {
		t.Error("the signer Secret does not hold the key that the application signs with")
	}
	if algorithm == "ES256" && !strings.Contains(w.jwks().Data[controllers.JWKSEntry], legacyID) {
		t.Error("the JWKS does not show the imported key")
	}

	p := w.promises()
	since := w.ring().Active().ActivatedAt
	for _, what := range []string{"signed when it was just imported", "signed later", "signed later still"} {
		p.keep("a token "+what, app)
		p.keep("a token without a kid "+what, app.bare())
		p.check(what)
		w.advance(40 * time.Second)
	}
	// What it came from is not needed any more, nor the keyring.
	w.edit(func(s *v1alpha1.SigningKeySpec) { s.Import = nil })
	w.delete(secret)
	w.settle()
	w.delete(w.secret("shop-keyring"))
	w.settle()
	p.keep("a token without a kid, with the keyring lost", app.bare())
	p.check("with the keyring lost")

	old, next := w.rotated()
	if old != legacyID || next == legacyID || w.app().kid != next || w.now.Sub(since) < interval {
		t.Errorf("%s was replaced by %s %s after it began to sign", old, next, w.now.Sub(since))
	}
	g := w.gate()
	g.refuses(w.app().bare().token(t, w.now), w.now, "a token of the next key without a kid", token.ErrBadSignature)
	w.now = w.now.Add(signerLag)
	p.keep("the last token", app)
	p.keep("the last token without a kid", app.bare())
	p.keep("a token of the next key", w.app())
	until := w.key(legacyID).VerifyUntil.Time
	for w.now.Before(until.Add(-2 * time.Second)) {
		w.advance(2 * time.Second)
	}
	w.advance(until.Sub(w.now))
	g.load()
	g.refuses(app.token(t, w.now), w.now, "the imported key at its end", token.ErrKeyRetired, token.ErrUnknownKey)
	g.refuses(app.bare().token(t, w.now), w.now, "the imported key at its end, without a kid", token.ErrKeyRetired, token.ErrMissingKeyID)
	fresh := w.gate()
	fresh.refuses(app.bare().token(t, w.now), w.now, "the imported key at its end, without a kid, at a gate that starts anew", token.ErrKeyRetired, token.ErrMissingKeyID)
	w.rotated()

	// One whose tokens all have a kid lends it to no others.
	w = newWorld(t)
	s.Import.WithoutKeyID = false
	secret.ObjectMeta = metav1.ObjectMeta{Namespace: w.ns, Name: "legacy"}
	if err := w.api.Create(w.ctx, secret); err != nil {
		t.Fatal(err)
	}
	w.create(s)
	w.until("the imported key to sign", func() bool { return w.active() == legacyID })
	w.gate().accepts(app.token(t, w.now), w.now, "a token with its kid")
	w.gate().refuses(app.bare().token(t, w.now), w.now, "a token without a kid, where none may be", token.ErrMissingKeyID)
}

// Row 36: an application goes on signing with what it has, while a real
// controller takes the key up and a real gate is asked.
func importedES256ByProcesses(t *testing.T) { importedByProcesses(t, "ES256") }

func importedHS256ByProcesses(t *testing.T) { importedByProcesses(t, "HS256") }

func importedByProcesses(t *testing.T, algorithm v1alpha1.Algorithm) {
	s := lasting(importing, func(s *v1alpha1.SigningKeySpec) {
		if s.Algorithm = algorithm; algorithm == "HS256" {
			hs256(s)
		}
	})
	app, secret := legacy(t, &s)
	before := map[string]string{
		"a token from before, with its kid":  app.token(t, time.Now()),
		"a token from before, without a kid": app.bare().token(t, time.Now()),
	}
	l := newLive(t, s)
	secret.Namespace = l.ns
	if err := l.api.Create(l.ctx, secret); err != nil {
		t.Fatal(err)
	}
	gates := []*stack.Gate{l.gate}
	https := httpsClient(t, gates...)
	l.controller = l.start("controller")
	began := time.Now()
	for what, raw := range before {
		l.passes(https, gates, what, raw)
	}
	t.Logf("%s: tokens from before pass %s after the controller was started", algorithm, time.Since(began).Round(10*time.Millisecond))
	stop := l.keepAsking(https, gates, before)
	l.awaitActive(legacyID)
	l.passes(https, gates, "a token that is signed now", app.token(t, time.Now()))
	if got := l.app(); got.kid != legacyID || !bytes.Equal(got.jwk(t), app.jwk(t)) {
		t.Error("the signer Secret does not hold the key that the application signs with")
	}
	l.turn("away from it")
	l.passes(https, gates, "a token of the next key", l.app().token(t, time.Now()))
	for what, raw := range before {
		l.passes(https, gates, what+", after the rotation", raw)
	}
	await(t, time.Minute, "the imported key to have an end", func() bool {
		return l.key(legacyID).State == v1alpha1.KeyVerifying && l.key(legacyID).VerifyUntil != nil
	})
	t.Logf("%s: %d requests with tokens from before, before, during and after", algorithm, stop())
}
