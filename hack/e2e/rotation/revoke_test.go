package rotation

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// firstWait is how long a key is shown before it signs when there is none to
// go on with.
const firstWait = 2 * time.Second

// revoking lists keys as revoked.
func revoking(reason string, ids ...string) func(*v1alpha1.SigningKeySpec) {
	return func(s *v1alpha1.SigningKeySpec) {
		for _, id := range ids {
			s.RevokedKeys = append(s.RevokedKeys, v1alpha1.RevokedKey{KeyID: id, Reason: reason})
		}
	}
}

// revokedIn demands that nothing is left of a key but its tombstone. Signers
// keep it, of no use as it is, for the moment until there is another.
func (w *world) revokedIn(when string, ids ...string) {
	w.t.Helper()
	ring, sk := w.ring(), w.sk()
	signs := w.condition(v1alpha1.ConditionReady) == "True KeyActive"
	for _, id := range ids {
		if !ring.IsRevoked(id) || ring.Find(id) != nil {
			w.t.Errorf("%s: the keyring does not remember that %s is revoked", when, id)
		}
		found := false
		for _, k := range sk.Status.Keys {
			if k.KeyID == id {
				found = k.State == v1alpha1.KeyRevoked && k.PublicKey == nil && k.RevokedAt != nil
			}
		}
		if !found || sk.Status.ActiveKeyID == id || sk.Status.NextKeyID == id {
			w.t.Errorf("%s: status does not say that %s is revoked", when, id)
		}
		for what, document := range w.everything() {
			if what != "SigningKey" && what != "Secret shop-keyring" && (signs || what != "Secret shop-signing") && strings.Contains(document, id) {
				w.t.Errorf("%s: %s still has %s", when, what, id)
			}
		}
	}
}

// Row 20: refused at every gate; the standby takes over at once; the event says
// what third parties may see until when.
func activeRevoked(t *testing.T) {
	type keys struct{ previous, active, standby string }
	for _, tc := range []struct {
		what   string
		known  time.Duration // for how long the standby has been known
		revoke func(k keys) []string
		// after is when some key signs, and who; empty: one that was made anew.
		after time.Duration
		signs func(k keys) string
	}{
		{"the active key", 2 * time.Minute, func(k keys) []string { return []string{k.active} }, 0, func(k keys) string { return k.standby }},
		{"the active key just after a rotation", 0, func(k keys) []string { return []string{k.active} }, firstWait, func(k keys) string { return k.standby }},
		{"the active key and the previous one", 2 * time.Minute, func(k keys) []string { return []string{k.active, k.previous} }, 0, func(k keys) string { return k.standby }},
		{"every key", 2 * time.Minute, func(k keys) []string { return []string{k.previous, k.active, k.standby} }, firstWait, func(keys) string { return "" }},
		{"the standby", 2 * time.Minute, func(k keys) []string { return []string{k.standby} }, 0, func(k keys) string { return k.active }},
		{"the previous key", 0, func(k keys) []string { return []string{k.previous} }, 0, func(k keys) string { return k.active }},
		{"a key that is not there", 0, func(keys) []string { return []string{"somebody-else's"} }, 0, func(k keys) string { return k.active }},
	} {
		w := newWorld(t)
		recorder := events.NewFakeRecorder(1000)
		w.ctl.Events = recorder
		w.ready(spec())
		w.advance(time.Minute)
		previous := w.app()
		w.rotated()
		w.advance(tc.known)
		active, standby := w.app(), w.standbyOf()
		k := keys{previous.kid, active.kid, standby.kid}
		signers := map[string]signer{previous.kid: previous, active.kid: active, standby.kid: standby}
		p := w.promises()
		ids := tc.revoke(k)
		for what, s := range map[string]signer{"the active key": active, "the standby": standby} { // the previous has no signer left
			if !slices.Contains(ids, s.kid) {
				p.keep(what, s)
			}
		}
		before, at := w.ring(), w.now

		w.edit(revoking("Compromised", ids...))
		for _, id := range ids {
			if s, ok := signers[id]; ok {
				p.revoked(tc.what+" revoked: "+id, s)
			}
		}
		p.check(tc.what + " revoked: before the controller has come to it")
		w.settle()
		texts := drained(recorder.Events)
		for _, id := range ids {
			demand(t, tc.what+" revoked", texts, fmt.Sprintf("KeyRevoked key %s is revoked (Compromised): every gate refuses it; verifiers that cache the JWKS may accept its tokens until %s",
				id, lifecycle.Ceil(at.Add(verifierLag+clockSkew)).Format(time.RFC3339)))
		}
		if doc := w.jwks().Data[controllers.JWKSEntry]; !strings.Contains(doc, `"kid"`) {
			t.Errorf("%s revoked: an empty key set is published: %s", tc.what, doc)
		}
		if w.ring().Sequence <= before.Sequence {
			t.Errorf("%s revoked: the sequence did not rise above %d", tc.what, before.Sequence)
		}
		w.revokedIn(tc.what+" revoked", ids...)

		want := tc.signs(k)
		w.until("a key that signs", func() bool { return w.active() != "" && w.condition(v1alpha1.ConditionReady) == "True KeyActive" })
		if got := w.active(); (want != "" && got != want) || (want == "" && before.Find(got) != nil) || w.app().kid != got {
			t.Errorf("%s revoked: %s is active and %s in the signer Secret, want %q", tc.what, got, w.app().kid, want)
		}
		if got := w.now.Sub(at); got > tc.after {
			t.Errorf("%s revoked: a key signs %s later, want within %s", tc.what, got, tc.after)
		}
		p.keep("the key that signs now", w.app())
		w.advance(tokenTTL)
		w.rotated() // it goes on
		p.keep("the next key", w.app())
		w.advance(tokenTTL)
		w.revokedIn(tc.what+" revoked, a rotation later", ids...)
	}
}

