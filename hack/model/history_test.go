package model

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
)

// historyLength is how many steps a history has.
const historyLength = 40

// happening is what a step of a history can be.
type happening struct {
	name   string
	weight int
	do     func(*world)
}

var happenings = []happening{
	{"time passes until the controller is due", 30, (*world).untilWake},
	{"time passes until a token's last moment", 25, (*world).untilExpiry},
	{"time passes", 12, func(w *world) { w.advance(w.t.Add(time.Duration(w.rng.IntN(15000)) * time.Millisecond)) }},
	{"the spec is edited", 6, (*world).edit},
	{"a rotation is triggered", 5, (*world).trigger},
	{"a write goes wrong", 12, (*world).injectOnce},
	{"some writes go wrong for a while", 3, (*world).injectLong},
	{"the leader is paused before a write", 6, (*world).pauseLeader},
	{"the leader changes", 4, func(w *world) { w.lead = w.ctls[w.rng.IntN(2)]; w.poke() }},
	{"no controller runs", 2, (*world).downtime},
	{"the API server is away", 2, (*world).outage},
	{"a controller's clock is wrong", 1, (*world).leap},
	{"an output is deleted", 3, (*world).prune},
	{"an output is overwritten", 2, (*world).tamper},
	{"the SigningKey is deleted and made again", 1, (*world).recreate},
	{"a key is revoked", 2, (*world).revoke},
	{"revocations leave the spec", 1, (*world).unrevoke},
	{"the keyring is lost", 2, (*world).loseKeyring},
	{"the storage is restored", 2, (*world).restore},
	{"a gate hangs", 1, (*world).hang},
}

func (w *world) untilWake() {
	if w.wake.IsZero() {
		w.advance(w.t.Add(10 * time.Second))
		return
	}
	w.advance(w.wake)
}

// untilExpiry goes to the last instant at which some gate has to take some
// token.
func (w *world) untilExpiry() {
	if len(w.tokens) == 0 {
		return
	}
	tok := w.tokens[w.rng.IntN(len(w.tokens))]
	g := w.gates[w.rng.IntN(len(w.gates))]
	w.advance(tok.exp.Add(w.f.leeway - g.offset - time.Millisecond))
}

func (w *world) edit() {
	sk, ok := w.api.objects[skKey].(*v1alpha1.SigningKey)
	if !ok {
		return
	}
	fresh, spec := w.newSpec(), *sk.Spec.DeepCopy()
	switch w.rng.IntN(6) {
	case 0, 1:
		spec.MaxTokenTTL = fresh.MaxTokenTTL
	case 2:
		if spec.JWKS == nil { // with a ConfigMap the schema refuses HS*
			spec.Algorithm = []v1alpha1.Algorithm{"EdDSA", "HS256", "ES256"}[w.rng.IntN(3)]
		} else {
			spec.Algorithm = []v1alpha1.Algorithm{"EdDSA", "ES256"}[w.rng.IntN(2)]
		}
	case 3:
		spec.Issuer = fmt.Sprint("https://issuer.example/", w.rng.IntN(3))
	case 4:
		spec.Propagation, spec.Rotation.Interval = fresh.Propagation, fresh.Rotation.Interval
	case 5:
		spec.Rotation.Policy = []v1alpha1.RotationPolicy{v1alpha1.RotationAutomatic, v1alpha1.RotationManual}[w.rng.IntN(2)]
		spec.HistoryLimit = fresh.HistoryLimit
	}
	interval := v1alpha1.Duration{Duration: max(spec.Rotation.Interval.Duration, leastInterval(spec))}
	spec.Rotation.Interval = &interval
	w.apply(spec)
}

func (w *world) trigger() {
	if sk, ok := w.api.objects[skKey].(*v1alpha1.SigningKey); ok {
		spec := *sk.Spec.DeepCopy()
		spec.Rotation.Trigger = fmt.Sprint(w.rng.IntN(1000))
		w.apply(spec)
	}
}

// hook runs something around the n-th write from now.
func (w *world) hook(n int, do func() error) func(string) error {
	return func(string) error {
		if n--; n > 0 {
			return nil
		}
		w.calm()
		return do()
	}
}

func (w *world) calm() { w.api.beforeWrite, w.api.afterWrite = w.failLong, nil }

// failLong is the fault of injectLong.
func (w *world) failLong(what string) error {
	if w.t.Before(w.failingUntil) && strings.HasPrefix(what, w.failing) {
		return errInjected
	}
	return nil
}

func (w *world) injectOnce() {
	n := 1 + w.rng.IntN(7)
	what := w.rng.IntN(4)
	dies := func() error { panic(crash{}) }
	fails := func() error { return errInjected }
	switch what {
	case 0:
		w.api.beforeWrite = w.hook(n, dies)
	case 1:
		w.api.afterWrite = w.hook(n, dies)
	case 2:
		w.api.beforeWrite = w.hook(n, fails)
	case 3:
		w.api.afterWrite = w.hook(n, fails) // done, but the answer is lost
	}
	w.untilWake()
}

