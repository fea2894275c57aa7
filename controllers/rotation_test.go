package controllers

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// shopWorld is a reconciler over a fake API server that counts writes and can
// change them.
type shopWorld struct {
	r      *SigningKeyReconciler
	c      client.Client
	now    time.Time
	writes int
	alter  func(client.Object)
	// fail refuses writes of status.
	fail func(client.Object) error
	// notReady collects each status written after Ready was True that said
	// something else.
	notReady []string
	wasReady bool
}

func newShopWorld(t *testing.T) *shopWorld {
	t.Helper()
	return newShopWorldOf(t, "EdDSA")
}

func newShopWorldOf(t *testing.T, alg v1alpha1.Algorithm) *shopWorld {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &shopWorld{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	d := func(d time.Duration) v1alpha1.Duration { return v1alpha1.Duration{Duration: d} }
	interval := d(24 * time.Hour)
	sk := &v1alpha1.SigningKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "u", Generation: 1},
		Spec: v1alpha1.SigningKeySpec{
			Algorithm: alg, MaxTokenTTL: d(time.Hour),
			Rotation:    v1alpha1.Rotation{Policy: v1alpha1.RotationAutomatic, Interval: &interval},
			Propagation: v1alpha1.Propagation{VerifierLag: d(30 * time.Minute), SignerLag: d(5 * time.Minute), ClockSkew: d(time.Minute), Leeway: d(time.Minute)},
			Signer:      &v1alpha1.Signer{Template: &v1alpha1.MetadataTemplate{Labels: map[string]string{"team": "a"}}},
		},
	}
	if alg != "HS256" {
		sk.Spec.JWKS = &v1alpha1.JWKS{ConfigMapName: "shop-jwks"}
	}
	w.c = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(sk).WithObjects(sk).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			w.writes++
			if w.alter != nil {
				w.alter(obj)
			}
			return c.Create(ctx, obj, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			w.writes++
			if w.alter != nil {
				w.alter(obj)
			}
			return c.Update(ctx, obj, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			w.writes++
			if w.fail != nil {
				if err := w.fail(obj); err != nil {
					return err
				}
			}
			ready := meta.IsStatusConditionTrue(obj.(*v1alpha1.SigningKey).Status.Conditions, v1alpha1.ConditionReady)
			if w.wasReady && !ready {
				w.notReady = append(w.notReady, meta.FindStatusCondition(obj.(*v1alpha1.SigningKey).Status.Conditions, v1alpha1.ConditionReady).Message)
			}
			w.wasReady = w.wasReady || ready
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	}).Build()
	w.r = &SigningKeyReconciler{
		Live: w.c, Namespace: "keywright-system", MinInterval: time.Second,
		Now:    func() time.Time { return w.now },
		Clock:  func() lifecycle.ClockBounds { return lifecycle.ClockBounds{} },
		Events: &events.FakeRecorder{},
	}
	return w
}

// reconcile goes on until a time, reconciling when asked to.
func (w *shopWorld) reconcile(t *testing.T, until time.Time) {
	t.Helper()
	for !w.now.After(until) {
		result, err := w.r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: "shop", Name: "shop"}})
		if err != nil {
			t.Fatal(err)
		}
		if result.RequeueAfter == 0 {
			return
		}
		w.now = w.now.Add(result.RequeueAfter)
	}
}

func (w *shopWorld) status(t *testing.T) v1alpha1.SigningKeyStatus {
	t.Helper()
	sk := &v1alpha1.SigningKey{}
	if err := w.c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shop"}, sk); err != nil {
		t.Fatal(err)
	}
	return sk.Status
}

func TestARotationStaysReadyAndCostsFewWrites(t *testing.T) {
	for _, alg := range []v1alpha1.Algorithm{"EdDSA", "HS256"} {
		t.Run(string(alg), func(t *testing.T) { aRotationCostsFewWrites(t, newShopWorldOf(t, alg)) })
	}
}

func aRotationCostsFewWrites(t *testing.T, w *shopWorld) {
	t.Helper()
	start := w.now
	w.reconcile(t, start.Add(time.Hour))
	first := w.status(t).ActiveKeyID
	w.writes = 0
	w.reconcile(t, start.Add(30*time.Hour)) // one rotation, and the old key's retirement
	after := w.status(t)
	if after.ActiveKeyID == first {
		t.Fatal("nothing was rotated")
	}
	if n := len(after.Keys); n != 3 || after.Keys[2].State != v1alpha1.KeyRetired {
		t.Fatalf("keys = %+v, want the old one retired", after.Keys)
	}
	if w.writes > 8 {
		t.Errorf("the rotation took %d writes, want at most 8", w.writes)
	}
	if len(w.notReady) > 0 {
		t.Errorf("Ready was taken back while signers had a key: %q", w.notReady)
	}
}

func TestAnOutputThatSomethingElseAltersIsNamedAndNotFoughtOver(t *testing.T) {
	w := newShopWorld(t)
	w.alter = func(obj client.Object) {
		if secret, ok := obj.(*corev1.Secret); ok && secret.Name == "shop-signing" {
			secret.Labels["team"] = "platform"
		}
	}
	w.reconcile(t, w.now.Add(time.Minute))
	w.writes = 0
	w.reconcile(t, w.now.Add(time.Minute))
	degraded := meta.FindStatusCondition(w.status(t).Conditions, v1alpha1.ConditionDegraded)
	if degraded == nil || degraded.Status != metav1.ConditionTrue || degraded.Reason != "OutputAltered" {
		t.Errorf("Degraded = %+v, want True with reason OutputAltered", degraded)
	}
	if w.writes > 10 {
		t.Errorf("%d writes in a minute, want one try every %s", w.writes, lookAgain)
	}
}
