package controllers

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// keysStatus projects a keyring into status at now: newest first, with at most
// limit retired keys, and after them the revoked ones. Times are rounded up to what status can show.
func keysStatus(ring lifecycle.Keyring, now time.Time, limit int) []v1alpha1.KeyStatus {
	var out []v1alpha1.KeyStatus
	retired := 0
	for i := len(ring.Keys) - 1; i >= 0; i-- {
		k := &ring.Keys[i]
		state := ring.State(k, now)
		if state == v1alpha1.KeyRetired {
			if retired++; retired > limit {
				continue
			}
		}
		ks := v1alpha1.KeyStatus{
			KeyID:         k.ID,
			Sequence:      k.Sequence,
			Algorithm:     v1alpha1.Algorithm(k.Algorithm),
			Issuer:        k.Issuer,
			State:         state,
			WithoutKeyID:  k.WithoutKeyID,
			MaxTokenTTL:   v1alpha1.Duration{Duration: k.MaxTokenTTL},
			CreatedAt:     metav1.NewTime(lifecycle.Ceil(k.CreatedAt)),
			PublishedAt:   statusTime(k.PublishedAt),
			ActivatedAt:   statusTime(k.ActivatedAt),
			DeactivatedAt: statusTime(k.DeactivatedAt),
			VerifyUntil:   statusTime(k.VerifyUntil),
		}
		if k.Public != nil {
			public := v1alpha1.PublicJWK(*k.Public)
			ks.PublicKey = &public
		}
		out = append(out, ks)
	}
	for i := len(ring.Revoked) - 1; i >= max(0, len(ring.Revoked)-maxRevokedShown); i-- {
		t := &ring.Revoked[i]
		out = append(out, v1alpha1.KeyStatus{
			KeyID: t.ID, Sequence: t.Sequence, State: v1alpha1.KeyRevoked,
			CreatedAt: metav1.NewTime(lifecycle.Ceil(t.CreatedAt)), RevokedAt: statusTime(t.RevokedAt),
		})
	}
	return out
}

// maxRevokedShown is how many revoked keys fit into status; the keyring
// remembers all.
const maxRevokedShown = 512

func statusTime(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	out := metav1.NewTime(lifecycle.Ceil(t))
	return &out
}

// statusOf is the status after a pass: the keyring as it is stored, what
// happens next, and what is in the way.
func statusOf(w *world, ring lifecycle.Keyring, plan lifecycle.Result, within scope, faults []fault, now time.Time) v1alpha1.SigningKeyStatus {
	s := *w.sk.Status.DeepCopy()
	if within == scopeAll {
		s.ObservedGeneration = w.sk.Generation
		s.Sequence = ring.Sequence
		s.Keys = keysStatus(ring, now, lifecycle.HistoryLimit(w.sk.Spec))
		for i := range s.Keys {
			s.Keys[i].LastSeenAt = statusTime(lastSeen(w.sk.Status.Keys, w.evidence, s.Keys[i].KeyID))
		}
		s.ActiveKeyID, s.NextKeyID = "", ""
		if active := ring.Active(); active != nil {
			s.ActiveKeyID = active.ID
			s.LastRotationTime = statusTime(active.ActivatedAt)
		}
		if standby := ring.Standby(); standby != nil {
			s.NextKeyID = standby.ID
		}
		s.NextTransition = nextStatus(plan.Next)
		s.AnsweredTrigger = ring.Trigger
		s.RevokedBefore = nil
		if r := ring.RevokedBefore; !r.Asked.IsZero() {
			s.RevokedBefore = &v1alpha1.RevokedBefore{Time: metav1.NewTime(r.Asked), CutOff: metav1.NewTime(r.CutOff)}
		}
	}
	shown := conditions(w, ring, plan, within, faults, now)
	if within == scopeAll {
		shown = append(shown, evidenceConditions(w, ring, plan, now)...)
	}
	for _, c := range shown {
		c.ObservedGeneration = s.ObservedGeneration
		c.LastTransitionTime = metav1.NewTime(now)
		meta.SetStatusCondition(&s.Conditions, c)
	}
	return s
}

func nextStatus(next *lifecycle.Next) *v1alpha1.NextTransition {
	if next == nil {
		return nil
	}
	at := next.At
	if at.IsZero() {
		at = next.DueSince
	}
	if at.IsZero() {
		return nil
	}
	return &v1alpha1.NextTransition{Type: next.Type, KeyID: next.KeyID, Time: metav1.NewTime(at), WaitingFor: next.WaitingFor}
}

