package model

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/webhook"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/token"
)

const (
	tenant = "shop"
	system = "keywright-system"
)

var (
	skName     = types.NamespacedName{Namespace: tenant, Name: "shop"}
	skKey      = storeKey("SigningKey", skName)
	signerKey  = storeKey("Secret", types.NamespacedName{Namespace: tenant, Name: "shop-signing"})
	keyringKey = storeKey("Secret", types.NamespacedName{Namespace: tenant, Name: "shop-keyring"})
	jwksKey    = storeKey("ConfigMap", types.NamespacedName{Namespace: tenant, Name: "shop-jwks"})
	hmacKey    = storeKey("Secret", types.NamespacedName{Namespace: system, Name: keyset.HMACSecretName})
)

// facts are how the world really is. The spec's spans are at least these.
type facts struct {
	verifierLag, signerLag, skew, leeway time.Duration
}

// ctl is one controller replica.
type ctl struct {
	name   string
	offset time.Duration // its clock against the true time
	leap   time.Duration // a clock that is wrong beyond the skew
	r      *controllers.SigningKeyReconciler
}

// gate is one verifier of ours: late, with a clock of its own.
type gate struct {
	offset, lag time.Duration
	seen        time.Time // the true time that its view is of
	// lists says that it sees only what is newest, as one does that lists
	// again and again; another one watches, and sees each change.
	lists bool
	keys  *authz.Keys
	sk    *v1alpha1.SigningKey // that keys were loaded from
	hmac  *corev1.Secret
}

// cacher is someone else's verifier that reads the JWKS ConfigMap seldom.
type cacher struct {
	offset  time.Duration
	fetched time.Time
	of      *corev1.ConfigMap // that kids are of
	kids    map[string]bool
}

// signer is an application that reads the mounted signer Secret late.
type signer struct {
	offset, lag time.Duration
	seen        time.Time
	mounted     *corev1.Secret // that file is of
	file        signingFile
}

// signingFile is what a signer needs to know of signing.jwk.
type signingFile struct {
	Kid, Kty, Iss string
	MaxTokenTTL   int64 // seconds
}

// issued is a token that a correct signer made.
type issued struct {
	kid, iss string
	symm     bool
	signed   time.Time // true time
	iat, exp time.Time // by the signer's clock
}

// world is one history: the product, those who use it, and what was done to
// them.
type world struct {
	rng  *rand.Rand // of the step that runs
	t    time.Time  // the true time
	f    facts
	api  *store
	ctls [2]*ctl
	// lead is the controller that runs; nil: none does.
	lead *ctl
	// wake is when it is due; zero: it waits for a change.
	wake time.Time
	// read is what the controller at work has read off its clock.
	read time.Time

	apiOffset time.Duration // the API server's clock against the true time
	gates     [2]*gate
	cacher    *cacher
	signers   [2]*signer
	// tokens are those that may still be valid; signed counts all.
	tokens []issued
	signed int

	// failing is how the names of writes begin that fail until an instant.
	failing      string
	failingUntil time.Time
	// forged resourceVersions of signer Secrets that no controller wrote.
	forged map[string]bool
	// gatesFrom is when gates can be expected to know the keys, after the
	// SigningKey was away; cacherFrom the same for the cacher. An hour ahead
	// means: not before recovered has found everything back.
	gatesFrom, cacherFrom time.Time
	// gone is set while the SigningKey is deleted.
	gone bool
	// lost is set from when the keyring was taken away until it is back, and
	// before is what it held.
	lost   bool
	before lifecycle.Keyring
	// hangs is the gate that does not answer controllers until hangsUntil.
	hangs       int
	hangsUntil  time.Time
	thumbprints map[string]string
	// restoredAt is when the storage was last restored, and disturbedAt when
	// someone last took anything away.
	restoredAt, disturbedAt time.Time
	// sabotage is set while someone else writes.
	sabotage bool
	uid      int // how many SigningKeys were made
	// looked is what the last look saw: when, and after which write.
	looked struct {
		at  time.Time
		seq int
	}
	rings map[*corev1.Secret]lifecycle.Keyring // of ringOf

	inv invariants
	log []string
	// failure is the first thing that must not be.
	failure string
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%8.3fs ", w.t.Sub(epoch).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.note("VIOLATION: %s", w.failure)
	}
}

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// between gives a span in whole seconds, an end of the range more often than
// anything between: faults hide at the ends.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	switch rng.IntN(4) {
	case 0:
		return low
	case 1, 2:
		return high
	}
	return low + time.Duration(rng.Int64N(int64((high-low)/time.Second)+1))*time.Second
}

