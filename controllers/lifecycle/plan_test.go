package lifecycle

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// The windows of every scene, the defaults of the API.
const (
	verifierLag = 30 * time.Minute
	signerLag   = 5 * time.Minute
	clockSkew   = time.Minute
	leeway      = time.Minute
	tokenTTL    = time.Hour
)

// scene is one SigningKey and the world around it, in which each step is
// taken by hand: a plan is stored, then outputs are shown or not.
type scene struct {
	t    *testing.T
	want Wanted
	ring Keyring
	now  time.Time
	made int

	shown          map[string]bool
	statusTTL      map[string]time.Duration
	statusSequence int64
	statusTrigger  string
	status         []v1alpha1.KeyStatus // instead of statusTTL
	private        map[string]json.RawMessage
	imported       *Key
	evidence       Evidence
	signer         string
	signerTTL      time.Duration
	clock          ClockBounds
}

// newScene begins at a fraction of a second, so that what is not rounded shows.
func newScene(t *testing.T) *scene {
	return &scene{
		t: t,
		want: Wanted{
			UID: "c0ffee00-0000-4000-8000-000000000001",
			Spec: v1alpha1.SigningKeySpec{
				Algorithm:   "ES256",
				MaxTokenTTL: v1alpha1.Duration{Duration: tokenTTL},
				Rotation:    v1alpha1.Rotation{Policy: v1alpha1.RotationManual},
				Propagation: v1alpha1.Propagation{
					VerifierLag: v1alpha1.Duration{Duration: verifierLag},
					SignerLag:   v1alpha1.Duration{Duration: signerLag},
					ClockSkew:   v1alpha1.Duration{Duration: clockSkew},
					Leeway:      v1alpha1.Duration{Duration: leeway},
				},
			},
		},
		now:       time.Date(2026, time.March, 1, 12, 0, 0, 250_000_000, time.UTC),
		shown:     map[string]bool{},
		statusTTL: map[string]time.Duration{},
	}
}

// running is a scene in which k1 is active and k2 stands by, published at now.
func running(t *testing.T) *scene {
	s := newScene(t)
	s.settle()
	s.now = s.now.Add(10 * time.Second)
	s.settle()
	if a, b := s.ring.Active(), s.ring.Standby(); a == nil || a.ID != "k1" || b == nil || b.ID != "k2" || !b.PublishedAt.Equal(s.now) {
		t.Fatalf("the scene begins with active %v and standby %v", a, b)
	}
	return s
}

func (s *scene) plan() Result {
	return Plan(s.want, s.ring, Observed{
		Shown:          func(id string) bool { return s.shown[id] },
		SignerKeyID:    s.signer,
		SignerTTL:      s.signerTTL,
		StatusSequence: s.statusSequence,
		StatusKeys:     s.statusKeys(),
		StatusTrigger:  s.statusTrigger,
		Private:        func(k *v1alpha1.KeyStatus) json.RawMessage { return s.private[k.KeyID] },
		Imported:       s.imported,
		Evidence:       s.evidence,
		Clock:          s.clock,
	}, s.now)
}

// statusKeys are the keys in status, as far as a plan looks at them while the
// keyring is there.
func (s *scene) statusKeys() []v1alpha1.KeyStatus {
	out := s.status
	for id, ttl := range s.statusTTL {
		out = append(out, v1alpha1.KeyStatus{KeyID: id, MaxTokenTTL: v1alpha1.Duration{Duration: ttl}})
	}
	return out
}

// store plans and stores the keyring; a planned key gets its material first.
func (s *scene) store() Result {
	r := s.plan()
	for i := range r.Keyring.Keys {
		if k := &r.Keyring.Keys[i]; k.ID == "" {
			s.made++
			k.ID, k.Private = fmt.Sprintf("k%d", s.made), json.RawMessage(`{}`)
		}
	}
	s.ring = r.Keyring
	return r
}

// publish shows every key that counts, and status.
func (s *scene) publish() {
	s.statusSequence, s.statusTrigger = s.ring.Sequence, s.ring.Trigger
	clear(s.shown)
	clear(s.statusTTL)
	for _, k := range s.ring.Verifying(s.now) {
		s.shown[k.ID], s.statusTTL[k.ID] = true, k.MaxTokenTTL
	}
}

// hand gives signers the active key.
func (s *scene) hand() {
	if k := s.ring.Active(); k != nil {
		s.signer = k.ID
	}
}

// settle goes on until nothing changes at this time.
func (s *scene) settle() Result {
	s.t.Helper()
	for range 10 {
		s.publish()
		s.hand()
		if r := s.store(); !r.Changed {
			return r
		}
	}
	s.t.Fatal("the plan does not settle in 10 passes")
	return Result{}
}

// quiet fails when a plan changes anything now.
func (s *scene) quiet(when string) Result {
	s.t.Helper()
	r := s.plan()
	if r.Changed {
		s.t.Fatalf("%s: the plan changes the keyring: %s", when, cmp.Diff(s.ring, r.Keyring))
	}
	return r
}

