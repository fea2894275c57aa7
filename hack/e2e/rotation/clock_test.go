package rotation

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/hack/e2e/stack"
	"github.com/keywright/keywright/webhook/token"
)

// Row 9: nothing activated or retired; Degraded=ClockSkewed. Here the
// controller compares its clock with the real API server's by its answers.
func clockAhead(t *testing.T) {
	w := newWorld(t)
	off := time.Duration(0)
	machine := func() time.Time { return time.Now().Add(off) }
	config, err := theStack(t).Plane.ConfigFor(w.ctx, stack.Namespace, stack.ControllerAccount)
	if err != nil {
		t.Fatal(err)
	}
	clock := &controllers.ServerClock{Now: machine}
	config.Wrap(clock.Wrap)
	w.ctl = w.controllerOn(newClient(t, config))
	w.ctl.Now, w.ctl.Clock = machine, clock.Bounds
	w.create(spec())
	await(t, 30*time.Second, "the first key and its standby", func() bool {
		w.settle()
		return w.active() != "" && w.ring().Standby() != nil
	})
	ring, status, jwks, signer := w.secret("shop-keyring"), w.sk().Status, w.jwks(), w.signer()
	raw := w.app().token(t, time.Now())

	for _, ahead := range []time.Duration{30 * 24 * time.Hour, -30 * 24 * time.Hour} {
		off = ahead
		w.settle()
		if got := w.condition(v1alpha1.ConditionDegraded); got != "True ClockSkewed" {
			t.Errorf("%s ahead: Degraded is %s, want True ClockSkewed", ahead, got)
		}
		if got := w.condition(v1alpha1.ConditionReady); got != "True KeyActive" {
			t.Errorf("%s ahead: Ready is %s, want True KeyActive", ahead, got)
		}
		if w.wake.IsZero() {
			t.Errorf("%s ahead: the controller will not look again", ahead)
		}
		now := w.sk().Status
		if !equality.Semantic.DeepEqual(now.Keys, status.Keys) || now.ActiveKeyID != status.ActiveKeyID || now.Sequence != status.Sequence {
			t.Errorf("%s ahead: keys in status changed", ahead)
		}
		if w.secret("shop-keyring").ResourceVersion != ring.ResourceVersion || w.signer().ResourceVersion != signer.ResourceVersion || w.jwks().ResourceVersion != jwks.ResourceVersion {
			t.Errorf("%s ahead: keyring or outputs were written", ahead)
		}
		if err := w.gate().verify(raw, time.Now()); err != nil {
			t.Errorf("%s ahead: a token of the active key is refused: %v", ahead, err)
		}
	}
	off = 0
	w.settle()
	if got := w.condition(v1alpha1.ConditionDegraded); got != "False AsWanted" {
		t.Errorf("with the clock set right Degraded is %s, want False AsWanted", got)
	}
	if !equality.Semantic.DeepEqual(w.sk().Status.Keys, status.Keys) {
		t.Error("with the clock set right again the keys are others")
	}
}

// Row 10: no second rotation, nothing accepted early. The controller's clock
// steps back and the API server's with it, so that no comparison shows it.
func clockSteppedBack(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	stolen := w.app()
	old, active := w.rotated()
	w.advance(afterDeactivation + time.Second)
	if got := w.key(old).State; got != v1alpha1.KeyRetired {
		t.Fatalf("the old key is %s, want Retired", got)
	}
	g := w.gate()
	was := w.ring()
	due := w.nextActivation()

	for _, back := range []time.Duration{time.Minute, time.Hour, 400 * 24 * time.Hour} {
		w.offset = -back
		w.settle()
		for range 3 {
			w.advance(10 * time.Second)
		}
		w.settle()
		ring := w.ring()
		if w.active() != active || len(ring.Keys) != len(was.Keys) {
			t.Fatalf("%s back: there was a second rotation", back)
		}
		if !reflect.DeepEqual(ring.Find(old), was.Find(old)) || !reflect.DeepEqual(ring.Find(active), was.Find(active)) {
			t.Errorf("%s back: times of keys changed", back)
		}
		if next := w.sk().Status.NextTransition; next == nil || (next.Type == v1alpha1.TransitionActivate && next.Time.Time.Before(due)) {
			t.Errorf("%s back: the next transition is %+v, want no activation before %s", back, next, due)
		}
		// Gates that keep the right time, or step back as well, go on refusing
		// the retired key, and a token from the future waits for its time.
		g.load()
		g.refuses(stolen.token(t, w.now), w.now, "the retired key, by the right clock", token.ErrKeyRetired, token.ErrUnknownKey)
		then := w.now.Add(-back)
		g.refuses(stolen.token(t, then), then, "the retired key, by a clock that stepped back", token.ErrKeyRetired, token.ErrUnknownKey)
		g.refuses(w.app().token(t, w.now), then, "a token of now, by a clock that stepped back", token.ErrIssuedInFuture)
		if err := w.gate().verify(w.app().token(t, w.now), w.now); err != nil {
			t.Errorf("%s back: the active key's token is refused: %v", back, err)
		}
	}
	// With the clock right again there is one rotation, at its time.
	w.offset = 0
	w.settle()
	if _, next := w.rotated(); next != was.Standby().ID || w.now.Before(due) {
		t.Errorf("afterwards %s became active at %s, want %s at %s", next, w.now, was.Standby().ID, due)
	}
}

