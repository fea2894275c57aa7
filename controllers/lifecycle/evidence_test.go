package lifecycle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/v1alpha1"
)

func TestActivationWaitsForEvidence(t *testing.T) {
	tests := map[string]struct {
		gates   bool
		urls    []string
		late    []string // of the look that is taken
		waits   string   // empty: it is activated
		confirm bool     // whether the plan asks for a look
	}{
		"no evidence is asked for":   {},
		"every gate knows the key":   {gates: true, confirm: true},
		"a document shows the key":   {urls: []string{"https://a.example/jwks.json"}, confirm: true},
		"one gate does not know it":  {gates: true, confirm: true, late: []string{"gate 10.0.0.7"}, waits: "the new key to be seen at gate 10.0.0.7"},
		"many do not know it":        {gates: true, confirm: true, late: []string{"a", "b", "c", "d", "e"}, waits: "the new key to be seen at a, b, c and 2 more"},
		"a document cannot be had":   {urls: []string{"https://a.example/jwks.json"}, confirm: true, late: []string{"https://a.example/jwks.json: 503"}, waits: "the new key to be seen at https://a.example/jwks.json: 503"},
		"gates and a document, both": {gates: true, urls: []string{"https://a.example/jwks.json"}, confirm: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.want.AsksGates, s.want.Spec.Propagation.Evidence.URLs = tc.gates, tc.urls
			s.want.Spec.Rotation.Trigger = "go"

			// Before the lag has passed nobody is asked.
			s.now = s.key("k2").PublishedAt.Add(verifierLag + clockSkew - time.Second)
			if r := s.quiet("before V + e"); r.Confirm != "" {
				t.Errorf("asks for evidence of %s before the lag has passed", r.Confirm)
			}

			s.now = Ceil(s.key("k2").PublishedAt.Add(verifierLag + clockSkew))
			r := s.plan()
			if (r.Confirm == "k2") != tc.confirm || r.Changed == tc.confirm {
				t.Fatalf("confirm %q, changed %v", r.Confirm, r.Changed)
			}
			s.evidence = Evidence{Confirmed: "k1", Late: nil} // of another key: counts for nothing
			if r := s.plan(); tc.confirm && r.Changed {
				t.Fatal("evidence about another key lets k2 sign")
			}
			s.evidence = Evidence{Confirmed: "k2", Late: tc.late}
			r = s.plan()
			if got := r.Keyring.Active().ID; (got == "k2") != (tc.waits == "") {
				t.Fatalf("active is %s", got)
			}
			if tc.waits == "" {
				return
			}
			want := &Next{Type: v1alpha1.TransitionActivate, KeyID: "k2", DueSince: r.Next.DueSince, WaitingFor: tc.waits}
			if diff := cmp.Diff(want, r.Next); diff != "" || r.Next.DueSince.IsZero() {
				t.Errorf("next (-want +got):\n%s", diff)
			}
			// The key that signs goes on however long that takes, and a
			// revocation does not wait.
			s.now = s.now.Add(1000 * time.Hour)
			s.evidence = Evidence{Confirmed: "k2", Late: tc.late}
			if a := s.plan().Keyring.Active(); a.ID != "k1" || !a.DeactivatedAt.IsZero() {
				t.Errorf("active is %+v, want k1", a)
			}
			s.revokeKey("k1")
			if a := s.plan().Keyring.Active(); a == nil || a.ID != "k2" {
				t.Errorf("after a revocation active is %v, want k2 at once", a)
			}
		})
	}
}

func TestSignersThatStayBehindHoldARetirementOnce(t *testing.T) {
	s := running(t)
	s.want.AsksGates = true
	s.want.Spec.Rotation.Trigger = "go"
	s.now = Ceil(s.key("k2").PublishedAt.Add(verifierLag + clockSkew))
	s.evidence.Confirmed = "k2"
	s.settle()
	until := s.key("k1").VerifyUntil

	// When to look: after the last signer should have changed, and V + e
	// before the end.
	at := s.plan().LookAt
	if early := s.key("k1").DeactivatedAt.Add(signerLag + 2*clockSkew); !at.After(early) || !at.Equal(until.Add(-verifierLag-clockSkew)) {
		t.Errorf("looks at %s, want V + e before %s", at, until)
	}
	s.now = at
	s.settle()
	if k := s.key("k1"); k.Held || !k.VerifyUntil.Equal(until) {
		t.Fatalf("held with nobody late: %+v", k)
	}
	s.evidence.Seen = map[string]Sighting{"k1": {LastAt: s.now, Late: 3, Issuer: "https://auth.example"}}
	s.settle()
	want := until.Add(signerLag + tokenTTL)
	same(t, "the end that is put off", s.key("k1").VerifyUntil, want)
	if at := s.plan().LookAt; !at.IsZero() {
		t.Errorf("looks again at %s, though it can be held only once", at)
	}

	// Once only, whoever goes on.
	s.now = want.Add(-time.Second)
	s.settle()
	same(t, "the end, still", s.key("k1").VerifyUntil, want)
	s.now = want
	if got := s.ring.State(s.key("k1"), s.now); got != v1alpha1.KeyRetired {
		t.Errorf("k1 is %s, want Retired", got)
	}
}

func TestWhatGatesKnowAndTheAPIServerHasLost(t *testing.T) {
	t.Run("a larger sequence", func(t *testing.T) {
		s := running(t)
		s.now = s.now.Add(time.Hour)
		s.evidence.Sequence = s.ring.Sequence + 7
		s.store()
		if want := s.evidence.Sequence + 1; s.ring.Sequence != want {
			t.Errorf("sequence = %d, want %d", s.ring.Sequence, want)
		}
		// The key that stands by may be one that verifiers have forgotten.
		same(t, "publishedAt of the key that stands by", s.key("k2").PublishedAt, s.now)
		s.settle()
		s.evidence.Sequence = s.ring.Sequence
		s.quiet("once the gates have heard of it")
	})
	t.Run("a retirement of the active key", func(t *testing.T) {
		s := running(t)
		s.want.AsksGates = true
		s.evidence.Refused = map[string]bool{"k1": true}
		s.now = Ceil(s.now.Add(firstKeyWait))
		s.settle()
		if a := s.ring.Active(); a == nil || a.ID != "k2" {
			t.Fatalf("active is %v, want k2 at once: gates refuse k1", a)
		}
		if k := s.key("k1"); k.Private != nil || s.ring.State(k, s.now) != v1alpha1.KeyRetired {
			t.Errorf("k1 is %+v, want it retired", k)
		}
	})
	t.Run("a retirement of the key that stands by", func(t *testing.T) {
		s := running(t)
		s.evidence.Refused = map[string]bool{"k2": true}
		s.settle()
		if a, b := s.ring.Active(), s.ring.Standby(); a == nil || a.ID != "k1" || b == nil || b.ID == "k2" {
			t.Errorf("active is %v, standby %v, want k1 and a new one", a, b)
		}
	})
}