// rotate goes on to the instant at which the standby may take over and hands
// it to signers; a trigger asks for it.
func (s *scene) rotate() {
	s.t.Helper()
	id := s.ring.Standby().ID
	s.want.Spec.Rotation.Trigger = "for " + id
	s.now = Ceil(s.ring.Standby().PublishedAt.Add(verifierLag + clockSkew))
	s.settle()
	if got := s.ring.Active(); got == nil || got.ID != id {
		s.t.Fatalf("rotating to %s: active is %v", id, got)
	}
}

func (s *scene) key(id string) *Key {
	s.t.Helper()
	k := s.ring.Find(id)
	if k == nil {
		s.t.Fatalf("key %s is not in the keyring", id)
	}
	return k
}

func same(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if !got.Equal(want) {
		t.Errorf("%s = %s, want %s", what, got, want)
	}
}

func TestFirstKey(t *testing.T) {
	s := newScene(t)

	// 1. It is planned; nothing else happens by itself.
	r := s.plan()
	want := Keyring{
		Version: KeyringVersion, Sequence: 1, TokenTTL: TokenTTL{Current: tokenTTL},
		Keys: []Key{{Sequence: 1, Algorithm: keyset.ES256, MaxTokenTTL: tokenTTL, CreatedAt: s.now}},
	}
	if diff := cmp.Diff(want, r.Keyring); diff != "" || !r.Changed || r.Hold != HoldNone || len(r.Transitions) != 0 {
		t.Fatalf("first plan: changed %v, hold %q, transitions %v, keyring (-want +got):\n%s", r.Changed, r.Hold, r.Transitions, diff)
	}

	// 2. Stored, but shown nowhere: it waits.
	s.store()
	planned := s.now
	for range 3 {
		s.now = s.now.Add(1100 * time.Millisecond)
		waits := &Next{Type: v1alpha1.TransitionActivate, KeyID: "k1", DueSince: planned.Truncate(time.Second), WaitingFor: "the new key to be published"}
		if diff := cmp.Diff(waits, s.quiet("not published yet").Next); diff != "" {
			t.Errorf("what is next before it is published (-want +got):\n%s", diff)
		}
	}

	// 3. Seen: the time of seeing counts, and it waits two seconds more.
	s.publish()
	s.now = s.now.Add(time.Second)
	r = s.store()
	same(t, "publishedAt", s.key("k1").PublishedAt, s.now)
	if diff := cmp.Diff([]Transition{{Type: v1alpha1.TransitionPublish, KeyID: "k1"}}, r.Transitions); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	active := Ceil(s.now.Add(2 * time.Second))
	if r.Next == nil || r.Next.Type != v1alpha1.TransitionActivate || !r.Next.At.Equal(active) {
		t.Errorf("next = %+v, want an activation at %s", r.Next, active)
	}
	if want := "the key to be shown for a moment (at most 2s) before it signs"; r.Next.WaitingFor != want {
		t.Errorf("it waits for %q, want %q", r.Next.WaitingFor, want)
	}
	s.now = active.Add(-time.Nanosecond)
	s.quiet("a nanosecond before two seconds are over")

	// 4. It is active, and its successor is planned in the same instant.
	s.now = active
	r = s.store()
	same(t, "activatedAt", s.key("k1").ActivatedAt, active)
	if diff := cmp.Diff([]Transition{{Type: v1alpha1.TransitionActivate, KeyID: "k1"}}, r.Transitions); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	if k := s.ring.Standby(); k == nil || k.ID != "k2" || !k.PublishedAt.IsZero() || k.Sequence != r.Keyring.Sequence {
		t.Errorf("standby = %+v, want k2, planned with the activation", k)
	}

	// 5. It stays so: nothing is due but by trigger.
	s.settle()
	s.now = s.now.Add(10_000 * time.Hour)
	if r := s.quiet("a year later, by policy Manual"); r.Next != nil || r.Activation != nil {
		t.Errorf("next = %+v, want nothing", r.Next)
	}
}

func TestFirstKeyWaitsNoLongerThanVerifiersNeed(t *testing.T) {
	s := newScene(t)
	s.want.Spec.Propagation = v1alpha1.Propagation{}
	s.settle()
	published := s.key("k1").PublishedAt
	s.now = Ceil(published)
	s.settle()
	same(t, "activatedAt of the first key when every verifier knows it at once", s.key("k1").ActivatedAt, s.now)
}

