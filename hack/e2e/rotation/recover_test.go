package rotation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
)

// signedTo are the key IDs that the controller gives signers from now on.
func (w *world) signedTo() map[string]bool {
	given := map[string]bool{}
	w.before = func(kind string, obj client.Object) error {
		if kind == "signer" {
			given[string(obj.(*corev1.Secret).Data[controllers.KeyIDEntry])] = true
		}
		return nil
	}
	return given
}

// period is the time from one rotation to the next, with jitter, as status
// says it before any key has to retire.
func (w *world) period() time.Duration {
	w.t.Helper()
	return w.nextActivation().Sub(w.ring().Active().ActivatedAt)
}

// due is when the active key's successor takes over.
func (w *world) due(period time.Duration) time.Time {
	w.t.Helper()
	return w.ring().Active().ActivatedAt.Add(period)
}

// ofAlgorithm is spec for an algorithm.
func ofAlgorithm(algorithm v1alpha1.Algorithm) v1alpha1.SigningKeySpec {
	return spec(func(s *v1alpha1.SigningKeySpec) {
		if s.Algorithm = algorithm; algorithm == "HS256" {
			hs256(s)
		}
	})
}

// Row 23: rebuilt from status, and from the signer Secret if its public half is
// status's active key; tokens go on passing.
func keyringDeleted(t *testing.T) {
	for _, tc := range []struct {
		algorithm v1alpha1.Algorithm
		with      string // what is deleted as well, or forged
		active    bool   // the active key goes on signing
		standby   bool   // the standby is the same
	}{
		{"ES256", "", true, false},
		{"ES256", "the signer Secret", false, false},
		{"ES256", "another key in the signer Secret", false, false},
		{"ES256", "the JWKS ConfigMap", true, false},
		{"HS256", "", true, true},
		{"HS256", "the signer Secret", true, true},
	} {
		what := fmt.Sprintf("%s: keyring deleted", tc.algorithm)
		if tc.with != "" {
			what += ", and " + tc.with
		}
		w := newWorld(t)
		recorder := events.NewFakeRecorder(1000)
		w.ctl.Events = recorder
		w.ready(ofAlgorithm(tc.algorithm))
		w.advance(time.Minute)
		period := w.period()
		p := w.promises()
		oldest := w.app()
		w.rotated()
		w.advance(afterDeactivation + time.Second)
		p.retired("the key that had retired", oldest)
		previous := w.app()
		p.keep("a token of the previous key", previous)
		w.rotated()
		p.keep("the last token of the previous key", previous)
		w.advance(5 * time.Second)
		app := w.app()
		p.keep("a token of the active key", app)
		before, status, due := w.ring(), w.sk().Status, w.due(period)

		w.delete(w.secret("shop-keyring"))
		switch tc.with {
		case "the signer Secret":
			w.delete(w.signer())
		case "the JWKS ConfigMap":
			w.delete(w.jwks())
		case "another key in the signer Secret":
			forged := w.signer()
			other := newWorld(t)
			other.ready(spec())
			forged.Data = other.signer().Data
			if err := w.api.Update(w.ctx, forged); err != nil {
				t.Fatal(err)
			}
		}
		p.running.load()
		p.check(what + ": before the controller has come to it")
		w.now = w.now.Add(2 * time.Second)
		drained(recorder.Events)
		given := w.signedTo()
		w.settle()
		demand(t, what, drained(recorder.Events), "KeyringRecovered Secret shop-keyring was lost")

		// What status said of a key stays so, and nothing comes nearer.
		ring := w.ring()
		if ring.Sequence <= before.Sequence || w.sk().Status.Sequence != ring.Sequence {
			t.Errorf("%s: the sequence went from %d to %d", what, before.Sequence, ring.Sequence)
		}
		for _, k := range status.Keys {
			if k.KeyID == before.Standby().ID && !tc.standby {
				// Nobody has its private half any more. Should somebody have signed
				// with it before status could say so, the tokens pass.
				if lost := ring.Find(k.KeyID); lost == nil || lost.Private != nil || ring.State(lost, w.now) != v1alpha1.KeyVerifying {
					t.Errorf("%s: the standby that is lost is %+v, want it to verify for a while", what, lost)
				}
				continue
			}
			now := w.key(k.KeyID)
			if now.Sequence != k.Sequence || !now.CreatedAt.Equal(&k.CreatedAt) || now.MaxTokenTTL != k.MaxTokenTTL || now.Issuer != k.Issuer || !equality.Semantic.DeepEqual(now.PublicKey, k.PublicKey) {
				t.Errorf("%s: key %s was %+v and is %+v", what, k.KeyID, k, now)
			}
			if !noNearer(k, now) {
				t.Errorf("%s: the end of key %s came nearer: from %s to %s", what, k.KeyID, k.VerifyUntil, now.VerifyUntil)
			}
		}
		w.until("a key that signs", func() bool { return w.condition(v1alpha1.ConditionReady) == "True KeyActive" })
		active := w.ring().Active()
		if got := active.ID == app.kid; got != tc.active {
			t.Errorf("%s: the active key signs on: %t, want %t", what, got, tc.active)
		}
		for id := range given {
			if id != active.ID {
				t.Errorf("%s: signers were given %s on the way", what, id)
			}
		}
		p.keep("the key that signs now", w.app())
		if tc.active && !bytes.Equal(w.app().jwk(t), app.jwk(t)) {
			t.Errorf("%s: the private half is another", what)
		}

		// The rotation comes when it was due, of a key that all have known for
		// V + e, and one alone.
		w.rotated()
		next := w.ring().Active()
		if tc.active && !w.now.Equal(due) {
			t.Errorf("%s: the next rotation came at %s, want %s as before", what, w.now.Sub(epoch), due.Sub(epoch))
		}
		if next.ActivatedAt.Sub(next.PublishedAt) < verifierLag+clockSkew {
			t.Errorf("%s: the next key was published at %s and signs at %s", what, next.PublishedAt, next.ActivatedAt)
		}
		p.keep("the next key", w.app())
		w.advance(afterDeactivation + time.Second)
		p.retired("the active key of before, which has retired", app)
		p.check(what + ": after the next rotation")
		end := w.ring()
		if lost := end.Find(before.Standby().ID); !tc.standby && (lost == nil || end.State(lost, w.now) != v1alpha1.KeyRetired || given[lost.ID]) {
			t.Errorf("%s: the standby that was lost is %+v, want it to have retired and never to have signed", what, lost)
		}
		made := 0
		for _, k := range end.Keys {
			if before.Find(k.ID) == nil {
				made++
			}
		}
		if want := map[bool]int{true: 1, false: 2}[tc.active]; made > want+1 { // and the next standby
			t.Errorf("%s: %d keys were made, want at most %d", what, made, want+1)
		}
	}
}

