package authz

import (
	"crypto"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/policy"
)

// RemoteKey is a key of an issuer of others.
type RemoteKey struct {
	ID string
	// Algorithm that the key names; empty: none.
	Algorithm keyset.Algorithm
	Public    crypto.PublicKey
}

// remoteLeeway is what is allowed on times of tokens of others, whose clocks
// nobody here looks after.
const remoteLeeway = time.Minute

// remote is what is known of an origin.
type remote struct {
	origin policy.Origin
	users  map[Ref]bool
	// loaded says that keys are what the origin shows; else none count.
	loaded bool
	keys   []RemoteKey
	// sets of keys by the algorithms that policies allow.
	sets map[string]*keyset.Set
	// made are the keys in sets, by algorithm and ID: one key is one object.
	made map[string]*keyset.Key
	// wanted says that a token named a key that is not there.
	wanted *atomic.Bool
}

// set gives the keys that are used with these algorithms. Each is used with
// one: that which it names, or the only one that fits. Others are left out.
func (r *remote) set(algorithms []string) *keyset.Set {
	algorithms = slices.Sorted(slices.Values(algorithms))
	name := strings.Join(algorithms, " ")
	if set, ok := r.sets[name]; ok {
		return set
	}
	var keys []*keyset.Key
	for _, k := range r.keys {
		var fitting []keyset.Algorithm
		for _, a := range algorithms {
			alg := keyset.Algorithm(a)
			if (k.Algorithm == "" || k.Algorithm == alg) && alg.CheckVerificationKey(k.Public) == nil {
				fitting = append(fitting, alg)
			}
		}
		if len(fitting) != 1 {
			continue
		}
		made := string(fitting[0]) + " " + k.ID
		if r.made[made] == nil {
			r.made[made] = &keyset.Key{
				ID: k.ID, Algorithm: fitting[0], Public: k.Public, Issuer: r.origin.Issuer,
				MaxTokenTTL: math.MaxInt64, Leeway: remoteLeeway,
			}
		}
		keys = append(keys, r.made[made])
	}
	set, err := keyset.NewSet(keys...)
	if err != nil { // two keys with one ID: nothing says which of them is meant
		set, _ = keyset.NewSet()
	}
	r.sets[name] = set
	return set
}

// Use says who asks for an origin, and how much.
type Use struct {
	// Namespaces of the policies that name it, sorted. None: it is beyond the
	// bound of each of them, and is not to be fetched.
	Namespaces []string
	// Wanted says that a token named a key that it does not have, since the
	// last time that was asked.
	Wanted bool
}

// Origins lists those that policies name. What nobody names any more is
// forgotten here alone, and so are the keys of what is beyond a bound, so that
// the Store and who fetches forget the same: a policy may be gone and come back
// in between.
func (s *Store) Origins() map[policy.Origin]Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.remotes, func(_ policy.Origin, r *remote) bool { return len(r.users) == 0 })
	out := s.uses()
	for origin, use := range out {
		r := s.remotes[origin]
		use.Wanted = r.wanted.Swap(false)
		out[origin] = use
		if len(use.Namespaces) == 0 {
			s.setKeys(r, false, nil)
		}
	}
	return out
}

// OriginsToAsk lists those that are to be fetched.
func (s *Store) OriginsToAsk() []policy.Origin {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []policy.Origin
	for origin, use := range s.uses() {
		if len(use.Namespaces) > 0 {
			out = append(out, origin)
		}
	}
	return out
}

// uses says of each origin that a policy names for which namespaces it counts.
func (s *Store) uses() map[policy.Origin]Use {
	in := map[string]policy.Named{}
	out := make(map[policy.Origin]Use, len(s.remotes))
	for origin, r := range s.remotes {
		for ref := range r.users {
			out[origin] = Use{}
			if in[ref.Namespace] == nil {
				in[ref.Namespace] = policy.Named{}
			}
			in[ref.Namespace].Add(origin, ref.Name)
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(in)) {
		named := in[namespace]
		for _, origin := range named.Beyond() {
			delete(named, origin)
		}
		for origin := range named {
			use := out[origin]
			use.Namespaces = append(use.Namespaces, namespace)
			out[origin] = use
		}
	}
	return out
}

// Wanted is told, without anybody waiting for it, that Origins has something
// new to say.
func (s *Store) Wanted() <-chan struct{} { return s.wanted }

func (s *Store) wake() {
	select {
	case s.wanted <- struct{}{}:
	default: // it is told already
	}
}

// OriginsLoaded says of how many origins the keys are there, and of how many
// they are not.
func (s *Store) OriginsLoaded() (loaded, missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.remotes {
		switch {
		case len(r.users) == 0:
		case r.loaded:
			loaded++
		default:
			missing++
		}
	}
	return loaded, missing
}

// SetOrigin puts the keys of an origin in force, whose IDs are distinct; loaded
// false takes all away, and its tokens are denied.
func (s *Store) SetOrigin(origin policy.Origin, loaded bool, keys []RemoteKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.remotes[origin]; ok {
		s.setKeys(r, loaded, keys)
	}
}

func (s *Store) setKeys(r *remote, loaded bool, keys []RemoteKey) {
	if r.loaded == loaded && slices.EqualFunc(r.keys, keys, sameRemoteKey) {
		return // what is remembered of tokens stays with the keys
	}
	r.loaded, r.keys, r.sets, r.made = loaded, keys, map[string]*keyset.Set{}, map[string]*keyset.Key{}
	s.publish(s.now.Load().keys, r.users, nil)
}

func sameRemoteKey(a, b RemoteKey) bool {
	comparable, ok := a.Public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && a.ID == b.ID && a.Algorithm == b.Algorithm && comparable.Equal(b.Public)
}

// use says that a policy names an origin.
func (s *Store) use(origin policy.Origin, by Ref) {
	r, ok := s.remotes[origin]
	if !ok {
		r = &remote{origin: origin, users: map[Ref]bool{}, sets: map[string]*keyset.Set{}, made: map[string]*keyset.Key{}, wanted: &atomic.Bool{}}
		s.remotes[origin] = r
	}
	r.users[by] = true
	s.wake()
}

// leave is the contrary of use. What is beyond a bound may come within it.
func (s *Store) leave(origin policy.Origin, by Ref) {
	if r, ok := s.remotes[origin]; ok {
		delete(r.users, by)
		s.wake()
	}
}
