package webhook

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
)

// feed brings what followers tell into an authz.Store.
type feed struct {
	store *authz.Store
	log   *slog.Logger
	clock func() time.Time

	// changed is when a key set last changed, in Unix nanoseconds.
	changed atomic.Int64
	// synced are the followers' words that the Store has all there was.
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
	f.seen[ref] = seenPolicy{uid: p.UID, spec: p.Spec.DeepCopy()}
	if had && before.uid == p.UID && equality.Semantic.DeepEqual(before.spec, &p.Spec) {
		return // only its status or metadata changed
	}
	compiled, err := policy.Compile(p.Namespace, p.Name, &p.Spec)
	if err != nil {
		if text := err.Error(); len(text) > maxCompileError {
			err = errors.New(cut(text, maxCompileError))
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

// cut shortens a text to about so many bytes.
func cut(text string, bytes int) string {
	if len(text) <= bytes {
		return text
	}
	return strings.ToValidUTF8(text[:bytes], "") + "…"
}