func TestActivationComesNotBefore(t *testing.T) {
	interval := func(d time.Duration) v1alpha1.Rotation {
		return v1alpha1.Rotation{Interval: &v1alpha1.Duration{Duration: d}}
	}
	tests := map[string]struct {
		rotation    v1alpha1.Rotation
		minInterval time.Duration
		// prepare changes a scene in which k1 is active and k2 stands by.
		prepare func(*scene)
		// want is when k2 takes over.
		want func(*scene) time.Time
	}{
		"every verifier knows it, when a trigger asks": {
			rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationManual, Trigger: "now"},
			want:     func(s *scene) time.Time { return Ceil(s.key("k2").PublishedAt.Add(verifierLag + clockSkew)) },
		},
		"every verifier knows it, when the interval is shorter": {
			rotation: interval(time.Minute),
			want:     func(s *scene) time.Time { return Ceil(s.key("k2").PublishedAt.Add(verifierLag + clockSkew)) },
		},
		"the interval is over": {
			rotation: interval(24 * time.Hour),
			want: func(s *scene) time.Time {
				return Ceil(s.key("k1").ActivatedAt.Add(24*time.Hour + jitter(s.want.UID, time.Hour)))
			},
		},
		"the default interval is over": {
			want: func(s *scene) time.Time {
				return Ceil(s.key("k1").ActivatedAt.Add(DefaultInterval + jitter(s.want.UID, time.Hour)))
			},
		},
		"the slot of the schedule has come": {
			rotation: v1alpha1.Rotation{Schedule: "0 3 * * *", TimeZone: "Europe/Berlin"},
			want: func(s *scene) time.Time {
				return Ceil(time.Date(2026, time.March, 2, 2, 0, 0, 0, time.UTC).Add(jitter(s.want.UID, time.Minute)))
			},
		},
		"the installation's least interval is over, when a trigger asks": {
			rotation:    v1alpha1.Rotation{Policy: v1alpha1.RotationManual, Trigger: "now"},
			minInterval: 2 * time.Hour,
			want:        func(s *scene) time.Time { return Ceil(s.key("k1").ActivatedAt.Add(2 * time.Hour)) },
		},
		"the installation's least interval is over, when the interval is shorter": {
			rotation:    interval(time.Hour),
			minInterval: 2 * time.Hour,
			want:        func(s *scene) time.Time { return Ceil(s.key("k1").ActivatedAt.Add(2 * time.Hour)) },
		},
		"larger lags are over, when they are edited meanwhile": {
			rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationManual, Trigger: "now"},
			prepare: func(s *scene) {
				s.want.Spec.Propagation.VerifierLag.Duration = 3 * time.Hour
				s.want.Spec.Propagation.ClockSkew.Duration = 2 * time.Minute
			},
			want: func(s *scene) time.Time { return Ceil(s.key("k2").PublishedAt.Add(3*time.Hour + 2*time.Minute)) },
		},
		"V + e after it was shown again, when it was withdrawn": {
			rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationManual, Trigger: "now"},
			prepare: func(s *scene) {
				s.now = s.now.Add(20 * time.Minute)
				delete(s.shown, "k2")
				s.store()
				s.now = s.now.Add(5 * time.Minute)
				s.quiet("still withdrawn")
				s.publish()
				s.now = s.now.Add(time.Second)
				s.store()
				same(s.t, "publishedAt after it was shown again", s.key("k2").PublishedAt, s.now)
			},
			want: func(s *scene) time.Time { return Ceil(s.now.Add(verifierLag + clockSkew)) },
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.want.Spec.Rotation, s.want.MinInterval = tc.rotation, tc.minInterval
			if tc.prepare != nil {
				tc.prepare(s)
			}
			want := tc.want(s)
			r := s.settle()
			if r.Activation == nil || r.Activation.KeyID != "k2" || !r.Activation.At.Equal(want) || r.Next == nil || !r.Next.At.Equal(want) {
				t.Errorf("announced: activation %+v, next %+v, want k2 at %s", r.Activation, r.Next, want)
			}
			s.now = want.Add(-time.Nanosecond)
			s.quiet("a nanosecond before")
			s.now = want
			s.store()
			same(t, "activatedAt", s.key("k2").ActivatedAt, want)
		})
	}
}

func TestOneActivationAtATime(t *testing.T) {
	s := running(t)
	s.want.Spec.Rotation = v1alpha1.Rotation{Interval: &v1alpha1.Duration{Duration: time.Hour}}

	// Three intervals are missed: one activation follows, and the slots that
	// were missed are not replayed.
	s.now = s.now.Add(3*time.Hour + 30*time.Minute)
	s.settle()
	same(t, "activatedAt of k2", s.key("k2").ActivatedAt, s.now)
	if k := s.ring.Standby(); k == nil || k.ID != "k3" {
		t.Fatalf("standby = %v, want k3", k)
	}
	s.now = s.now.Add(time.Hour - time.Nanosecond)
	s.quiet("just under an interval later")

	// The signer Secret cannot be written: the next one waits, whatever is due.
	s.now = s.now.Add(time.Hour)
	s.store()
	s.publish()
	if k := s.ring.Active(); k == nil || k.ID != "k3" || s.ring.switching() == nil {
		t.Fatalf("active = %v, want k3, with k2 switching", k)
	}
	s.store()
	s.publish()
	s.store()
	s.now = s.now.Add(100 * time.Hour)
	r := s.quiet("a hundred hours with the Secret not written")
	if a := r.Activation; a == nil || a.DueSince.IsZero() || a.WaitingFor != "the signer Secret to hold the active key" {
		t.Errorf("activation = %+v, want one that waits for the signer Secret", a)
	}
	if got := s.ring.State(s.key("k2"), s.now); got != v1alpha1.KeyVerifying {
		t.Errorf("k2 is %s, want it to verify without an end", got)
	}
}