// Row 20: three gates refuse while no controller runs.
func activeRevokedAtRealGates(t *testing.T) {
	l := newLive(t, lasting())
	gates := l.gates(3)
	https := httpsClient(t, gates...)
	l.beside("other", lasting(func(s *v1alpha1.SigningKeySpec) { s.JWKS = nil }))
	l.controller = l.start("controller")
	l.standsBy()
	previous := l.turn("one")
	standby := l.standsBy(previous.kid)
	stolen := l.app()
	next := l.holderOf(l.ring().Find(standby).Private)
	pass := map[string]string{
		"a token of the previous key":       previous.token(t, time.Now()),
		"a token of the standby":            next.token(t, time.Now()),
		"a token of the policy's other key": l.appOf("other").token(t, time.Now()),
	}
	raw := stolen.token(t, time.Now())
	l.passes(https, gates, "a token of the active key", raw)
	for what, raw := range pass {
		l.passes(https, gates, what, raw)
	}
	stop := l.keepAsking(https, gates, pass)

	l.controller.Kill()
	l.edit(revoking("Compromised", stolen.kid))
	revoked := time.Now()
	l.refused(https, gates, "a token of the revoked key", raw)
	t.Logf("three gates refuse %s after the edit, without a controller", time.Since(revoked).Round(time.Millisecond))
	if got := l.key(stolen.kid).State; got != v1alpha1.KeyActive {
		t.Errorf("without a controller status says %s of the revoked key: what did the gates go by?", got)
	}
	for _, g := range gates {
		if status, doc := l.served(https, g); status != http.StatusOK || strings.Contains(doc, stolen.kid) || !strings.Contains(doc, standby) {
			t.Errorf("%s serves %d %s, want the keys but the revoked one", g.Name, status, doc)
		}
	}

	began := time.Now()
	l.controller = l.start("controller")
	l.awaitActive(standby)
	t.Logf("the standby signs %s after the controller was started", time.Since(began).Round(time.Millisecond))
	text := l.told("KeyRevoked", stolen.kid)
	until := l.key(stolen.kid).RevokedAt.Add(briskLag)
	if want := "may accept its tokens until " + until.UTC().Format(time.RFC3339); !strings.HasPrefix(text, "Warning ") || !strings.Contains(text, "(Compromised)") || !strings.Contains(text, want) {
		t.Errorf("the event is %q, want a warning with the reason and %q", text, want)
	}
	all := append(slices.Clone(gates), l.startGate("gate-late"))
	https = httpsClient(t, all...)
	l.passes(https, all, "a token of the new active key", l.app().token(t, time.Now()))
	for what, raw := range pass {
		l.passes(https, all, what, raw)
	}
	for _, g := range all {
		for _, raw := range []string{raw, stolen.token(t, time.Now())} {
			if status := ask(l.ctx, https, g, l.ns, raw); status != http.StatusUnauthorized {
				t.Errorf("%s answers %d to a token of the revoked key", g.Name, status)
			}
		}
	}
	t.Logf("%d requests with tokens of other keys meanwhile", stop())
}

