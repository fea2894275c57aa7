package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/policy"
)

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		t.Fatal(err)
	}
	return s
}

// policyOf is a policy of namespace shop.
func policyOf(issuers []v1alpha1.SigningKeyRef, rules ...v1alpha1.Rule) *v1alpha1.AccessPolicy {
	ap := &v1alpha1.AccessPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api", Generation: 3},
		Spec:       v1alpha1.AccessPolicySpec{Rules: rules},
	}
	for _, ref := range issuers {
		ap.Spec.Issuers = append(ap.Spec.Issuers, v1alpha1.TokenIssuerRef{SigningKeyRef: ref})
	}
	return ap
}

// accessTokens is a policy for access tokens only.
func accessTokens(ap *v1alpha1.AccessPolicy) *v1alpha1.AccessPolicy {
	for i := range ap.Spec.Issuers {
		ap.Spec.Issuers[i].Profile, ap.Spec.Issuers[i].Audiences = v1alpha1.ProfileAccessToken, []string{"orders"}
	}
	return ap
}

func signingKey(namespace, name string, allowed v1alpha1.AllowedNamespaces) *v1alpha1.SigningKey {
	return &v1alpha1.SigningKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.SigningKeySpec{AllowedNamespaces: allowed},
	}
}

func TestAccessPolicyStatus(t *testing.T) {
	team := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "shop"}}
	others := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "other"}}
	broken := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Near"}}}
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "shop"}}},
		signingKey("shop", "own", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSame}),
		signingKey("auth", "same", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSame}),
		signingKey("auth", "all", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesAll}),
		signingKey("auth", "unset", v1alpha1.AllowedNamespaces{}),
		signingKey("auth", "team", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSelector, Selector: team}),
		signingKey("auth", "others", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSelector, Selector: others}),
		signingKey("auth", "broken", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSelector, Selector: broken}),
		signingKey("auth", "none", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSelector}),
	}
	issuer := signingKey("auth", "issuer", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesAll})
	issuer.Spec.Issuer = "https://auth.example"
	objects = append(objects, issuer)
	own := []v1alpha1.SigningKeyRef{{Name: "own"}}
	of := func(name string) []v1alpha1.SigningKeyRef {
		return []v1alpha1.SigningKeyRef{{Name: name, Namespace: "auth"}}
	}
	refused := func(field, name string) string {
		return field + ": SigningKey auth/" + name + " does not exist or does not allow this namespace (its spec.allowedNamespaces)"
	}
	const inForce, compiled, resolved = "True InForce: ", "True Compiled: ", "True Resolved: "

	tests := map[string]struct {
		policy *v1alpha1.AccessPolicy
		rules  int32
		// missing is what is wrong with the references; empty: nothing.
		missing string
		// invalid is where the spec is wrong; empty: nowhere.
		invalid string
	}{
		"a key of its own namespace": {
			policy: policyOf(own, v1alpha1.Rule{Name: "a", Access: v1alpha1.AccessAuthenticated}, v1alpha1.Rule{Name: "b", Access: v1alpha1.AccessDenied}), rules: 2,
		},
		"its own namespace by name":           {policy: policyOf([]v1alpha1.SigningKeyRef{{Name: "own", Namespace: "shop"}})},
		"a key that all may use":              {policy: policyOf(of("all"))},
		"a key that its team may use":         {policy: policyOf(of("team"))},
		"a key of its own that is not there":  {policy: policyOf([]v1alpha1.SigningKeyRef{{Name: "gone"}}), missing: "spec.issuers[0].signingKeyRef: SigningKey gone does not exist in this namespace"},
		"a key elsewhere that is not there":   {policy: policyOf(of("gone")), missing: refused("spec.issuers[0].signingKeyRef", "gone")},
		"a key elsewhere for its own only":    {policy: policyOf(of("same")), missing: refused("spec.issuers[0].signingKeyRef", "same")},
		"a key elsewhere that says nothing":   {policy: policyOf(of("unset")), missing: refused("spec.issuers[0].signingKeyRef", "unset")},
		"a key elsewhere for another team":    {policy: policyOf(of("others")), missing: refused("spec.issuers[0].signingKeyRef", "others")},
		"a selector that cannot be read":      {policy: policyOf(of("broken")), missing: refused("spec.issuers[0].signingKeyRef", "broken")},
		"a selector that is not there":        {policy: policyOf(of("none")), missing: refused("spec.issuers[0].signingKeyRef", "none")},
		"two references of three that do not": {policy: policyOf(append(append(of("same"), own...), of("gone")...)), missing: refused("spec.issuers[0].signingKeyRef", "same") + "; " + refused("spec.issuers[2].signingKeyRef", "gone")},
		"access tokens of a key that names no issuer": {
			policy:  accessTokens(policyOf(own)),
			missing: "spec.issuers[0].profile: AccessToken needs spec.issuer of SigningKey shop/own: set it there, to what the tokens' iss says",
		},
		"access tokens of a key that names one":   {policy: accessTokens(policyOf(of("issuer")))},
		"access tokens of a key for its own only": {policy: accessTokens(policyOf(of("same"))), missing: refused("spec.issuers[0].signingKeyRef", "same")},
		"an expression that does not compile": {
			policy: policyOf(own, v1alpha1.Rule{Name: "a", Access: v1alpha1.AccessAuthenticated, Require: &v1alpha1.Requirements{
				Expressions: []v1alpha1.Expression{{CEL: "claims.sub =="}},
			}}),
			invalid: "spec.rules[0].require.expressions[0].cel",
		},
		"a bad expression and a missing key": {
			policy: policyOf(of("gone"), v1alpha1.Rule{Name: "a", Access: v1alpha1.AccessAuthenticated, Require: &v1alpha1.Requirements{
				Expressions: []v1alpha1.Expression{{CEL: "nothing"}},
			}}),
			missing: refused("spec.issuers[0].signingKeyRef", "gone"),
			invalid: "spec.rules[0].require.expressions[0].cel",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(objects...).WithObjects(tc.policy).WithStatusSubresource(tc.policy).Build()
			got := reconcilePolicy(t, c)
			conditions := map[string]string{}
			for _, cond := range got.Status.Conditions {
				conditions[cond.Type] = string(cond.Status) + " " + cond.Reason + ": " + cond.Message
				if cond.ObservedGeneration != 3 || !cond.LastTransitionTime.Time.Equal(noon) {
					t.Errorf("%s: generation %d, since %s", cond.Type, cond.ObservedGeneration, cond.LastTransitionTime)
				}
			}
			if got.Status.ObservedGeneration != 3 || got.Status.Rules != tc.rules {
				t.Errorf("generation %d, rules %d, want 3 and %d", got.Status.ObservedGeneration, got.Status.Rules, tc.rules)
			}

			want := map[string]string{v1alpha1.ConditionReady: inForce, v1alpha1.ConditionCompiled: compiled, v1alpha1.ConditionKeysResolved: resolved}
			if tc.missing != "" {
				want[v1alpha1.ConditionKeysResolved] = "False KeyNotAvailable: " + tc.missing
				want[v1alpha1.ConditionReady] = "False KeyNotAvailable: every request is denied: " + tc.missing
			}
			if tc.invalid != "" {
				// Of the words of CEL itself, only the field's path is ours.
				message := conditions[v1alpha1.ConditionCompiled]
				if !strings.HasPrefix(message, "False InvalidSpec: ") || !strings.Contains(message, tc.invalid+": Invalid value") {
					t.Errorf("Compiled is %q, want it to name %s", message, tc.invalid)
				}
				text := strings.TrimPrefix(message, "False InvalidSpec: ")
				want[v1alpha1.ConditionCompiled] = message
				want[v1alpha1.ConditionReady] = "False InvalidSpec: every request is denied: " + text
			}
			if diff := cmp.Diff(want, conditions); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func reconcilePolicy(t *testing.T, c client.Client) *v1alpha1.AccessPolicy {
	t.Helper()
	name := types.NamespacedName{Namespace: "shop", Name: "api"}
	r := &AccessPolicyReconciler{Client: c, Now: func() time.Time { return noon }}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: name}); err != nil {
		t.Fatal(err)
	}
	got := &v1alpha1.AccessPolicy{}
	if err := c.Get(t.Context(), name, got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAccessPolicyStatusIsWrittenOnceForEachChange(t *testing.T) {
	writes := 0
	ap := policyOf([]v1alpha1.SigningKeyRef{{Name: "own"}})
	c := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(ap).WithStatusSubresource(ap).WithInterceptorFuncs(interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			writes++
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	}).Build()
	reconcilePolicy(t, c)
	reconcilePolicy(t, c)
	if writes != 1 {
		t.Errorf("%d writes of a status that does not change, want 1", writes)
	}
	if err := c.Create(t.Context(), signingKey("shop", "own", v1alpha1.AllowedNamespaces{})); err != nil {
		t.Fatal(err)
	}
	if got := reconcilePolicy(t, c); writes != 2 || got.Status.Conditions[0].Status != metav1.ConditionTrue {
		t.Errorf("%d writes, %+v after the key came, want 2 and Ready", writes, got.Status.Conditions[0])
	}
}

func TestAccessPolicyReconcileErrors(t *testing.T) {
	down := errors.New("etcd is down")
	r := &AccessPolicyReconciler{Now: func() time.Time { return noon }}
	request := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "api"}}

	r.Client = fake.NewClientBuilder().WithScheme(scheme(t)).Build()
	if got, err := r.Reconcile(t.Context(), request); err != nil || !got.IsZero() {
		t.Errorf("a policy that is gone: %+v, %v", got, err)
	}

	ap := policyOf([]v1alpha1.SigningKeyRef{{Name: "own"}})
	r.Client = fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(ap).WithStatusSubresource(ap).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if _, ok := obj.(*v1alpha1.SigningKey); ok {
				return down
			}
			return c.Get(ctx, key, obj, opts...)
		},
	}).Build()
	if _, err := r.Reconcile(t.Context(), request); !errors.Is(err, down) {
		t.Errorf("a key that cannot be read: %v, want the error, so that it is tried again", err)
	}
	got := &v1alpha1.AccessPolicy{}
	if err := r.Client.Get(t.Context(), request.NamespacedName, got); err != nil || len(got.Status.Conditions) != 0 {
		t.Errorf("status says something of what is not known: %+v, %v", got.Status, err)
	}
}

