package controllers

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// A SigningKey whose ConfigMap belongs to someone else never gets its first
// key. It must wait quietly: a status that changes with the clock would be
// written again and again.
func TestAFirstKeyThatCannotBeShownWaitsQuietly(t *testing.T) {
	sk := &v1alpha1.SigningKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "uid-1", Generation: 1},
		Spec: v1alpha1.SigningKeySpec{
			Algorithm: "ES256", MaxTokenTTL: v1alpha1.Duration{Duration: time.Hour},
			JWKS: &v1alpha1.JWKS{ConfigMapName: "taken"},
		},
	}
	taken := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "taken"}, Data: map[string]string{"theirs": "kept"}}
	writes := 0
	c := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(sk, taken).WithStatusSubresource(sk).WithInterceptorFuncs(interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			writes++
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	}).Build()
	now := noon
	r := &SigningKeyReconciler{
		Live: c, Namespace: "keywright-system", MinInterval: time.Second,
		Now:    func() time.Time { now = now.Add(3 * time.Millisecond); return now },
		Clock:  func() lifecycle.ClockBounds { return lifecycle.ClockBounds{} },
		Events: events.NewFakeRecorder(100),
	}
	request := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "shop"}}
	first, err := r.Reconcile(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if first.RequeueAfter < lookAgain {
		t.Errorf("comes back after %s with nothing to do, want %s", first.RequeueAfter, lookAgain)
	}
	writes = 0
	for range 3 {
		now = now.Add(lookAgain)
		if _, err := r.Reconcile(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 0 {
		t.Errorf("%d writes of status while nothing changes, want none", writes)
	}
	got := &corev1.ConfigMap{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(taken), got); err != nil || got.Data["theirs"] != "kept" || len(got.Data) != 1 {
		t.Errorf("the ConfigMap of someone else is changed: %v, %v", got.Data, err)
	}
}

func TestASigningKeyThatFailsIsLeftAloneLongerEachTime(t *testing.T) {
	b := newBackoff()
	one := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "one"}}
	least := 200 * time.Millisecond
	for range 20 {
		if got := b.When(one); got < least || got > least+least/2 {
			t.Fatalf("waits %s, want %s to half as much again", got, least)
		}
		least = min(2*least, time.Minute)
	}
	b.Forget(one)
	if got := b.When(one); got > time.Second {
		t.Errorf("waits %s after a success", got)
	}
}

func TestOptionsValidate(t *testing.T) {
	tests := map[string]struct {
		options Options
		want    string
	}{
		"all is there":          {Options{Namespace: "keywright-system", MinInterval: time.Second}, ""},
		"no namespace":          {Options{MinInterval: time.Second}, "--namespace: is required (or the environment variable POD_NAMESPACE)"},
		"a gate without a port": {Options{Namespace: "keywright-system", MinInterval: time.Second, Gates: []string{"10.0.0.1"}}, `--gates: must be host:port, is "10.0.0.1"`},
		"an interval too short": {Options{Namespace: "keywright-system", MinInterval: time.Millisecond}, "--min-interval: must be at least 1s, is 1ms"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := tc.options.Validate(); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("Validate = %q, want %q", got, tc.want)
			}
		})
	}
}