// beside makes another SigningKey that the policy trusts as well.
func (l *live) beside(other string, s v1alpha1.SigningKeySpec) {
	l.t.Helper()
	sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: other}, Spec: s}
	policy := &v1alpha1.AccessPolicy{}
	l.get(policy, name)
	ref := policy.Spec.Issuers[0]
	ref.SigningKeyRef.Name = other
	policy.Spec.Issuers = append(policy.Spec.Issuers, ref)
	if err := l.api.Create(l.ctx, sk); err != nil {
		l.t.Fatal(err)
	}
	if err := l.api.Update(l.ctx, policy); err != nil {
		l.t.Fatal(err)
	}
}

// appOf is a signer of another SigningKey, once it has a key.
func (l *live) appOf(other string) signer {
	l.t.Helper()
	s := &corev1.Secret{}
	await(l.t, time.Minute, "the signer Secret of "+other, func() bool {
		return l.api.Get(l.ctx, client.ObjectKey{Namespace: l.ns, Name: other + "-signing"}, s) == nil
	})
	return signerOf(l.t, s.Data[controllers.SigningJWKEntry])
}

// revokingBefore revokes what was made before a time.
func revokingBefore(at time.Time) func(*v1alpha1.SigningKeySpec) {
	return func(s *v1alpha1.SigningKeySpec) {
		s.RevokeCreatedBefore = &v1alpha1.RevokeCreatedBefore{Time: metav1.NewTime(at), Reason: "Stolen"}
	}
}