func newWorld(rng *rand.Rand) *world {
	w := &world{rng: rng, t: epoch, forged: map[string]bool{}, thumbprints: map[string]string{}, rings: map[*corev1.Secret]lifecycle.Keyring{}}
	if rng.IntN(2) == 0 {
		w.t = w.t.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
	}
	w.f = facts{
		verifierLag: between(rng, time.Second, 20*time.Second),
		signerLag:   between(rng, 0, 15*time.Second),
		skew:        between(rng, 0, 4*time.Second),
	}
	w.f.leeway = w.f.skew + between(rng, 0, 2*time.Second)
	w.api = newStore(func() time.Time { return w.t })
	w.api.onWrite = w.observe
	w.inv.init()
	w.apiOffset = w.anOffset()
	for i := range w.ctls {
		c := &ctl{name: fmt.Sprintf("controller %d", i), offset: w.anOffset()}
		c.r = &controllers.SigningKeyReconciler{
			Live: api{store: w.api}, Namespace: system, MinInterval: time.Second,
			Now: func() time.Time {
				w.read = w.t.Add(c.offset + c.leap)
				return w.read
			},
			Clock: func() lifecycle.ClockBounds {
				ahead := c.offset + c.leap - w.apiOffset
				return lifecycle.ClockBounds{Min: ahead, Max: ahead}
			},
			Gates:  w.ask,
			Events: &events.FakeRecorder{},
		}
		w.ctls[i] = c
	}
	w.lead = w.ctls[0]
	for i := range w.gates {
		w.gates[i] = &gate{offset: w.anOffset(), lag: between(rng, 0, w.f.verifierLag), seen: w.t, lists: i == 1}
	}
	w.cacher = &cacher{offset: w.anOffset(), fetched: w.t}
	for i := range w.signers {
		w.signers[i] = &signer{offset: w.anOffset(), lag: between(rng, 0, w.f.signerLag), seen: w.t}
	}
	w.apply(w.newSpec())
	return w
}

// anOffset is a clock's: any two differ by at most the skew.
func (w *world) anOffset() time.Duration {
	half := w.f.skew / 2
	switch w.rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return half
	}
	return -half
}

// newSpec is a spec that the schema would take, for this world's facts.
func (w *world) newSpec() v1alpha1.SigningKeySpec {
	d := func(d time.Duration) v1alpha1.Duration { return v1alpha1.Duration{Duration: d} }
	slack := func(most time.Duration) time.Duration {
		if w.rng.IntN(3) > 0 {
			return 0
		}
		return between(w.rng, 0, most)
	}
	spec := v1alpha1.SigningKeySpec{
		MaxTokenTTL: d(between(w.rng, 5*time.Second, 60*time.Second)),
		Propagation: v1alpha1.Propagation{
			VerifierLag: d(w.f.verifierLag + slack(10*time.Second)),
			SignerLag:   d(w.f.signerLag + slack(10*time.Second)),
			ClockSkew:   d(w.f.skew + slack(2*time.Second)),
		},
		DeletionPolicy: v1alpha1.DeletionRetain,
	}
	p := &spec.Propagation
	p.Leeway = d(max(w.f.leeway, p.ClockSkew.Duration) + slack(3*time.Second))
	interval := d(leastInterval(spec) + slack(60*time.Second))
	spec.Rotation = v1alpha1.Rotation{Policy: v1alpha1.RotationAutomatic, Interval: &interval}
	// Keys of EdDSA take the longest to check and promise the same as ES256.
	spec.Algorithm = []v1alpha1.Algorithm{"HS256", "HS256", "ES256", "ES256", "EdDSA"}[w.rng.IntN(5)]
	if spec.Algorithm != "HS256" {
		spec.JWKS = &v1alpha1.JWKS{ConfigMapName: "shop-jwks"}
	}
	limit := int32(w.rng.IntN(4))
	spec.HistoryLimit = &limit
	return spec
}

// leastInterval is the shortest one that the schema takes with the other spans
// of a spec.
func leastInterval(spec v1alpha1.SigningKeySpec) time.Duration {
	p := spec.Propagation
	known := p.VerifierLag.Duration + p.SignerLag.Duration + 3*p.ClockSkew.Duration
	ends := p.SignerLag.Duration + spec.MaxTokenTTL.Duration + p.Leeway.Duration + 2*p.ClockSkew.Duration
	return max(time.Second, known, (ends/16 + time.Second - 1).Truncate(time.Second))
}

// apply creates the SigningKey, or edits it.
func (w *world) apply(spec v1alpha1.SigningKeySpec) {
	if old, ok := w.api.objects[skKey].(*v1alpha1.SigningKey); ok {
		sk := old.DeepCopy()
		sk.Spec = spec
		if err := w.api.update(sk, false); err != nil {
			panic(err)
		}
	} else {
		w.uid++
		sk := &v1alpha1.SigningKey{Spec: spec}
		sk.ObjectMeta = metav1.ObjectMeta{Namespace: skName.Namespace, Name: skName.Name, UID: types.UID(fmt.Sprint("uid-", w.uid))}
		if err := w.api.create(sk); err != nil {
			panic(err)
		}
	}
	w.inv.specs(spec)
	w.poke()
}