func TestSwitchDatesTheOldKeysEnd(t *testing.T) {
	for name, alg := range map[string]v1alpha1.Algorithm{"with a public half": "EdDSA", "with HS256": "HS256"} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.want.Spec.Algorithm = alg
			s.settle()
			s.now = s.now.Add(10 * time.Second)
			s.settle()
			s.want.Spec.Rotation.Trigger = "now"
			s.now = s.now.Add(time.Hour)
			s.store()

			// The decision alone ends nothing.
			s.publish()
			s.now = s.now.Add(10 * time.Second)
			s.store()
			if k := s.key("k1"); !k.DeactivatedAt.IsZero() || !k.VerifyUntil.IsZero() || k.Private == nil {
				t.Fatalf("k1 has an end before the signer Secret holds k2: %+v", k)
			}

			// What is seen does.
			s.hand()
			s.now = s.now.Add(7500 * time.Millisecond)
			s.store()
			k := s.key("k1")
			same(t, "deactivatedAt", k.DeactivatedAt, s.now)
			end := Ceil(s.now.Add(signerLag + tokenTTL + leeway + 2*clockSkew))
			same(t, "verifyUntil", k.VerifyUntil, end)
			if kept := k.Private != nil; kept != keyset.Algorithm(alg).Symmetric() {
				t.Errorf("the private half is kept after the switch: %v", kept)
			}

			// Its end needs no write, except that a secret is destroyed at it.
			s.settle()
			s.now = end.Add(-time.Nanosecond)
			if r := s.quiet("just before the end"); r.Next == nil || r.Next.Type != v1alpha1.TransitionRetire || r.Next.KeyID != "k1" || !r.Next.At.Equal(end) {
				t.Errorf("next = %+v, want k1 retired at %s", r.Next, end)
			}
			s.now = end
			if got := s.ring.State(s.key("k1"), s.now); got != v1alpha1.KeyRetired {
				t.Errorf("k1 is %s at its end, want Retired", got)
			}
			r := s.store()
			if r.Changed != keyset.Algorithm(alg).Symmetric() || s.key("k1").Private != nil {
				t.Errorf("at the end: changed %v, private half there: %v", r.Changed, s.key("k1").Private != nil)
			}
		})
	}
}

func TestEndsMoveAwayOnly(t *testing.T) {
	tests := map[string]struct {
		edit func(*v1alpha1.SigningKeySpec)
		by   time.Duration
	}{
		"signerLag raised":    {func(s *v1alpha1.SigningKeySpec) { s.Propagation.SignerLag.Duration += time.Hour }, time.Hour},
		"leeway raised":       {func(s *v1alpha1.SigningKeySpec) { s.Propagation.Leeway.Duration += time.Minute }, time.Minute},
		"clockSkew raised":    {func(s *v1alpha1.SigningKeySpec) { s.Propagation.ClockSkew.Duration += time.Second }, 2 * time.Second},
		"signerLag lowered":   {func(s *v1alpha1.SigningKeySpec) { s.Propagation.SignerLag.Duration = 0 }, 0},
		"leeway lowered":      {func(s *v1alpha1.SigningKeySpec) { s.Propagation.Leeway.Duration = 0 }, 0},
		"clockSkew lowered":   {func(s *v1alpha1.SigningKeySpec) { s.Propagation.ClockSkew.Duration = 0 }, 0},
		"maxTokenTTL lowered": {func(s *v1alpha1.SigningKeySpec) { s.MaxTokenTTL.Duration = time.Second }, 0},
		"maxTokenTTL raised":  {func(s *v1alpha1.SigningKeySpec) { s.MaxTokenTTL.Duration = 9 * time.Hour }, 0},
		"verifierLag raised":  {func(s *v1alpha1.SigningKeySpec) { s.Propagation.VerifierLag.Duration = 9 * time.Hour }, 0},
		"another algorithm":   {func(s *v1alpha1.SigningKeySpec) { s.Algorithm = "RS256" }, 0},
		"one up and one down": {func(s *v1alpha1.SigningKeySpec) {
			s.Propagation.SignerLag.Duration, s.Propagation.Leeway.Duration = 0, 6*time.Minute+time.Second
		}, time.Second},
		"nothing but the name": {func(s *v1alpha1.SigningKeySpec) { s.Issuer = "https://other.example" }, 0},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.rotate()
			before := s.key("k1").VerifyUntil
			s.now = s.now.Add(time.Minute)
			tc.edit(&s.want.Spec)
			s.settle()
			same(t, "verifyUntil after the edit", s.key("k1").VerifyUntil, before.Add(tc.by))

			// A key that is retired stays so.
			s.now = before.Add(tc.by)
			s.want.Spec.Propagation.SignerLag.Duration = 1000 * time.Hour
			s.settle()
			if got := s.ring.State(s.key("k1"), s.now); got != v1alpha1.KeyRetired {
				t.Errorf("a retired key is %s after signerLag was raised", got)
			}
		})
	}
}

