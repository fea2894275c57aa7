package rotation

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/webhook/token"
)

// Row 1: nothing leaked, one key after restart; for the first key and for a
// standby.
func crashBeforeTheWrite(t *testing.T) {
	w := newWorld(t)
	w.create(spec())
	for keys := 1; keys <= 2; keys++ {
		before := w.everything()
		var lost lifecycle.Key
		w.before = func(kind string, obj client.Object) error {
			if kind == "keyring" {
				if ring := ringOf(t, obj); len(ring.Keys) == keys {
					lost = ring.Keys[keys-1]
					panic(crash{})
				}
			}
			return nil
		}
		w.dies()
		if lost.ID == "" || lost.Private == nil {
			t.Fatalf("the crash did not come after a key was generated: %+v", lost)
		}
		after := w.everything()
		for what, document := range after {
			for _, secret := range []string{lost.ID, privateMember(t, lost.Private)} {
				if strings.Contains(document, secret) {
					t.Errorf("key %d, which was never stored, is in %s", keys, what)
				}
			}
		}
		if keys == 1 && !reflect.DeepEqual(before, after) {
			t.Errorf("a crash before the first write left something:\n%v\nbefore:\n%v", after, before)
		}

		w.now = w.now.Add(20 * time.Second)
		w.settle()
		ring := w.ring()
		if len(ring.Keys) != keys || ring.Find(lost.ID) != nil {
			t.Errorf("after the restart there are %d keys, want %d without the one that was lost", len(ring.Keys), keys)
		}
	}
	ring := w.ring()
	if ring.Active() == nil || ring.Active().ID != ring.Keys[0].ID || ring.Standby() == nil || ring.Standby().ID != ring.Keys[1].ID {
		t.Errorf("the keys after both crashes are not one active and one standby: %v", w.sk().Status.Keys)
	}
}

// everything is all of the namespace that a key could be in, as JSON.
func (w *world) everything() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	add := func(what string, obj any) {
		raw, err := json.Marshal(obj)
		if err != nil {
			w.t.Fatal(err)
		}
		out[what] = string(raw)
	}
	secrets, configMaps := &corev1.SecretList{}, &corev1.ConfigMapList{}
	for _, list := range []client.ObjectList{secrets, configMaps} {
		if err := w.api.List(w.ctx, list, client.InNamespace(w.ns)); err != nil {
			w.t.Fatal(err)
		}
	}
	for i := range secrets.Items {
		decoded := map[string]string{}
		for entry, raw := range secrets.Items[i].Data {
			decoded[entry] = string(raw)
		}
		add("Secret "+secrets.Items[i].Name, decoded)
	}
	for i := range configMaps.Items {
		if configMaps.Items[i].Name != "kube-root-ca.crt" { // Kubernetes' own
			add("ConfigMap "+configMaps.Items[i].Name, configMaps.Items[i])
		}
	}
	add("SigningKey", w.sk())
	return out
}

// privateMember is the d of a private JWK.
func privateMember(t *testing.T, jwk []byte) string {
	t.Helper()
	var members struct{ D, K string }
	if err := json.Unmarshal(jwk, &members); err != nil {
		t.Fatal(err)
	}
	if members.D+members.K == "" {
		t.Fatal("a private JWK without d and k")
	}
	return members.D + members.K
}

