package storm

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/hack/e2e/stack"
)

var keys = flag.Int("keys", 200, "how many SigningKeys rotate")

// The spans of the SigningKeys: small, so that a storm with all retirements is
// over in minutes.
const (
	verifierLag = 5 * time.Second
	signerLag   = time.Second
	clockSkew   = time.Second
	leeway      = time.Second
	tokenTTL    = 10 * time.Second
)

// perNamespace is how many of them share a namespace.
const perNamespace = 100

// mostWrites is what a rotation may cost, with the retirement of the old key:
// keyring, JWKS, signer and status, keyring and status when signers have the
// new key, and JWKS and status when the old one retires.
const mostWrites = 8

// storm is a control plane with a controller and many SigningKeys.
type storm struct {
	t          *testing.T
	ctx        context.Context
	stack      *stack.Stack
	api        client.Client
	controller *stack.Process
	gauge      *gauge
	n          int
}

func TestStorm(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := stack.Start(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	config := s.Plane.AdminConfig()
	config.QPS = -1 // what is measured is the controller
	api, err := client.New(config, client.Options{Scheme: s.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	w := &storm{t: t, ctx: ctx, stack: s, api: api, n: *keys}
	if w.controller, err = s.StartController(ctx, "controller", "--leader-elect=false"); err != nil {
		t.Fatal(err)
	}
	w.gauge = startGauge(ctx, t, w.controller)

	w.create()
	w.triggered()
	w.scheduled()
}

// name says where the i-th SigningKey is.
func name(i int) client.ObjectKey {
	return client.ObjectKey{Namespace: fmt.Sprintf("storm-%03d", i/perNamespace), Name: fmt.Sprintf("key-%03d", i%perNamespace)}
}

// each does something for every SigningKey, several at a time.
func (w *storm) each(do func(i int) error) {
	w.t.Helper()
	var next atomic.Int64
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < w.n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					w.t.Errorf("SigningKey %s: %v", name(i), err)
				}
			}
		})
	}
	running.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// edit changes every spec and says when the API server had taken each change.
func (w *storm) edit(change func(*v1alpha1.SigningKeySpec)) (taken []time.Time) {
	w.t.Helper()
	taken = make([]time.Time, w.n)
	w.each(func(i int) error {
		sk := &v1alpha1.SigningKey{}
		if err := w.api.Get(w.ctx, name(i), sk); err != nil {
			return err
		}
		before := client.MergeFrom(sk.DeepCopy())
		change(&sk.Spec)
		err := w.api.Patch(w.ctx, sk, before)
		taken[i] = time.Now()
		return err
	})
	return taken
}

// all reads every SigningKey.
func (w *storm) all() map[client.ObjectKey]*v1alpha1.SigningKey {
	w.t.Helper()
	list := &v1alpha1.SigningKeyList{}
	if err := w.api.List(w.ctx, list); err != nil {
		w.t.Fatal(err)
	}
	out := make(map[client.ObjectKey]*v1alpha1.SigningKey, len(list.Items))
	for i := range list.Items {
		out[client.ObjectKeyFromObject(&list.Items[i])] = &list.Items[i]
	}
	return out
}

// await waits until something holds of every SigningKey. There is no limit but
// the test's own: a machine may be slow.
func (w *storm) await(what string, holds func(*v1alpha1.SigningKey) bool) {
	w.t.Helper()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	told := time.Now()
	for {
		missing, example := 0, ""
		for at, sk := range w.all() {
			if !holds(sk) {
				missing++
				example = at.String()
			}
		}
		if missing == 0 {
			return
		}
		if time.Since(told) > 3*time.Minute {
			told = time.Now()
			w.t.Logf("waiting for %s: %d of %d are missing, such as %s", what, missing, w.n, example)
		}
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.t.Fatalf("waiting for %s: %d of %d are missing, such as %s", what, missing, w.n, example)
		}
	}
}