// noNearer says that a key does not end before it had to. One without an end is
// still being taken away from signers: it ends later.
func noNearer(was, is v1alpha1.KeyStatus) bool {
	return was.VerifyUntil == nil || (is.VerifyUntil == nil && is.State == v1alpha1.KeyVerifying) ||
		(is.VerifyUntil != nil && !is.VerifyUntil.Before(was.VerifyUntil))
}

// jwk is the signer's private key as a text to compare.
func (s signer) jwk(t *testing.T) []byte {
	t.Helper()
	raw, err := json.Marshal(s.priv)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Row 23: keyringDeletedUnderProcesses deletes with the real kubectl under a running
// controller, which nobody tells.
func keyringDeletedUnderProcesses(t *testing.T) {
	for _, tc := range []struct {
		algorithm v1alpha1.Algorithm
		secrets   []string
	}{
		{"ES256", []string{"shop-keyring"}},
		{"ES256", []string{"shop-keyring", "shop-signing"}},
		{"HS256", []string{"shop-keyring", "shop-signing"}},
	} {
		what := fmt.Sprintf("%s: kubectl delete secret %s", tc.algorithm, strings.Join(tc.secrets, " "))
		l := newLive(t, lasting(func(s *v1alpha1.SigningKeySpec) {
			if s.Algorithm = tc.algorithm; tc.algorithm == "HS256" {
				hs256(s)
			}
		}))
		gates := l.gates(1)
		https := httpsClient(t, gates...)
		l.controller = l.start("controller")
		l.standsBy()
		previous := l.turn("one")
		l.standsBy(previous.kid)
		tokens := map[string]string{
			what + ": a token of the previous key": previous.token(t, time.Now()),
			what + ": a token of the active key":   l.app().token(t, time.Now()),
		}
		for what, raw := range tokens {
			l.passes(https, gates, what, raw)
		}
		stop := l.keepAsking(https, gates, tokens)
		sequence, uid := l.ring().Sequence, l.secret("shop-keyring").UID
		if _, stderr, err := theStack(t).Plane.Kubectl(l.ctx, append([]string{"delete", "secret", "-n", l.ns}, tc.secrets...)...); err != nil {
			t.Fatal(err, stderr)
		}
		asked := time.Now()
		await(t, time.Minute, "the keyring and a signer", func() bool {
			keyring, signer := &corev1.Secret{}, &corev1.Secret{}
			return l.api.Get(l.ctx, client.ObjectKey{Namespace: l.ns, Name: "shop-keyring"}, keyring) == nil && keyring.UID != uid &&
				l.api.Get(l.ctx, client.ObjectKey{Namespace: l.ns, Name: "shop-signing"}, signer) == nil &&
				string(signer.Data[controllers.KeyIDEntry]) == l.active()
		})
		t.Logf("%s: signers and keyring whole again %s later", what, time.Since(asked).Round(10*time.Millisecond))
		if got := l.ring().Sequence; got <= sequence {
			t.Errorf("%s: the sequence went from %d to %d", what, sequence, got)
		}
		l.passes(https, gates, "a token of the key that signs", l.app().token(t, time.Now()))
		l.standsBy(previous.kid)
		await(t, 10*time.Second, "more requests", func() bool { return time.Since(asked) > time.Second })
		t.Logf("%s: %d requests meanwhile", what, stop())
		l.gate.Kill()
		l.controller.Kill()
	}
}

// Row 25: never overwritten; Degraded; the gate goes on, also past the rotation
// that was due.
func keyringUnreadable(t *testing.T) {
	for _, tc := range []struct {
		what, reason, message string
		spoil                 func(s *corev1.Secret)
	}{
		{"no JSON", "KeyringUnreadable", "cannot be read", func(s *corev1.Secret) { s.Data[controllers.KeyringEntry] = []byte("{\"version\":1,") }},
		{"empty", "KeyringUnreadable", "cannot be read", func(s *corev1.Secret) { s.Data[controllers.KeyringEntry] = nil }},
		{"without its entry", "KeyringUnreadable", "cannot be read", func(s *corev1.Secret) { s.Data = map[string][]byte{"other": []byte("x")} }},
		{"without a version", "KeyringUnreadable", "cannot be read", func(s *corev1.Secret) { s.Data[controllers.KeyringEntry] = []byte(`{}`) }},
		{"with one key twice", "KeyringUnreadable", "cannot be read", func(s *corev1.Secret) {
			ring := ringOf(t, s)
			ring.Keys = append(ring.Keys, ring.Keys[0])
			s.Data[controllers.KeyringEntry], _ = ring.Encode() // it was decoded
		}},
		{"from a newer version", "KeyringTooNew", "written by a newer version", func(s *corev1.Secret) {
			s.Data[controllers.KeyringEntry] = bytes.Replace(s.Data[controllers.KeyringEntry], []byte(`"version":1`), []byte(`"version":2`), 1)
		}},
		{"from a newer version that looks otherwise", "KeyringTooNew", "written by a newer version", func(s *corev1.Secret) {
			s.Data[controllers.KeyringEntry] = []byte(`{"version":7,"keys":{"a":1}}`)
		}},
		{"that is somebody else's", "KeyringNotOurs", "was not made for this SigningKey", func(s *corev1.Secret) { s.Annotations[v1alpha1.AnnotationSigningKey] = "other" }},
	} {
		w := newWorld(t)
		w.ready(spec())
		period := w.period()
		w.rotated() // so that an old key verifies meanwhile
		p := w.promises()
		p.keep("a token of the active key", w.app())
		g := w.gate()
		good := w.secret("shop-keyring")
		spoilt := good.DeepCopy()
		tc.spoil(spoilt)
		if err := w.api.Update(w.ctx, spoilt); err != nil {
			t.Fatal(err)
		}
		signer, jwks, status := w.signer(), w.jwks(), w.sk().Status
		due := ringOf(t, good).Active().ActivatedAt.Add(period)

		for _, at := range []time.Time{w.now, due.Add(time.Second)} {
			w.now = at
			if _, err := w.pass(w.ctl); err == nil {
				t.Errorf("a keyring %s: nobody will look again", tc.what)
			}
			p.check("a keyring " + tc.what)
			g.load()
			g.accepts(w.app().token(t, w.now), w.now, "a keyring "+tc.what+": a token of the active key, signed now")
			c := meta.FindStatusCondition(w.sk().Status.Conditions, v1alpha1.ConditionDegraded)
			if c == nil || c.Status != metav1.ConditionTrue || c.Reason != tc.reason || !strings.Contains(c.Message, "Secret shop-keyring") || !strings.Contains(c.Message, tc.message) {
				t.Errorf("a keyring %s: Degraded is %+v, want %s and a message with %q", tc.what, c, tc.reason, tc.message)
			}
			if got := w.condition(v1alpha1.ConditionReady); got != "True KeyActive" {
				t.Errorf("a keyring %s: Ready is %s, and signers have a key", tc.what, got)
			}
			if got := w.condition(v1alpha1.ConditionRotated); got != "False "+tc.reason {
				t.Errorf("a keyring %s: Rotated is %s, want False %s", tc.what, got, tc.reason)
			}
			if got := w.secret("shop-keyring"); got.ResourceVersion != spoilt.ResourceVersion {
				t.Errorf("a keyring %s was overwritten", tc.what)
			}
			if now := w.sk().Status; w.signer().ResourceVersion != signer.ResourceVersion || w.jwks().ResourceVersion != jwks.ResourceVersion || !equality.Semantic.DeepEqual(now.Keys, status.Keys) {
				t.Errorf("a keyring %s: outputs or keys in status changed", tc.what)
			}
		}

		w.restore(good)
		w.settle()
		if got := w.condition(v1alpha1.ConditionDegraded); got != "False AsWanted" {
			t.Errorf("a keyring %s, put right: Degraded is %s, want False AsWanted", tc.what, got)
		}
		if got, want := w.active(), ringOf(t, good).Standby().ID; got != want {
			t.Errorf("a keyring %s, put right: %s is active, want the overdue rotation to %s", tc.what, got, want)
		}
		if got := len(w.ring().Keys); got != len(ringOf(t, good).Keys)+1 {
			t.Errorf("a keyring %s, put right: there was not one rotation", tc.what)
		}
	}
}

// Row 26: seen by sequence; the union verifies; no deactivated key signs again;
// a key that status does not know is not taken up.
func keyringRolledBack(t *testing.T) {
	for _, algorithm := range []v1alpha1.Algorithm{"ES256", "HS256"} {
		for _, tc := range []struct {
			rotations int  // since the copy was made
			outputs   bool // the signer Secret is rolled back as well
			active    bool // the active key goes on signing
		}{
			{0, false, true}, // a copy from before the standby
			{1, false, true},
			{2, false, true},
			{3, false, true},
			{1, true, true},  // the copy has the key that was its standby
			{2, true, false}, // nobody has the private half any more; with HS* gates' Secret does
		} {
			what := fmt.Sprintf("%s: a copy from %d rotations ago", algorithm, tc.rotations)
			if tc.outputs {
				what += " with the signer Secret"
			}
			w := newWorld(t)
			recorder := events.NewFakeRecorder(1000)
			w.ctl.Events = recorder
			w.create(ofAlgorithm(algorithm))
			w.until("the first key", func() bool { return w.active() != "" })
			if tc.rotations > 0 {
				w.until("its standby", func() bool { return w.ring().Standby() != nil && !w.ring().Standby().PublishedAt.IsZero() })
				w.advance(time.Minute)
			} else {
				// The keyring has one key and no standby only until the first
				// one signs: this is the copy of then.
				w.until("its standby", func() bool { return w.ring().Standby() != nil })
			}
			backup := []*corev1.Secret{w.secret("shop-keyring")}
			if tc.rotations == 0 {
				ring := w.ring()
				ring.Keys, ring.Sequence = ring.Keys[:1], ring.Keys[0].Sequence
				raw, err := ring.Encode()
				if err != nil {
					t.Fatal(err)
				}
				backup[0].Data[controllers.KeyringEntry] = raw
				w.until("a published standby", func() bool { return !w.ring().Standby().PublishedAt.IsZero() })
				w.advance(time.Minute)
			}
			if tc.outputs {
				backup = append(backup, w.signer())
			}
			period := w.period()
			p := w.promises()
			for range tc.rotations {
				old := w.app()
				w.rotated()
				p.keep("the last token of key "+old.kid, old)
			}
			p.keep("a token of the active key", w.app())
			w.advance(15 * time.Second)
			before, status, app, due := w.ring(), w.sk().Status, w.app(), w.due(period)
			deactivated := map[string]bool{}
			for _, k := range before.Keys {
				if !k.DeactivatedAt.IsZero() {
					deactivated[k.ID] = true
				}
			}

			for _, secret := range backup {
				w.restore(secret)
			}
			p.check(what + ": before the controller has come to it")
			w.now = w.now.Add(2 * time.Second)
			drained(recorder.Events)
			given := w.signedTo()
			w.settle()
			demand(t, what, drained(recorder.Events), "replaced by an older copy")
			ring := w.ring()
			if ring.Sequence <= before.Sequence {
				t.Errorf("%s: the sequence went from %d to %d", what, before.Sequence, ring.Sequence)
			}
			for _, k := range status.Keys {
				if k.State == v1alpha1.KeyPublished {
					continue
				}
				if now := w.key(k.KeyID); !noNearer(k, now) {
					t.Errorf("%s: the end of key %s came nearer: from %s to %s", what, k.KeyID, k.VerifyUntil, now.VerifyUntil)
				}
			}
			p.check(what)
			w.until("a key that signs", func() bool { return w.condition(v1alpha1.ConditionReady) == "True KeyActive" })
			wantActive := tc.active || algorithm == "HS256"
			if got := w.active() == app.kid; got != wantActive || w.app().kid != w.active() {
				t.Errorf("%s: the active key signs on: %t, want %t (the signer Secret holds %s, active is %s)", what, got, wantActive, w.app().kid, w.active())
			}
			p.keep("the key that signs now", w.app())
			w.rotated()
			if next := w.ring().Active(); wantActive && !w.now.Equal(due) {
				t.Errorf("%s: the next rotation came at %s, want %s as before", what, w.now.Sub(epoch), due.Sub(epoch))
			} else if next.ActivatedAt.Sub(next.PublishedAt) < verifierLag+clockSkew {
				t.Errorf("%s: the next key was published at %s and signs at %s", what, next.PublishedAt, next.ActivatedAt)
			}
			p.keep("the next key", w.app())
			w.advance(afterDeactivation + time.Second)
			for id := range given {
				if deactivated[id] {
					t.Errorf("%s: the deactivated key %s was given to signers again", what, id)
				}
			}
			for id := range deactivated {
				if k := w.ring().Find(id); k != nil && w.ring().State(k, w.now) != v1alpha1.KeyRetired {
					t.Errorf("%s: key %s has not retired", what, id)
				}
			}
		}
	}

	// A key that status does not know: the standby of another algorithm, which
	// was dropped before it signed.
	w := newWorld(t)
	w.ready(spec())
	w.advance(time.Minute)
	backup, dropped := w.secret("shop-keyring"), w.standbyOf()
	w.edit(func(s *v1alpha1.SigningKeySpec) { s.Algorithm = "EdDSA" })
	w.settle()
	w.advance(time.Minute)
	p := w.promises()
	p.keep("a token of the active key", w.app())
	p.revoked("the standby that was dropped", dropped)
	w.restore(backup)
	p.check("a copy with a dropped standby")
	w.settle()
	if k := w.ring().Find(dropped.kid); k != nil {
		t.Errorf("the dropped standby is in the keyring again, as %s", w.ring().State(k, w.now))
	}
	w.rotated()
	if w.app().alg != "EdDSA" {
		t.Errorf("after a copy with a dropped standby signers are given a key for %s", w.app().alg)
	}
	w.advance(afterDeactivation + time.Second)
}

// Row 27: state rebuilt from the keyring.
func restoredWithoutStatus(t *testing.T) {
	for _, algorithm := range []v1alpha1.Algorithm{"ES256", "HS256"} {
		w := newWorld(t)
		s := ofAlgorithm(algorithm)
		w.ready(s)
		w.advance(time.Minute)
		oldest := w.app()
		w.rotated()
		w.advance(afterDeactivation + time.Second)
		revoked := w.standbyOf()
		w.edit(revoking("Compromised", revoked.kid))
		w.settle()
		w.until("another standby", func() bool { k := w.ring().Standby(); return k != nil && !k.PublishedAt.IsZero() })
		w.edit(func(s *v1alpha1.SigningKeySpec) { s.RevokedKeys = nil })
		w.settle()
		previous := w.app()
		w.rotated()
		last := previous.token(t, w.now)
		w.advance(10 * time.Second)
		app, ring, status := w.app(), w.ring(), w.sk().Status
		sequence := ring.Sequence
		keyring := w.secret("shop-keyring")

		same := func(what string, w *world) {
			t.Helper()
			p := w.promises()
			p.kept = append(p.kept, promised{what: "the last token of the previous key", raw: last, end: w.now.Add(tokenTTL - 10*time.Second).Truncate(time.Second)})
			p.keep("a token of the active key", app)
			p.retired("the key that had retired", oldest)
			p.revoked("the revoked key", revoked)
			p.check(what)
			if got := w.ring(); !slices.Equal(keyIDs(got.Keys), keyIDs(ring.Keys)) || w.active() != app.kid || w.app().kid != app.kid {
				t.Errorf("%s: the keys are %v, want %v", what, keyIDs(got.Keys), keyIDs(ring.Keys))
			}
			if got := w.sk().Status.Sequence; got < sequence {
				t.Errorf("%s: the sequence fell from %d to %d", what, sequence, got)
			}
			for _, k := range status.Keys {
				now := w.key(k.KeyID)
				if k.State != now.State || !noNearer(k, now) || !now.CreatedAt.Equal(&k.CreatedAt) {
					t.Errorf("%s: key %s was %+v and is %+v", what, k.KeyID, k, now)
				}
			}
			standby := w.ring().Standby()
			w.rotated()
			next := w.ring().Active()
			if next.ID != standby.ID || next.ActivatedAt.Sub(next.PublishedAt) < verifierLag+clockSkew {
				t.Errorf("%s: key %s was published at %s and signs at %s, want the standby %s, V + e after it was published", what, next.ID, next.PublishedAt, next.ActivatedAt, standby.ID)
			}
			p.keep("the next key", w.app())
			w.advance(afterDeactivation + time.Second)
		}

		// Into another namespace, as it would be into another cluster: nothing
		// but the keyring comes along.
		there := newWorld(t)
		there.now = w.now
		restored := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: there.ns, Name: keyring.Name, Labels: keyring.Labels, Annotations: keyring.Annotations},
			Type:       keyring.Type, Data: keyring.Data,
		}
		if err := there.api.Create(there.ctx, restored); err != nil {
			t.Fatal(err)
		}
		there.create(s)
		at := there.now
		there.settle()
		if standby := there.ring().Standby(); !standby.PublishedAt.Equal(at) {
			t.Errorf("%s, in another cluster: the standby counts as known since %s, want %s: nobody there has seen it before", algorithm, standby.PublishedAt, at)
		}
		same(fmt.Sprintf("%s, in another cluster", algorithm), there)

		// In place: the SigningKey is lost with its status, the rest is there.
		sk := w.sk()
		w.delete(sk)
		await(t, 10*time.Second, "the SigningKey to be gone", func() bool { return notThere(w, sk) })
		w.create(s)
		w.settle()
		same(fmt.Sprintf("%s, created again", algorithm), w)
	}
}