func TestTriggerIsAnsweredOnce(t *testing.T) {
	s := running(t)
	first := Ceil(s.key("k2").PublishedAt.Add(verifierLag + clockSkew))

	s.want.Spec.Rotation.Trigger = "one"
	s.now = first
	s.settle()
	same(t, "activatedAt of k2", s.key("k2").ActivatedAt, first)
	if s.ring.Trigger != "one" {
		t.Errorf("trigger that was answered = %q, want %q", s.ring.Trigger, "one")
	}

	// The same value asks for nothing more.
	s.now = s.now.Add(1000 * time.Hour)
	s.settle()
	if r := s.quiet("long after"); r.Activation != nil || s.ring.Active().ID != "k2" {
		t.Fatalf("activation = %+v, active %s", r.Activation, s.ring.Active().ID)
	}

	// Another does, and one that follows at once waits for V + e.
	s.want.Spec.Rotation.Trigger = "two"
	s.settle()
	same(t, "activatedAt of k3", s.key("k3").ActivatedAt, s.now)
	s.want.Spec.Rotation.Trigger = "three"
	s.now = s.now.Add(time.Second)
	r := s.settle()
	second := Ceil(s.key("k4").PublishedAt.Add(verifierLag + clockSkew))
	if a := r.Activation; a == nil || !a.At.Equal(second) || a.DueSince.IsZero() || a.WaitingFor == "" {
		t.Errorf("activation = %+v, want one that is due and waits until %s", r.Activation, second)
	}
	s.now = second.Add(-time.Nanosecond)
	if s.settle(); s.ring.Active().ID != "k3" {
		t.Errorf("active = %s a nanosecond before verifiers know k4", s.ring.Active().ID)
	}
	s.now = second
	if s.settle(); s.ring.Active().ID != "k4" {
		t.Errorf("active = %s when verifiers know k4", s.ring.Active().ID)
	}

	// No value asks for nothing.
	s.want.Spec.Rotation.Trigger = ""
	s.now = s.now.Add(1000 * time.Hour)
	if s.settle(); s.ring.Active().ID != "k4" {
		t.Errorf("active = %s after the trigger was removed", s.ring.Active().ID)
	}
}

func TestTriggerOfANewSigningKeyIsAnsweredByItsFirstKey(t *testing.T) {
	s := newScene(t)
	s.want.Spec.Rotation.Trigger = "there from the start"
	s.settle()
	s.now = s.now.Add(10 * time.Second)
	s.settle()
	s.now = s.now.Add(1000 * time.Hour)
	if s.settle(); s.ring.Active().ID != "k1" {
		t.Errorf("active = %s, want k1", s.ring.Active().ID)
	}
}

func TestEditsReplaceTheStandbyOnly(t *testing.T) {
	tests := map[string]struct {
		before, edit func(*v1alpha1.SigningKeySpec)
		replaced     bool
	}{
		"another algorithm": {
			edit:     func(s *v1alpha1.SigningKeySpec) { s.Algorithm = "EdDSA" },
			replaced: true,
		},
		"another issuer": {
			edit:     func(s *v1alpha1.SigningKeySpec) { s.Issuer = "https://new.example" },
			replaced: true,
		},
		"another RSA size": {
			before:   func(s *v1alpha1.SigningKeySpec) { s.Algorithm = "RS256" },
			edit:     func(s *v1alpha1.SigningKeySpec) { s.RSAKeySize = 4096 },
			replaced: true,
		},
		"the RSA size that is the default": {
			before: func(s *v1alpha1.SigningKeySpec) { s.Algorithm = "PS256" },
			edit:   func(s *v1alpha1.SigningKeySpec) { s.RSAKeySize = 3072 },
		},
		"another interval": {
			edit: func(s *v1alpha1.SigningKeySpec) {
				s.Rotation = v1alpha1.Rotation{Interval: &v1alpha1.Duration{Duration: 900 * time.Hour}}
			},
		},
		"other lags": {
			edit: func(s *v1alpha1.SigningKeySpec) { s.Propagation.VerifierLag.Duration = time.Hour },
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			if tc.before != nil {
				tc.before(&s.want.Spec)
			}
			s.settle()
			s.now = s.now.Add(10 * time.Second)
			s.settle()
			s.rotate()
			k1, k2 := *s.key("k1"), *s.key("k2")

			s.now = s.now.Add(time.Minute)
			tc.edit(&s.want.Spec)
			s.settle()
			if diff := cmp.Diff([]Key{k1, k2}, s.ring.Keys[:2]); diff != "" {
				t.Errorf("keys that signed (-before +after):\n%s", diff)
			}
			standby := s.ring.Standby()
			if standby == nil || len(s.ring.Keys) != 3 {
				t.Fatalf("standby %v of %d keys, want one of 3", standby, len(s.ring.Keys))
			}
			if !tc.replaced {
				if standby.ID != "k3" {
					t.Errorf("standby = %s, want k3 as before", standby.ID)
				}
				return
			}
			wantBits := int32(0)
			if keyset.Algorithm(s.want.Spec.Algorithm).Family() == keyset.FamilyRSA {
				wantBits = s.want.Spec.RSAKeySize
			}
			if standby.ID != "k4" || standby.Algorithm != keyset.Algorithm(s.want.Spec.Algorithm) || standby.Issuer != s.want.Spec.Issuer || standby.RSABits != wantBits {
				t.Errorf("standby = %+v, want k4 as the spec says now", standby)
			}
			same(t, "publishedAt of the new standby", standby.PublishedAt, s.now)
		})
	}
}