// standsReady says that a key signs, that another stands by which all know, and
// that nothing verifies beside them.
func standsReady(sk *v1alpha1.SigningKey) bool {
	if sk.Status.ObservedGeneration != sk.Generation || sk.Status.ActiveKeyID == "" {
		return false
	}
	known := false
	for _, k := range sk.Status.Keys {
		switch k.State {
		case v1alpha1.KeyPublished:
			known = k.PublishedAt != nil && time.Since(k.PublishedAt.Time) > verifierLag+clockSkew
		case v1alpha1.KeyVerifying:
			return false
		}
	}
	return known
}

func duration(d time.Duration) v1alpha1.Duration { return v1alpha1.Duration{Duration: d} }

// create makes all SigningKeys, which rotate when they are told to.
func (w *storm) create() {
	w.t.Helper()
	for i := 0; i < w.n; i += perNamespace {
		if err := w.api.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name(i).Namespace}}); err != nil {
			w.t.Fatal(err)
		}
	}
	began := time.Now()
	w.each(func(i int) error {
		at := name(i)
		return w.api.Create(w.ctx, &v1alpha1.SigningKey{
			ObjectMeta: metav1.ObjectMeta{Namespace: at.Namespace, Name: at.Name},
			Spec: v1alpha1.SigningKeySpec{
				Algorithm: "ES256", MaxTokenTTL: duration(tokenTTL), Rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationManual},
				Propagation: v1alpha1.Propagation{
					VerifierLag: duration(verifierLag), SignerLag: duration(signerLag), ClockSkew: duration(clockSkew), Leeway: duration(leeway),
				},
				JWKS: &v1alpha1.JWKS{ConfigMapName: v1alpha1.OutputName(at.Name + "-jwks")},
			},
		})
	})
	made := time.Since(began)
	w.await("first keys and their standbys", standsReady)
	w.t.Logf("%d SigningKeys: made in %s, with a key and a standby after %s", w.n, made.Round(time.Millisecond), time.Since(began).Round(100*time.Millisecond))
	w.t.Log(w.gauge.lap(w.n))
}

// state is what the API server holds of one SigningKey.
type state struct {
	sk     *v1alpha1.SigningKey
	ring   lifecycle.Keyring
	signer string // kid of the signer Secret
	jwks   keyset.Document
}

// states reads everything.
func (w *storm) states() map[client.ObjectKey]*state {
	w.t.Helper()
	out := map[client.ObjectKey]*state{}
	for at, sk := range w.all() {
		out[at] = &state{sk: sk}
	}
	made := client.HasLabels{v1alpha1.LabelSigningKey}
	secrets, configMaps := &corev1.SecretList{}, &corev1.ConfigMapList{}
	for _, list := range []client.ObjectList{secrets, configMaps} {
		if err := w.api.List(w.ctx, list, made); err != nil {
			w.t.Fatal(err)
		}
	}
	owner := func(obj client.Object) *state {
		return out[client.ObjectKey{Namespace: obj.GetNamespace(), Name: obj.GetAnnotations()[v1alpha1.AnnotationSigningKey]}]
	}
	for i := range secrets.Items {
		s := &secrets.Items[i]
		of := owner(s)
		switch {
		case of == nil:
		case s.Type == v1alpha1.SecretTypeKeyring:
			var err error
			if of.ring, err = lifecycle.DecodeKeyring(s.Data[controllers.KeyringEntry]); err != nil {
				w.t.Errorf("Secret %s/%s: %v", s.Namespace, s.Name, err)
			}
		default:
			of.signer = string(s.Data[controllers.KeyIDEntry])
		}
	}
	for i := range configMaps.Items {
		cm := &configMaps.Items[i]
		if of := owner(cm); of != nil {
			if err := json.Unmarshal([]byte(cm.Data[controllers.JWKSEntry]), &of.jwks); err != nil {
				w.t.Errorf("ConfigMap %s/%s: %v", cm.Namespace, cm.Name, err)
			}
		}
	}
	return out
}

