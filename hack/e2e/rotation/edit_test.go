package rotation

import (
	"testing"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/webhook/token"
)

// Row 16: extends; older tokens still pass.
func tokenTTLEdited(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	g := w.gate()
	short := w.app().token(t, w.now)

	// Raised: gates learn of it V + e before any signer does.
	w.now = w.now.Add(10 * time.Second)
	const raised = 2 * tokenTTL
	w.edit(func(s *v1alpha1.SigningKeySpec) { s.MaxTokenTTL = duration(raised) })
	w.settle()
	seen := w.now
	for _, id := range []string{w.active(), w.sk().Status.NextKeyID} {
		if got := w.key(id).MaxTokenTTL.Duration; got != raised {
			t.Errorf("status allows tokens of %s for key %s, want %s at once", got, id, raised)
		}
	}
	if got := w.app().ttl; got != tokenTTL {
		t.Errorf("signers are told %s at once, want %s until V + e later", got, tokenTTL)
	}
	g.accepts(short, w.now, "a token from before the raise")
	w.until("signers to be told", func() bool { return w.app().ttl != tokenTTL })
	if want := lifecycle.Ceil(seen.Add(verifierLag + clockSkew)); w.app().ttl != raised || !w.now.Equal(want) {
		t.Errorf("signers were told %s at %s, want %s at %s", w.app().ttl, w.now.Sub(epoch), raised, want.Sub(epoch))
	}
	g.load()
	long := w.app()
	longToken := long.token(t, w.now)
	g.accepts(longToken, w.now, "a token of the raised length")
	g.accepts(longToken, w.now.Truncate(time.Second).Add(raised+leeway-time.Millisecond), "a token of the raised length at its end")

	// Lowered: signers are told at once, and what they signed still passes.
	w.now = w.now.Add(5 * time.Second)
	const lowered = tokenTTL / 2
	w.edit(func(s *v1alpha1.SigningKeySpec) { s.MaxTokenTTL = duration(lowered) })
	w.settle()
	g.load()
	if got := w.app().ttl; got != lowered {
		t.Errorf("signers are told %s, want %s at once", got, lowered)
	}
	if got := w.key(w.active()).MaxTokenTTL.Duration; got != raised {
		t.Errorf("the active key allows tokens of %s, want %s as long as it lives", got, raised)
	}
	g.accepts(longToken, w.now, "a token from before it was lowered")
	old, active := w.rotated()
	g.load()
	last := long.token(t, w.now.Add(signerLag))
	g.accepts(last, w.now.Add(signerLag).Truncate(time.Second).Add(raised+leeway-time.Millisecond), "the last long token of the old key at its end")
	w.sameTime("verifyUntil", w.key(old).VerifyUntil, lifecycle.Ceil(w.now.Add(signerLag+raised+leeway+2*clockSkew)))
	if got := w.key(active).MaxTokenTTL.Duration; got != lowered {
		t.Errorf("the next key allows tokens of %s, want %s", got, lowered)
	}
}

// Row 17: no gap, no burst.
func intervalEdited(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	g := w.gate()
	var at []time.Time // of activations
	active := w.active()
	w.each = func() {
		if now := w.active(); now != active {
			at, active = append(at, w.now), now
		}
		g.load()
		g.accepts(w.app().token(t, w.now), w.now, "a token of the active key")
	}
	activated := w.key(active).ActivatedAt.Time
	set := func(d time.Duration) func(*v1alpha1.SigningKeySpec) {
		return func(s *v1alpha1.SigningKeySpec) { every := duration(d); s.Rotation.Interval = &every }
	}
	within := func(what string, got time.Duration, every time.Duration) {
		if got < every || got > every+every/10+time.Second {
			t.Errorf("%s: %s between two rotations, want %s and up to a tenth", what, got, every)
		}
	}

	// Lowered in the middle of a life that is already longer: one rotation at
	// once, then one an interval.
	w.advance(5 * time.Minute)
	w.edit(set(2 * time.Minute))
	w.advance(7 * time.Minute)
	if len(at) < 3 || len(at) > 4 {
		t.Fatalf("%d rotations in 7m of an interval of 2m, want 3 or 4", len(at))
	}
	if got := at[0].Sub(activated); got < 5*time.Minute-2*time.Second || got > 5*time.Minute+2*time.Second {
		t.Errorf("the overdue rotation came %s after the last, want at once", got)
	}
	for i := 1; i < len(at); i++ {
		within("lowered", at[i].Sub(at[i-1]), 2*time.Minute)
	}

	// Raised just before the end of a life: it goes on for the new interval.
	last := at[len(at)-1]
	w.advance(last.Add(110 * time.Second).Sub(w.now))
	w.edit(set(20 * time.Minute))
	n := len(at)
	w.advance(30 * time.Minute)
	if len(at) != n+1 {
		t.Fatalf("%d rotations in 30m of an interval of 20m, want 1", len(at)-n)
	}
	within("raised", at[n].Sub(last), 20*time.Minute)
}

