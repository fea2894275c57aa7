package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/policy"
)

// AccessPolicyReconciler says in status whether an AccessPolicy can be in
// force. The gate judges for itself; this is for the people who wrote it.
type AccessPolicyReconciler struct {
	// Client reads from the cache.
	Client client.Client
	// WatchNamespaces are those whose resources count; all when empty. When
	// set, nobody reads the labels of namespaces, and an allowedNamespaces
	// with a selector allows no other namespace.
	WatchNamespaces []string
	// Now is the clock.
	Now func() time.Time
}

// Reconcile brings the status of one AccessPolicy up to date.
func (r *AccessPolicyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ap := &v1alpha1.AccessPolicy{}
	if err := r.Client.Get(ctx, req.NamespacedName, ap); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}

	compiled := metav1.Condition{Type: v1alpha1.ConditionCompiled, Status: metav1.ConditionTrue, Reason: "Compiled"}
	rules := int32(0)
	if p, err := policy.Compile(ap.Namespace, ap.Name, &ap.Spec); err != nil {
		compiled.Status, compiled.Reason, compiled.Message = metav1.ConditionFalse, "InvalidSpec", cut(err.Error(), 4096)
	} else {
		rules = int32(p.Rules()) //nolint:gosec // the schema allows 64
	}

	resolved := metav1.Condition{Type: v1alpha1.ConditionKeysResolved, Status: metav1.ConditionTrue, Reason: "Resolved"}
	if namesOthers(ap) {
		resolved.Message = "each gate fetches the keys of oidc and jwks itself: its log and the metric keywright_gate_remote_issuers say whether it has them"
	}
	missing, err := r.unresolved(ctx, ap)
	if err != nil {
		return ctrl.Result{}, err
	}
	if len(missing) > 0 {
		resolved.Status, resolved.Reason, resolved.Message = metav1.ConditionFalse, "KeyNotAvailable", cut(strings.Join(missing, "; "), 4096)
	}

	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "InForce"}
	beyond, err := r.beyond(ctx, ap)
	if err != nil {
		return ctrl.Result{}, err
	}
	if len(beyond) > 0 && len(missing) == 0 {
		resolved.Status, resolved.Reason, resolved.Message = metav1.ConditionFalse, "TooManyIssuers", cut(strings.Join(beyond, "; "), 4096)
	}
	for _, c := range []metav1.Condition{resolved, compiled} {
		if c.Status == metav1.ConditionFalse {
			ready.Status, ready.Reason = metav1.ConditionFalse, c.Reason
			if c.Reason == "TooManyIssuers" { // the others' tokens count
				ready.Message = c.Message
				continue
			}
			ready.Message = "every request is denied: " + c.Message
			rules = 0
		}
	}

	before := ap.DeepCopy()
	ap.Status.ObservedGeneration, ap.Status.Rules = ap.Generation, rules
	for _, c := range []metav1.Condition{ready, compiled, resolved} {
		c.ObservedGeneration = ap.Generation
		c.LastTransitionTime = metav1.NewTime(r.Now())
		meta.SetStatusCondition(&ap.Status.Conditions, c)
	}
	if equality.Semantic.DeepEqual(before.Status, ap.Status) {
		return ctrl.Result{}, nil
	}
	if err := r.Client.Status().Update(ctx, ap); err != nil {
		return ctrl.Result{}, fmt.Errorf("writing status: %w", err)
	}
	return ctrl.Result{}, nil
}