// Row 21: all refused, new key made and active; keys made later untouched.
func everythingBeforeRevoked(t *testing.T) {
	for _, algorithm := range []v1alpha1.Algorithm{"ES256", "HS256"} {
		// A time that is, and one that is still to come, which counts as now.
		for _, ahead := range []time.Duration{0, time.Hour} {
			what := fmt.Sprintf("%s, a time %s ahead", algorithm, ahead)
			w := newWorld(t)
			recorder := events.NewFakeRecorder(1000)
			w.ctl.Events = recorder
			w.ready(spec(func(s *v1alpha1.SigningKeySpec) {
				if algorithm == "HS256" {
					hs256(s)
				}
			}))
			w.advance(time.Minute)
			previous := w.app()
			w.rotated()
			w.advance(10 * time.Second)
			gone := map[string]signer{"the previous key": previous, "the active key": w.app(), "the standby": w.standbyOf()}
			p := w.promises()
			at := w.now.Add(ahead)
			asked := w.now
			w.edit(revokingBefore(at))
			for key, s := range gone {
				p.revoked(what+": "+key, s)
			}
			p.check(what + ": before the controller has come to it")
			w.settle()
			texts := drained(recorder.Events)
			for _, s := range gone {
				demand(t, what, texts, fmt.Sprintf("key %s is revoked (Stolen)", s.kid))
			}
			w.until("a new key that signs", func() bool { return w.active() != "" })
			if got := w.now.Sub(asked); got > firstWait {
				t.Errorf("%s: the new key signs %s later, want within %s", what, got, firstWait)
			}
			for _, s := range gone {
				w.revokedIn(what, s.kid)
			}
			r := w.sk().Status.RevokedBefore
			if r == nil || !r.Time.Time.Equal(at) || r.CutOff.After(lifecycle.Ceil(asked)) {
				t.Errorf("%s: status says %+v of it, want time %s and a cutOff that is not later than %s", what, r, at, asked)
			}
			// Keys made later live their lives, also when the time asked for comes.
			later := w.app()
			p.keep("the first key made later", later)
			old, _ := w.rotated()
			if old != later.kid {
				t.Errorf("%s: %s signed until the rotation, want %s", what, old, later.kid)
			}
			p.keep("the second key made later", w.app())
			w.advance(time.Hour + time.Minute)
			if got := len(w.ring().Revoked); got != len(gone) {
				t.Errorf("%s: %d keys are revoked, want %d", what, got, len(gone))
			}
			p.keep("a key made later, when the time has come", w.app())
			w.advance(tokenTTL)
		}
	}

	// A time between two keys: only the older one.
	w := newWorld(t)
	w.ready(spec())
	w.advance(time.Minute)
	previous := w.app()
	w.rotated()
	active, standby := w.app(), w.standbyOf()
	made := w.ring().Standby().CreatedAt
	w.advance(10 * time.Second)
	p := w.promises()
	p.keep("the standby", standby)
	w.edit(revokingBefore(made))
	p.revoked("the previous key, which is older", previous)
	p.revoked("the active key, which is older", active)
	p.check("a time between two keys: before the controller has come to it")
	w.settle()
	w.revokedIn("a time between two keys", previous.kid, active.kid)
	w.until("the standby to sign", func() bool { return w.active() == standby.kid })
	p.keep("the standby, which signs", w.app())
	w.advance(tokenTTL)
}

// Row 21: three gates with nothing left to serve.
func everythingRevokedAtRealGates(t *testing.T) {
	l := newLive(t, lasting())
	gates := l.gates(3)
	https := httpsClient(t, gates...)
	l.controller = l.start("controller")
	l.standsBy()
	previous := l.turn("one")
	standby := l.standsBy(previous.kid)
	gone := map[string]string{
		"the previous key": previous.token(t, time.Now()),
		"the active key":   l.app().token(t, time.Now()),
		"the standby":      l.holderOf(l.ring().Find(standby).Private).token(t, time.Now()),
	}
	for what, raw := range gone {
		l.passes(https, gates, "a token of "+what, raw)
	}
	l.controller.Kill()
	l.edit(revokingBefore(time.Now().Add(time.Hour)))
	for what, raw := range gone {
		l.refused(https, gates, "a token of "+what, raw)
	}
	for _, g := range gates {
		if status, doc := l.served(https, g); status != http.StatusServiceUnavailable {
			t.Errorf("with every key revoked %s serves %d %s, want 503: an empty set would be kept", g.Name, status, doc)
		}
	}
	l.controller = l.start("controller")
	await(t, time.Minute, "the keys of before to be revoked", func() bool { return l.sk().Status.RevokedBefore != nil })
	await(t, time.Minute, "a new key", func() bool { return l.active() != "" })
	l.awaitActive(l.active())
	raw := l.app().token(t, time.Now())
	l.passes(https, gates, "a token of the new key", raw)
	stop := l.keepAsking(https, gates, map[string]string{"a token of the new key": raw})
	for _, g := range gates {
		if status, doc := l.served(https, g); status != http.StatusOK || !strings.Contains(doc, l.active()) || strings.Contains(doc, standby) {
			t.Errorf("afterwards %s serves %d %s, want the new keys alone", g.Name, status, doc)
		}
	}
	l.turn("two") // a whole rotation of keys made later
	for what, raw := range gone {
		l.refused(https, gates, "a token of "+what, raw)
	}
	stop()
}

