package controllers

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

func TestKeysStatus(t *testing.T) {
	ring := inEveryState(t, keyset.ES256)
	got := keysStatus(ring, noon, 10)
	at := func(text string) *metav1.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return &metav1.Time{Time: parsed}
	}
	public := func(i int) *v1alpha1.PublicJWK { p := v1alpha1.PublicJWK(*ring.Keys[i].Public); return &p }
	key := func(i int, state v1alpha1.KeyState) v1alpha1.KeyStatus {
		return v1alpha1.KeyStatus{
			KeyID: ring.Keys[i].ID, Sequence: int64(2*i + 1), Algorithm: "ES256", Issuer: "https://auth.example", State: state,
			PublicKey: public(i), MaxTokenTTL: v1alpha1.Duration{Duration: time.Hour},
		}
	}
	k4, k3, k2, k1 := key(3, v1alpha1.KeyPublished), key(2, v1alpha1.KeyActive), key(1, v1alpha1.KeyVerifying), key(0, v1alpha1.KeyRetired)
	// Each time is rounded up, never down: nothing is shown before it is so.
	k4.CreatedAt, k4.PublishedAt = *at("2026-03-01T06:00:01Z"), at("2026-03-01T06:00:02Z")
	k3.CreatedAt, k3.PublishedAt = *at("2026-03-01T05:00:01Z"), at("2026-03-01T05:00:02Z")
	k3.ActivatedAt = at("2026-03-01T10:00:01Z")
	k2.CreatedAt, k2.PublishedAt = *at("2026-03-01T04:00:01Z"), at("2026-03-01T04:00:02Z")
	k2.ActivatedAt, k2.DeactivatedAt, k2.VerifyUntil = at("2026-03-01T09:00:01Z"), at("2026-03-01T10:00:01Z"), at("2026-03-01T12:30:01Z")
	k1.CreatedAt, k1.PublishedAt = *at("2026-03-01T03:00:01Z"), at("2026-03-01T03:00:02Z")
	k1.ActivatedAt, k1.DeactivatedAt, k1.VerifyUntil = at("2026-03-01T08:00:01Z"), at("2026-03-01T09:00:01Z"), at("2026-03-01T11:30:01Z")
	if diff := cmp.Diff([]v1alpha1.KeyStatus{k4, k3, k2, k1}, got); diff != "" {
		t.Errorf("keys, newest first (-want +got):\n%s", diff)
	}
	if got := keysStatus(ring, noon, 0); len(got) != 3 {
		t.Errorf("without history there are %d keys, want the 3 that count", len(got))
	}
	if got := keysStatus(ring, noon.Add(30*time.Minute), 10)[2].State; got != v1alpha1.KeyVerifying {
		t.Errorf("k2 half a second before its end is %s", got)
	}
	if got := keysStatus(ring, noon.Add(30*time.Minute+time.Second), 10)[2].State; got != v1alpha1.KeyRetired {
		t.Errorf("k2 at its end is %s", got)
	}
	for _, k := range keysStatus(inEveryState(t, keyset.HS256), noon, 10) {
		if k.PublicKey != nil {
			t.Errorf("status shows something of a secret: %+v", k.PublicKey)
		}
	}
}

// standing is a SigningKey whose signers hold the active key.
func standing(t *testing.T) (*world, lifecycle.Keyring) {
	t.Helper()
	ring := inEveryState(t, keyset.ES256)
	data, err := signerData(&ring.Keys[2], time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		sk:     &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", Generation: 4}},
		signer: &corev1.Secret{Data: data},
		ring:   ring,
	}, ring
}