// unresolved lists the references of a policy that lead to no key. Across
// namespaces it does not tell a key that is missing from one that is not
// allowed.
func (r *AccessPolicyReconciler) unresolved(ctx context.Context, ap *v1alpha1.AccessPolicy) ([]string, error) {
	var out []string
	for i, issuer := range ap.Spec.Issuers {
		if issuer.OIDC != nil || issuer.JWKS != nil {
			continue // each gate fetches those itself
		}
		ref := issuer.SigningKeyRef
		namespace := ref.Namespace
		if namespace == "" {
			namespace = ap.Namespace
		}
		sk := &v1alpha1.SigningKey{}
		err := r.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, sk)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading SigningKey %s/%s: %w", namespace, ref.Name, err)
		}
		field := fmt.Sprintf("spec.issuers[%d]", i)
		allowed := namespace == ap.Namespace
		if err == nil && !allowed {
			if allowed, err = r.allows(ctx, sk, ap.Namespace); err != nil {
				return nil, err
			}
		}
		switch {
		case namespace == ap.Namespace && apierrors.IsNotFound(err):
			out = append(out, fmt.Sprintf("%s.signingKeyRef: SigningKey %s does not exist in this namespace", field, ref.Name))
		case err != nil || !allowed:
			out = append(out, fmt.Sprintf("%s.signingKeyRef: SigningKey %s/%s does not exist or does not allow this namespace (its spec.allowedNamespaces)", field, namespace, ref.Name))
		case issuer.Profile == v1alpha1.ProfileAccessToken && sk.Spec.Issuer == "":
			out = append(out, fmt.Sprintf("%s.profile: AccessToken needs spec.issuer of SigningKey %s/%s: set it there, to what the tokens' iss says", field, namespace, ref.Name))
		}
	}
	return out, nil
}

// beyond lists the issuers of others of a policy whose keys no gate fetches,
// because the policies of its namespace name too many.
func (r *AccessPolicyReconciler) beyond(ctx context.Context, ap *v1alpha1.AccessPolicy) ([]string, error) {
	if !namesOthers(ap) {
		return nil, nil
	}
	list := &v1alpha1.AccessPolicyList{}
	if err := r.Client.List(ctx, list, client.InNamespace(ap.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing AccessPolicies of namespace %s: %w", ap.Namespace, err)
	}
	named := namedIn(list.Items)
	if len(named.Beyond()) > 0 { // gates do not know the issuers of a policy that does not compile
		named = namedIn(slices.DeleteFunc(slices.Clone(list.Items), func(one v1alpha1.AccessPolicy) bool {
			_, err := policy.Compile(one.Namespace, one.Name, &one.Spec)
			return err != nil
		}))
	}
	unfetched := named.Beyond()
	var out []string
	for i, issuer := range ap.Spec.Issuers {
		if origin, ok := policy.OriginOf(&issuer); ok && slices.Contains(unfetched, origin) {
			out = append(out, fmt.Sprintf("spec.issuers[%d]: the keys of %s are not fetched and its tokens are denied: "+
				"the policies of this namespace name %d issuers by oidc and jwks, and those count of the first %d, in the order of the policies' names; "+
				"name fewer, or move policies to another namespace", i, origin.URL, len(named), policy.MaxOrigins))
		}
	}
	return out, nil
}

// namedIn says which issuers of others policies of one namespace name.
func namedIn(policies []v1alpha1.AccessPolicy) policy.Named {
	named := policy.Named{}
	for i := range policies {
		for _, issuer := range policies[i].Spec.Issuers {
			if origin, ok := policy.OriginOf(&issuer); ok {
				named.Add(origin, policies[i].Name)
			}
		}
	}
	return named
}

// namesOthers says whether a policy names issuers of others.
func namesOthers(ap *v1alpha1.AccessPolicy) bool {
	return slices.ContainsFunc(ap.Spec.Issuers, func(i v1alpha1.TokenIssuerRef) bool { return i.OIDC != nil || i.JWKS != nil })
}

func (r *AccessPolicyReconciler) allows(ctx context.Context, sk *v1alpha1.SigningKey, namespace string) (bool, error) {
	switch sk.Spec.AllowedNamespaces.From {
	case v1alpha1.NamespacesAll:
		return true, nil
	case v1alpha1.NamespacesSelector:
		selector, err := metav1.LabelSelectorAsSelector(sk.Spec.AllowedNamespaces.Selector)
		if err != nil {
			return false, nil //nolint:nilerr // a selector that cannot be read allows nobody
		}
		if len(r.WatchNamespaces) > 0 {
			return false, nil
		}
		ns := &corev1.Namespace{}
		if err := r.Client.Get(ctx, types.NamespacedName{Name: namespace}, ns); err != nil {
			return false, fmt.Errorf("reading Namespace %s: %w", namespace, err)
		}
		return selector.Matches(labels.Set(ns.Labels)), nil
	}
	return false, nil
}
