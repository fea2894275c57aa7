package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// cachedOutputs limits what the cache holds of Secrets and ConfigMaps to those
// that the controller made, and the watches below to their metadata.
func cachedOutputs(o Options) map[client.Object]cache.ByObject {
	made, err := labels.NewRequirement(v1alpha1.LabelSigningKey, selection.Exists, nil)
	if err != nil {
		panic(err) // a constant label
	}
	ours := cache.ByObject{Label: labels.NewSelector().Add(*made)}
	secrets := ours
	if len(o.WatchNamespaces) > 0 {
		// Of its own namespace it then needs keywright-hmac alone.
		secrets.Namespaces = map[string]cache.Config{o.Namespace: {
			LabelSelector: labels.Everything(),
			FieldSelector: fields.OneTermEqualSelector("metadata.name", keyset.HMACSecretName),
		}}
		for _, namespace := range o.WatchNamespaces {
			secrets.Namespaces[namespace] = cache.Config{}
		}
	}
	return map[client.Object]cache.ByObject{
		metadataOf("Secret"):    secrets,
		metadataOf("ConfigMap"): ours,
		&discoveryv1.EndpointSlice{}: {
			Namespaces: map[string]cache.Config{o.Namespace: {}},
			Label:      labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: o.GatesService}),
		},
	}
}

func metadataOf(kind string) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return m
}

// SetupWithManager starts the reconciler with mgr: at changes of a SigningKey,
// at changes of what was written for it, and once for each entry of the Secret
// keywright-hmac whose SigningKey may be gone.
func (r *SigningKeyReconciler) SetupWithManager(mgr ctrl.Manager) error {
	left := make(chan event.GenericEvent)
	err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		return r.tellHMACEntries(ctx, left)
	}))
	if err != nil {
		return fmt.Errorf("setting up SigningKeys: %w", err)
	}
	toOwner := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, obj client.Object) []reconcile.Request {
		if obj.GetName() == keyset.HMACSecretName && obj.GetNamespace() == r.Namespace {
			return hmacRequests(ctx, mgr.GetClient())
		}
		if owner := ownerOf(obj); owner.Name != "" {
			return []reconcile.Request{{NamespacedName: owner}}
		}
		return nil
	})
	notOurEcho := builder.WithPredicates(r.written.predicate())
	err = ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.SigningKey{}, notOurEcho).
		WatchesMetadata(&corev1.Secret{}, toOwner, notOurEcho).
		WatchesMetadata(&corev1.ConfigMap{}, toOwner, notOurEcho).
		WatchesRawSource(source.Channel(left, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4, RateLimiter: newBackoff()}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("setting up SigningKeys: %w", err)
	}
	return nil
}

// backoff is how long a SigningKey that fails is left alone: longer each time,
// up to a minute, and up to half as much again, so that after an outage not
// all come back at once.
type backoff struct {
	workqueue.TypedRateLimiter[reconcile.Request]
}

func newBackoff() backoff {
	return backoff{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](200*time.Millisecond, time.Minute)}
}

// When is the next wait of a request.
func (b backoff) When(request reconcile.Request) time.Duration {
	return wait.Jitter(b.TypedRateLimiter.When(request), 0.5)
}

// tellHMACEntries asks for a reconcile of every SigningKey that has an entry,
// so that entries of those deleted while no controller ran are swept.
func (r *SigningKeyReconciler) tellHMACEntries(ctx context.Context, to chan<- event.GenericEvent) error {
	var secret *corev1.Secret
	err := wait.PollUntilContextCancel(ctx, lookAgain, true, func(ctx context.Context) (bool, error) {
		var err error
		if secret, err = get(ctx, r.Live, r.Namespace, keyset.HMACSecretName, &corev1.Secret{}); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "looking for HS* secrets of SigningKeys that are gone; trying again")
		}
		return err == nil, nil
	})
	if err != nil || secret == nil {
		return nil //nolint:nilerr // ended before it could be read
	}
	for _, raw := range secret.Data {
		var entry keyset.HMACEntry
		if json.Unmarshal(raw, &entry) != nil || (len(r.WatchNamespaces) > 0 && !slices.Contains(r.WatchNamespaces, entry.Namespace)) {
			continue
		}
		sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: entry.Namespace, Name: entry.Name}}
		select {
		case to <- event.GenericEvent{Object: sk}:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// ownerOf names the SigningKey that an object was made for, or is.
func ownerOf(obj client.Object) types.NamespacedName {
	if _, ok := obj.(*v1alpha1.SigningKey); ok {
		return client.ObjectKeyFromObject(obj)
	}
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetAnnotations()[v1alpha1.AnnotationSigningKey]}
}

// hmacRequests lists the SigningKeys that have something in keywright-hmac.
func hmacRequests(ctx context.Context, c client.Reader) []reconcile.Request {
	list := &v1alpha1.SigningKeyList{}
	if err := c.List(ctx, list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "listing SigningKeys from the cache")
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		if hasHMAC(&list.Items[i]) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}

// SetupWithManager starts the reconciler with mgr: at changes of an
// AccessPolicy, and of what its references depend on.
func (r *AccessPolicyReconciler) SetupWithManager(mgr ctrl.Manager) error {
	all := func(ctx context.Context, refers func(*v1alpha1.AccessPolicy) bool) []reconcile.Request {
		list := &v1alpha1.AccessPolicyList{}
		if err := mgr.GetClient().List(ctx, list); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "listing AccessPolicies from the cache")
			return nil
		}
		var out []reconcile.Request
		for i := range list.Items {
			if refers(&list.Items[i]) {
				out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
			}
		}
		return out
	}
	ofKey := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, obj client.Object) []reconcile.Request {
		return all(ctx, func(ap *v1alpha1.AccessPolicy) bool { return refersTo(ap, client.ObjectKeyFromObject(obj)) })
	})
	ofNamespace := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, obj client.Object) []reconcile.Request {
		return all(ctx, func(ap *v1alpha1.AccessPolicy) bool { return ap.Namespace == obj.GetName() })
	})
	// Policies of one namespace share what it may name of issuers of others.
	besides := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, obj client.Object) []reconcile.Request {
		return all(ctx, func(ap *v1alpha1.AccessPolicy) bool { return ap.Namespace == obj.GetNamespace() && namesOthers(ap) })
	})
	naming := func(obj client.Object) bool {
		ap, ok := obj.(*v1alpha1.AccessPolicy)
		return ok && namesOthers(ap)
	}
	namingOthers := predicate.NewPredicateFuncs(naming)
	namingOthers.UpdateFunc = func(e event.UpdateEvent) bool { return naming(e.ObjectOld) || naming(e.ObjectNew) }
	b := ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.AccessPolicy{}).
		Watches(&v1alpha1.AccessPolicy{}, besides, builder.WithPredicates(predicate.GenerationChangedPredicate{}, namingOthers)).
		Watches(&v1alpha1.SigningKey{}, ofKey, builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	if len(r.WatchNamespaces) == 0 {
		b = b.Watches(&corev1.Namespace{}, ofNamespace, builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("setting up AccessPolicies: %w", err)
	}
	return nil
}

func refersTo(ap *v1alpha1.AccessPolicy, key types.NamespacedName) bool {
	for _, issuer := range ap.Spec.Issuers {
		namespace := issuer.SigningKeyRef.Namespace
		if namespace == "" {
			namespace = ap.Namespace
		}
		if issuer.SigningKeyRef.Name == key.Name && namespace == key.Namespace {
			return true
		}
	}
	return false
}
