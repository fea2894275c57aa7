package rotation

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// live are real processes on one namespace.
type live struct {
	*world
	ctx        context.Context
	monitor    *monitor
	controller *stack.Process
	gate       *stack.Gate
}

// newLive starts a controller and a gate on a SigningKey of a namespace of its
// own. The controller does not wait for a lease, as one that is alone.
func newLive(t *testing.T, s v1alpha1.SigningKeySpec) *live {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	ns := applied(t, s)
	l := &live{ctx: ctx, world: &world{t: t, ctx: ctx, ns: ns, name: name, api: newClient(t, theStack(t).Plane.AdminConfig())}}
	l.gate = l.startGate("gate")
	return l
}

// startGate starts a gate, named apart from those of other rows that run
// meanwhile.
func (l *live) startGate(n string) *stack.Gate {
	l.t.Helper()
	g, err := theStack(l.t).StartGate(l.ctx, n+"-"+l.ns)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(g.Kill)
	return g
}

func (l *live) start(n string) *stack.Process {
	l.t.Helper()
	p, err := theStack(l.t).StartController(l.ctx, n+"-"+l.ns, "--leader-elect=false", "--watch-namespaces", l.ns)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(p.Kill)
	return p
}

// follow starts the monitor, and a controller.
func (l *live) follow() {
	l.t.Helper()
	l.monitor = startMonitor(l.ctx, l.t, l.ns)
	l.controller = l.start("controller")
}

// Row 4: one write wins, the other plans again; one key.
func twoLeaders(t *testing.T) {
	// In a fixed order: the other controller works between reading and writing.
	for _, kind := range []string{"keyring", "signer", "jwks", "status"} {
		w := newWorld(t)
		other := w.controller()
		work := func(what string) (ofOther []string) {
			writes := 0
			w.before = func(got string, _ client.Object) error {
				if got != kind {
					return nil
				}
				if writes++; writes == 1 {
					if crashed, err := w.pass(other); crashed || err != nil {
						t.Fatal(what, crashed, err)
					}
					ofOther = keyIDs(w.ring().Keys)
				}
				return nil
			}
			w.settle()
			w.before = nil
			return ofOther
		}
		check := func(what string, want []string) {
			ring := w.ring()
			if got := keyIDs(ring.Keys); want != nil && !slices.Equal(got, want) {
				t.Errorf("%s, interrupted before %s: the keys are %v, want those that the other leader stored, %v", what, kind, got, want)
			}
			if active := ring.Active(); active != nil && (w.active() != active.ID || w.app().kid != active.ID) {
				t.Errorf("%s, interrupted before %s: outputs are not at the active key", what, kind)
			}
		}
		w.create(spec())
		check("first key", work("first key"))
		w.settle()
		if n := len(w.ring().Keys); n != 1 {
			t.Errorf("interrupted before %s: %d keys, want one", kind, n)
		}
		w.advance(2 * time.Second)
		w.now = w.nextActivation()
		want := work("rotation")
		check("rotation", want)
		w.settle()
		if n := len(w.ring().Keys); n != 3 || want == nil {
			t.Errorf("interrupted before %s: %d keys after one rotation, want 3", kind, n)
		}
	}
	// A leader that was paused for a whole rotation cannot bring an old key back.
	w := newWorld(t)
	w.ready(spec())
	other := w.controller()
	paused := false
	w.before = func(kind string, _ client.Object) error {
		if kind == "signer" && !paused {
			paused = true
			mine := w.ctl
			w.ctl = other
			w.settle()
			w.rotated()
			w.ctl = mine
		}
		return nil
	}
	w.rotated()
	w.settle()
	if ring := w.ring(); !paused || w.app().kid != ring.Active().ID || len(ring.Keys) != 4 {
		t.Errorf("after a pause of a whole rotation the signer Secret holds %s of %v", w.app().kid, keyIDs(ring.Keys))
	}
}

