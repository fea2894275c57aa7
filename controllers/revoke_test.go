package controllers

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// edit changes the SigningKey's spec.
func (w *shopWorld) edit(t *testing.T, change func(*v1alpha1.SigningKeySpec)) {
	t.Helper()
	sk := &v1alpha1.SigningKey{}
	if err := w.c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shop"}, sk); err != nil {
		t.Fatal(err)
	}
	change(&sk.Spec)
	if err := w.c.Update(t.Context(), sk); err != nil {
		t.Fatal(err)
	}
}

func TestARevokedKeyLeavesEveryOutputInOneReconcile(t *testing.T) {
	w := newShopWorld(t)
	recorder := events.NewFakeRecorder(100)
	w.r.Events = recorder
	w.reconcile(t, w.now.Add(time.Hour))
	before := w.status(t)
	w.edit(t, func(s *v1alpha1.SigningKeySpec) {
		s.RevokedKeys = []v1alpha1.RevokedKey{{KeyID: before.ActiveKeyID, Reason: "it was in a log"}}
	})
	at := w.now
	w.reconcile(t, at)

	after := w.status(t)
	if after.ActiveKeyID != before.NextKeyID {
		t.Errorf("active is %s, want the key that stood by, %s", after.ActiveKeyID, before.NextKeyID)
	}
	last := after.Keys[len(after.Keys)-1]
	if last.KeyID != before.ActiveKeyID || last.State != v1alpha1.KeyRevoked || last.PublicKey != nil || last.RevokedAt == nil {
		t.Errorf("status says of the revoked key %+v", last)
	}
	jwks := &corev1.ConfigMap{}
	signer := &corev1.Secret{}
	for name, obj := range map[string]client.Object{"shop-signing": signer, "shop-jwks": jwks} {
		if err := w.c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, obj); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(jwks.Data[JWKSEntry], before.ActiveKeyID) || string(signer.Data[KeyIDEntry]) != before.NextKeyID {
		t.Error("an output still has the revoked key")
	}

	want := "KeyRevoked key " + before.ActiveKeyID + " is revoked (it was in a log): every gate refuses it; verifiers that cache the JWKS may accept its tokens until " +
		lifecycle.Ceil(at.Add(31*time.Minute)).Format(time.RFC3339)
	close(recorder.Events)
	var seen []string
	for e := range recorder.Events {
		seen = append(seen, e)
	}
	if !strings.Contains(strings.Join(seen, "\n"), want) {
		t.Errorf("events:\n%s\nwant %q", strings.Join(seen, "\n"), want)
	}
}

func TestALostKeyringIsRebuiltFromStatusAndTheSignerSecret(t *testing.T) {
	w := newShopWorld(t)
	w.reconcile(t, w.now.Add(30*time.Hour)) // one rotation
	before := w.status(t)
	secret := &corev1.Secret{}
	if err := w.c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shop-keyring"}, secret); err != nil {
		t.Fatal(err)
	}
	if err := w.c.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.reconcile(t, w.now)
	after := w.status(t)
	if after.ActiveKeyID != before.ActiveKeyID || after.Sequence <= before.Sequence {
		t.Errorf("active %s at sequence %d, want %s at more than %d", after.ActiveKeyID, after.Sequence, before.ActiveKeyID, before.Sequence)
	}
	for _, k := range before.Keys {
		if k.KeyID == before.NextKeyID {
			continue // nobody has its private half any more
		}
		found := false
		for _, now := range after.Keys {
			found = found || (now.KeyID == k.KeyID && now.State == k.State && *now.PublicKey == *k.PublicKey)
		}
		if !found {
			t.Errorf("key %s was %s and is not any more", k.KeyID, k.State)
		}
	}
}