// nextActivation is when status says that the next key takes over.
func (w *world) nextActivation() time.Time {
	w.t.Helper()
	next := w.sk().Status.NextTransition
	if next == nil || next.Type != v1alpha1.TransitionActivate {
		w.t.Fatalf("the next transition is %+v, want Activate", next)
	}
	return next.Time.Time
}

// Row 11: accepted until exp + leeway, whoever of controller, signer and gate
// has the clock that is ahead.
func clocksApart(t *testing.T) {
	for n := range 8 {
		ahead := func(bit int) time.Duration { return time.Duration(n>>bit&1) * clockSkew }
		w := newWorld(t)
		w.offset = ahead(0)
		w.ready(spec())
		app := w.app()
		old, _ := w.rotated()
		written := w.now
		g := w.gate()
		g.offset = ahead(2)
		case11 := fmt.Sprintf("controller +%s, signer +%s, gate +%s", ahead(0), ahead(1), ahead(2))

		// The last signer learns of the new key S after the Secret changed.
		iat := written.Add(signerLag).Add(ahead(1)) // by its clock
		raw := app.token(t, iat)
		end := iat.Truncate(time.Second).Add(tokenTTL + leeway).Add(-ahead(2)) // true time at which the gate's clock says exp + leeway
		for at := written.Add(signerLag); at.Before(end); at = at.Add(time.Second) {
			g.accepts(raw, at, case11+": the last token of the old key")
		}
		g.accepts(raw, end.Add(-time.Millisecond), case11+": the last token of the old key at its end")
		g.refuses(raw, end, case11+": the last token of the old key after its end", token.ErrExpired, token.ErrKeyRetired)
		if until := w.key(old).VerifyUntil.Time; end.Add(ahead(2)).After(until) {
			t.Errorf("%s: the key ends at %s, before its last token", case11, until)
		}
	}
}

// Row 12: both keys pass while the mount of some signers is late.
func signerMountLags(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	late := w.app()
	unaware := w.gate() // its watch is as late as verifierLag allows
	w.rotated()
	prompt := w.app()
	g := w.gate()
	if late.kid == prompt.kid {
		t.Fatal("there was no rotation")
	}
	for since := time.Duration(0); since <= signerLag; since += time.Second {
		at := w.now.Add(since)
		for _, gate := range []*gate{g, unaware} {
			gate.accepts(late.token(t, at), at, fmt.Sprintf("the late signer's token %s after the switch", since))
			gate.accepts(prompt.token(t, at), at, fmt.Sprintf("the prompt signer's token %s after the switch", since))
		}
	}
}

// Row 31: transitions still fire, each at the time that status names and at
// the first wake-up.
func timesTruncated(t *testing.T) {
	for _, fraction := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, time.Second - time.Nanosecond} {
		w := newWorld(t)
		w.now = epoch.Add(fraction)
		w.ready(spec())
		stolen := w.app()
		due := w.nextActivation()
		w.passes = 0
		w.now = w.now.Add(17*time.Second + fraction) // someone else's edit, at any time
		w.settle()
		old, _ := w.rotated()
		if !w.now.Equal(due) {
			t.Errorf("started at .%09d: activated at %s, but status said %s", fraction, w.now.Sub(epoch), due.Sub(epoch))
		}
		if w.passes > 2 {
			t.Errorf("started at .%09d: %d reconciles to one activation", fraction, w.passes)
		}
		k := w.key(old)
		next := w.sk().Status.NextTransition
		if next == nil || next.Type != v1alpha1.TransitionRetire || !next.Time.Equal(k.VerifyUntil) || !w.wake.Equal(k.VerifyUntil.Time) {
			t.Errorf("started at .%09d: status says %+v and the wake-up is at %s, want Retire at %s", fraction, next, w.wake, k.VerifyUntil)
		}
		if !k.VerifyUntil.Time.Equal(w.ring().Find(old).VerifyUntil) {
			t.Errorf("started at .%09d: verifyUntil in status is not the keyring's", fraction)
		}
		if want := lifecycle.Ceil(w.now.Add(afterDeactivation)); !k.VerifyUntil.Time.Equal(want) {
			t.Errorf("started at .%09d: verifyUntil is %s, want %s", fraction, k.VerifyUntil, want)
		}
		g := w.gate()
		w.passes = 0
		w.until("the retirement", func() bool { return w.key(old).State == v1alpha1.KeyRetired })
		if !w.now.Equal(k.VerifyUntil.Time) || w.passes != 1 {
			t.Errorf("started at .%09d: retired at %s after %d reconciles, want %s after 1", fraction, w.now.Sub(epoch), w.passes, k.VerifyUntil.Sub(epoch))
		}
		g.accepts(stolen.token(t, w.now), w.now.Add(-time.Nanosecond), "the old key just before its end")
		g.refuses(stolen.token(t, w.now), w.now, "the old key at its end", token.ErrKeyRetired)
	}
}