// triggered lets all rotate because they are told to, as fast as the API server
// takes it.
func (w *storm) triggered() {
	w.t.Helper()
	before := w.states()
	requests := counted(w.ctx, w.t, w.stack.Plane.AdminConfig())
	w.gauge.lap(w.n)
	began := time.Now()
	taken := w.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "storm" })
	w.t.Logf("triggered: all edits taken in %s", time.Since(began).Round(time.Millisecond))
	due := map[client.ObjectKey]time.Time{}
	for i, at := range taken {
		due[name(i)] = at
	}
	w.over("triggered", before, due, began, time.Time{}, requests)
}

// scheduled lets all rotate at the same minute of a schedule.
func (w *storm) scheduled() {
	w.t.Helper()
	var slot time.Time
	for room := 20*time.Second + time.Duration(w.n)*50*time.Millisecond; ; room *= 2 {
		slot = time.Now().Add(room).UTC().Truncate(time.Minute).Add(time.Minute)
		schedule := fmt.Sprintf("%d %d * * *", slot.Minute(), slot.Hour())
		w.edit(func(s *v1alpha1.SigningKeySpec) {
			s.Rotation.Policy, s.Rotation.Schedule = v1alpha1.RotationAutomatic, schedule
		})
		w.await("the schedule to be taken up", standsReady)
		if time.Now().Before(slot) {
			break
		}
		w.t.Logf("%s was not long enough for all to take the schedule up: once more", room)
	}
	before := w.states()
	due := map[client.ObjectKey]time.Time{}
	for at, s := range before {
		next := s.sk.Status.NextTransition
		if next == nil || next.Type != v1alpha1.TransitionActivate || next.Time.Before(&metav1.Time{Time: slot}) || next.Time.Sub(slot) > time.Minute {
			w.t.Fatalf("SigningKey %s: the next transition is %+v, want an activation in the minute from %s", at, next, slot)
		}
		due[at] = next.Time.Time
	}
	requests := counted(w.ctx, w.t, w.stack.Plane.AdminConfig())
	w.gauge.lap(w.n)
	w.t.Logf("scheduled: all are due in the minute from %s", slot.Format(time.TimeOnly))
	w.over("scheduled", before, due, slot, slot, requests)
}

// over waits until all have rotated and their old keys have retired, says what
// it took, and checks every one.
func (w *storm) over(what string, before map[client.ObjectKey]*state, due map[client.ObjectKey]time.Time, began, earliest time.Time, counts requests) {
	t := w.t
	t.Helper()
	w.await(what+": the switches", func(sk *v1alpha1.SigningKey) bool {
		old := before[client.ObjectKeyFromObject(sk)].sk.Status.ActiveKeyID
		for _, k := range sk.Status.Keys {
			if k.KeyID == old {
				return k.DeactivatedAt != nil
			}
		}
		return false
	})
	w.await(what+": the retirements", standsReady)
	took := counted(w.ctx, t, w.stack.Plane.AdminConfig()).since(counts)
	after := w.states()

	var chosen, switched []time.Duration // since it was due
	var lastDue, last time.Time
	steps := map[int64]int{}
	for at, is := range after {
		was := before[at]
		for _, problem := range problems(was, is, due[at], earliest) {
			t.Errorf("%s: SigningKey %s: %s", what, at, problem)
		}
		if t.Failed() {
			continue
		}
		old := is.ring.Find(was.ring.Active().ID)
		chosen = append(chosen, is.ring.Active().ActivatedAt.Sub(due[at]))
		switched = append(switched, old.DeactivatedAt.Sub(due[at]))
		steps[is.ring.Sequence-was.ring.Sequence]++
		if due[at].After(lastDue) {
			lastDue = due[at]
		}
		if old.DeactivatedAt.After(last) {
			last = old.DeactivatedAt
		}
	}
	if len(after) != w.n || len(before) != w.n {
		t.Errorf("%s: there are %d SigningKeys, and were %d, of %d", what, len(after), len(before), w.n)
	}
	t.Logf("%s: the last switch came %s after the storm began and %s after the last was due", what, last.Sub(began).Round(100*time.Millisecond), last.Sub(lastDue).Round(100*time.Millisecond))
	t.Logf("%s: from due to chosen: %s", what, spread(chosen))
	t.Logf("%s: from due to switched, as confirmed: %s", what, spread(switched))
	t.Logf("%s: %.2f writes a rotation with retirement (%s); refused: %s", what, took.writes()/float64(w.n), by(w.n, took.written), by(1, took.refused))
	t.Logf("%s: sequences rose by %v (step: SigningKeys)", what, steps)
	t.Log(what + ": " + w.gauge.lap(w.n))
	if most := float64(mostWrites * w.n); took.writes() > most {
		t.Errorf("%s: %.0f writes, want at most %d for each rotation with retirement: %.0f", what, took.writes(), mostWrites, most)
	}
}