func TestTokenTTLRaised(t *testing.T) {
	s := running(t)
	s.want.Spec.MaxTokenTTL.Duration = 3 * time.Hour

	// 1. The limits of the keys that may sign come first; signers hear nothing.
	s.store()
	if a, b, c := s.key("k1").MaxTokenTTL, s.key("k2").MaxTokenTTL, s.ring.TokenTTL.Current; a != 3*time.Hour || b != 3*time.Hour || c != tokenTTL {
		t.Fatalf("limits %s and %s, signers are told %s, want 3h, 3h and 1h", a, b, c)
	}
	s.now = s.now.Add(100 * time.Hour)
	s.quiet("status does not show the limits yet")

	// 2. Half shown is not shown.
	s.statusTTL["k1"] = 3 * time.Hour
	s.quiet("status shows one limit of two")

	// 3. V + e after status was seen to show them, signers are told.
	s.publish()
	r := s.store()
	same(t, "raiseShownAt", s.ring.TokenTTL.RaiseShownAt, s.now)
	told := Ceil(s.now.Add(verifierLag + clockSkew))
	if r.Next == nil || r.Next.Type != v1alpha1.TransitionExtend || !r.Next.At.Equal(told) {
		t.Errorf("next = %+v, want ExtendTokenTTL at %s", r.Next, told)
	}
	s.now = told.Add(-time.Nanosecond)
	s.quiet("a nanosecond before")
	s.now = told
	r = s.store()
	if diff := cmp.Diff(TokenTTL{Current: 3 * time.Hour}, s.ring.TokenTTL); diff != "" {
		t.Errorf("what signers are told (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Transition{{Type: v1alpha1.TransitionExtend}}, r.Transitions); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}

	// 4. The end of the key that signed so counts it.
	s.settle()
	s.rotate()
	k := s.key("k1")
	same(t, "verifyUntil", k.VerifyUntil, Ceil(k.DeactivatedAt.Add(signerLag+3*time.Hour+leeway+2*clockSkew)))
}

func TestTokenTTLRaisedAgainBeginsAgain(t *testing.T) {
	s := running(t)
	s.want.Spec.MaxTokenTTL.Duration = 2 * time.Hour
	s.settle()
	s.now = s.now.Add(20 * time.Minute)
	s.want.Spec.MaxTokenTTL.Duration = 4 * time.Hour
	s.settle()
	if diff := cmp.Diff(TokenTTL{Current: tokenTTL, Raise: 4 * time.Hour, RaiseShownAt: s.now}, s.ring.TokenTTL); diff != "" {
		t.Errorf("what signers are told (-want +got):\n%s", diff)
	}
}

func TestTokenTTLRaisedWhileAKeyIsPlanned(t *testing.T) {
	s := running(t)
	s.want.Spec.MaxTokenTTL.Duration = 2 * time.Hour
	s.settle()
	shown := s.ring.TokenTTL.RaiseShownAt

	// A rotation in between does not hold the raise, and the keys that come
	// have the raised limit from the beginning.
	s.rotate()
	if got := s.key("k3").MaxTokenTTL; got != 2*time.Hour {
		t.Errorf("limit of the new standby = %s, want 2h", got)
	}
	s.now = Ceil(shown.Add(verifierLag + clockSkew))
	if s.settle(); s.ring.TokenTTL.Current != 2*time.Hour {
		t.Errorf("signers are told %s, want 2h", s.ring.TokenTTL.Current)
	}
}

func TestTokenTTLLowered(t *testing.T) {
	s := running(t)
	s.want.Spec.MaxTokenTTL.Duration = 10 * time.Minute
	s.store()
	if diff := cmp.Diff(TokenTTL{Current: 10 * time.Minute}, s.ring.TokenTTL); diff != "" {
		t.Errorf("what signers are told at once (-want +got):\n%s", diff)
	}
	// Older tokens of the active key still pass; the standby has none.
	if a, b := s.key("k1").MaxTokenTTL, s.key("k2").MaxTokenTTL; a != tokenTTL || b != 10*time.Minute {
		t.Errorf("limits of active and standby = %s and %s, want 1h and 10m", a, b)
	}
	s.settle()
	s.rotate()
	k := s.key("k1")
	same(t, "verifyUntil", k.VerifyUntil, Ceil(k.DeactivatedAt.Add(signerLag+tokenTTL+leeway+2*clockSkew)))

	// Lowered while a raise is under way: the raise is off.
	s.want.Spec.MaxTokenTTL.Duration = 5 * time.Hour
	s.settle()
	s.want.Spec.MaxTokenTTL.Duration = 5 * time.Minute
	s.settle()
	if diff := cmp.Diff(TokenTTL{Current: 5 * time.Minute}, s.ring.TokenTTL); diff != "" {
		t.Errorf("what signers are told after a raise was taken back (-want +got):\n%s", diff)
	}
	if a, b := s.key("k2").MaxTokenTTL, s.key("k3").MaxTokenTTL; a != 5*time.Hour || b != 5*time.Minute {
		t.Errorf("limits of active and standby = %s and %s, want 5h and 5m", a, b)
	}
}

func TestEndsReopenWhenSignersLoseTheActiveKey(t *testing.T) {
	for name, signer := range map[string]string{
		"when the signer Secret is taken away":   "",
		"when an old key is put back":            "k1",
		"when a key that is retired is put back": "k0",
	} {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.rotate()
			before := s.key("k1").VerifyUntil
			if before.IsZero() {
				t.Fatal("k1 has no end")
			}
			s.now = s.now.Add(time.Minute)
			s.signer = signer
			s.store()
			if k := s.key("k1"); !k.DeactivatedAt.IsZero() || !k.VerifyUntil.IsZero() {
				t.Fatalf("k1 keeps its end %s while signers may use it", k.VerifyUntil)
			}
			if s.ring.Active().ID != "k2" {
				t.Errorf("active = %s, want k2 as before", s.ring.Active().ID)
			}

			// Nothing ends and nothing is activated until it is mended.
			s.publish()
			s.want.Spec.Rotation.Trigger = "meanwhile"
			s.now = s.now.Add(5 * time.Hour)
			s.store()
			if s.ring.State(s.key("k1"), s.now) != v1alpha1.KeyVerifying || s.ring.Active().ID != "k2" {
				t.Errorf("k1 is %s and %s is active, want Verifying and k2", s.ring.State(s.key("k1"), s.now), s.ring.Active().ID)
			}

			// Mended: the end counts from then.
			s.hand()
			s.want.Spec.Rotation.Trigger = s.ring.Trigger
			s.now = s.now.Add(time.Minute)
			s.store()
			same(t, "deactivatedAt", s.key("k1").DeactivatedAt, s.now)
			same(t, "verifyUntil", s.key("k1").VerifyUntil, Ceil(s.now.Add(signerLag+tokenTTL+leeway+2*clockSkew)))
		})
	}
}

