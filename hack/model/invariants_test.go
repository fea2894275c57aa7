package model

import (
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// never is after every history.
var never = epoch.AddDate(100, 0, 0)

// end is when a key ceases to verify, and when status came to say so.
type end struct{ at, said time.Time }

// invariants is what the writes of a history showed so far.
type invariants struct {
	// most holds the largest of each span that any spec asked for.
	most v1alpha1.SigningKeySpec
	// mostRetired is the largest historyLimit of any spec.
	mostRetired int
	// shownSince is since when every publication shows a key, truly.
	shownSince map[string]time.Time
	// inJWKS are keys that the ConfigMap has shown.
	inJWKS map[string]bool
	// first are keys that had no older key to wait for.
	first map[string]bool
	// ends are the latest ends that status named, by key.
	ends map[string]end
	// dropped are keys that went without having signed, and when status came
	// to know; zero: not yet.
	dropped map[string]time.Time
	// issuers are those of all keys ever in the keyring.
	issuers map[string]string
	// revoked are keys that are revoked, and since when. mayRefuse are those of
	// which tokens need not pass, and again those that signed again after the
	// storage was restored, and since when.
	revoked, again map[string]time.Time
	mayRefuse      map[string]bool
	// young are keys that had only just become active at a restore; undone are
	// those that a restore has undone, which nobody can publish any more.
	young, undone map[string]bool
	// shortened is the limit of tokens that a restore brought back, for those
	// signed before shortenedUntil.
	shortened      time.Duration
	shortenedUntil time.Time
	// bySequence is the key set of each sequence.
	bySequence  map[int64][]lifecycle.Key
	sequence    map[string]int64 // of status, by UID
	activations int
}

func (v *invariants) init() {
	v.shownSince, v.inJWKS, v.first = map[string]time.Time{}, map[string]bool{}, map[string]bool{}
	v.young, v.undone = map[string]bool{}, map[string]bool{}
	v.revoked, v.again, v.mayRefuse = map[string]time.Time{}, map[string]time.Time{}, map[string]bool{}
	v.ends, v.dropped, v.issuers = map[string]end{}, map[string]time.Time{}, map[string]string{}
	v.bySequence, v.sequence = map[int64][]lifecycle.Key{}, map[string]int64{}
}

func (v *invariants) specs(spec v1alpha1.SigningKeySpec) {
	m := &v.most
	m.MaxTokenTTL.Duration = max(m.MaxTokenTTL.Duration, spec.MaxTokenTTL.Duration)
	p, q := &m.Propagation, spec.Propagation
	p.VerifierLag.Duration = max(p.VerifierLag.Duration, q.VerifierLag.Duration)
	p.SignerLag.Duration = max(p.SignerLag.Duration, q.SignerLag.Duration)
	p.ClockSkew.Duration = max(p.ClockSkew.Duration, q.ClockSkew.Duration)
	p.Leeway.Duration = max(p.Leeway.Duration, q.Leeway.Duration)
	v.mostRetired = max(v.mostRetired, lifecycle.HistoryLimit(spec))
}

// forge is a token that a thief of a key makes at now.
func (v *invariants) forge(kid string, now time.Time, ttl time.Duration) issued {
	return issued{kid: kid, iss: v.issuers[kid], iat: now, exp: now.Add(ttl)}
}

// firstKnown is from when on a verifier can be expected to know a key: for the
// first key, which does not wait for verifiers, when the lag has passed.
func (v *invariants) firstKnown(kid string, lag time.Duration) time.Time {
	if !v.first[kid] {
		return time.Time{}
	}
	since, ok := v.shownSince[kid]
	if !ok {
		return never
	}
	return since.Add(lag)
}

// observe checks one write.
func (w *world) observe(write write) {
	switch obj := write.after.(type) {
	case *corev1.Secret:
		if obj.Name == "shop-keyring" && !w.sabotage {
			w.observeKeyring(write)
		}
	case *corev1.ConfigMap:
		if raw := obj.Data[controllers.JWKSEntry]; !w.sabotage {
			if !strings.Contains(raw, `"kid"`) {
				w.fail("an empty key set was published")
			}
			for _, member := range []string{`"d"`, `"k"`, `"p"`, `"q"`, `"dp"`, `"dq"`, `"qi"`} {
				if strings.Contains(raw, member) {
					w.fail("the JWKS has the private member %s", member)
				}
			}
		}
	case *v1alpha1.SigningKey:
		w.observeStatus(write, obj)
	}
	w.observeShown()
}

// ringOf reads a stored keyring Secret; an empty one when there is none. Each
// is decoded once: it is asked for again and again, and what is stored never
// changes.
func (w *world) ringOf(obj any) lifecycle.Keyring {
	secret, ok := obj.(*corev1.Secret)
	if !ok || secret == nil {
		return lifecycle.Keyring{}
	}
	if ring, known := w.rings[secret]; known {
		return ring
	}
	ring, err := lifecycle.DecodeKeyring(secret.Data[controllers.KeyringEntry])
	if err != nil {
		w.fail("what was written is no keyring: %v", err)
		return lifecycle.Keyring{}
	}
	w.rings[secret] = ring
	return ring
}

func (w *world) observeKeyring(write write) {
	after := w.ringOf(write.after)
	before, mended := w.mended(w.ringOf(write.before), after)
	for _, t := range after.Revoked {
		w.inv.mayRefuse[t.ID] = true // and must, once status says so
	}
	if w.lead != nil && w.lead.leap != 0 && !reflect.DeepEqual(before.Keys, after.Keys) {
		w.fail("the keyring changed while the controller's clock was wrong by %s", w.lead.leap)
	}
	if after.Sequence < before.Sequence && !mended {
		w.fail("sequence fell from %d to %d", before.Sequence, after.Sequence)
	}
	if old, ok := w.inv.bySequence[after.Sequence]; ok && !reflect.DeepEqual(old, after.Keys) {
		w.fail("sequence %d stands for two key sets", after.Sequence)
	}
	w.inv.bySequence[after.Sequence] = after.Keys

	standbys, activated, retired := 0, 0, 0
	for i := range after.Keys {
		k := &after.Keys[i]
		w.inv.issuers[k.ID] = k.Issuer
		old := before.Find(k.ID)
		if after.State(k, w.read) == v1alpha1.KeyRetired {
			retired++
		}
		switch {
		case k.ActivatedAt.IsZero():
			standbys++
		case old != nil && !old.ActivatedAt.IsZero(): // it had signed before
		case !mended:
			activated++
			w.observeActivation(before, after, k)
		default: // back from a loss: if it is not active, it never will be again
			if active := after.Active(); active != nil && active.ID == k.ID {
				w.inv.activations++
				w.inv.first[k.ID] = true
			}
		}
		w.observeEnd(k)
		if old != nil && !mended && !k.VerifyUntil.IsZero() && k.VerifyUntil.Before(old.VerifyUntil) {
			w.fail("the end of key %.6s came nearer: %s to %s", k.ID, old.VerifyUntil, k.VerifyUntil)
		}
	}
	if standbys != 1 {
		w.fail("%d keys stand by, not one", standbys)
	}
	if retired > w.inv.mostRetired && !reflect.DeepEqual(before.Keys, after.Keys) {
		w.fail("%d retired keys are kept, which no spec asked for", retired)
	}
	if activated > 1 {
		w.fail("%d activations in one write", activated)
	}
	if len(after.Keys) > 1 && after.Active() == nil && len(after.Revoked) == len(before.Revoked) && before.Active() != nil && !mended && !w.refused(before.Active().ID) {
		w.fail("no key is active")
	}
	w.observeDropped(before, after, mended)
}

// observeEnd checks what a key of the keyring says of its end.
func (w *world) observeEnd(k *lifecycle.Key) {
	if k.DeactivatedAt.IsZero() != k.VerifyUntil.IsZero() {
		w.fail("key %.6s has one of deactivatedAt and verifyUntil without the other", k.ID)
	}
	if k.DeactivatedAt.IsZero() {
		return
	}
	if k.Public != nil && k.Private != nil {
		w.fail("key %.6s no longer signs but its private half is kept", k.ID)
	}
	p := w.inv.most.Propagation
	longest := p.SignerLag.Duration + w.inv.most.MaxTokenTTL.Duration + p.Leeway.Duration + 2*p.ClockSkew.Duration + time.Second
	if k.VerifyUntil.Sub(k.DeactivatedAt) > longest {
		w.fail("key %.6s verifies for %s after its end, which no spec asked for", k.ID, k.VerifyUntil.Sub(k.DeactivatedAt))
	}
}

// observeDropped checks the keys that a write of the keyring leaves out.
func (w *world) observeDropped(before, after lifecycle.Keyring, mended bool) {
	for i := range before.Keys {
		k := &before.Keys[i]
		if after.Find(k.ID) != nil || after.IsRevoked(k.ID) {
			continue
		}
		neverSigned := k.ActivatedAt.IsZero() || (mended && !w.handed(k.ID))
		switch {
		case neverSigned:
			w.inv.dropped[k.ID] = time.Time{}
		case w.refused(k.ID): // a restore brought it back, and gates do without it
		case k.VerifyUntil.IsZero() || w.t.Add(w.f.skew).Before(k.VerifyUntil):
			w.fail("key %.6s was forgotten before its end", k.ID)
		}
	}
}

// observeActivation checks invariant 1 against what was truly shown.
func (w *world) observeActivation(before, after lifecycle.Keyring, k *lifecycle.Key) {
	w.inv.activations++
	since, ok := w.inv.shownSince[k.ID]
	active := before.Active()
	first := active == nil || active.Private == nil || after.IsRevoked(active.ID) || w.refused(active.ID)
	if signer, ok := w.api.objects[signerKey].(*corev1.Secret); ok && strings.Contains(string(signer.Data[controllers.SigningJWKEntry]), k.ID) {
		w.inv.first[k.ID] = true
		return // signers have it already: the keyring follows them
	}
	if first {
		w.inv.first[k.ID] = true
	}
	if !first && w.t.Before(w.hangsUntil) {
		w.fail("key %.6s was activated while a gate hangs", k.ID)
	}
	if !ok {
		w.fail("key %.6s was activated but not everything shows it", k.ID)
	} else if !first && w.t.Sub(since) < w.f.verifierLag {
		w.fail("key %.6s was activated %s after it was shown, but verifiers need %s", k.ID, w.t.Sub(since), w.f.verifierLag)
	}
	if k.PublishedAt.IsZero() {
		w.fail("key %.6s was activated without publishedAt", k.ID)
	}
}

func (w *world) observeStatus(write write, sk *v1alpha1.SigningKey) {
	if w.sabotage {
		return
	}
	old, _ := write.before.(*v1alpha1.SigningKey)
	if sk.Status.Sequence < w.inv.sequence[string(sk.UID)] {
		w.fail("status sequence fell to %d", sk.Status.Sequence)
	}
	w.inv.sequence[string(sk.UID)] = sk.Status.Sequence
	if old != nil && len(old.Status.Keys) > 0 && len(sk.Status.Keys) == 0 {
		w.fail("an empty key set was put into status")
	}
	if w.lead != nil && w.lead.leap != 0 && old != nil && !reflect.DeepEqual(old.Status.Keys, sk.Status.Keys) {
		w.fail("status keys changed while the controller's clock was wrong by %s", w.lead.leap)
	}
	for kid, at := range w.inv.dropped {
		if at.IsZero() && !slices.ContainsFunc(sk.Status.Keys, func(k v1alpha1.KeyStatus) bool { return k.KeyID == kid }) {
			w.inv.dropped[kid] = w.t
		}
	}
	for _, k := range sk.Status.Keys {
		if k.State == v1alpha1.KeyRevoked {
			w.inv.revokedKey(k.KeyID, w.t)
		}
		switch last, known := w.inv.ends[k.KeyID]; {
		case k.VerifyUntil == nil:
			delete(w.inv.ends, k.KeyID)
		case !known || k.VerifyUntil.After(last.at):
			w.inv.ends[k.KeyID] = end{at: k.VerifyUntil.Time, said: w.t}
		}
	}
}

// observeShown keeps track of since when every publication shows each key.
func (w *world) observeShown() {
	sk, _ := w.api.objects[skKey].(*v1alpha1.SigningKey)
	shown := map[string]bool{}
	if sk != nil {
		cm, _ := w.api.objects[jwksKey].(*corev1.ConfigMap)
		hmac, _ := w.api.objects[hmacKey].(*corev1.Secret)
		for _, k := range sk.Status.Keys {
			switch {
			case k.State == v1alpha1.KeyRetired, k.State == v1alpha1.KeyRevoked:
			case k.PublicKey == nil:
				shown[k.KeyID] = strings.Contains(hmacText(hmac), k.KeyID)
			case sk.Spec.JWKS != nil:
				inCM := cm != nil && strings.Contains(cm.Data[controllers.JWKSEntry], k.KeyID)
				shown[k.KeyID] = inCM
				if inCM {
					w.inv.inJWKS[k.KeyID] = true
				}
			default:
				shown[k.KeyID] = true
			}
		}
	}
	for kid, is := range shown {
		if _, known := w.inv.shownSince[kid]; is && !known {
			w.inv.shownSince[kid] = w.t
		}
	}
	for kid, since := range w.inv.shownSince {
		// Whoever knows the first key goes on knowing it.
		if !shown[kid] && (!w.inv.first[kid] || w.t.Before(since.Add(w.f.verifierLag))) {
			delete(w.inv.shownSince, kid)
		}
	}
}

// hmacText is what the Secret of all HS* keys holds; nothing when there is
// none.
func hmacText(s *corev1.Secret) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	for _, raw := range s.Data {
		b.Write(raw)
	}
	return b.String()
}
