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
	"github.com/keywright/keywright/api/v1alpha1"
)

// Origin is where the keys of an issuer of others come from. Policies that name
// the same one share it.
type Origin struct {
	// Discovery says that URL is the issuer's, whose discovery document leads
	// to the keys; else it is that of the keys.
	Discovery bool
	URL       string
	// Issuer is what its tokens' iss says.
	Issuer string
}

// originOf gives the origin of an issuer's keys; false: it is a SigningKey.
func originOf(ref *v1alpha1.TokenIssuerRef) (Origin, bool) {
	switch {
	case ref.OIDC != nil:
		return Origin{Discovery: true, URL: ref.OIDC.URL, Issuer: ref.OIDC.URL}, true
	case ref.JWKS != nil:
		return Origin{URL: ref.JWKS.URL, Issuer: ref.JWKS.Issuer}, true
	}
	return Origin{}, false
}

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

// remote is what is known of an Origin.
type remote struct {
	origin Origin
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

// Origins lists those that policies name, and for each whether a token named a
// key that it does not have, since the last time that was asked. What nobody
// names any more is forgotten here alone, so that the Store and who fetches
// forget the same: a policy may be gone and come back in between.
func (s *Store) Origins() map[Origin]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.remotes, func(_ Origin, r *remote) bool { return len(r.users) == 0 })
	out := make(map[Origin]bool, len(s.remotes))
	for origin, r := range s.remotes {
		out[origin] = r.wanted.Swap(false)
	}
	return out
}

// AllOrigins lists those that policies name.
func (s *Store) AllOrigins() []Origin {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Origin
	for origin, r := range s.remotes {
		if len(r.users) > 0 {
			out = append(out, origin)
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
// false takes all away, and policies that name it deny.
func (s *Store) SetOrigin(origin Origin, loaded bool, keys []RemoteKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.remotes[origin]
	if !ok || r.loaded == loaded && slices.EqualFunc(r.keys, keys, sameRemoteKey) {
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
func (s *Store) use(origin Origin, by Ref) {
	r, ok := s.remotes[origin]
	if !ok {
		r = &remote{origin: origin, users: map[Ref]bool{}, sets: map[string]*keyset.Set{}, made: map[string]*keyset.Key{}, wanted: &atomic.Bool{}}
		s.remotes[origin] = r
		s.wake()
	}
	r.users[by] = true
}

// leave is the contrary of use.
func (s *Store) leave(origin Origin, by Ref) {
	if r, ok := s.remotes[origin]; ok {
		delete(r.users, by)
	}
}