// Row 27, the other way round: the new SigningKey has made a key of its own
// when the keyring comes. Tokens of both pass, and signers keep what they have.
func restoredLate(t *testing.T) {
	for _, algorithm := range []v1alpha1.Algorithm{"ES256", "HS256"} {
		w := newWorld(t)
		s := ofAlgorithm(algorithm)
		w.ready(s)
		w.advance(time.Minute)
		w.rotated()
		w.advance(10 * time.Second)
		app, sequence, keyring := w.app(), w.ring().Sequence, w.secret("shop-keyring")

		there := newWorld(t)
		there.now = w.now
		there.ready(s)
		there.advance(time.Minute)
		fresh := there.app()
		if got := there.sk().Status.Sequence; got >= sequence {
			t.Fatalf("%s: the new SigningKey is at sequence %d already, the backup at %d", algorithm, got, sequence)
		}
		recorder := events.NewFakeRecorder(1000)
		there.ctl.Events = recorder
		given := there.signedTo()
		restored := keyring.DeepCopy()
		restored.Namespace = there.ns
		there.restore(restored)
		there.settle()
		demand(t, string(algorithm), drained(recorder.Events), "KeyringRecovered Secret shop-keyring was lost")

		p := there.promises()
		p.keep("a token of the restored active key", app)
		p.keep("a token of the key made meanwhile", fresh)
		p.check(fmt.Sprintf("%s, joined", algorithm))
		if got := there.sk().Status; got.ActiveKeyID != fresh.kid || got.Sequence <= sequence {
			t.Errorf("%s: key %s signs at sequence %d, want %s above %d", algorithm, got.ActiveKeyID, got.Sequence, fresh.kid, sequence)
		}
		for id := range given {
			if id != fresh.kid {
				t.Errorf("%s: signers were given %s on the way", algorithm, id)
			}
		}
		there.rotated()
		next := there.ring().Active()
		if next.ActivatedAt.Sub(next.PublishedAt) < verifierLag+clockSkew {
			t.Errorf("%s: the next key was published at %s and signs at %s", algorithm, next.PublishedAt, next.ActivatedAt)
		}
		p.keep("the next key", there.app())
		there.advance(afterDeactivation + time.Second)
		p.retired("the restored active key, once its tokens have expired", app)
		p.check(fmt.Sprintf("%s, after the next rotation", algorithm))
	}
}
