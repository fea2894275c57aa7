package webhook

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

// backoff is how long a follower waits after a failure: 3 seconds at most.
// Informers wait up to a minute, each by itself. After an API server was away a
// few times, a gate would know a new SigningKey and not its secret, or neither,
// long after the API server is back; a revocation waits for that.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: 2 * time.Second}
}

// followers list and watch what the feed needs. They keep no copy: the feed and
// the Store have what counts.
type followers []*toolscache.Reflector

// run goes on until ctx ends.
func (f followers) run(ctx context.Context) {
	var running sync.WaitGroup
	for _, one := range f {
		running.Go(func() { one.RunWithContext(ctx) })
	}
	running.Wait()
}

// followers makes what brings the objects of the API server to the feed.
// Nothing is asked before they run, and resources are not discovered: the gate
// starts without the API server and becomes ready with it.
func (f *feed) followers(config *rest.Config, o *Options, pin *pin) (followers, error) {
	c, err := newClients(config)
	if err != nil {
		return nil, err
	}
	secret := func(name string, set func(map[string][]byte)) (*toolscache.Reflector, hasSynced) {
		return follow(c.core, o.Namespace, "secrets", fields.OneTermEqualSelector("metadata.name", name),
			func(s *corev1.Secret) { set(s.Data) },
			func(authz.Ref) { set(nil) })
	}
	var all followers
	waitFor := func(one *toolscache.Reflector, synced hasSynced) {
		all = append(all, one)
		f.synced = append(f.synced, synced)
	}
	waitFor(secret(keyset.HMACSecretName, f.setSecrets))
	if o.servesKeysets() {
		gates, _ := secret(keyset.GatesSecretName, pin.set) // the gate decides without it
		all = append(all, gates)
	}
	namespaces := o.WatchNamespaces
	if len(namespaces) == 0 {
		namespaces = []string{corev1.NamespaceAll}
		waitFor(follow(c.core, corev1.NamespaceAll, "namespaces", fields.Everything(), f.setNamespace,
			func(ref authz.Ref) { f.store.SetNamespace(ref.Name, nil) }))
	}
	for _, namespace := range namespaces {
		waitFor(follow(c.ours, namespace, "signingkeys", fields.Everything(), f.setSigningKey, f.deleteSigningKey))
		waitFor(follow(c.ours, namespace, "accesspolicies", fields.Everything(), f.setPolicy, f.deletePolicy))
	}
	return all, nil
}

// clients are of the API groups that the gate reads, over one connection.
type clients struct{ core, ours rest.Interface }

func newClients(config *rest.Config) (c clients, err error) {
	s := runtime.NewScheme()
	if err := corev1.AddToScheme(s); err != nil {
		return c, fmt.Errorf("adding core types: %w", err)
	}
	if err := v1alpha1.AddToScheme(s); err != nil {
		return c, fmt.Errorf("adding keywright types: %w", err)
	}
	connection, err := rest.HTTPClientFor(config)
	if err != nil {
		return c, fmt.Errorf("connecting to the API server: %w", err)
	}
	if c.core, err = newClient(config, connection, s, "/api", corev1.SchemeGroupVersion); err != nil {
		return c, err
	}
	c.ours, err = newClient(config, connection, s, "/apis", v1alpha1.GroupVersion)
	return c, err
}

func newClient(config *rest.Config, connection *http.Client, s *runtime.Scheme, path string, version schema.GroupVersion) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.GroupVersion, config.APIPath = &version, path
	config.NegotiatedSerializer = serializer.NewCodecFactory(s).WithoutConversion()
	client, err := rest.RESTClientForConfigAndClient(config, connection)
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", version, err)
	}
	return client, nil
}

// hasSynced says whether all that there was at the start has been told.
type hasSynced = func() bool

// follow calls set and gone for the objects of a resource, one at a time.
func follow[T any, P interface {
	*T
	client.Object
}](c rest.Interface, namespace, resource string, only fields.Selector, set func(P), gone func(authz.Ref)) (*toolscache.Reflector, hasSynced) {
	told := &told[P]{set: set, gone: gone, there: map[authz.Ref]bool{}}
	lists := toolscache.NewListWatchFromClient(c, resource, namespace, only)
	return toolscache.NewReflectorWithOptions(lists, P(new(T)), told, toolscache.ReflectorOptions{
		Name: resource, Backoff: backoff(),
	}), told.synced.Load
}

// told passes on what a reflector hears. It is a toolscache.ReflectorStore.
type told[P client.Object] struct {
	set  func(P)
	gone func(authz.Ref)
	// there are the objects that were told of and are not gone.
	there  map[authz.Ref]bool
	synced atomic.Bool
}

// Add tells of an object.
func (t *told[P]) Add(object any) error {
	typed, ok := object.(P)
	if !ok {
		return fmt.Errorf("following objects: unexpected %T", object)
	}
	typed.SetManagedFields(nil) // some of it is kept, and this is the larger half
	t.there[refTo(typed)] = true
	t.set(typed)
	return nil
}

// Update is Add.
func (t *told[P]) Update(object any) error { return t.Add(object) }

// Delete tells that an object is gone.
func (t *told[P]) Delete(object any) error {
	typed, ok := object.(P)
	if !ok {
		return fmt.Errorf("following objects: unexpected %T", object)
	}
	ref := refTo(typed)
	delete(t.there, ref)
	t.gone(ref)
	return nil
}

// Replace tells of all objects that there are, and what is gone.
func (t *told[P]) Replace(objects []any, _ string) error {
	before := t.there
	t.there = make(map[authz.Ref]bool, len(objects))
	for _, object := range objects {
		if err := t.Add(object); err != nil {
			return err
		}
	}
	for ref := range before {
		if !t.there[ref] {
			t.gone(ref)
		}
	}
	t.synced.Store(true)
	return nil
}

// Resync does nothing: what was told counts.
func (*told[P]) Resync() error { return nil }

func refTo(o client.Object) authz.Ref {
	return authz.Ref{Namespace: o.GetNamespace(), Name: o.GetName()}
}