// Where the controller is held to some namespaces it may not read the labels of
// any: a selector then allows no other namespace, and All still allows each.
func TestAccessPolicyWithoutLabelsOfNamespaces(t *testing.T) {
	team := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "shop"}}
	c := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "shop"}}},
		signingKey("auth", "all", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesAll}),
		signingKey("auth", "team", v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSelector, Selector: team}),
	).Build()
	r := &AccessPolicyReconciler{Client: c, WatchNamespaces: []string{"shop", "auth"}, Now: func() time.Time { return noon }}
	missing, err := r.unresolved(t.Context(), policyOf([]v1alpha1.SigningKeyRef{{Name: "all", Namespace: "auth"}, {Name: "team", Namespace: "auth"}}))
	if err != nil || len(missing) != 1 || !strings.HasPrefix(missing[0], "spec.issuers[1].signingKeyRef: ") {
		t.Errorf("unresolved = %q, %v, want the key with a selector only", missing, err)
	}
}

// An issuer of others beyond the bound of its namespace is told, and the rules
// go on for the others.
func TestAccessPolicyOfANamespaceWithTooManyIssuers(t *testing.T) {
	naming := func(name string, from, to int) *v1alpha1.AccessPolicy {
		ap := policyOf(nil, v1alpha1.Rule{Name: "a"})
		ap.Name = name
		for i := from; i < to; i++ {
			ap.Spec.Issuers = append(ap.Spec.Issuers, v1alpha1.TokenIssuerRef{
				OIDC: &v1alpha1.OIDCIssuer{URL: fmt.Sprintf("https://i.example/%02d", i)}, Audiences: []string{"a"}, Algorithms: []string{"ES256"},
			})
		}
		return ap
	}
	for name, tc := range map[string]struct {
		others []*v1alpha1.AccessPolicy
		want   string
	}{
		"as many as may be":      {others: []*v1alpha1.AccessPolicy{naming("aa", 2, policy.MaxOrigins)}, want: "True Resolved True InForce 1"},
		"more, of earlier names": {others: []*v1alpha1.AccessPolicy{naming("aa", 2, policy.MaxOrigins+1)}, want: "False TooManyIssuers False TooManyIssuers 1"},
		"more, of later names":   {others: []*v1alpha1.AccessPolicy{naming("zz", 2, policy.MaxOrigins+1)}, want: "True Resolved True InForce 1"},
		"more, in a policy that does not compile": {others: []*v1alpha1.AccessPolicy{func() *v1alpha1.AccessPolicy {
			ap := naming("aa", 2, policy.MaxOrigins+1)
			ap.Spec.Rules[0].Name = ""
			return ap
		}()}, want: "True Resolved True InForce 1"},
		"more that are named once": {others: []*v1alpha1.AccessPolicy{naming("aa", 0, policy.MaxOrigins), naming("bb", 0, policy.MaxOrigins)}, want: "True Resolved True InForce 1"},
	} {
		t.Run(name, func(t *testing.T) {
			ap := naming("api", 0, 2)
			b := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(ap).WithStatusSubresource(ap)
			for _, other := range tc.others {
				b = b.WithObjects(other)
			}
			got := reconcilePolicy(t, b.Build())
			resolved := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionKeysResolved)
			ready := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
			if text := fmt.Sprint(resolved.Status, " ", resolved.Reason, " ", ready.Status, " ", ready.Reason, " ", got.Status.Rules); text != tc.want {
				t.Errorf("got %s, want %s", text, tc.want)
			}
			if resolved.Status == metav1.ConditionFalse && !strings.HasPrefix(ready.Message, "spec.issuers[1]: the keys of https://i.example/01 are not fetched") {
				t.Errorf("message: %s", ready.Message)
			}
		})
	}
}
