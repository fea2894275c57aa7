package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
)

// feed brings what informers tell into an authz.Store.
type feed struct {
	store *authz.Store
	log   *slog.Logger
	clock func() time.Time

	// changed is when a key set last changed, in Unix nanoseconds.
	changed atomic.Int64
	// synced are the informers' words that the Store has all there was.
	synced []func() bool

	mu sync.Mutex
	// keys are the SigningKeys that there are, by the names of their entries
	// in the Secret with HS* secrets, and hmac are those entries.
	keys map[string]*v1alpha1.SigningKey
	hmac map[string][]byte

	// policies is a mutex of its own: to compile a policy takes time, which
	// keys must not wait for.
	policies sync.Mutex
	// seen is what policies mean by. Their generation would not do: it goes
	// back when etcd is restored, and comes to the same number again.
	seen map[authz.Ref]seenPolicy
}

type seenPolicy struct {
	uid  types.UID
	spec *v1alpha1.AccessPolicySpec
}

// maxCompileError is how much of what is wrong with a policy is kept and
// logged, in bytes; its status says all of it.
const maxCompileError = 1 << 10

func newFeed(store *authz.Store, log *slog.Logger, clock func() time.Time) *feed {
	return &feed{
		store: store, log: log, clock: clock,
		keys: map[string]*v1alpha1.SigningKey{},
		seen: map[authz.Ref]seenPolicy{},
	}
}

// hasSynced says whether the Store has all that there was at the start.
func (f *feed) hasSynced() bool {
	for _, synced := range f.synced {
		if !synced() {
			return false
		}
	}
	return len(f.synced) > 0
}

func (f *feed) setSigningKey(sk *v1alpha1.SigningKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	entry := keyset.HMACEntryName(sk.Namespace, sk.Name)
	f.keys[entry] = sk
	f.load(sk, f.hmac[entry])
}

func (f *feed) deleteSigningKey(ref authz.Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, keyset.HMACEntryName(ref.Namespace, ref.Name))
	f.store.DeleteKeys(ref)
	f.changed.Store(f.clock().UnixNano())
}

// load puts a SigningKey's keys in force and says what is newly wrong.
func (f *feed) load(sk *v1alpha1.SigningKey, hmacEntry []byte) {
	previous, had := f.store.Keys(authz.Ref{Namespace: sk.Namespace, Name: sk.Name})
	keys := LoadKeys(previous, sk, hmacEntry, f.clock())
	f.store.SetKeys(keys)
	if !had || !slices.Equal(previous.Set.Keys(), keys.Set.Keys()) {
		f.changed.Store(f.clock().UnixNano())
	}
	if !had || !slices.Equal(previous.Problems, keys.Problems) {
		for _, problem := range keys.Problems {
			f.log.Warn("SigningKey is only partly usable", "signingKey", keys.Ref.String(), "problem", problem)
		}
	}
}

// setSecrets takes the entries of the Secret with HS* secrets.
func (f *feed) setSecrets(data map[string][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.hmac
	f.hmac = data
	for entry, sk := range f.keys {
		if now := data[entry]; !bytes.Equal(old[entry], now) {
			f.load(sk, now)
		}
	}
}

func (f *feed) setPolicy(p *v1alpha1.AccessPolicy) {
	f.policies.Lock()
	defer f.policies.Unlock()
	ref := authz.Ref{Namespace: p.Namespace, Name: p.Name}
	before, had := f.seen[ref]
	f.seen[ref] = seenPolicy{uid: p.UID, spec: &p.Spec}
	if had && before.uid == p.UID && equality.Semantic.DeepEqual(before.spec, &p.Spec) {
		return // only its status or metadata changed
	}
	compiled, err := policy.Compile(p.Namespace, p.Name, &p.Spec)
	if err != nil {
		if text := err.Error(); len(text) > maxCompileError {
			err = errors.New(strings.ToValidUTF8(text[:maxCompileError], "") + "…")
		}
		f.log.Warn("AccessPolicy denies everything: it does not compile", "policy", ref.String(), "error", err.Error())
	}
	f.store.SetPolicy(ref, compiled, err)
}

func (f *feed) deletePolicy(ref authz.Ref) {
	f.policies.Lock()
	defer f.policies.Unlock()
	delete(f.seen, ref)
	f.store.DeletePolicy(ref)
}

func (f *feed) setNamespace(ns *corev1.Namespace) {
	labels := ns.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	f.store.SetNamespace(ns.Name, labels)
}

// scheme has what the gate reads.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := corev1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("adding core types: %w", err)
	}
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("adding keywright types: %w", err)
	}
	return s, nil
}