func TestConditions(t *testing.T) {
	const all = "KeyActive: Secret shop-signing holds the active key"
	tests := map[string]struct {
		set    func(w *world, ring *lifecycle.Keyring, plan *lifecycle.Result)
		faults faultList
		// Status, reason and message of each.
		ready, rotated, degraded string
	}{
		"all is well": {
			ready: "True " + all, rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"the first key is not active yet": {
			set:   func(_ *world, ring *lifecycle.Keyring, _ *lifecycle.Result) { ring.Keys = ring.Keys[3:] },
			ready: "False FirstKey: the first key is being shown to verifiers before it signs", rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"the active key was revoked": {
			set: func(_ *world, ring *lifecycle.Keyring, _ *lifecycle.Result) {
				ring.Keys, ring.Revoked = ring.Keys[3:], []lifecycle.Tombstone{{ID: "gone"}}
			},
			ready: "False KeyRevoked: the active key was revoked; the next one is about to take over", rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"the private half of the active key is lost": {
			set:   func(_ *world, ring *lifecycle.Keyring, _ *lifecycle.Result) { ring.Keys[2].Private = nil },
			ready: "False KeyLost: the private half of the active key was lost; the next one is about to take over", rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"the first key cannot be stored": {
			set:    func(_ *world, ring *lifecycle.Keyring, _ *lifecycle.Result) { ring.Keys = nil },
			faults: faultList{{reason: "KeyringNotWritten", message: "writing Secret shop-keyring: forbidden"}},
			ready:  "False KeyringNotWritten: writing Secret shop-keyring: forbidden", rotated: "False KeyringNotWritten: rotation waits until this is mended; the keys go on as they are",
			degraded: "True KeyringNotWritten: writing Secret shop-keyring: forbidden",
		},
		"the signer Secret is gone": {
			set:   func(w *world, _ *lifecycle.Keyring, _ *lifecycle.Result) { w.signer = nil },
			ready: "False SignerSecretNotWritten: Secret shop-signing does not hold the active key", rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"the signer Secret has another name and another content": {
			set: func(w *world, _ *lifecycle.Keyring, _ *lifecycle.Result) {
				w.sk.Spec.Signer = &v1alpha1.Signer{SecretName: "mine"}
				w.signer.Data[SigningJWKEntry] = []byte("{}")
			},
			ready: "False SignerSecretNotWritten: Secret mine does not hold the active key", rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"the schedule is not understood": {
			set: func(_ *world, _ *lifecycle.Keyring, plan *lifecycle.Result) {
				plan.ScheduleErr = errors.New("spec.rotation.schedule: not understood: expected exactly 5 fields")
			},
			ready:   "False InvalidSchedule: spec.rotation.schedule: not understood: expected exactly 5 fields; the keys go on as they are",
			rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"a rotation is overdue": {
			set: func(_ *world, _ *lifecycle.Keyring, plan *lifecycle.Result) {
				plan.Activation = &lifecycle.Next{DueSince: noon.Add(-time.Minute), WaitingFor: "the signer Secret to hold the active key"}
			},
			ready:    "True " + all,
			rotated:  "False Waiting: due since 2026-03-01T11:59:00Z, waits for the signer Secret to hold the active key; the active key goes on signing",
			degraded: "False AsWanted: ",
		},
		"a rotation is due just now": {
			set: func(_ *world, _ *lifecycle.Keyring, plan *lifecycle.Result) {
				plan.Activation = &lifecycle.Next{DueSince: noon, WaitingFor: "something"}
			},
			ready: "True " + all, rotated: "True UpToDate: ", degraded: "False AsWanted: ",
		},
		"clocks differ": {
			set:    func(_ *world, _ *lifecycle.Keyring, plan *lifecycle.Result) { plan.Hold = lifecycle.HoldClock },
			faults: holding(lifecycle.HoldClock),
			ready:  "True " + all, rotated: "False ClockSkewed: rotation waits until this is mended; the keys go on as they are",
			degraded: "True ClockSkewed: this controller's clock and the API server's differ by more than spec.propagation.clockSkew: set the clocks right",
		},
		"the key to import is not there": {
			set:    func(_ *world, _ *lifecycle.Keyring, plan *lifecycle.Result) { plan.Hold = lifecycle.HoldImport },
			faults: holding(lifecycle.HoldImport),
			ready:  "True " + all, rotated: "False InvalidImport: rotation waits until this is mended; the keys go on as they are",
			degraded: "True InvalidImport: spec.import.secretName: Secret legacy does not exist; no key is made until then. Mend it, or create the SigningKey again without import",
		},
		"an output belongs to someone else": {
			faults: faultList{{reason: "OutputNotOurs", message: notOurs("ConfigMap", "shop-jwks").Error()}},
			ready:  "True " + all, rotated: "True UpToDate: ",
			degraded: "True OutputNotOurs: ConfigMap shop-jwks exists and was not made for this SigningKey: it is left as it is; delete it if nobody needs it, or make a SigningKey whose outputs have other names",
		},
		"two things are in the way": {
			faults: faultList{{reason: "JWKSConfigMapNotWritten", message: "one"}, {reason: "SignerSecretNotWritten", message: "two"}},
			ready:  "True " + all, rotated: "True UpToDate: ", degraded: "True JWKSConfigMapNotWritten: one; two",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w, ring := standing(t)
			plan := lifecycle.Result{}
			if tc.set != nil {
				tc.set(w, &ring, &plan)
			}
			got := map[string]string{}
			var keyringErr error
			if len(tc.faults) > 0 && tc.faults[0].reason == "KeyringNotWritten" {
				keyringErr = errors.New(tc.faults[0].message)
			}
			within := scopeOf(w, plan, keyringErr)
			for _, c := range conditions(w, ring, plan, within, tc.faults, noon) {
				got[c.Type] = string(c.Status) + " " + c.Reason + ": " + c.Message
			}
			want := map[string]string{
				v1alpha1.ConditionReady: tc.ready, v1alpha1.ConditionRotated: tc.rotated, v1alpha1.ConditionDegraded: tc.degraded,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func holding(hold lifecycle.Hold) faultList {
	var l faultList
	l.hold(&world{importErr: errors.New("secretName: Secret legacy does not exist")}, hold)
	return l
}

func TestConditionsAreCut(t *testing.T) {
	w, ring := standing(t)
	long := faultList{{reason: "KeyringNotWritten", message: strings.Repeat("x", 5000)}}
	for _, c := range conditions(w, ring, lifecycle.Result{}, scopeAll, long, noon) {
		if len(c.Message) > 1024 {
			t.Errorf("%s: message of %d bytes", c.Type, len(c.Message))
		}
	}
}

func TestStatusOf(t *testing.T) {
	w, ring := standing(t)
	w.sk.Status = v1alpha1.SigningKeyStatus{Sequence: 3, ActiveKeyID: "old", NextKeyID: "older", Keys: []v1alpha1.KeyStatus{{KeyID: "old"}}}
	plan := lifecycle.Result{Next: &lifecycle.Next{Type: v1alpha1.TransitionRetire, KeyID: ring.Keys[1].ID, At: noon.Add(time.Hour)}}

	got := statusOf(w, ring, plan, scopeAll, nil, noon)
	want := v1alpha1.SigningKeyStatus{
		ObservedGeneration: 4, Sequence: 9, ActiveKeyID: ring.Keys[2].ID, NextKeyID: ring.Keys[3].ID,
		LastRotationTime: statusTime(ring.Keys[2].ActivatedAt),
		NextTransition:   &v1alpha1.NextTransition{Type: v1alpha1.TransitionRetire, KeyID: ring.Keys[1].ID, Time: metav1.NewTime(noon.Add(time.Hour))},
		Keys:             keysStatus(ring, noon, 10),
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(v1alpha1.SigningKeyStatus{}, "Conditions")); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	for _, c := range got.Conditions {
		if c.ObservedGeneration != 4 || !c.LastTransitionTime.Time.Equal(noon) {
			t.Errorf("condition %s: generation %d, since %s", c.Type, c.ObservedGeneration, c.LastTransitionTime)
		}
	}

	// What is not stored, or cannot be trusted, is not projected.
	for _, within := range []scope{scopeSigner, scopeNothing} {
		got := statusOf(w, ring, plan, within, faultList{{reason: "KeyringUnreadable", message: "m"}}, noon)
		want := w.sk.Status
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(v1alpha1.SigningKeyStatus{}, "Conditions")); diff != "" {
			t.Errorf("status of scope %d (-want +got):\n%s", within, diff)
		}
	}
}

func TestNextStatus(t *testing.T) {
	tests := map[string]struct {
		next *lifecycle.Next
		want *v1alpha1.NextTransition
	}{
		"nothing": {},
		"a time that is known": {
			&lifecycle.Next{Type: v1alpha1.TransitionActivate, KeyID: "k", At: noon, WaitingFor: "w"},
			&v1alpha1.NextTransition{Type: v1alpha1.TransitionActivate, KeyID: "k", Time: metav1.NewTime(noon), WaitingFor: "w"},
		},
		"due, and the time is not known": {
			&lifecycle.Next{Type: v1alpha1.TransitionActivate, DueSince: noon, WaitingFor: "w"},
			&v1alpha1.NextTransition{Type: v1alpha1.TransitionActivate, Time: metav1.NewTime(noon), WaitingFor: "w"},
		},
		"neither due nor known": {&lifecycle.Next{Type: v1alpha1.TransitionActivate, WaitingFor: "w"}, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, nextStatus(tc.next)); diff != "" {
				t.Errorf("nextTransition (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSignersThatStayBehindAreNamed(t *testing.T) {
	w, ring := standing(t)
	w.sk.Spec.Propagation.SignerLag.Duration = 5 * time.Minute
	k := &ring.Keys[1] // it verifies
	k.Held = true
	w.evidence.Seen = map[string]lifecycle.Sighting{k.ID: {LastAt: noon, Late: 3, Issuer: "https://auth.example"}}
	signersOf := func(s v1alpha1.SigningKeyStatus) metav1.Condition {
		return *meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionSignersCurrent)
	}
	status := statusOf(w, ring, lifecycle.Result{}, scopeAll, nil, noon)
	got := signersOf(status)
	want := "tokens of https://auth.example for 3 or more subjects were signed with key " + k.ID + " later than signerLag (5m0s) after it was replaced. Its retirement is put off once, to " +
		k.VerifyUntil.Format(time.RFC3339) + "; make that signer read the Secret again, or raise signerLag"
	if got.Status != metav1.ConditionFalse || got.Reason != "OldKeyInUse" || got.Message != want {
		t.Errorf("SignersCurrent = %+v, want False with %q", got, want)
	}
	for _, ks := range status.Keys {
		if (ks.KeyID == k.ID) != (ks.LastSeenAt != nil) {
			t.Errorf("key %s: lastSeenAt %v", ks.KeyID, ks.LastSeenAt)
		}
	}

	// The gates were restarted: who it was stays known, until the key retires.
	w.sk.Status, w.evidence = status, lifecycle.Evidence{}
	if again := signersOf(statusOf(w, ring, lifecycle.Result{}, scopeAll, nil, noon)); again.Message != want {
		t.Errorf("SignersCurrent = %+v after the gates have forgotten", again)
	}
	if over := signersOf(statusOf(w, ring, lifecycle.Result{}, scopeAll, nil, k.VerifyUntil)); over.Status != metav1.ConditionTrue || over.Message != "" {
		t.Errorf("SignersCurrent = %+v once it has retired, want True", over)
	}
}