// conditions says in a person's words how things stand.
func conditions(w *world, ring lifecycle.Keyring, plan lifecycle.Result, within scope, faults []fault, now time.Time) []metav1.Condition {
	yes := func(kind, reason, message string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message}
	}
	no := func(kind, reason, message string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message}
	}

	degraded := no(v1alpha1.ConditionDegraded, "AsWanted", "")
	if len(faults) > 0 {
		message := faults[0].message
		for _, f := range faults[1:] {
			message += "; " + f.message
		}
		degraded = yes(v1alpha1.ConditionDegraded, faults[0].reason, cut(message, 1024))
	}

	waits := "rotation waits until this is mended; the keys go on as they are"
	if w.ringFault { // how the keys stand cannot be seen: Ready stays what it was
		return []metav1.Condition{no(v1alpha1.ConditionRotated, faults[0].reason, waits), degraded}
	}

	var ready metav1.Condition
	active := ring.Active()
	switch {
	case plan.ScheduleErr != nil:
		ready = no(v1alpha1.ConditionReady, "InvalidSchedule", cut(plan.ScheduleErr.Error()+"; the keys go on as they are", 1024))
	case active == nil && len(faults) > 0:
		ready = no(v1alpha1.ConditionReady, faults[0].reason, cut(faults[0].message, 1024))
	case active == nil && len(ring.Revoked) > 0:
		ready = no(v1alpha1.ConditionReady, "KeyRevoked", "the active key was revoked; the next one is about to take over")
	case active == nil:
		ready = no(v1alpha1.ConditionReady, "FirstKey", "the first key is being shown to verifiers before it signs")
	case active.Private == nil:
		ready = no(v1alpha1.ConditionReady, "KeyLost", "the private half of the active key was lost; the next one is about to take over")
	case signerKeyID(w.signer, ring, w.decoded) != active.ID:
		ready = no(v1alpha1.ConditionReady, "SignerSecretNotWritten", fmt.Sprintf("Secret %s does not hold the active key", w.sk.SignerSecretName()))
	default:
		ready = yes(v1alpha1.ConditionReady, "KeyActive", fmt.Sprintf("Secret %s holds the active key", w.sk.SignerSecretName()))
	}

	rotated := yes(v1alpha1.ConditionRotated, "UpToDate", "")
	switch a := plan.Activation; {
	case within != scopeAll:
		rotated = no(v1alpha1.ConditionRotated, faults[0].reason, waits)
	case a != nil && !a.DueSince.IsZero() && active != nil && now.After(a.DueSince):
		rotated = no(v1alpha1.ConditionRotated, "Waiting", fmt.Sprintf("due since %s, waits for %s; the active key goes on signing", a.DueSince.Format(time.RFC3339), a.WaitingFor))
	}
	return []metav1.Condition{ready, rotated, degraded}
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit-3] + "..."
}

// evidenceConditions says what verifiers were seen to know, and what signers
// were seen to do.
func evidenceConditions(w *world, ring lifecycle.Keyring, plan lifecycle.Result, now time.Time) []metav1.Condition {
	propagation := metav1.Condition{Type: v1alpha1.ConditionPropagationConfirmed, Status: metav1.ConditionTrue, Reason: "NobodyLate"}
	if a := plan.Activation; a != nil && a.At.IsZero() && w.evidence.Confirmed != "" && len(w.evidence.Late) > 0 {
		propagation.Status, propagation.Reason = metav1.ConditionFalse, "Waiting"
		propagation.Message = cut("waits for "+a.WaitingFor+"; the active key goes on signing", 1024)
	}
	signers := metav1.Condition{Type: v1alpha1.ConditionSignersCurrent, Status: metav1.ConditionTrue, Reason: "Current"}
	for _, k := range ring.Verifying(now) {
		if !k.Held {
			continue
		}
		signers.Status, signers.Reason = metav1.ConditionFalse, "OldKeyInUse"
		if seen := w.evidence.Seen[k.ID]; seen.Late > 0 {
			signers.Message = cut(signersMessage(k, seen, w.sk.Spec.Propagation), 1024)
		} else if before := meta.FindStatusCondition(w.sk.Status.Conditions, signers.Type); before != nil {
			signers.Message = before.Message // those gates have forgotten it, or do not answer
		}
	}
	return []metav1.Condition{propagation, signers}
}