func (w *world) injectLong() {
	// The keyring twice: what happens while the truth cannot be stored is
	// where the order of writes matters most.
	writes := []string{"Secret/", keyringKey, keyringKey, signerKey, hmacKey, jwksKey, statusWrite(skKey)}
	w.failing = writes[w.rng.IntN(len(writes))]
	w.failingUntil = w.t.Add(time.Duration(w.rng.IntN(100)) * time.Second)
	w.note("that is %s", w.failing)
	w.calm()
}

// pauseLeader lets the other controller lead while this one hangs before a
// write, and lets this one go on as if nothing had been.
func (w *world) pauseLeader() {
	if w.lead == nil {
		return
	}
	paused := w.lead
	other := w.ctls[0]
	if other == paused {
		other = w.ctls[1]
	}
	w.api.beforeWrite = w.hook(1+w.rng.IntN(6), func() error {
		w.note("%s hangs before a write", paused.name)
		wake := w.wake
		w.lead, w.wake = other, w.t
		w.advance(w.t.Add(time.Duration(w.rng.IntN(60)) * time.Second))
		w.note("%s goes on", paused.name)
		w.lead = paused
		if w.wake.IsZero() || (!wake.IsZero() && wake.Before(w.wake)) {
			w.wake = wake
		}
		return nil
	})
	w.untilWake()
	if w.rng.IntN(2) == 0 {
		w.lead = other
	}
	w.poke()
}

func (w *world) downtime() {
	lead := w.lead
	w.lead = nil
	w.advance(w.t.Add(time.Duration(w.rng.IntN(200)) * time.Second))
	if w.lead = lead; lead == nil {
		w.lead = w.ctls[0]
	}
	w.poke()
}

func (w *world) outage() {
	w.api.away = true
	w.advance(w.t.Add(time.Duration(w.rng.IntN(120)) * time.Second))
	w.api.away = false
	w.poke()
}

func (w *world) leap() {
	if w.lead == nil || w.lead.leap != 0 {
		return
	}
	lead := w.lead
	lead.leap = []time.Duration{30 * 24 * time.Hour, -30 * 24 * time.Hour, time.Hour, -time.Hour}[w.rng.IntN(4)]
	w.wake = w.t
	w.advance(w.t.Add(time.Duration(w.rng.IntN(100)) * time.Second))
	lead.leap = 0
	w.poke()
}

func (w *world) prune() {
	outputs := slices.DeleteFunc([]string{signerKey, jwksKey, hmacKey}, func(key string) bool { return w.api.objects[key] == nil })
	if len(outputs) == 0 {
		return
	}
	output := outputs[w.rng.IntN(len(outputs))]
	w.note("that is %s", output)
	w.sabotage, w.disturbedAt = true, w.t
	w.api.delete(output)
	w.sabotage = false
	if output == jwksKey {
		// Who looked for it meanwhile has what it had; V counts from its return.
		w.cacherFrom = w.t.Add(time.Hour)
	}
	w.poke()
}

// tamper puts an old or emptied signer Secret, or an emptied ConfigMap, where
// the controller's was.
func (w *world) tamper() {
	w.sabotage, w.disturbedAt = true, w.t
	defer func() { w.sabotage = false }()
	if cm, ok := w.api.objects[jwksKey].(*corev1.ConfigMap); ok && w.rng.IntN(2) == 0 {
		emptied := cm.DeepCopy()
		emptied.Data = map[string]string{controllers.JWKSEntry: `{"keys":[]}`}
		if err := w.api.update(emptied, false); err != nil {
			panic(err)
		}
		w.cacherFrom = w.t.Add(time.Hour)
		w.poke()
		return
	}
	now, ok := w.api.objects[signerKey].(*corev1.Secret)
	if !ok {
		return
	}
	old := now.DeepCopy()
	old.Data = nil
	if past := w.api.history[signerKey]; w.rng.IntN(2) == 0 {
		if secret, ok := past[w.rng.IntN(len(past))].obj.(*corev1.Secret); ok {
			old.Data = secret.Data
		}
	}
	if err := w.api.update(old, false); err != nil {
		panic(err)
	}
	w.forged[old.ResourceVersion] = true
	w.poke()
}

