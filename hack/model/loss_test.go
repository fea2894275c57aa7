package model

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// What is lost, restored or revoked, and what is promised all the same.

// ask is how controllers ask the gates of a world.
func (w *world) ask(context.Context, types.NamespacedName) []controllers.GateAnswer {
	answers := make([]controllers.GateAnswer, 0, len(w.gates))
	for i, g := range w.gates {
		a := controllers.GateAnswer{Name: []string{"gate 0", "gate 1"}[i]}
		switch {
		case w.t.Before(w.hangsUntil) && i == w.hangs:
			a.Err = errors.New("it hangs")
		case g.keys == nil:
			a.Err = errors.New("it does not know the SigningKey")
		default:
			a.Report = keyset.Report{UID: g.keys.UID, Sequence: g.keys.Sequence}
			for _, k := range g.keys.Set.Keys() {
				a.Report.Keys = append(a.Report.Keys, keyset.KeyReport{KeyID: k.ID, Thumbprint: w.thumbprint(k)})
			}
			for _, ids := range [][]string{g.keys.Retired, g.keys.Revoked} {
				for _, id := range ids {
					a.Report.Keys = append(a.Report.Keys, keyset.KeyReport{KeyID: id, Refused: true})
				}
			}
		}
		answers = append(answers, a)
	}
	return answers
}

// thumbprint of a key; remembered, because it is asked for again and again.
func (w *world) thumbprint(k *keyset.Key) string {
	if k.Algorithm.Symmetric() {
		return ""
	}
	if known, ok := w.thumbprints[k.ID]; ok {
		return known
	}
	thumbprint, err := keyset.Thumbprint(k.Public)
	if err != nil {
		panic(err)
	}
	w.thumbprints[k.ID] = thumbprint
	return thumbprint
}

// hang lets a gate be ready and not answer: rotations wait.
func (w *world) hang() {
	w.hangs, w.hangsUntil = w.rng.IntN(2), w.t.Add(time.Duration(w.rng.IntN(120))*time.Second)
	w.advance(w.hangsUntil)
}

// revoke revokes keys of the spec's choice, by ID or by when they were made.
func (w *world) revoke() {
	sk, ok := w.api.objects[skKey].(*v1alpha1.SigningKey)
	if !ok || len(sk.Status.Keys) == 0 {
		return
	}
	spec := *sk.Spec.DeepCopy()
	if w.rng.IntN(3) == 0 {
		at := w.t.Add(w.apiOffset).Truncate(time.Second)
		if w.rng.IntN(4) == 0 {
			at = at.Add(time.Hour)
		}
		spec.RevokeCreatedBefore = &v1alpha1.RevokeCreatedBefore{Time: metav1.NewTime(at)}
		for kid := range w.inv.issuers {
			w.inv.mayRefuse[kid] = true
		}
		w.note("that is every key made before %s", at.Sub(epoch))
	} else {
		id := sk.Status.Keys[w.rng.IntN(len(sk.Status.Keys))].KeyID
		if w.rng.IntN(2) == 0 {
			id = sk.Status.ActiveKeyID
		}
		if id == "" || slices.ContainsFunc(spec.RevokedKeys, func(k v1alpha1.RevokedKey) bool { return k.KeyID == id }) {
			return
		}
		spec.RevokedKeys = append(spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: id})
		w.inv.revokedKey(id, w.t)
	}
	w.apply(spec)
}

// unrevoke takes every revocation out of the spec, as GitOps may, once status
// shows what came of it: nothing comes back.
func (w *world) unrevoke() {
	sk, ok := w.api.objects[skKey].(*v1alpha1.SigningKey)
	if !ok {
		return
	}
	for _, r := range sk.Spec.RevokedKeys {
		if !slices.ContainsFunc(sk.Status.Keys, func(k v1alpha1.KeyStatus) bool { return k.KeyID == r.KeyID && k.State == v1alpha1.KeyRevoked }) {
			return
		}
	}
	if before := sk.Spec.RevokeCreatedBefore; before != nil && (sk.Status.RevokedBefore == nil || !sk.Status.RevokedBefore.Time.Equal(&before.Time)) {
		return
	}
	spec := *sk.Spec.DeepCopy()
	spec.RevokedKeys, spec.RevokeCreatedBefore = nil, nil
	w.apply(spec)
}

