package authz

import (
	"context"
	"errors"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/policy"
	"github.com/keywright/keywright/webhook/token"
	"github.com/keywright/keywright/webhook/trace"
)

// Gate decides. Its methods may be called at the same time.
type Gate struct {
	store   *Store
	cache   *cache
	clock   func() time.Time
	doubt   func(now time.Time) string
	onPanic func(value any, stack []byte)

	unknown Counters
	panics  atomic.Uint64
}

// Options of a Gate.
type Options struct {
	// CacheSize is how many verified tokens are remembered, of up to 1 KiB
	// each; longer ones count as several. Those that come once are not.
	CacheSize int
	// Clock is read once a decision.
	Clock func() time.Time
	// Doubt, if set, gives the reason why nothing can be decided at a time
	// from what the Store holds; empty when it can. It is asked once a
	// decision.
	Doubt func(now time.Time) (reason string)
	// OnPanic, if set, is told of a fault of this program that made it deny.
	OnPanic func(value any, stack []byte)
}

// NewGate makes a Gate that decides from store.
func NewGate(store *Store, o Options) *Gate {
	g := &Gate{store: store, cache: newCache(o.CacheSize, o.Clock), clock: o.Clock, doubt: o.Doubt, onPanic: o.OnPanic}
	if g.doubt == nil {
		g.doubt = func(time.Time) string { return "" }
	}
	return g
}

// Close ends what runs beside the Gate.
func (g *Gate) Close() { g.cache.close() }

// Stats are figures of a Gate.
type Stats struct {
	// Hits, BadHits and Misses say how often a token was found among the
	// verified, among the refused, or not at all.
	Hits, BadHits, Misses uint64
	// Tokens and BadTokens say about how many are remembered.
	Tokens, BadTokens int
	// Panics says how often a fault of this program made it deny.
	Panics uint64
	// Unknown counts decisions about policies that do not exist, and denials
	// before a policy was looked for.
	Unknown *Counters
}

// Stats gives the figures so far.
func (g *Gate) Stats() Stats {
	return Stats{
		Hits: g.cache.hits.Load(), BadHits: g.cache.badHits.Load(), Misses: g.cache.misses.Load(),
		Tokens: g.cache.good.EstimatedSize(), BadTokens: g.cache.bad.EstimatedSize(),
		Panics: g.panics.Load(), Unknown: &g.unknown,
	}
}

// Check decides about a request. It always answers, and a fault is a denial.
func (g *Gate) Check(_ context.Context, req Request) Decision { return g.check(&req, nil) }

// check decides and, with steps, says how. What is explained is neither counted
// nor remembered, and says nothing of who is late.
func (g *Gate) check(req *Request, steps *trace.Trace) (d Decision) {
	counters, shows := &g.unknown, false
	defer func() {
		if fault := recover(); fault != nil {
			d = g.denyFault(fault, steps)
		}
		if steps == nil {
			counters.count(&d)
		}
		d.ShowReason = shows && !d.Allowed
	}()
	now := g.clock()
	if reason := g.doubt(now); reason != "" {
		steps.No("gate", "", "can decide nothing now: "+reason)
		return deny(StatusForbidden, reason, nil)
	}
	e := g.store.policy(req.Policy)
	if e == nil {
		steps.No("policy", "", "there is no such policy")
		return deny(StatusForbidden, ReasonPolicyNotFound, nil)
	}
	counters, shows = e.counters, e.policy != nil && e.policy.ShowsReason()
	if e.notReady != nil {
		return deny(StatusForbidden, ReasonPolicyNotReady, steps.Fault("policy", e.ref.Name, e.notReady))
	}
	steps.Yes("policy", e.ref.Name, "is in force")
	return g.decide(e, req, now, steps)
}

// Refuse is the denial of a request about which nothing is decided, for a
// reason that its caller gives and err explains, if there is more to say.
func (g *Gate) Refuse(reason string, err error) Decision {
	d := deny(StatusForbidden, reason, err)
	g.unknown.count(&d)
	return d
}

// Fault is the denial of a request at which this program failed outside of
// Check: fault is what was recovered, by the function that calls this.
func (g *Gate) Fault(fault any) Decision {
	d := g.denyFault(fault, nil)
	g.unknown.count(&d)
	return d
}

func (g *Gate) denyFault(fault any, steps *trace.Trace) Decision {
	steps.No("decision", "", "a fault of this program")
	if steps == nil {
		g.panics.Add(1)
	}
	if g.onPanic != nil {
		g.onPanic(fault, debug.Stack())
	}
	return deny(StatusForbidden, ReasonInternalError, nil)
}