func TestRetiredKeysStayRetiredWhenSignersLoseTheActiveKey(t *testing.T) {
	s := running(t)
	s.rotate()
	s.now = s.key("k1").VerifyUntil
	s.settle()
	s.signer = "k1"
	s.settle()
	if got := s.ring.State(s.key("k1"), s.now); got != v1alpha1.KeyRetired {
		t.Errorf("k1 is %s, want Retired for ever", got)
	}
}

func TestHolds(t *testing.T) {
	tests := map[string]struct {
		clock    ClockBounds
		sequence int64
		want     Hold
	}{
		"clocks agree":                            {want: HoldNone},
		"ahead by just clockSkew":                 {clock: ClockBounds{Min: clockSkew, Max: clockSkew + time.Second}, want: HoldNone},
		"ahead by more than clockSkew":            {clock: ClockBounds{Min: clockSkew + 1, Max: clockSkew + time.Second}, want: HoldClock},
		"perhaps ahead by more than clockSkew":    {clock: ClockBounds{Min: -time.Second, Max: time.Hour}, want: HoldNone},
		"behind by just clockSkew":                {clock: ClockBounds{Min: -clockSkew - time.Second, Max: -clockSkew}, want: HoldNone},
		"behind by more than clockSkew":           {clock: ClockBounds{Min: -clockSkew - time.Second, Max: -clockSkew - 1}, want: HoldClock},
		"thirty days ahead":                       {clock: ClockBounds{Min: 720 * time.Hour, Max: 720*time.Hour + time.Second}, want: HoldClock},
		"status is as new as the keyring":         {sequence: 0, want: HoldNone},
		"status is older than the keyring":        {sequence: -1, want: HoldNone},
		"both, of which the clock is named first": {clock: ClockBounds{Min: time.Hour, Max: time.Hour}, sequence: 1, want: HoldClock},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.want.Spec.Rotation.Trigger = "now"
			s.want.Spec.Algorithm = "EdDSA" // something to do
			s.now = s.now.Add(1000 * time.Hour)
			s.clock = tc.clock
			s.statusSequence = s.ring.Sequence + tc.sequence
			r := s.plan()
			if r.Hold != tc.want || r.Changed != (tc.want == HoldNone) {
				t.Fatalf("hold = %q, changed %v, want hold %q", r.Hold, r.Changed, tc.want)
			}
			if tc.want == HoldNone {
				return
			}
			if diff := cmp.Diff(s.ring, r.Keyring); diff != "" || len(r.Transitions) != 0 || r.Next != nil {
				t.Errorf("while all is held: transitions %v, next %+v, keyring:\n%s", r.Transitions, r.Next, diff)
			}
		})
	}
}

