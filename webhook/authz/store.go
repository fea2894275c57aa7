package authz

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/policy"
	"github.com/keywright/keywright/webhook/token"
)

// Store holds what decisions are made from. Its methods may be called at the
// same time.
type Store struct {
	now atomic.Pointer[snapshot]

	// mu orders changes; readers of now never take it.
	mu         sync.Mutex
	namespaces map[string]labels.Set
	// users are the policies that refer to a SigningKey, there or not.
	users map[Ref]map[Ref]bool
	// in are the policies of a namespace.
	in map[string]map[Ref]bool
	// remotes are the origins of keys of others that policies name.
	remotes map[policy.Origin]*remote
	// wanted wakes who fetches from them.
	wanted chan struct{}
}

// snapshot is one state of a Store.
type snapshot struct {
	keys     *table[*Keys]
	policies *table[*entry]
}

// entry is a policy with its references resolved.
type entry struct {
	ref Ref
	// policy is nil when it does not compile.
	policy *policy.Policy
	// notReady says why the policy denies everything; nil when it does not.
	notReady    error
	realm       string
	credentials []credential
	// vary names the headers in which credentials may be.
	vary    string
	issuers []issuer
	// awaits says that the keys of one of issuers are not loaded.
	awaits   bool
	counters *Counters
	// wake wakes who fetches keys of others.
	wake func()
}

// issuer is one whose tokens count: a SigningKey, or an issuer of others.
type issuer struct {
	keys     *keyset.Set
	expected token.Expected
	// of is the SigningKey; nil for an issuer of others.
	of *Keys
	// from is the issuer of others; nil for a SigningKey. Only what does not
	// change may be read of it.
	from *remote
	// missing says that the keys of an issuer of others are not loaded: it has
	// none.
	missing bool
}

// String names it.
func (i *issuer) String() string {
	if i.of != nil {
		return i.of.Ref.String()
	}
	return i.from.origin.Issuer
}

// NewStore makes an empty Store: every request to it is denied.
func NewStore() *Store {
	s := &Store{
		namespaces: map[string]labels.Set{},
		users:      map[Ref]map[Ref]bool{},
		in:         map[string]map[Ref]bool{},
		remotes:    map[policy.Origin]*remote{},
		wanted:     make(chan struct{}, 1),
	}
	s.now.Store(&snapshot{keys: &table[*Keys]{}, policies: &table[*entry]{}})
	return s
}

func (s *Store) policy(ref Ref) *entry {
	e, _ := s.now.Load().policies.get(ref)
	return e
}

// Keys gives what is known of a SigningKey.
func (s *Store) Keys(ref Ref) (*Keys, bool) { return s.now.Load().keys.get(ref) }

// AllKeys goes through the SigningKeys of one state.
func (s *Store) AllKeys() iter.Seq2[Ref, *Keys] { return s.now.Load().keys.all() }

// Size says how many SigningKeys and policies there are.
func (s *Store) Size() (signingKeys, policies int) {
	now := s.now.Load()
	return now.keys.size, now.policies.size
}

// PolicyState is what Policies tells of a policy.
type PolicyState struct {
	// NotReady says why the policy denies everything; nil when it does not.
	NotReady error
	// Counters count its decisions since it was first seen.
	Counters *Counters
}

// Policies goes through the policies of one state.
func (s *Store) Policies() iter.Seq2[Ref, PolicyState] {
	policies := s.now.Load().policies
	return func(yield func(Ref, PolicyState) bool) {
		for ref, e := range policies.all() {
			if !yield(ref, PolicyState{NotReady: e.notReady, Counters: e.counters}) {
				return
			}
		}
	}
}

// SetKeys puts the keys of a SigningKey in force.
func (s *Store) SetKeys(k *Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now.Load()
	own := *k
	before, _ := now.keys.get(k.Ref)
	own.index(before)
	k = &own
	s.publish(now.keys.with(map[Ref]**Keys{k.Ref: &k}), s.users[k.Ref], nil)
}

// DeleteKeys takes a SigningKey away: policies that refer to it deny.
func (s *Store) DeleteKeys(ref Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish(s.now.Load().keys.with(map[Ref]**Keys{ref: nil}), s.users[ref], nil)
}

// SetPolicy puts a policy in force. One that did not compile is given as nil
// with the error, and denies.
func (s *Store) SetPolicy(ref Ref, p *policy.Policy, compileErr error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now.Load()
	old, had := now.policies.get(ref)
	if had {
		s.unlink(old)
	}
	e := &entry{ref: ref, policy: p, realm: ref.Name, wake: s.wake}
	if had {
		e.counters = old.counters
	} else {
		e.counters = &Counters{}
	}
	switch {
	case compileErr != nil:
		e.policy = nil
		e.notReady = fmt.Errorf("does not compile: %w", compileErr)
	case p == nil:
		e.notReady = errNoPolicy
	default:
		e.realm = p.Realm()
		e.credentials = credentialsOf(p.Credentials())
		e.vary = varyOn(e.credentials)
		s.link(e)
	}
	s.publish(now.keys, nil, map[Ref]*entry{ref: e})
}

