package lifecycle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/v1alpha1"
)

func (s *scene) revokeKey(id string) {
	s.want.Spec.RevokedKeys = append(s.want.Spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: id, Reason: "Compromised"})
}

func (s *scene) revokeBefore(at time.Time) {
	s.want.Spec.RevokeCreatedBefore = &v1alpha1.RevokeCreatedBefore{Time: metav1.NewTime(at)}
}

func ids(ring Keyring) (keys, revoked []string) {
	for _, k := range ring.Keys {
		keys = append(keys, k.ID)
	}
	for _, t := range ring.Revoked {
		revoked = append(revoked, t.ID)
	}
	return keys, revoked
}

func (s *scene) wantKeys(when string, keys, revoked []string) {
	s.t.Helper()
	gotKeys, gotRevoked := ids(s.ring)
	if diff := cmp.Diff(keys, gotKeys); diff != "" {
		s.t.Errorf("%s: keys (-want +got):\n%s", when, diff)
	}
	if diff := cmp.Diff(revoked, gotRevoked); diff != "" {
		s.t.Errorf("%s: revoked (-want +got):\n%s", when, diff)
	}
}

func TestRevokingTheActiveKeyLetsTheStandbySignAtOnce(t *testing.T) {
	s := running(t)
	s.now = s.now.Add(time.Hour) // k2 has been shown for long
	before := s.ring.Sequence
	s.revokeKey("k1")

	r := s.store()
	s.wantKeys("after one plan", []string{"k2", "k3"}, []string{"k1"})
	if s.ring.Sequence != before+1 {
		t.Errorf("sequence = %d, want %d", s.ring.Sequence, before+1)
	}
	want := []Transition{{Type: v1alpha1.TransitionRevoke, KeyID: "k1"}, {Type: v1alpha1.TransitionActivate, KeyID: "k2"}}
	if diff := cmp.Diff(want, r.Transitions); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	if a := s.ring.Active(); a == nil || a.ID != "k2" {
		t.Fatalf("active is %v, want k2", a)
	}
	if got := s.ring.Revoked[0]; got.Sequence == 0 || got.CreatedAt.IsZero() || !got.RevokedAt.Equal(s.now) {
		t.Errorf("tombstone %+v, want its sequence, when it was made and when it was revoked", got)
	}
	s.settle()
	s.quiet("after it has settled")

	// Nothing brings it back.
	s.want.Spec.RevokedKeys = nil
	s.settle()
	s.wantKeys("when the entry is removed", []string{"k2", "k3"}, []string{"k1"})
}

func TestRevokingWhatDoesNotSign(t *testing.T) {
	tests := map[string]struct {
		revoke        string
		keys, revoked []string
	}{
		"the key that stands by": {"k3", []string{"k1", "k2", "k4"}, []string{"k3"}},
		"a key that verifies":    {"k1", []string{"k2", "k3"}, []string{"k1"}},
		"a key that nobody has":  {"elsewhere", []string{"k1", "k2", "k3"}, []string{"elsewhere"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.rotate() // k1 verifies, k2 signs, k3 stands by
			s.revokeKey(tc.revoke)
			s.settle()
			s.wantKeys("revoked", tc.keys, tc.revoked)
			if a := s.ring.Active(); a == nil || a.ID != "k2" {
				t.Errorf("active is %v, want k2 as before", a)
			}
			s.quiet("after it has settled")
		})
	}
}

func TestRevokingEveryKey(t *testing.T) {
	tests := map[string]struct {
		before       time.Duration // from now
		keys         []string
		revoked      []string
		cutOffIsThen bool
	}{
		"made before now":                    {0, []string{"k4", "k5"}, []string{"k1", "k2", "k3"}, true},
		"made before a time to come":         {240 * time.Hour, []string{"k4", "k5"}, []string{"k1", "k2", "k3"}, false},
		"made before any of them":            {-200 * time.Hour, []string{"k1", "k2", "k3"}, nil, true},
		"made before the one that stands by": {-90 * time.Minute, []string{"k3", "k4"}, []string{"k1", "k2"}, true},
		"made before the one that signs":     {-150 * time.Minute, []string{"k2", "k3"}, []string{"k1"}, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.rotate() // k1 verifies, k2 signs, k3 stands by
			s.now = s.now.Truncate(time.Second).Add(time.Minute)
			for i, age := range []time.Duration{3 * time.Hour, 2 * time.Hour, time.Hour} {
				s.ring.Keys[i].CreatedAt = s.now.Add(-age)
			}
			asked := s.now.Add(tc.before)
			s.revokeBefore(asked)
			s.settle()
			for range 5 { // the new key is shown for a moment, then signs
				s.now = s.now.Add(time.Second)
				s.settle()
			}
			s.wantKeys("revoked", tc.keys, tc.revoked)
			if a := s.ring.Active(); a == nil {
				t.Fatal("nothing signs")
			}
			cutOff := s.ring.RevokedBefore.CutOff
			if got := cutOff.Equal(asked); got != tc.cutOffIsThen || cutOff.After(s.now) {
				t.Errorf("cutOff = %s, asked for %s at %s", cutOff, asked, s.now)
			}

			// Keys made later are untouched, however often the same is asked.
			s.now = s.now.Add(100 * time.Hour)
			s.settle()
			s.wantKeys("later", tc.keys, tc.revoked)
		})
	}
}

func TestAControllerWhoseClockIsBehindDoesNotRevokeItsOwnNewKey(t *testing.T) {
	s := running(t)
	s.revokeBefore(s.now.Add(time.Hour))
	s.store()
	made := len(s.ring.Revoked)
	s.now = s.now.Add(-clockSkew) // the other controller leads now
	s.revokeKey("k3")             // the key that was made at the cut-off
	s.settle()
	for range 200 {
		s.now = s.now.Add(time.Second)
		s.settle()
	}
	if got := len(s.ring.Revoked); got != made+1 {
		t.Errorf("%d keys are revoked, want %d: new ones were revoked too", got, made+1)
	}
	if s.ring.Active() == nil {
		t.Error("nothing signs")
	}
}

// A key whose successor is revoked before signers had it goes on.
func TestRevokingTheSuccessorInMidSwitchGoesBack(t *testing.T) {
	s := running(t)
	s.want.Spec.Rotation.Trigger = "go"
	s.now = Ceil(s.ring.Standby().PublishedAt.Add(verifierLag + clockSkew))
	s.store() // k2 is chosen, the signer Secret still holds k1
	s.revokeKey("k2")
	s.settle()
	s.wantKeys("revoked", []string{"k1", "k3"}, []string{"k2"})
	if a := s.ring.Active(); a == nil || a.ID != "k1" || a.Private == nil {
		t.Errorf("active is %v, want k1 with its private half", a)
	}
}