// poke tells the controller of a change, sooner or later.
func (w *world) poke() {
	at := w.t
	if w.rng.IntN(3) == 0 {
		at = w.t.Add(time.Duration(w.rng.IntN(5000)) * time.Millisecond)
	}
	if w.wake.IsZero() || at.Before(w.wake) {
		w.wake = at
	}
}

// pass lets a controller reconcile, to its end or to its crash.
func (w *world) pass(c *ctl) {
	outer := w.read // of one that hangs before a write
	defer func() {
		w.read = outer
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			w.note("%s crashed", c.name)
			w.wake = w.t.Add(time.Duration(w.rng.IntN(20)) * time.Second)
			if w.rng.IntN(2) == 0 {
				w.lead = w.ctls[w.rng.IntN(2)]
			}
		}
	}()
	result, err := c.r.Reconcile(context.Background(), ctrl.Request{NamespacedName: skName})
	switch {
	case err != nil:
		w.note("%s: %s", c.name, firstLine(err))
		w.wake = w.t.Add(time.Duration(1+w.rng.IntN(4)) * time.Second)
	case result.RequeueAfter > 0:
		w.wake = w.t.Add(result.RequeueAfter)
	default:
		w.wake = time.Time{}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// advance lets time pass; the leading controller works when it is due.
func (w *world) advance(to time.Time) {
	for w.failure == "" {
		if w.lead == nil || w.wake.IsZero() || w.wake.After(to) {
			break
		}
		if w.wake.After(w.t) {
			w.t = w.wake
			w.look() // what was true until now
		}
		w.pass(w.lead)
		w.look()
	}
	if to.After(w.t) {
		w.t = to
		w.look()
	}
}

// look moves every late view on, signs tokens, and checks the promise. It has
// nothing to see when neither time has passed nor anything been written.
func (w *world) look() {
	if w.looked.at.Equal(w.t) && w.looked.seq == w.api.seq {
		return
	}
	w.looked.at, w.looked.seq = w.t, w.api.seq
	for _, g := range w.gates {
		w.refresh(g)
	}
	w.fetch()
	for _, s := range w.signers {
		w.sign(s)
	}
	w.check()
}

func (w *world) refresh(g *gate) {
	to := w.t.Add(-g.lag)
	if to.Before(g.seen) {
		return
	}
	if !g.lists {
		for _, at := range w.api.changed(g.seen, to) {
			w.show(g, at)
		}
	}
	w.show(g, to)
}

// show lets a gate see the cluster as it was at an instant.
func (w *world) show(g *gate, at time.Time) {
	g.seen = at
	sk, _ := w.api.asOf(skKey, at).(*v1alpha1.SigningKey)
	secret, _ := w.api.asOf(hmacKey, at).(*corev1.Secret)
	if sk == g.sk && secret == g.hmac {
		return
	}
	if g.sk, g.hmac = sk, secret; sk == nil {
		g.keys = nil
		return
	}
	var entry []byte
	if secret != nil {
		entry = secret.Data[keyset.HMACEntryName(tenant, skName.Name)]
	}
	g.keys = webhook.LoadKeys(g.keys, sk, entry, at.Add(g.lag+g.offset))
}

func (w *world) fetch() {
	c := w.cacher
	if c.kids != nil && w.t.Sub(c.fetched) < w.f.verifierLag {
		return
	}
	cm, _ := w.api.objects[jwksKey].(*corev1.ConfigMap)
	if cm != nil && cm == c.of {
		c.fetched = w.t
		return
	}
	var doc keyset.Document
	if cm == nil || json.Unmarshal([]byte(cm.Data[controllers.JWKSEntry]), &doc) != nil || len(doc.Keys) == 0 {
		return // keeps what it has
	}
	c.fetched, c.of, c.kids = w.t, cm, map[string]bool{}
	for _, k := range doc.Keys {
		c.kids[k.Kid] = true
	}
}

func (w *world) sign(s *signer) {
	if at := w.t.Add(-s.lag); at.After(s.seen) {
		s.seen = at
	}
	// A mount keeps its files when the Secret is deleted; what is signed with
	// those is beyond the promise.
	secret, _ := w.api.asOf(signerKey, s.seen).(*corev1.Secret)
	if secret == nil || w.forged[secret.ResourceVersion] {
		return
	}
	if secret != s.mounted {
		var file signingFile
		if json.Unmarshal(secret.Data[controllers.SigningJWKEntry], &file) != nil {
			return
		}
		s.mounted, s.file = secret, file
	}
	file := s.file
	w.signed++
	iat := w.t.Add(s.offset)
	w.tokens = append(w.tokens, issued{
		kid: file.Kid, iss: file.Iss, symm: file.Kty == "oct", signed: w.t,
		iat: iat, exp: iat.Add(time.Duration(file.MaxTokenTTL) * time.Second),
	})
}

// check asks what the promise says, now.
func (w *world) check() {
	live := w.tokens[:0]
	for _, tok := range w.tokens {
		if w.t.Add(-w.f.skew).Before(tok.exp.Add(w.f.leeway)) {
			live = append(live, tok)
		}
	}
	w.tokens = live
	for i, g := range w.gates {
		now := w.t.Add(g.offset)
		w.checkAccepted(i, g, now)
		w.checkForged(i, g, now)
		w.checkRevoked(i, g, now)
	}
	w.checkCached()
}

// checkAccepted shows a gate every token that is valid.
func (w *world) checkAccepted(i int, g *gate, now time.Time) {
	if w.gone || w.t.Before(w.gatesFrom) {
		return
	}
	for _, tok := range w.tokens {
		expired := !now.Before(tok.exp.Add(w.f.leeway))
		missed := g.lists && w.inv.young[tok.kid] // it need not have seen the key sign
		if expired || missed || !w.promised(tok) {
			continue
		}
		if err := accept(g, tok, now); err != nil {
			w.fail("gate %d refused a valid token of key %.6s, signed at %.3fs, %s after exp: %v", i, tok.kid, tok.signed.Sub(epoch).Seconds(), now.Sub(tok.exp), err)
			return
		}
	}
}

// promised says whether a token has to pass until it expires: nothing excuses
// a refusal, and verifiers have had the time to hear of its key.
func (w *world) promised(tok issued) bool {
	return !w.inv.excused(tok) && !w.t.Before(w.inv.firstKnown(tok.kid, w.f.verifierLag))
}

// checkCached looks for the key of every valid token in what the cacher has.
func (w *world) checkCached() {
	if w.cacher.kids == nil || w.gone || w.t.Before(w.cacherFrom) {
		return
	}
	now := w.t.Add(w.cacher.offset)
	for _, tok := range w.tokens {
		expired := !now.Before(tok.exp)
		public := !tok.symm && w.inv.inJWKS[tok.kid] && !w.inv.undone[tok.kid]
		if expired || !public || !w.promised(tok) {
			continue
		}
		if !w.cacher.kids[tok.kid] {
			w.fail("a verifier that cached the JWKS for %s refused a valid token of key %.6s", w.t.Sub(w.cacher.fetched), tok.kid)
			return
		}
	}
}

// checkForged shows each gate tokens that a thief of any key could make.
func (w *world) checkForged(i int, g *gate, now time.Time) {
	for kid, end := range w.inv.ends {
		if (g.lists || !w.restoredAt.IsZero()) && g.keys != nil && g.keys.Details[kid].EndIsOurs {
			continue // it never saw the status that named the end
		}
		known := !w.t.Before(end.said.Add(w.f.verifierLag))
		if known && !now.Before(end.at) && accept(g, w.inv.forge(kid, now, time.Second), now) == nil {
			w.fail("gate %d accepted a token of key %.6s, which had ended at %s", i, kid, end.at)
		}
	}
	for kid, gone := range w.inv.dropped {
		if !w.restoredAt.IsZero() && g.keys != nil && g.keys.Details[kid].Signed {
			continue // the gate saw it sign, before the storage was restored
		}
		if !gone.IsZero() && w.t.After(gone.Add(w.f.verifierLag)) && accept(g, w.inv.forge(kid, now, time.Second), now) == nil {
			w.fail("gate %d accepted a token of key %.6s, which was dropped before it ever signed", i, kid)
		}
	}
	for kid := range w.inv.issuers {
		long := w.inv.most.MaxTokenTTL.Duration + 2*w.inv.most.Propagation.Leeway.Duration + time.Second
		if accept(g, w.inv.forge(kid, now, long), now) == nil {
			w.fail("gate %d accepted a token of key %.6s that lives longer than any spec allowed", i, kid)
		}
	}
}

// accept is what a gate does with a token whose signature is right.
func accept(g *gate, tok issued, now time.Time) error {
	if g.keys == nil {
		return fmt.Errorf("the gate knows no SigningKey")
	}
	key, ok := g.keys.Set.Lookup(tok.kid)
	if !ok {
		return token.ErrUnknownKey
	}
	return (&token.Token{Key: key, Issuer: tok.iss, IssuedAt: tok.iat, Expiry: tok.exp}).Validate(token.Expected{}, now)
}