func (w *world) recreate() {
	sk, ok := w.api.objects[skKey].(*v1alpha1.SigningKey)
	if !ok || w.lost { // then status is the only copy
		return
	}
	if !w.restoredAt.IsZero() && w.t.Sub(w.restoredAt) < 3*time.Minute {
		return // gates alone know of what the restore undid, and would forget it
	}
	w.api.delete(skKey)
	w.gone = true
	w.poke()
	w.advance(w.t.Add(time.Duration(w.rng.IntN(60)) * time.Second))
	w.apply(sk.Spec)
	// Gates deny until the controller has answered and they have heard of it.
	w.gatesFrom, w.cacherFrom = w.t.Add(time.Hour), w.t.Add(time.Hour)
	w.gone = false
}

// recovered ends the exemptions of recreate, prune and tamper when all that
// was taken away has been back for as long as verifiers need.
func (w *world) recovered() {
	sk, _ := w.api.objects[skKey].(*v1alpha1.SigningKey)
	if sk == nil || len(sk.Status.Keys) == 0 {
		return
	}
	hmac, _ := w.api.objects[hmacKey].(*corev1.Secret)
	missing := slices.ContainsFunc(sk.Status.Keys, func(k v1alpha1.KeyStatus) bool {
		return k.State != v1alpha1.KeyRetired && k.State != v1alpha1.KeyRevoked && k.PublicKey == nil && !strings.Contains(hmacText(hmac), k.KeyID)
	})
	switch {
	case !missing:
		w.gatesFrom = minTime(w.gatesFrom, w.t.Add(w.f.verifierLag))
	case w.t.Before(w.gatesFrom): // gone again before each gate had seen it
		w.gatesFrom = w.t.Add(time.Hour)
	}
	ring := w.ringOf(w.api.objects[keyringKey])
	cm, _ := w.api.objects[jwksKey].(*corev1.ConfigMap)
	if active := ring.Active(); active != nil && cm != nil && strings.Contains(cm.Data[controllers.JWKSEntry], active.ID) {
		w.cacherFrom = minTime(w.cacherFrom, w.t.Add(w.f.verifierLag))
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// source is the chance of one step of a history; that of step 0 makes the
// world. Each step has its own, so that leaving one out changes nothing that
// another one draws.
func source(seed uint64, step int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(step))) //nolint:gosec // a step is not negative
}

// allSteps lists the steps of a whole history.
func allSteps() []int { return upTo(historyLength) }

// upTo counts from 1 to n.
func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i + 1
	}
	return list
}

func drawHappening(rng *rand.Rand) happening {
	total := 0
	for _, h := range happenings {
		total += h.weight
	}
	n := rng.IntN(total)
	for _, h := range happenings {
		if n -= h.weight; n < 0 {
			return h
		}
	}
	panic("unreachable: n is below the sum of weights")
}

// run is one history, or those of its steps that are given. Its failure is
// empty when nothing went wrong.
func run(seed uint64, steps []int) *world {
	w := newWorld(source(seed, 0))
	for _, step := range steps {
		if w.failure != "" {
			return w
		}
		w.rng = source(seed, step)
		h := drawHappening(w.rng)
		w.note("step %d: %s", step, h.name)
		h.do(w)
		w.recovered()
	}
	w.rng = source(seed, historyLength+1)
	w.settle()
	return w
}

// settle ends every fault and demands that rotations go on and the keyring
// stays small.
func (w *world) settle() {
	w.failingUntil, w.hangsUntil, w.lead = w.t, w.t, w.ctls[0]
	w.calm()
	w.lead.leap = 0
	sk, ok := w.api.objects[skKey].(*v1alpha1.SigningKey)
	if !ok || w.failure != "" {
		return
	}
	w.note("all is calm")
	spec := *sk.Spec.DeepCopy()
	spec.Rotation.Policy = v1alpha1.RotationAutomatic
	w.apply(spec)
	w.advance(w.t.Add(30 * time.Second)) // whatever was put off or backs off
	before := w.inv.activations
	wait := spec.Propagation.VerifierLag.Duration + spec.Propagation.ClockSkew.Duration
	shortest := max(spec.Rotation.Interval.Duration, wait, time.Second)
	period := max(spec.Rotation.Interval.Duration, wait+3*time.Second)
	const periods, looks = 3, 4
	for range periods * looks {
		w.advance(w.t.Add(period / looks))
		w.recovered()
	}
	most := int(periods*period/shortest) + 1
	if got := w.inv.activations - before; w.failure == "" && (got < periods-1 || got > most) {
		w.fail("%d rotations in %s of calm, not %d to %d", got, periods*period, periods-1, most)
	}
	if n := len(w.ringOf(w.api.objects[keyringKey]).Keys); n > 40 {
		w.fail("the keyring holds %d keys", n)
	}
	if sk := w.api.objects[skKey].(*v1alpha1.SigningKey); !reflect.DeepEqual(sk.Status, throughJSON(sk.Status)) {
		w.fail("the store keeps a status that a real server would not give back: %+v", sk.Status)
	}
}
