package controllers

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
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
	w.loseKeyring(t)
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

// The signer Secret is switched before status tells of it. If the keyring is
// lost just then, tokens of the new key are in circulation already.
func TestAKeyringThatIsLostInMidSwitchKeepsTheKeyThatSigns(t *testing.T) {
	w := newShopWorld(t)
	w.reconcile(t, w.now.Add(time.Hour))
	before := w.status(t)
	w.now = w.now.Add(26 * time.Hour)
	died := errors.New("it died")
	w.fail = func(obj client.Object) error {
		if _, ok := obj.(*v1alpha1.SigningKey); ok {
			return died
		}
		return nil
	}
	request := ctrl.Request{NamespacedName: client.ObjectKey{Namespace: "shop", Name: "shop"}}
	if _, err := w.r.Reconcile(t.Context(), request); !errors.Is(err, died) {
		t.Fatal(err)
	}
	w.fail = nil
	signs := w.signerKeyID(t)
	if signs != before.NextKeyID || w.status(t).ActiveKeyID != before.ActiveKeyID {
		t.Fatalf("signers have %s and status says %s: not in mid-switch", signs, w.status(t).ActiveKeyID)
	}
	w.loseKeyring(t)
	w.reconcile(t, w.now.Add(3*time.Second))
	if after := w.status(t); after.ActiveKeyID != signs || w.signerKeyID(t) != signs {
		t.Errorf("active is %s and signers have %s, want %s still", after.ActiveKeyID, w.signerKeyID(t), signs)
	}
}

func (w *shopWorld) signerKeyID(t *testing.T) string {
	t.Helper()
	secret := &corev1.Secret{}
	if err := w.c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shop-signing"}, secret); err != nil {
		t.Fatal(err)
	}
	return string(secret.Data[KeyIDEntry])
}

func (w *shopWorld) loseKeyring(t *testing.T) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop-keyring"}}
	if err := w.c.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
}
