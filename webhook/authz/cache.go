package authz

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

// tokenUnit is how many bytes of a token, or of the table of its claims, count
// as one in the size of the cache: larger ones count as several.
const tokenUnit = 1 << 10

// cache remembers tokens by their whole text. What it gives back was found
// with the key object that it names, and counts only for a policy whose set
// holds that very object now; whether the token counts at this time and for
// this policy is asked anew each time.
//
// Tokens that can never pass have a bound of their own, so that a flood of
// them pushes out no good one.
type cache struct {
	good *otter.Cache[string, verified]
	bad  *otter.Cache[string, failure]
	// clock says when good tokens are forgotten. Whether they count is asked
	// of a better one.
	clock *otter.CoarseClock
	// metGood and metBad are tokens that came before: what comes easily, in
	// any number, has a table of its own here too.
	metGood, metBad *met

	hits, badHits, misses atomic.Uint64
}

// verified is a token that passed all that depends neither on the time nor on
// who asks.
type verified struct {
	*token.Token
	// seen is what is seen of its key's tokens; nil: nothing is.
	seen *sighting
}

// failure is a token that does not pass, whatever the time.
type failure struct {
	err error
	// of is with which key that was found.
	of lookedUp
	// expired is a token with a good signature that only a clock that goes
	// back could bring back to life.
	expired verified
}

// lookedUp is what a token.Parse looked up.
type lookedUp struct {
	// asked says that it asked at all: an error without that is so with any key.
	asked bool
	// key that was found; nil: none.
	key *keyset.Key
	// withoutKeyID says that it was found for a token without a kid.
	withoutKeyID bool
	// issuer is what the token says of it, if that chose among keys or the
	// token was refused.
	issuer string
}

// newCache makes a cache for about tokens good tokens of up to tokenUnit
// bytes, and a tenth as many bad ones.
func newCache(tokens int, now func() time.Time) *cache {
	const least = 64
	tokens = max(tokens, least)
	clock := otter.NewCoarseClock(time.Second)
	return &cache{
		clock:   clock,
		metGood: newMet(2 * tokens),
		metBad:  newMet(2 * max(tokens/10, least)),
		good: otter.Must(&otter.Options[string, verified]{
			Clock:         clock,
			MaximumWeight: uint64(tokens) * tokenUnit, //nolint:gosec // not negative
			Weigher:       func(raw string, v verified) uint32 { return weight(raw, v.Claims.TableBytes()) },
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, verified]) time.Duration {
				return max(lastMoment(e.Value.Token).Sub(now()), time.Nanosecond)
			}),
		}),
		bad: otter.Must(&otter.Options[string, failure]{
			MaximumWeight: uint64(max(tokens/10, least)) * tokenUnit, //nolint:gosec // not negative
			Weigher:       func(raw string, _ failure) uint32 { return weight(raw, 0) },
		}),
	}
}

func weight(raw string, table int) uint32 {
	return uint32(max(len(raw), table, tokenUnit)) //nolint:gosec // of some kilobytes at most
}

// lastMoment is when t ceases to pass, leeway included.
func lastMoment(t *token.Token) time.Time { return t.Expiry.Add(t.Key.Leeway) }

// lookup finds what is known of raw to a policy: neither a token nor an error
// when nothing is.
func (c *cache) lookup(e *entry, raw string) (verified, error) {
	if t, ok := c.good.GetIfPresent(raw); ok && e.holds(t.Key, t.WithoutKeyID, t.Issuer) {
		c.hits.Add(1)
		return t, nil
	}
	if f, ok := c.bad.GetIfPresent(raw); ok && (f.of.key == nil || e.holds(f.of.key, f.of.withoutKeyID, f.of.issuer)) {
		c.badHits.Add(1)
		return f.expired, f.err
	}
	c.misses.Add(1)
	return verified{}, nil
}

// remember keeps the outcome of a token.Parse, except for a lookup that found
// no key: that depends on the policy.
func (c *cache) remember(raw string, t verified, err error, of lookedUp, now time.Time) {
	good := err == nil && now.Before(lastMoment(t.Token))
	met := c.metBad
	switch {
	case good:
		met = c.metGood
	case err != nil && of.key == nil && of.asked:
		return
	}
	if !met.again(raw) {
		return
	}
	raw = strings.Clone(raw) // it may be a part of something larger
	switch {
	case good:
		c.good.Set(raw, t)
	case err == nil:
		c.bad.Set(raw, failure{of: of, expired: t})
	default:
		c.bad.Set(raw, failure{of: of, err: err})
	}
}

func (c *cache) close() {
	c.good.StopAllGoroutines()
	c.bad.StopAllGoroutines()
	c.clock.Stop()
}

// met tells tokens that come again from those that come once, which are not
// worth remembering: to keep them costs more than to read them, pushes out
// others, and is what a flood of tokens would fill the memory with. It is a
// table of hashes, each in the place of the last one that belongs there. To
// take a token for another does no harm.
type met struct {
	seed   maphash.Seed
	hashes []atomic.Uint64
}

func newMet(tokens int) *met {
	return &met{seed: maphash.MakeSeed(), hashes: make([]atomic.Uint64, tokens)}
}

// again says whether raw came before, as far as is known, and notes it.
func (m *met) again(raw string) bool {
	hash := maphash.String(m.seed, raw)
	place := &m.hashes[hash%uint64(len(m.hashes))]
	return place.Swap(hash) == hash
}