var errNoPolicy = errors.New("does not compile")

// DeletePolicy takes a policy away.
func (s *Store) DeletePolicy(ref Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now.Load()
	old, had := now.policies.get(ref)
	if !had {
		return
	}
	s.unlink(old)
	s.now.Store(&snapshot{keys: now.keys, policies: now.policies.with(map[Ref]**entry{ref: nil})})
}

// SetNamespace tells the labels of a namespace, which is deleted when has is
// nil.
func (s *Store) SetNamespace(name string, has map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.namespaces[name]
	switch {
	case has == nil && !known, has != nil && known && maps.Equal(old, has):
		return
	case has == nil:
		delete(s.namespaces, name)
	default:
		s.namespaces[name] = has
	}
	s.publish(s.now.Load().keys, s.in[name], nil)
}

// publish makes a snapshot with keys, with the policies named in again
// resolved once more, and with the policies in fresh.
func (s *Store) publish(keys *table[*Keys], again map[Ref]bool, fresh map[Ref]*entry) {
	policies := s.now.Load().policies
	changes := make(map[Ref]**entry, len(again)+len(fresh))
	add := func(e *entry) {
		next := s.resolve(e, keys)
		changes[e.ref] = &next
	}
	for ref := range again {
		if e, ok := policies.get(ref); ok {
			add(e)
		}
	}
	for _, e := range fresh {
		add(e)
	}
	if len(changes) > 0 {
		policies = policies.with(changes)
	}
	s.now.Store(&snapshot{keys: keys, policies: policies})
}

// resolve gives a copy of e with its references looked up in keys. Whether a
// SigningKey of another namespace is not there or not allowed is not told. An
// issuer of others whose keys are not loaded has none, which denies its tokens
// alone: when it answers is its own affair, and not the policy's.
func (s *Store) resolve(e *entry, keys *table[*Keys]) *entry {
	if e.policy == nil {
		return e
	}
	next := *e
	next.issuers, next.awaits, next.notReady = nil, false, nil
	has, known := s.namespaces[e.ref.Namespace]
	for i, ref := range e.policy.Issuers() {
		if origin, ok := policy.OriginOf(&ref); ok {
			r := s.remotes[origin] // it is there: the policy is linked
			next.awaits = next.awaits || !r.loaded
			next.issuers = append(next.issuers, issuer{
				keys: r.set(ref.Algorithms), from: r, missing: !r.loaded,
				expected: token.Expected{
					Audiences: ref.Audiences, RequiredClaims: ref.RequiredClaims,
					AccessToken: ref.Profile == v1alpha1.ProfileAccessToken,
				},
			})
			continue
		}
		target := refOf(e.ref, ref.SigningKeyRef.Namespace, ref.SigningKeyRef.Name)
		k, ok := keys.get(target)
		if !ok || !k.allows(e.ref.Namespace, has, known) {
			next.issuers = nil
			next.notReady = fmt.Errorf("issuers[%d].signingKeyRef: SigningKey %s does not exist or does not allow this namespace", i, target)
			return &next
		}
		accessToken := ref.Profile == v1alpha1.ProfileAccessToken
		if accessToken && k.Issuer == "" {
			next.issuers = nil
			next.notReady = fmt.Errorf("issuers[%d].profile: AccessToken needs an issuer, and SigningKey %s names none", i, target)
			return &next
		}
		next.issuers = append(next.issuers, issuer{
			keys:     k.Set,
			of:       k,
			expected: token.Expected{Audiences: ref.Audiences, RequiredClaims: ref.RequiredClaims, AccessToken: accessToken},
		})
	}
	if len(next.issuers) == 0 {
		next.notReady = errors.New("issuers: none is named")
	}
	return &next
}

func refOf(from Ref, namespace, name string) Ref {
	if namespace == "" {
		namespace = from.Namespace
	}
	return Ref{Namespace: namespace, Name: name}
}

func (s *Store) link(e *entry) {
	for _, ref := range e.policy.Issuers() {
		if origin, ok := policy.OriginOf(&ref); ok {
			s.use(origin, e.ref)
			continue
		}
		put(s.users, refOf(e.ref, ref.SigningKeyRef.Namespace, ref.SigningKeyRef.Name), e.ref)
	}
	put(s.in, e.ref.Namespace, e.ref)
}

func (s *Store) unlink(e *entry) {
	if e.policy == nil {
		return
	}
	for _, ref := range e.policy.Issuers() {
		if origin, ok := policy.OriginOf(&ref); ok {
			s.leave(origin, e.ref)
			continue
		}
		drop(s.users, refOf(e.ref, ref.SigningKeyRef.Namespace, ref.SigningKeyRef.Name), e.ref)
	}
	drop(s.in, e.ref.Namespace, e.ref)
}

func put[K comparable](index map[K]map[Ref]bool, key K, ref Ref) {
	if index[key] == nil {
		index[key] = map[Ref]bool{}
	}
	index[key][ref] = true
}

func drop[K comparable](index map[K]map[Ref]bool, key K, ref Ref) {
	delete(index[key], ref)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}