func (g *Gate) decide(e *entry, req *Request, now time.Time, steps *trace.Trace) Decision {
	asked, cannot := e.request(req, steps)
	preflight := e.policy.AllowsPreflight() && announced(req, &asked)
	rule, err := e.policy.Select(&asked)
	if err != nil {
		err = cannot.why(err)
		return deny(StatusForbidden, reasonOf(err), err)
	}
	d := Decision{Rule: rule.Name()}

	var claims *token.Claims
	access := rule.Access()
	steps.Yes("access", string(access), "")
	if preflight && access == v1alpha1.AccessAuthenticated && policy.IsMethod(asked.Method) {
		steps.Yes("preflight", "", "needs no token, as the policy allows preflights")
		access = v1alpha1.AccessAnonymous // browsers send no credentials with it
	}
	switch access {
	case v1alpha1.AccessAnonymous: // a token is not looked at
	case v1alpha1.AccessAuthenticated:
		raw, err := find(e.credentials, req.Header, &asked)
		if errors.Is(err, policy.ErrPathUnknown) {
			err = cannot.why(err)
			d.Status, d.Reason, d.Err = StatusForbidden, reasonOf(err), err
			return d
		}
		if err != nil {
			return e.refuse(d.Rule, err)
		}
		t, err := g.verify(e, raw, now, steps)
		if t != nil {
			d.KeyID = t.Key.ID
		}
		if err != nil {
			refused := e.refuse(d.Rule, err)
			refused.KeyID = d.KeyID
			return refused
		}
		if err := cannot.why(rule.Evaluate(&t.Claims, &asked)); err != nil {
			d.Status, d.Reason, d.Err = StatusForbidden, reasonOf(err), err
			d.Challenge, d.Realm = insufficient(err), e.realm
			if errors.Is(err, policy.ErrInsufficientScope) {
				d.Scopes = rule.Scopes()
			}
			return d
		}
		claims = &t.Claims
		if d.CacheFor = e.cacheFor(t, now); d.CacheFor > 0 {
			d.Vary = e.vary
		}
	default:
		steps.No("access", "", policy.ErrAccessDenied.Error())
		d.Status, d.Reason = StatusForbidden, reasonOf(policy.ErrAccessDenied)
		return d
	}

	headers, err := e.policy.IdentityHeaders(claims, &asked)
	if err = cannot.why(err); err != nil {
		d.Status, d.Reason, d.Err = StatusForbidden, reasonOf(err), err
		d.CacheFor, d.Vary = 0, ""
		return d
	}
	d.Allowed, d.Status, d.Identity = true, StatusAllowed, headers
	return d
}

// announced says whether a request is a CORS preflight (Fetch, section CORS
// protocol), by a method that the caller told and both of its header fields. If
// so, what is asked is what the announced request would ask.
func announced(req *Request, asked *policy.Request) bool {
	if asked.Method != "OPTIONS" {
		return false
	}
	origin, method := req.Header["Origin"], req.Header["Access-Control-Request-Method"]
	if len(origin) != 1 || origin[0] == "" || len(method) != 1 || method[0] == "" {
		return false
	}
	asked.Method = method[0]
	return true
}

// cacheFor says how long a proxy may let t pass without asking again.
func (e *entry) cacheFor(t *token.Token, now time.Time) time.Duration {
	left := e.policy.CacheFor()
	if left == 0 {
		return 0
	}
	left = min(left, t.Expiry.Sub(now))
	if end := t.Key.VerifyUntil; !end.IsZero() {
		left = min(left, end.Sub(now))
	}
	return max(left.Truncate(time.Second), 0)
}

// request gives what the policy looks at. What is not known or cannot be read
// is left out, which denies once a rule looks at it.
func (e *entry) request(req *Request, steps *trace.Trace) (asked policy.Request, cannot unreadable) {
	asked.Trace, asked.Header = steps, req.Header
	if req.HasMethod && e.policy.NeedsMethod() {
		asked.Method = req.Method
		if steps.On() {
			steps.Yes("method", "", token.Quote(asked.Method))
		}
	}
	if req.HasTarget && e.policy.NeedsPath() {
		path, query, ambiguous, err := policy.ParseTarget(req.Target)
		if err == nil {
			asked.Path, asked.Query, asked.Ambiguous, asked.HasPath = path, query, ambiguous, true
			if steps.On() {
				steps.Yes("path", "", token.Quote(path))
			}
		} else {
			cannot.path = steps.Fault("path", "", err)
		}
	}
	if req.HasHost && e.policy.NeedsHost() {
		host, err := policy.NormalizeHost(req.Host)
		if err == nil {
			asked.Host, asked.HasHost = host, true
			if steps.On() {
				steps.Yes("host", "", token.Quote(host))
			}
		} else {
			cannot.host = steps.Fault("host", "", err)
		}
	}
	return asked, cannot
}

