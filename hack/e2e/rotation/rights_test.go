package rotation

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// as acts as one of the chart's service accounts.
func as(t *testing.T, account string) client.WithWatch {
	t.Helper()
	config, err := theStack(t).Plane.ConfigFor(t.Context(), stack.Namespace, account)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, config)
}

// may asks the API server what it would say.
func may(t *testing.T, c client.Client, verb, group, resource, sub, ns, object string) bool {
	t.Helper()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Group: group, Version: "*", Resource: resource, Subresource: sub, Namespace: ns, Name: object,
		},
	}}
	if err := c.Create(t.Context(), review); err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

var verbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

// TestGateReadsNoPrivateKey holds the rights of the gate's service account, and
// that it works with them: with every algorithm but HS* it has no access to a
// private key.
func TestGateReadsNoPrivateKey(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	w.ready(spec(func(s *v1alpha1.SigningKeySpec) { s.Algorithm, s.JWKS = "HS256", nil }))
	c := as(t, stack.GateAccount)
	reading := []string{"get", "list", "watch"}
	its := []string{keyset.HMACSecretName, keyset.GatesSecretName}
	for _, ns := range []string{stack.Namespace, w.ns, "default", ""} {
		for _, object := range append([]string{"", "shop-signing", "shop-keyring"}, its...) {
			for _, verb := range verbs {
				want := ns == stack.Namespace && slices.Contains(its, object) && slices.Contains(reading, verb)
				if got := may(t, c, verb, "", "secrets", "", ns, object); got != want {
					t.Errorf("%s Secret %q in %q: allowed %t, want %t", verb, object, ns, got, want)
				}
			}
		}
		for _, verb := range verbs {
			if may(t, c, verb, "", "configmaps", "", ns, "") {
				t.Errorf("%s ConfigMaps in %q is allowed", verb, ns)
			}
			read := slices.Contains(reading, verb)
			for _, resource := range []string{"signingkeys", "accesspolicies"} {
				if got := may(t, c, verb, "keywright.dev", resource, "", ns, ""); got != read {
					t.Errorf("%s %s in %q: allowed %t, want %t", verb, resource, ns, got, read)
				}
				if may(t, c, verb, "keywright.dev", resource, "status", ns, "") && !read {
					t.Errorf("%s %s/status in %q is allowed", verb, resource, ns)
				}
			}
		}
	}
	// What it may write of all that there is: questions about itself.
	for _, ns := range []string{stack.Namespace, w.ns} {
		review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: ns}}
		if err := c.Create(t.Context(), review); err != nil {
			t.Fatal(err)
		}
		for _, rule := range review.Status.ResourceRules {
			reads := !slices.ContainsFunc(rule.Verbs, func(v string) bool { return !slices.Contains(reading, v) })
			asks := !slices.ContainsFunc(rule.Resources, func(r string) bool { return !strings.HasPrefix(r, "selfsubject") })
			if !reads && !asks {
				t.Errorf("in %s it may %v %v %v", ns, rule.Verbs, rule.APIGroups, rule.Resources)
			}
		}
	}
	// And in deed.
	for what, err := range map[string]error{
		"get a signer Secret":    c.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: "shop-signing"}, &corev1.Secret{}),
		"get a keyring":          c.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: "shop-keyring"}, &corev1.Secret{}),
		"list Secrets":           c.List(t.Context(), &corev1.SecretList{}),
		"list Secrets of its ns": c.List(t.Context(), &corev1.SecretList{}, client.InNamespace(stack.Namespace)),
		"list ConfigMaps":        c.List(t.Context(), &corev1.ConfigMapList{}),
		"write status":           c.Status().Update(t.Context(), w.sk()),
		"write a SigningKey":     c.Update(t.Context(), w.sk()),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", what, err)
		}
	}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: stack.Namespace, Name: keyset.HMACSecretName}, &corev1.Secret{}); err != nil {
		t.Error(err)
	}

	// It works with that, even where it needs the one Secret.
	g, err := theStack(t).StartGate(t.Context(), "gate-rights")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Kill()
	policy := &v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name}, Spec: v1alpha1.AccessPolicySpec{
		Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: name}}},
	}}
	if err := w.api.Create(w.ctx, policy); err != nil {
		t.Fatal(err)
	}
	https := httpsClient(t, g)
	await(t, 20*time.Second, "the gate to accept a token", func() bool {
		return ask(t.Context(), https, g, w.ns, w.app().token(t, time.Now())) == http.StatusOK
	})
	log, err := os.ReadFile(g.Log)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.ToLower(string(log)), "forbidden") {
		t.Errorf("the gate asked for what it may not have:\n%s", log)
	}
}