// revokedKey notes that a key is revoked, and since when.
func (v *invariants) revokedKey(id string, at time.Time) {
	v.mayRefuse[id] = true
	if _, ok := v.revoked[id]; !ok {
		v.revoked[id] = at
	}
}

// loseKeyring deletes the keyring, or puts an older copy back.
func (w *world) loseKeyring() {
	now, ok := w.api.objects[keyringKey].(*corev1.Secret)
	sk, there := w.api.objects[skKey].(*v1alpha1.SigningKey)
	if !ok || !there || sk.Status.Sequence == 0 {
		return // without status it is the only copy
	}
	w.sabotage, w.disturbedAt = true, w.t
	defer func() { w.sabotage = false }()
	if !w.lost {
		w.lost, w.before = true, w.ringOf(now)
	}
	past := w.api.history[keyringKey]
	old, _ := past[w.rng.IntN(len(past))].obj.(*corev1.Secret)
	if w.rng.IntN(2) == 0 || old == nil {
		w.api.delete(keyringKey)
	} else {
		back := now.DeepCopy()
		back.Data = old.Data
		if err := w.api.update(back, false); err != nil {
			panic(err)
		}
	}
	w.poke()
}

// restore puts the API server's storage back to an earlier instant. Gates,
// signers and whoever cached the JWKS keep what they know.
func (w *world) restore() {
	if w.gone || w.lost {
		return
	}
	at := w.t.Add(-time.Duration(w.rng.IntN(90)) * time.Second)
	then, _ := w.api.asOf(skKey, at).(*v1alpha1.SigningKey)
	now, _ := w.api.objects[skKey].(*v1alpha1.SigningKey)
	// Not to before an earlier disturbance, nor while a gate is behind: that
	// would bring back publications which nobody can know were withdrawn.
	for _, g := range w.gates {
		if g.keys == nil || now == nil || g.keys.UID != string(now.UID) || g.keys.Sequence < now.Status.Sequence || w.ringOf(w.api.objects[keyringKey]).Sequence > g.keys.Sequence {
			return
		}
	}
	if at.Before(w.disturbedAt) || then == nil || now == nil || then.UID != now.UID || len(then.Status.Keys) == 0 {
		return
	}
	if w.ringOf(w.api.asOf(keyringKey, at)).Sequence < then.Status.Sequence {
		return // the keyring was lost just then
	}
	w.restoredAt, w.disturbedAt = w.t, w.t
	for kid, since := range w.inv.revoked {
		if since.After(at) {
			delete(w.inv.revoked, kid) // whoever asked for it has to ask again
		}
	}
	w.note("as it was at %.3fs", at.Sub(epoch).Seconds())
	// Keys that had left the signers and are active again: gates go by what
	// they remember until the sequence has risen above it.
	for _, k := range now.Status.Keys {
		if k.DeactivatedAt != nil || k.State == v1alpha1.KeyRetired || k.State == v1alpha1.KeyRevoked {
			w.inv.again[k.KeyID] = w.t
		}
	}
	for kid := range w.inv.ends {
		w.inv.again[kid] = w.t
	}
	// A gate that lists may hear of the restore when the sequence has risen
	// already. It keeps what it saw sign; of a key that has only just become
	// active it cannot tell that it did.
	for _, k := range now.Status.Keys {
		if k.ActivatedAt != nil && w.t.Sub(k.ActivatedAt.Time) <= w.f.verifierLag+2*w.f.skew+time.Second {
			w.inv.young[k.KeyID] = true
		}
	}
	for _, k := range w.ringOf(w.api.objects[keyringKey]).Keys {
		if !k.ActivatedAt.IsZero() && w.t.Sub(k.ActivatedAt) <= w.f.verifierLag+2*w.f.skew+time.Second {
			w.inv.young[k.ID] = true
		}
	}
	for kid := range w.inv.issuers {
		if !slices.ContainsFunc(then.Status.Keys, func(k v1alpha1.KeyStatus) bool {
			return k.KeyID == kid && (k.State == v1alpha1.KeyActive || k.State == v1alpha1.KeyVerifying)
		}) {
			w.inv.undone[kid] = true
		}
	}
	w.sabotage = true
	for _, key := range slices.Sorted(maps.Keys(w.api.history)) {
		switch obj := w.api.asOf(key, at); {
		case obj != nil:
			w.api.set(obj.DeepCopyObject().(client.Object), "", key, w.api.objects[key])
		case w.api.objects[key] != nil:
			w.api.delete(key)
		}
	}
	w.sabotage = false
	sk := w.api.objects[skKey].(*v1alpha1.SigningKey)
	w.inv.bySequence = map[int64][]lifecycle.Key{}
	w.inv.sequence[string(sk.UID)] = sk.Status.Sequence
	clear(w.inv.dropped) // a gate that has not heard of it keeps what status forgot
	for _, k := range sk.Status.Keys {
		if k.VerifyUntil == nil {
			delete(w.inv.ends, k.KeyID)
		}
	}
	// Ends are dated by the limits that the snapshot has: tokens that are
	// longer, from a raise that the restore undid, may outlive their key.
	w.inv.shortened, w.inv.shortenedUntil = sk.Spec.MaxTokenTTL.Duration, w.t.Add(w.f.signerLag+w.f.verifierLag)
	for _, k := range sk.Status.Keys {
		if k.MaxTokenTTL.Duration > 0 {
			w.inv.shortened = min(w.inv.shortened, k.MaxTokenTTL.Duration)
		}
	}
	w.inv.specs(sk.Spec)
	w.cacherFrom = w.t.Add(time.Hour)
	w.poke()
}