// Row 22, from a backup: the keyring alone, with every output, and while a
// GitOps tool forgets the revocation as well.
func revokedBackFromABackup(t *testing.T) {
	for _, algorithm := range []v1alpha1.Algorithm{"ES256", "HS256"} {
		for _, tc := range []struct {
			what             string
			outputs, forgets bool
		}{
			{"the keyring", false, false},
			{"the keyring and the outputs", true, false},
			{"the keyring and the outputs, and spec without revokedKeys", true, true},
		} {
			what := fmt.Sprintf("%s: %s", algorithm, tc.what)
			w := newWorld(t)
			w.ready(spec(func(s *v1alpha1.SigningKeySpec) {
				if algorithm == "HS256" {
					hs256(s)
				}
			}))
			w.advance(time.Minute)
			stolen := w.app()
			backup := []*corev1.Secret{w.secret("shop-keyring")}
			if tc.outputs {
				backup = append(backup, w.signer())
			}
			var entry []byte
			if algorithm == "HS256" && tc.outputs {
				entry = w.hmacEntry()
			}
			p := w.promises()
			w.edit(revoking("Compromised", stolen.kid))
			p.revoked(what, stolen)
			w.settle()
			w.until("the standby to sign", func() bool { return w.active() != stolen.kid && w.active() != "" })
			p.keep("the key that signs", w.app())
			w.advance(20 * time.Second)
			sequence := w.ring().Sequence

			if tc.forgets {
				w.edit(func(s *v1alpha1.SigningKeySpec) { s.RevokedKeys = nil })
			}
			for _, secret := range backup {
				w.restore(secret)
			}
			if entry != nil {
				w.setHMACEntry(entry)
			}
			p.check(what + " is back")
			seen := map[string]bool{}
			w.before = func(kind string, obj client.Object) error {
				if kind == "signer" {
					seen[string(obj.(*corev1.Secret).Data[controllers.KeyIDEntry])] = true
				}
				return nil
			}
			w.settle()
			w.before = nil
			w.revokedIn(what+" is back", stolen.kid)
			if seen[stolen.kid] || w.app().kid == stolen.kid {
				t.Errorf("%s is back: signers are given the revoked key", what)
			}
			if got := w.ring().Sequence; got <= sequence {
				t.Errorf("%s is back: the sequence went from %d to %d", what, sequence, got)
			}
			w.until("a key that signs", func() bool { return w.active() != "" && w.condition(v1alpha1.ConditionReady) == "True KeyActive" })
			p.keep("the key that signs afterwards", w.app())
			w.rotated()
			w.advance(tokenTTL)
			w.revokedIn(what+" is back, a rotation later", stolen.kid)
		}
	}
}

// hmacEntry is what gates have of this world's HS* keys.
func (w *world) hmacEntry() []byte {
	w.t.Helper()
	s := &corev1.Secret{}
	if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: stack.Namespace, Name: keyset.HMACSecretName}, s); err != nil {
		w.t.Fatal(err)
	}
	return s.Data[keyset.HMACEntryName(w.ns, w.name)]
}

func (w *world) setHMACEntry(entry []byte) {
	w.t.Helper()
	s := &corev1.Secret{}
	if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: stack.Namespace, Name: keyset.HMACSecretName}, s); err != nil {
		w.t.Fatal(err)
	}
	s.Data[keyset.HMACEntryName(w.ns, w.name)] = entry
	if err := w.api.Update(w.ctx, s); err != nil {
		w.t.Fatal(err)
	}
}