// problems says what is wrong with a SigningKey after one rotation.
func problems(was, is *state, due, earliest time.Time) (found []string) {
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if was == nil || was.ring.Active() == nil || was.ring.Standby() == nil {
		return []string{"it was not ready before"}
	}
	now := time.Now()
	states := map[v1alpha1.KeyState]int{}
	for i := range is.ring.Keys {
		states[is.ring.State(&is.ring.Keys[i], now)]++
	}
	if states[v1alpha1.KeyActive] != 1 || states[v1alpha1.KeyPublished] != 1 || states[v1alpha1.KeyVerifying] != 0 {
		wrong("its keys are %v, want one Active, one Published and the rest Retired", states)
	}
	for _, k := range was.ring.Keys {
		if is.ring.Find(k.ID) == nil {
			wrong("key %s is lost", k.ID)
		}
	}
	if len(is.ring.Keys) != len(was.ring.Keys)+1 {
		wrong("%d keys became %d, want one more", len(was.ring.Keys), len(is.ring.Keys))
	}
	if is.ring.Sequence <= was.ring.Sequence || is.sk.Status.Sequence != is.ring.Sequence {
		wrong("the sequence went from %d to %d, and is %d in status", was.ring.Sequence, is.ring.Sequence, is.sk.Status.Sequence)
	}
	active, standby := is.ring.Active(), is.ring.Standby()
	if active == nil || standby == nil {
		return found
	}
	if active.ID != was.ring.Standby().ID || standby.Sequence <= was.ring.Sequence {
		wrong("%s signs and %s stands by, want %s and one that is new", active.ID, standby.ID, was.ring.Standby().ID)
	}
	if known := active.PublishedAt.Add(verifierLag + clockSkew); known.After(active.ActivatedAt) {
		wrong("its key was published at %s and signs from %s on, before all knew it", active.PublishedAt, active.ActivatedAt)
	}
	if !earliest.IsZero() && active.ActivatedAt.Before(due) {
		wrong("its key signs from %s on, and was due at %s", active.ActivatedAt, due)
	}
	old := is.ring.Find(was.ring.Active().ID)
	if old == nil || old.DeactivatedAt.Before(active.ActivatedAt) || old.Private != nil || !old.VerifyUntil.Equal(lifecycle.Ceil(old.DeactivatedAt.Add(signerLag+tokenTTL+leeway+2*clockSkew))) {
		wrong("the old key ended wrongly: %+v", old)
	}
	if is.sk.Status.ActiveKeyID != active.ID || is.sk.Status.NextKeyID != standby.ID || is.signer != active.ID {
		wrong("status says that %s signs and %s stands by, the signer Secret holds %s, the keyring says %s and %s",
			is.sk.Status.ActiveKeyID, is.sk.Status.NextKeyID, is.signer, active.ID, standby.ID)
	}
	var shown []string
	for _, k := range is.jwks.Keys {
		shown = append(shown, k.Kid)
	}
	if strings.Join(shown, " ") != standby.ID+" "+active.ID {
		wrong("the JWKS shows %v, want %s and %s", shown, standby.ID, active.ID)
	}
	for kind, want := range map[string]metav1.ConditionStatus{
		v1alpha1.ConditionReady: metav1.ConditionTrue, v1alpha1.ConditionRotated: metav1.ConditionTrue, v1alpha1.ConditionDegraded: metav1.ConditionFalse,
	} {
		if c := meta.FindStatusCondition(is.sk.Status.Conditions, kind); c == nil || c.Status != want {
			wrong("%s is %+v, want %s", kind, c, want)
		}
	}
	return found
}