// resources names the resources of what the gate reads. They are written out:
// the plural that would be guessed of SigningKey is wrong.
func resources() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	add := func(version schema.GroupVersion, kind, plural string, scope meta.RESTScope) {
		mapper.AddSpecific(version.WithKind(kind), version.WithResource(plural), version.WithResource(strings.ToLower(kind)), scope)
	}
	add(v1alpha1.GroupVersion, "SigningKey", "signingkeys", meta.RESTScopeNamespace)
	add(v1alpha1.GroupVersion, "AccessPolicy", "accesspolicies", meta.RESTScopeNamespace)
	add(corev1.SchemeGroupVersion, "Secret", "secrets", meta.RESTScopeNamespace)
	add(corev1.SchemeGroupVersion, "Namespace", "namespaces", meta.RESTScopeRoot)
	return mapper
}

// caches are informers that run together.
type caches []cache.Cache

// Start runs them until ctx ends, or until one fails.
func (c caches) Start(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(c))
	for _, one := range c {
		go func() { ended <- one.Start(ctx) }()
	}
	var first error
	for range c {
		if err := <-ended; err != nil && first == nil {
			first = err
			stop()
		}
	}
	return first
}

// informers makes the caches behind the feed. Nothing is asked of the API
// server before they start, and resources are not discovered: the gate starts
// without the API server and becomes ready with it.
func (f *feed) informers(ctx context.Context, config *rest.Config, o *Options, pin *pin) (caches, error) {
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making informers: %w", err)
	}
	options := cache.Options{
		Scheme:           s,
		Mapper:           resources(),
		HTTPClient:       client,
		DefaultTransform: cache.TransformStripManagedFields(),
	}
	secret := func(name string, set func(map[string][]byte)) (cache.Cache, hasSynced, error) {
		options := options
		options.DefaultNamespaces = map[string]cache.Config{o.Namespace: {}}
		options.DefaultFieldSelector = fields.OneTermEqualSelector("metadata.name", name)
		c, err := cache.New(config, options)
		if err != nil {
			return nil, nil, fmt.Errorf("making informers: %w", err)
		}
		synced, err := follow(ctx, c, &corev1.Secret{},
			func(s *corev1.Secret) { set(s.Data) },
			func(authz.Ref) { set(nil) })
		return c, synced, err
	}

	hmac, synced, err := secret(keyset.HMACSecretName, f.setSecrets)
	if err != nil {
		return nil, err
	}
	f.synced = append(f.synced, synced)
	all := caches{hmac}
	if o.servesKeysets() {
		// Not waited for: the gate decides without it.
		gates, _, err := secret(keyset.GatesSecretName, pin.set)
		if err != nil {
			return nil, err
		}
		all = append(all, gates)
	}

	if len(o.WatchNamespaces) > 0 {
		options.DefaultNamespaces = map[string]cache.Config{}
		for _, name := range o.WatchNamespaces {
			options.DefaultNamespaces[name] = cache.Config{}
		}
	}
	c, err := cache.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("making informers: %w", err)
	}
	add := func(synced hasSynced, err error) error {
		f.synced = append(f.synced, synced)
		return err
	}
	err = add(follow(ctx, c, &v1alpha1.SigningKey{}, f.setSigningKey, f.deleteSigningKey))
	if err == nil {
		err = add(follow(ctx, c, &v1alpha1.AccessPolicy{}, f.setPolicy, f.deletePolicy))
	}
	if err == nil && len(o.WatchNamespaces) == 0 {
		err = add(follow(ctx, c, &corev1.Namespace{}, f.setNamespace,
			func(ref authz.Ref) { f.store.SetNamespace(ref.Name, nil) }))
	}
	return append(all, c), err
}

// hasSynced says whether all that there was at the start has been told.
type hasSynced = func() bool

// follow calls set and gone for the objects of a kind.
func follow[T client.Object](ctx context.Context, c cache.Cache, kind T, set func(T), gone func(authz.Ref)) (hasSynced, error) {
	informer, err := c.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("following %T: %w", kind, err)
	}
	handle := func(object any) {
		if typed, ok := object.(T); ok {
			set(typed)
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    handle,
		UpdateFunc: func(_, object any) { handle(object) },
		DeleteFunc: func(object any) {
			if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			if typed, ok := object.(T); ok {
				gone(authz.Ref{Namespace: typed.GetNamespace(), Name: typed.GetName()})
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("following %T: %w", kind, err)
	}
	return registration.HasSynced, nil
}