// Row 2: the full V counts again.
func crashBeforeTheStamp(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	known := w.sk().Status.NextKeyID
	w.before = func(kind string, obj client.Object) error {
		if kind == "keyring" {
			if k := ringOf(t, obj).Standby(); k != nil && k.ID != known && !k.PublishedAt.IsZero() {
				panic(crash{})
			}
		}
		return nil
	}
	w.dies()
	sk := w.sk()
	standby := sk.Status.NextKeyID
	if standby == known || standby == "" || w.key(standby).PublishedAt != nil {
		t.Fatalf("the crash did not come between publishing and the stamp: %+v", sk.Status)
	}
	if !strings.Contains(w.jwks().Data[controllers.JWKSEntry], standby) {
		t.Fatal("the crash came before the JWKS showed the key")
	}

	// The rotation is asked for; what was shown before the crash does not count.
	w.now = w.now.Add(25*time.Second + 300*time.Millisecond)
	recovery := w.now
	w.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "now" })
	w.settle()
	if got := w.ring().Find(standby).PublishedAt; !got.Equal(recovery) {
		t.Errorf("publishedAt is %s, want the recovery, %s", got, recovery)
	}
	w.sameTime("publishedAt in status", w.key(standby).PublishedAt, lifecycle.Ceil(recovery))
	_, active := w.rotated()
	if active != standby {
		t.Errorf("key %s is active, want %s", active, standby)
	}
	if want := lifecycle.Ceil(recovery.Add(verifierLag + clockSkew)); !w.now.Equal(want) {
		t.Errorf("it was activated at %s, want %s: V + e after the recovery", w.now.Sub(epoch), want.Sub(epoch))
	}
}

// Row 3: completes; old verifyUntil counts from the recovery.
func crashInTheSwitch(t *testing.T) {
	for _, tc := range []struct {
		point  string
		crash  func(w *world, hook func(kind string, obj client.Object) error)
		signer bool // the signer Secret already holds the new key
	}{
		{"between the keyring write and the signer Secret", func(w *world, hook func(string, client.Object) error) { w.before = hook }, false},
		{"between the signer Secret and the stamp", func(w *world, hook func(string, client.Object) error) { w.after = hook }, true},
	} {
		w := newWorld(t)
		w.ready(spec())
		old, standby, app := w.active(), w.sk().Status.NextKeyID, w.app()
		tc.crash(w, func(kind string, obj client.Object) error {
			if kind == "signer" && string(obj.(*corev1.Secret).Data[controllers.KeyIDEntry]) == standby {
				panic(crash{})
			}
			return nil
		})
		w.dies()
		ring := w.ring()
		if ring.Active() == nil || ring.Active().ID != standby || !ring.Find(old).DeactivatedAt.IsZero() || ring.Find(old).Private == nil {
			t.Fatalf("%s: the keyring is not in the middle of a switch", tc.point)
		}
		if got := w.app().kid == standby; got != tc.signer {
			t.Fatalf("%s: the signer Secret holds the new key: %t", tc.point, got)
		}
		// Meanwhile gates have what they had, and both keys pass.
		stale := w.gate()
		w.now = w.now.Add(47*time.Second + 250*time.Millisecond)
		stale.accepts(app.token(t, w.now), w.now, tc.point+": the old key's token before the recovery")

		recovery := w.now
		w.settle()
		until := lifecycle.Ceil(recovery.Add(afterDeactivation))
		ring = w.ring()
		if got := ring.Find(old); !got.DeactivatedAt.Equal(recovery) || !got.VerifyUntil.Equal(until) || got.Private != nil {
			t.Errorf("%s: the old key ended at %s until %s (private half kept: %t), want %s until %s", tc.point,
				got.DeactivatedAt, got.VerifyUntil, got.Private != nil, recovery, until)
		}
		w.sameTime(tc.point+": deactivatedAt", w.key(old).DeactivatedAt, lifecycle.Ceil(recovery))
		w.sameTime(tc.point+": verifyUntil", w.key(old).VerifyUntil, until)
		if w.active() != standby || w.app().kid != standby || len(ring.Keys) != 3 {
			t.Errorf("%s: the switch did not complete with one new standby", tc.point)
		}

		g := w.gate()
		last := recovery.Add(signerLag)
		raw := app.token(t, last)
		g.accepts(raw, last, tc.point+": the last token of the old key when signed")
		g.accepts(raw, last.Truncate(time.Second).Add(tokenTTL+leeway-time.Millisecond), tc.point+": the last token of the old key at its end")
		g.accepts(app.token(t, until), until.Add(-time.Millisecond), tc.point+": any token of the old key before verifyUntil")
		g.refuses(app.token(t, until), until, tc.point+": a token of the old key at verifyUntil", token.ErrKeyRetired)
	}
}