// Row 22, from GitOps: the real kubectl applies a manifest that names the
// revoked key, and then one of before.
func revokedBackFromGitOps(t *testing.T) {
	for _, tc := range []struct {
		what   string
		revoke func(*v1alpha1.SigningKeySpec, string, time.Time)
		how    []string
	}{
		{"revokedKeys are applied away", func(s *v1alpha1.SigningKeySpec, id string, _ time.Time) { revoking("Compromised", id)(s) }, []string{"apply"}},
		{"revokedKeys are replaced away", func(s *v1alpha1.SigningKeySpec, id string, _ time.Time) { revoking("Compromised", id)(s) }, []string{"replace"}},
		{"revokeCreatedBefore is applied away", func(s *v1alpha1.SigningKeySpec, _ string, at time.Time) {
			s.RevokeCreatedBefore = &v1alpha1.RevokeCreatedBefore{Time: metav1.NewTime(at)}
		}, []string{"apply"}},
	} {
		w := newWorld(t)
		manifest := func(s v1alpha1.SigningKeySpec) string {
			t.Helper()
			raw, err := json.Marshal(map[string]any{
				"apiVersion": v1alpha1.GroupVersion.String(), "kind": "SigningKey",
				"metadata": map[string]any{"namespace": w.ns, "name": w.name}, "spec": s,
			})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "shop.json")
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		kubectl := func(args ...string) {
			t.Helper()
			if _, stderr, err := theStack(t).Plane.Kubectl(w.ctx, args...); err != nil {
				t.Fatal(err, stderr)
			}
			w.wake = w.now
		}
		original := spec()
		kubectl("apply", "-f", manifest(original))
		w.until("the first key and its standby", func() bool { return w.active() != "" && w.ring().Standby() != nil })
		w.advance(time.Minute)
		stolen := w.app()
		p := w.promises()
		revoked := spec()
		tc.revoke(&revoked, stolen.kid, w.now)
		kubectl("apply", "-f", manifest(revoked))
		p.revoked(tc.what, stolen)
		p.check("before the controller has come to it")
		w.settle()
		w.until("a key that signs", func() bool { return w.active() != "" })
		p.keep("the key that signs", w.app())

		// The gate that runs all along remembers, one that starts anew reads it
		// from status.
		kubectl(append(tc.how, "-f", manifest(original))...)
		if s := w.sk().Spec; len(s.RevokedKeys) > 0 || s.RevokeCreatedBefore != nil {
			t.Fatalf("%s: it is still in spec", tc.what)
		}
		p.check(tc.what)
		w.settle()
		w.revokedIn(tc.what, stolen.kid)
		w.rotated()
		p.keep("the next key", w.app())
		w.advance(tokenTTL)
		w.revokedIn(tc.what+", a rotation later", stolen.kid)
	}
}

// Row 22, by deleting and creating the SigningKey with Retain; also when its
// keyring comes back from a backup meanwhile, and spec still names the key.
func revokedBackCreatedAgain(t *testing.T) {
	for _, tc := range []struct {
		what            string
		listed, restore bool
	}{
		{"created again without revokedKeys", false, false},
		{"created again with revokedKeys", true, false},
		{"created again with revokedKeys and a keyring of before", true, true},
	} {
		w := newWorld(t)
		w.ready(spec())
		w.advance(time.Minute)
		stolen, backup := w.app(), w.secret("shop-keyring")
		p := w.promises()
		w.edit(revoking("Compromised", stolen.kid))
		p.revoked(tc.what, stolen)
		w.settle()
		w.until("the standby to sign", func() bool { return w.active() != stolen.kid && w.active() != "" })
		app := w.app()

		sk := w.sk()
		w.delete(sk)
		await(t, 10*time.Second, "the SigningKey to be gone", func() bool { return notThere(w, sk) })
		if _, err := w.pass(w.ctl); err != nil {
			t.Fatal(err)
		}
		if tc.restore {
			w.restore(backup)
		}
		w.now = w.now.Add(3 * time.Second)
		again := spec()
		if tc.listed {
			revoking("Compromised", stolen.kid)(&again)
		}
		w.create(again)
		p.check(tc.what + ": before the controller has come to it")
		w.settle()
		w.until("a key that signs", func() bool { return w.active() != "" })
		w.revokedIn(tc.what, stolen.kid)
		if w.active() != app.kid {
			t.Errorf("%s: %s is active, want %s as before", tc.what, w.active(), app.kid)
		}
		p.keep("the key that signs", app)
		p.check(tc.what)
		w.rotated()
		w.advance(tokenTTL)
		w.revokedIn(tc.what+", a rotation later", stolen.kid)
	}
}