// Row 18: the standby is replaced (it never signed), the old key verifies to
// its end.
func algorithmChanged(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	g := w.gate()
	app := w.app()
	was := w.ring()
	dropped := signerOf(t, was.Standby().Private)
	dropped.iss, dropped.ttl = app.iss, app.ttl

	w.now = w.now.Add(30 * time.Second)
	edited := w.now
	w.edit(func(s *v1alpha1.SigningKeySpec) { s.Algorithm = "EdDSA"; s.Rotation.Trigger = "new algorithm" })
	w.settle()
	ring := w.ring()
	if ring.Find(was.Standby().ID) != nil || ring.Standby() == nil || ring.Standby().Algorithm != keyset.Algorithm("EdDSA") {
		t.Fatalf("the standby was not replaced by one with the new algorithm: %+v", ring.Standby())
	}
	if ring.Active().ID != was.Active().ID || w.app().kid != app.kid {
		t.Error("the active key did not go on signing")
	}
	g.load()
	g.refuses(dropped.token(t, w.now), w.now, "a token of the standby that never signed", token.ErrUnknownKey)
	g.accepts(app.token(t, w.now), w.now, "a token of the old algorithm before the switch")

	old, active := w.rotated()
	if k := w.key(active); k.Algorithm != "EdDSA" || w.app().alg != "EdDSA" {
		t.Errorf("the new key is for %s and the signer Secret for %s, want EdDSA", k.Algorithm, w.app().alg)
	}
	if want := lifecycle.Ceil(edited.Add(verifierLag + clockSkew)); !w.now.Equal(want) {
		t.Errorf("the new algorithm signs from %s on, want %s: V + e after it was published", w.now.Sub(epoch), want.Sub(epoch))
	}
	g.load()
	g.accepts(w.app().token(t, w.now), w.now, "a token of the new algorithm")
	until := w.key(old).VerifyUntil.Time
	g.accepts(app.token(t, w.now.Add(signerLag)), w.now.Add(signerLag+tokenTTL), "the last token of the old algorithm")
	g.refuses(app.token(t, until), until, "a token of the old key at its end", token.ErrKeyRetired)
}

// Row 19: the second waits for V.
func twoTriggers(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	w.advance(2 * time.Minute) // the standby is known to all
	first := w.active()
	trigger := func(value string) {
		w.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = value })
		w.settle()
	}
	asked := w.now
	trigger("one")
	second := w.active()
	if second == first || !w.now.Equal(asked) {
		t.Fatalf("the first trigger was not answered at once")
	}
	standby := w.sk().Status.NextKeyID
	published := w.ring().Standby().PublishedAt

	w.now = w.now.Add(2 * time.Second)
	trigger("two")
	if w.active() != second {
		t.Fatal("the second trigger was answered at once, with a key that verifiers do not know")
	}
	if got := w.condition(v1alpha1.ConditionRotated); got != "False Waiting" {
		t.Errorf("Rotated is %s, want False Waiting", got)
	}
	if next := w.sk().Status.NextTransition; next == nil || next.WaitingFor == "" {
		t.Errorf("status does not say what the rotation waits for: %+v", next)
	}
	w.advance(lifecycle.Ceil(published.Add(verifierLag+clockSkew)).Sub(w.now) - time.Millisecond)
	if w.active() != second {
		t.Error("the second trigger did not wait for V + e")
	}
	w.advance(time.Millisecond)
	if got := w.active(); got != standby {
		t.Errorf("V + e after it was published %s is active, want %s", got, standby)
	}
	w.advance(5 * time.Minute)
	if got := w.active(); got != standby {
		t.Error("two triggers made a third rotation")
	}
}