// excused says that a valid token may be refused: of a key that is revoked,
// or of one that had left its signers when the storage was restored and signs
// again, or one that is longer than the restored limits.
func (v *invariants) excused(tok issued) bool {
	if v.mayRefuse[tok.kid] {
		return true
	}
	if tok.signed.Before(v.shortenedUntil) && tok.exp.Sub(tok.iat) > v.shortened {
		return true
	}
	since, again := v.again[tok.kid]
	return again && !tok.signed.Before(since)
}

// checkRevoked shows a gate tokens of every key that is revoked.
func (w *world) checkRevoked(i int, g *gate, now time.Time) {
	for kid, since := range w.inv.revoked {
		if !w.t.Before(since.Add(w.f.verifierLag)) && accept(g, w.inv.forge(kid, now, time.Second), now) == nil {
			w.fail("gate %d accepted a token of key %.6s, which was revoked at %.3fs", i, kid, since.Sub(epoch).Seconds())
		}
	}
}

// mended says whether a write of the keyring ends a loss, and gives what the
// keyring held before it was lost.
func (w *world) mended(before, after lifecycle.Keyring) (lifecycle.Keyring, bool) {
	if !w.lost {
		return before, false
	}
	w.lost = false
	for sequence := range w.inv.bySequence {
		if sequence >= after.Sequence {
			delete(w.inv.bySequence, sequence) // nobody but the lost keyring had it
		}
	}
	return w.before, true
}

// handed says whether signers may have had a key, since the storage was last
// restored: what they had before, gates remember.
func (w *world) handed(kid string) bool {
	for _, v := range w.api.history[signerKey] {
		if secret, ok := v.obj.(*corev1.Secret); ok && !v.from.Before(w.restoredAt) && !w.forged[secret.ResourceVersion] && strings.Contains(string(secret.Data[controllers.SigningJWKEntry]), kid) {
			return true
		}
	}
	return false
}

// refused says whether a gate refuses a key for ever, as it may after a
// restore brought that key back.
func (w *world) refused(kid string) bool {
	return slices.ContainsFunc(w.gates[:], func(g *gate) bool {
		return g.keys != nil && (slices.Contains(g.keys.Retired, kid) || slices.Contains(g.keys.Revoked, kid))
	})
}