// unreadable says of what a caller told why it cannot be read.
type unreadable struct{ path, host error }

// why gives the reason behind a denial for what is not known, and any other as
// it is.
func (u *unreadable) why(err error) error {
	switch {
	case u.path != nil && errors.Is(err, policy.ErrPathUnknown):
		return u.path
	case u.host != nil && errors.Is(err, policy.ErrHostUnknown):
		return u.host
	}
	return err
}

// insufficient says whether another token could meet the rule.
func insufficient(err error) Challenge {
	for _, class := range [...]error{policy.ErrInsufficientScope, policy.ErrClaimMismatch, policy.ErrExpressionFalse} {
		if errors.Is(err, class) {
			return ChallengeInsufficientScope
		}
	}
	return ChallengeNone
}

func reasonOf(err error) string {
	if r := policy.Reason(err); r != "" && r != "internal" {
		return r
	}
	return ReasonInternalError
}

// verify gives a token that counts now and for the policy. With an error it
// may give a token too, whose key is known.
func (g *Gate) verify(e *entry, raw string, now time.Time, steps *trace.Trace) (*token.Token, error) {
	if len(raw) > token.MaxBytes {
		return nil, steps.Fault("form", "", token.ErrTooLarge)
	}
	known, err := g.recall(e, raw, steps)
	if err != nil {
		return nil, e.awaited(raw, err, steps)
	}
	if known.Token == nil {
		var of lookedUp
		t, err := token.ParseTraced(raw, func(kid string) (*keyset.Key, error) {
			of.asked, of.withoutKeyID = true, kid == ""
			var err error
			of.key, err = e.key(kid, func() string {
				of.issuer = token.ClaimedIssuer(raw)
				return of.issuer
			})
			return of.key, err
		}, steps)
		if err != nil && !isB64Token(raw) { // base64url is one: no good token is looked at again
			return nil, ErrMalformedCredentials
		}
		known.Token = t
		if steps == nil {
			known.seen = g.learn(e, raw, t, err, of, now)
		}
		if err != nil {
			return nil, e.awaited(raw, err, steps)
		}
	}
	t := known.Token
	if err := e.validate(t, now, steps); err != nil {
		return t, err
	}
	if e.policy.Revokes(t) {
		return t, steps.Fault("revokedTokens", "", ErrTokenRevoked)
	}
	if known.seen != nil {
		known.seen.passed(now)
	}
	return t, nil
}

// recall gives what is remembered of a token. To explain is to look again.
func (g *Gate) recall(e *entry, raw string, steps *trace.Trace) (verified, error) {
	if steps != nil {
		return verified{}, nil
	}
	return g.cache.lookup(e, raw)
}

// learn remembers what became of a token, and tells when it was signed to what
// is seen of its key, if anything is.
func (g *Gate) learn(e *entry, raw string, t *token.Token, err error, of lookedUp, now time.Time) (seen *sighting) {
	if err == nil {
		// What it expects of a token is the policy's; when it was signed
		// is not, and the next policy finds it in the cache.
		var lateAfter time.Time
		seen, lateAfter = e.sightingOf(t.Key)
		if seen != nil && t.Validate(token.Expected{}, now) == nil {
			seen.fresh(t, lateAfter)
		}
	} else if of.key != nil {
		// Another key of that ID may come, of the issuer that it names.
		of.issuer = token.ClaimedIssuer(raw)
	}
	g.cache.remember(raw, verified{t, seen}, err, of, now)
	return seen
}

// validate asks the issuers that have the token's key whether it counts: one
// that says so is enough, else the last one's word is given.
func (e *entry) validate(t *token.Token, now time.Time, steps *trace.Trace) error {
	err := token.ErrUnknownKey
	for i := range e.issuers {
		if k, ok := e.issuers[i].keys.Lookup(t.Key.ID); !ok || k != t.Key {
			continue
		}
		expected := e.issuers[i].expected
		if expected.Trace = steps; steps.On() {
			steps.Yes("issuer", e.issuers[i].String(), "has the key")
		}
		if err = t.Validate(expected, now); err == nil {
			return nil
		}
	}
	return err
}