func TestHistoryLimit(t *testing.T) {
	limit := func(n int32) *int32 { return &n }
	tests := map[string]struct {
		limit *int32
		want  int
	}{
		"none":           {limit(0), 0},
		"two":            {limit(2), 2},
		"ten by default": {nil, 10},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := running(t)
			s.want.Spec.HistoryLimit = tc.limit
			for range 14 {
				s.rotate()
				s.now = s.ring.switchedAway().VerifyUntil
			}
			// Of the last one that is over, only another change tells.
			s.want.Spec.Issuer = "https://new.example"
			s.settle()
			var retired []int64
			for i := range s.ring.Keys {
				if k := &s.ring.Keys[i]; s.ring.State(k, s.now) == v1alpha1.KeyRetired {
					retired = append(retired, k.Sequence)
				}
			}
			if len(retired) != tc.want || len(s.ring.Keys) != tc.want+2 {
				t.Fatalf("%d retired of %d keys, want %d retired, one active, one standing by", len(retired), len(s.ring.Keys), tc.want)
			}
			if s.ring.Active().ID != "k15" || (tc.want > 0 && s.ring.Keys[tc.want-1].ID != "k14") {
				t.Errorf("active %s, newest retired is not k14: %v", s.ring.Active().ID, retired)
			}
		})
	}
}

// switchedAway is the key that was active before the active one.
func (r Keyring) switchedAway() *Key {
	active := r.Active()
	for i := len(r.Keys) - 1; i > 0; i-- {
		if &r.Keys[i] == active {
			return &r.Keys[i-1]
		}
	}
	return nil
}

func TestScheduleThatIsNotUnderstoodStopsNothingElse(t *testing.T) {
	s := running(t)
	s.want.Spec.Rotation = v1alpha1.Rotation{Schedule: "whenever", TimeZone: "Europe/Berlin"}
	s.now = s.now.Add(5000 * time.Hour)
	r := s.quiet("no time is due")
	if r.ScheduleErr == nil || r.Hold != HoldNone || r.Activation != nil {
		t.Fatalf("scheduleErr %v, hold %q, activation %+v", r.ScheduleErr, r.Hold, r.Activation)
	}
	s.want.Spec.Rotation.Trigger = "by hand"
	if s.settle(); s.ring.Active().ID != "k2" {
		t.Errorf("active = %s, want the trigger to be answered", s.ring.Active().ID)
	}

	// A new SigningKey says so as well, and gets its first key.
	s = newScene(t)
	s.want.Spec.Rotation = v1alpha1.Rotation{Schedule: "0 3 * * *", TimeZone: "Local"}
	if r := s.plan(); r.ScheduleErr == nil || len(r.Keyring.Keys) != 1 {
		t.Errorf("scheduleErr %v, %d keys", r.ScheduleErr, len(r.Keyring.Keys))
	}
}

func TestSequenceGrowsWithEachChangeOfTheKeys(t *testing.T) {
	s := running(t)
	for range 200 {
		before := s.ring
		s.now = s.now.Add(11 * time.Minute)
		s.want.Spec.Rotation.Trigger = fmt.Sprint(s.now)
		r := s.store()
		changed := cmp.Diff(before.Keys, s.ring.Keys) != ""
		if changed != (s.ring.Sequence == before.Sequence+1) || (!changed && s.ring.Sequence != before.Sequence) {
			t.Fatalf("keys changed %v, sequence from %d to %d", changed, before.Sequence, s.ring.Sequence)
		}
		if changed && !r.Changed {
			t.Fatal("a change that is not reported would not be stored")
		}
		s.publish()
		s.hand()
	}
}

func TestPlanLeavesItsInputAlone(t *testing.T) {
	s := running(t)
	s.rotate()
	s.want.Spec.Rotation.Trigger = "now"
	s.want.Spec.MaxTokenTTL.Duration = 9 * time.Hour
	s.want.Spec.Propagation.SignerLag.Duration = 9 * time.Hour
	s.now = s.now.Add(40 * time.Minute)
	for name, signer := range map[string]string{"with the active key": "k2", "without": ""} {
		t.Run(name, func(t *testing.T) {
			before, err := s.ring.Encode()
			if err != nil {
				t.Fatal(err)
			}
			s.signer = signer
			first := s.plan()
			if after, err := s.ring.Encode(); err != nil || string(after) != string(before) {
				t.Errorf("the keyring that was handed in is changed: %v\n%s", err, cmp.Diff(string(before), string(after)))
			}
			if diff := cmp.Diff(first, s.plan()); diff != "" {
				t.Errorf("the same plan comes out differently:\n%s", diff)
			}
		})
	}
}

func TestAnEndStaysWhenEverySignerHasLeftTheKey(t *testing.T) {
	s := running(t)
	s.rotate()
	end := s.key("k1").VerifyUntil
	s.now = s.key("k1").DeactivatedAt.Add(signerLag + 2*clockSkew)
	s.signer = ""
	s.store()
	same(t, "verifyUntil", s.key("k1").VerifyUntil, end)
}