// TestControllerRights holds the rights of the controller's service account:
// all that its roles say, and nothing that takes a key away.
func TestControllerRights(t *testing.T) {
	ns := newNamespace(t, "rights")
	c := as(t, stack.ControllerAccount)
	type right struct{ group, resource, sub string }
	allowed := map[right][]string{
		{"keywright.dev", "signingkeys", ""}:          {"get", "list", "watch"},
		{"keywright.dev", "accesspolicies", ""}:       {"get", "list", "watch"},
		{"keywright.dev", "signingkeys", "status"}:    {"update"},
		{"keywright.dev", "accesspolicies", "status"}: {"update"},
		{"", "secrets", ""}:                           {"get", "list", "watch", "create", "update"},
		{"", "configmaps", ""}:                        {"get", "list", "watch", "create", "update"},
		{"", "events", ""}:                            {"create", "patch"},
		{"events.k8s.io", "events", ""}:               {"create", "patch"},
		{"", "namespaces", ""}:                        {"get", "list", "watch"},
		{"", "pods", ""}:                              nil,
		{"", "serviceaccounts", "token"}:              nil,
		{"rbac.authorization.k8s.io", "roles", ""}:    nil,
		{"coordination.k8s.io", "leases", ""}:         nil,
	}
	for r, want := range allowed {
		for _, verb := range verbs {
			if got := may(t, c, verb, r.group, r.resource, r.sub, ns, ""); got != slices.Contains(want, verb) {
				t.Errorf("%s %s/%s %s: allowed %t", verb, r.group, r.resource, r.sub, got)
			}
		}
	}
	for _, verb := range verbs {
		want := slices.Contains([]string{"get", "create", "update"}, verb)
		if got := may(t, c, verb, "coordination.k8s.io", "leases", "", stack.Namespace, ""); got != want {
			t.Errorf("%s leases in its own namespace: allowed %t, want %t", verb, got, want)
		}
	}

	// In deed: make, read and change a Secret and a ConfigMap, and not delete.
	meta := metav1.ObjectMeta{Namespace: ns, Name: "mine"}
	for _, obj := range []client.Object{&corev1.Secret{ObjectMeta: meta}, &corev1.ConfigMap{ObjectMeta: meta}} {
		obj.SetLabels(map[string]string{"a": "b"})
		if err := c.Create(t.Context(), obj); err != nil {
			t.Error(err)
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
			t.Error(err)
		}
		if err := c.Update(t.Context(), obj); err != nil {
			t.Error(err)
		}
		if err := c.Delete(t.Context(), obj); !apierrors.IsForbidden(err) {
			t.Errorf("deleting a %T: %v, want Forbidden", obj, err)
		}
		if err := c.DeleteAllOf(t.Context(), obj, client.InNamespace(ns)); !apierrors.IsForbidden(err) {
			t.Errorf("deleting every %T: %v, want Forbidden", obj, err)
		}
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: stack.Namespace, Name: fmt.Sprintf("rights-%d", time.Now().UnixNano())}}
	if err := c.Create(t.Context(), lease); err != nil {
		t.Error(err)
	}
	if err := theStack(t).Client.Delete(t.Context(), lease); err != nil {
		t.Error(err)
	}
	sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	if err := c.Create(t.Context(), sk); !apierrors.IsForbidden(err) {
		t.Errorf("making a SigningKey: %v, want Forbidden", err)
	}
}

// TestDeletionPolicy shows that Kubernetes' garbage collector takes keyring
// and outputs along under Delete and leaves them under Retain, also when the
// policy was changed on the way.
func TestDeletionPolicy(t *testing.T) {
	for title, tc := range map[string]struct {
		policies []v1alpha1.DeletionPolicy // the last one counts
		gone     bool
	}{
		"Retain keeps them":                     {[]v1alpha1.DeletionPolicy{v1alpha1.DeletionRetain}, false},
		"Delete removes them":                   {[]v1alpha1.DeletionPolicy{v1alpha1.DeletionDelete}, true},
		"Delete changed to Retain keeps them":   {[]v1alpha1.DeletionPolicy{v1alpha1.DeletionDelete, v1alpha1.DeletionRetain}, false},
		"Retain changed to Delete removes them": {[]v1alpha1.DeletionPolicy{v1alpha1.DeletionRetain, v1alpha1.DeletionDelete}, true},
	} {
		t.Run(title, func(t *testing.T) {
			w := newWorld(t)
			w.ready(spec(func(s *v1alpha1.SigningKeySpec) { s.DeletionPolicy = tc.policies[0] }))
			for _, next := range tc.policies[1:] {
				w.edit(func(s *v1alpha1.SigningKeySpec) { s.DeletionPolicy = next })
				w.settle()
			}
			made := []client.Object{w.signer(), w.secret("shop-keyring"), w.jwks()}
			// The collector looks at this one too: once it is gone, the others
			// have been looked at as well.
			sentinel := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "sentinel", OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "SigningKey", Name: name, UID: w.sk().UID,
			}}}}
			if err := w.api.Create(w.ctx, sentinel); err != nil {
				t.Fatal(err)
			}
			there := func(obj client.Object) bool {
				err := w.api.Get(w.ctx, client.ObjectKeyFromObject(obj), obj)
				if client.IgnoreNotFound(err) != nil {
					t.Fatal(err)
				}
				return err == nil
			}
			w.delete(w.sk())
			await(t, time.Minute, "the garbage collector", func() bool { return !there(sentinel) })
			if tc.gone {
				await(t, time.Minute, "the keys to be gone", func() bool { return !slices.ContainsFunc(made, there) })
			}
			if _, err := w.pass(w.ctl); err != nil {
				t.Fatal(err)
			}
			for _, obj := range made {
				if there(obj) == tc.gone {
					t.Errorf("%T %s is there: %t", obj, obj.GetName(), !tc.gone)
				}
			}
		})
	}
}