// Row 4, of two processes that both believe to lead.
func twoProcessesLead(t *testing.T) {
	l := newLive(t, brisk(3*time.Second))
	l.follow()
	l.start("controller-2")
	_, stop := startTraffic(t, l.monitor, l.gate)
	await(t, time.Minute, "five rotations under two leaders", func() bool { return l.monitor.rotations() >= 5 })
	if c := stop(); c.refused > 0 || c.acceptedWrongly > 0 || c.requests == 0 {
		t.Error(c)
	} else {
		t.Log(c)
	}
	at := l.monitor.activatedAt()
	for i := 1; i < len(at); i++ {
		if d := at[i].Sub(at[i-1]); d < 3*time.Second {
			t.Errorf("two rotations in %s of an interval of 3s", d)
		}
	}
}

// Row 6: Active goes on, tokens pass, one rotation after.
func apiServerAwayPastTheRotation(t *testing.T) {
	const interval = 6 * time.Second
	l := newLive(t, brisk(interval))
	l.follow()
	tr, stop := startTraffic(t, l.monitor, l.gate)
	await(t, time.Minute, "a rotation", func() bool { return l.monitor.rotations() >= 1 })
	// signerLag is for a switch of which signers can hear: one that the outage
	// keeps from them until the old key's end is refused, as row 7 has it.
	await(t, time.Minute, "its standby, and the application to have the new key", func() bool {
		ring := l.ring()
		standby := ring.Standby()
		return standby != nil && !standby.PublishedAt.IsZero() && tr.mountedKey() == ring.Active().ID
	})
	before := l.monitor.activatedAt()
	ring := l.ring()
	last := before[len(before)-1]
	plane := theStack(t).Plane
	l.monitor.mayEnd.Store(true)
	if err := plane.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	await(t, time.Minute, "two intervals and a half to pass", func() bool { return time.Since(last) > 5*interval/2 })
	back := time.Now()
	if err := plane.StartAPIServer(); err != nil {
		t.Fatal(err)
	}
	// The watches of the test are as broken as everyone's.
	await(t, time.Minute, "the rotation after", func() bool { return l.active() == ring.Standby().ID })
	c := stop()
	if c.refused > 0 || c.acceptedWrongly > 0 || c.requests < 200 {
		t.Error(c)
	} else {
		t.Log(c)
	}
	first := l.key(ring.Standby().ID).ActivatedAt.Time
	if first.Before(back.Truncate(time.Second)) {
		t.Errorf("the rotation is dated %s, before the API server was back at %s", first, back)
	}
	await(t, time.Minute, "the next rotation", func() bool { return l.active() != ring.Standby().ID })
	k := l.key(l.active())
	if d := k.ActivatedAt.Sub(first); d < interval-time.Second {
		t.Errorf("a second rotation came after %s: missed slots were replayed", d)
	}
	if got := len(l.ring().Keys); got != len(ring.Keys)+2 {
		t.Errorf("%d keys came in two rotations, want 2", got-len(ring.Keys))
	}
}

// Row 7: the gate refuses the key all the same.
func apiServerAwayPastVerifyUntil(t *testing.T) {
	s := brisk(time.Hour)
	s.Propagation.Leeway = duration(3 * time.Second)
	l := newLive(t, s)
	l.follow()
	_, stop := startTraffic(t, l.monitor, l.gate)
	await(t, time.Minute, "the standby", func() bool {
		standby := l.ring().Standby()
		return standby != nil && !standby.PublishedAt.IsZero()
	})
	stolen := l.app()
	l.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "now" })
	await(t, time.Minute, "the old key's end to be known", func() bool { return l.active() != stolen.kid && l.key(stolen.kid).VerifyUntil != nil })
	until := l.key(stolen.kid).VerifyUntil.Time
	// The gate hears of it by its watch, within verifierLag.
	https := httpsClient(t, l.gate)
	await(t, 5*time.Second, "the gate's watch", func() bool { return time.Until(until) < 7*time.Second })
	plane := theStack(t).Plane
	l.monitor.mayEnd.Store(true)
	if err := plane.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		raw := stolen.token(t, time.Now())
		asked := time.Now()
		status := ask(l.ctx, https, l.gate, l.ns, raw)
		if done := time.Now(); status == http.StatusOK && asked.Before(until) {
			accepted++
		} else if status == http.StatusUnauthorized && !done.Before(until) {
			break
		} else {
			t.Errorf("%s before the key's end the gate answers %d", until.Sub(asked), status)
			break
		}
	}
	if accepted == 0 {
		t.Error("the key did not verify before its end")
	}
	await(t, time.Minute, "a second after the end", func() bool { return time.Since(until) > time.Second })
	if status := ask(l.ctx, https, l.gate, l.ns, stolen.token(t, time.Now())); status != http.StatusUnauthorized {
		t.Errorf("a second after the key's end the gate answers %d, want 401", status)
	}
	if c := stop(); c.refused > 0 || c.acceptedWrongly > 0 || c.retired == 0 {
		t.Error(c)
	} else {
		t.Log(c, "with the API server away:", accepted, "accepted before the end")
	}
	if err := plane.StartAPIServer(); err != nil {
		t.Fatal(err)
	}
	await(t, time.Minute, "the API server to answer", func() bool {
		return l.api.Get(l.ctx, client.ObjectKey{Namespace: l.ns, Name: name}, &v1alpha1.SigningKey{}) == nil
	})
}

// Row 8: one rotation, V honoured.
func controllerDown(t *testing.T) {
	const interval = 4 * time.Second
	l := newLive(t, brisk(interval))
	l.follow()
	_, stop := startTraffic(t, l.monitor, l.gate)
	await(t, time.Minute, "a rotation", func() bool { return l.monitor.rotations() >= 1 })
	l.controller.Kill()
	before := l.monitor.activatedAt()
	await(t, time.Minute, "three intervals to pass", func() bool { return time.Since(before[len(before)-1]) > 3*interval+interval/2 })
	if got := l.monitor.activatedAt(); len(got) != len(before) {
		t.Fatal("a key was activated while no controller ran")
	}
	back := time.Now()
	l.start("controller")
	await(t, time.Minute, "two rotations after", func() bool { return len(l.monitor.activatedAt()) >= len(before)+2 })
	at := l.monitor.activatedAt()[len(before):]
	if at[0].Before(back) {
		t.Errorf("the rotation is dated %s, before the controller was back at %s", at[0], back)
	}
	if d := at[1].Sub(at[0]); d < interval {
		t.Errorf("a second rotation came after %s: missed ones were replayed", d)
	}
	if c := stop(); c.refused > 0 || c.acceptedWrongly > 0 || c.requests < 200 {
		t.Error(c)
	} else {
		t.Log(c) // V is checked at each activation by the monitor
	}
}

// Row 29: restored by the running controller, which nobody tells.
func outputsPruned(t *testing.T) {
	l := newLive(t, brisk(time.Hour))
	l.follow()
	_, stop := startTraffic(t, l.monitor, l.gate)
	signer, jwks := l.signer(), l.jwks()
	for _, tc := range []struct {
		kind, name string
		restored   func() bool
	}{
		{"secret", signer.Name, func() bool {
			got := &corev1.Secret{}
			return l.api.Get(l.ctx, client.ObjectKeyFromObject(signer), got) == nil && got.UID != signer.UID && equality.Semantic.DeepEqual(got.Data, signer.Data)
		}},
		{"configmap", jwks.Name, func() bool {
			got := &corev1.ConfigMap{}
			return l.api.Get(l.ctx, client.ObjectKeyFromObject(jwks), got) == nil && got.UID != jwks.UID && got.Data[controllers.JWKSEntry] != ""
		}},
	} {
		for _, how := range [][]string{
			{"delete", tc.kind, tc.name, "-n", l.ns},
			{"delete", tc.kind, "-n", l.ns, "--field-selector", "metadata.name=" + tc.name, "--cascade=foreground", "--wait=false"}, // as a prune does
		} {
			if _, stderr, err := theStack(t).Plane.Kubectl(l.ctx, how...); err != nil {
				t.Fatal(err, stderr)
			}
			asked := time.Now()
			await(t, 10*time.Second, tc.kind+" "+tc.name+" to be restored", tc.restored)
			t.Logf("kubectl %s: restored in %s", how[0]+" "+tc.kind, time.Since(asked).Round(10*time.Millisecond))
			signer, jwks = l.signer(), l.jwks()
		}
	}
	if n := l.monitor.rotations(); n != 0 {
		t.Errorf("%d rotations came of it", n)
	}
	if c := stop(); c.refused > 0 || c.acceptedWrongly > 0 || c.requests == 0 {
		t.Error(c)
	} else {
		t.Log(c)
	}
}
