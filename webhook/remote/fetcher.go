package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
)

// When a source is asked again.
const (
	// MinInterval is the shortest that Cache-Control's max-age can ask for.
	MinInterval = time.Minute
	// DefaultInterval is for a source that says nothing.
	DefaultInterval = 5 * time.Minute
	// MaxInterval is the longest, and so how late a key is noticed that is
	// gone, a tenth added for jitter.
	MaxInterval = 15 * time.Minute
	// EarlyInterval is the least time between two fetches when tokens name
	// keys that are not there.
	EarlyInterval = 30 * time.Second
	// RetryInterval is after the first failure, and doubles: to MinInterval
	// while keys that were loaded count, else to MaxInterval.
	RetryInterval = 5 * time.Second
	// MaxStale is how long the keys of a source count that fails, or is not
	// asked.
	MaxStale = time.Hour
)

// leastPause is between two rounds.
const leastPause = time.Second

// Getter gets a document that is answered with 200; see fetch.Client.
type Getter interface {
	Get(ctx context.Context, target string) ([]byte, http.Header, error)
}

// Fetcher fetches.
type Fetcher struct {
	Store  *authz.Store
	Client Getter
	Clock  func() time.Time
	Log    *slog.Logger

	begin sync.Once
	ended chan struct{} // told when a fetch has ended

	mu      sync.Mutex
	sources map[policy.Origin]*source
	// good is where sources wait that answered last time, doubtful all others.
	good, doubtful *line
}

// source is what is known of an origin.
type source struct {
	origin policy.Origin
	// next is when it is due; not known while it is busy.
	next, asked, good time.Time
	failures          int
	// loaded says that the keys of good count.
	loaded bool
	// busy sources are being fetched, or wait for it in a line: for the
	// namespaces in waits, and ended is called when they are done.
	wanted, busy bool
	in           *line
	waits        []string
	ended        func()
	// beyond says that no namespace has room for it.
	beyond bool
}

func (f *Fetcher) prepare() {
	f.begin.Do(func() {
		f.sources = map[policy.Origin]*source{}
		f.good, f.doubtful = newLine(), newLine()
		f.ended = make(chan struct{}, 1)
	})
}

// Run fetches until ctx ends.
func (f *Fetcher) Run(ctx context.Context) {
	f.prepare()
	for {
		next, _ := f.start(ctx)
		// A flood of unknown key IDs wakes it no more often than this.
		if !sleep(ctx, leastPause) {
			return
		}
		timer := time.NewTimer(next.Sub(f.Clock()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-f.ended:
		case <-f.Store.Wanted():
		}
		timer.Stop()
	}
}

// Asked says whether each origin that is to be fetched has been asked once, with
// whatever success.
func (f *Fetcher) Asked() bool {
	f.prepare()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, origin := range f.Store.OriginsToAsk() {
		if s, ok := f.sources[origin]; !ok || s.good.IsZero() && s.failures == 0 {
			return false
		}
	}
	return true
}

// sleep says whether ctx still goes on after d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Round fetches what is due, waits for it, and says when it is to be called
// again at the latest.
func (f *Fetcher) Round(ctx context.Context) (next time.Time) {
	f.prepare()
	_, fetches := f.start(ctx)
	fetches.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next()
}

// start begins to fetch what is due, takes away keys that count no longer, and
// says when to look again unless a fetch ends before.
func (f *Fetcher) start(ctx context.Context) (next time.Time, fetches *sync.WaitGroup) {
	now := f.Clock()
	// What is forgotten there is forgotten here before a fetch can end: its
	// keys are of an origin that is named no more, though it may be again.
	f.mu.Lock()
	defer f.mu.Unlock()
	origins := f.Store.Origins()
	for origin, s := range f.sources {
		if _, named := origins[origin]; !named {
			f.forget(s)
		}
	}
	fetches = &sync.WaitGroup{}
	for origin, use := range origins {
		s, known := f.sources[origin]
		if known && s.beyond != (len(use.Namespaces) == 0) {
			f.forget(s)
			known = false
		}
		if !known {
			s = &source{origin: origin, next: now, beyond: len(use.Namespaces) == 0}
			f.sources[origin] = s
			if s.beyond {
				f.Log.Warn("keys of an issuer are not fetched: its namespace names too many, see the condition TooManyIssuers of its AccessPolicies", "url", origin.URL, "issuer", origin.Issuer, "most", policy.MaxOrigins)
			}
		}
		if s.beyond {
			continue
		}
		f.expire(s, now)
		s.wanted = s.wanted || use.Wanted
		if s.busy {
			if len(s.waits) > 0 {
				s.in.join(s, use.Namespaces)
			}
			continue
		}
		if s.wanted && !s.asked.IsZero() {
			if early := s.asked.Add(EarlyInterval); early.Before(s.next) {
				s.next = early
			}
		}
		if now.Before(s.next) {
			continue
		}
		s.in = f.doubtful
		if !s.good.IsZero() && s.failures == 0 {
			s.in = f.good
		}
		fetches.Add(1)
		s.busy, s.ended = true, fetches.Done
		s.in.join(s, use.Namespaces)
	}
	f.proceed(ctx)
	return f.next(), fetches
}

// forget ends what goes on about a source, as far as that can be.
func (f *Fetcher) forget(s *source) {
	delete(f.sources, s.origin)
	if len(s.waits) > 0 {
		s.in.leave(s)
		s.ended()
	}
}

// expire takes the keys of a source away that has not shown them for MaxStale,
// whatever goes on about it.
func (f *Fetcher) expire(s *source, now time.Time) {
	if !s.loaded || now.Sub(s.good) < MaxStale {
		return
	}
	s.loaded = false
	f.Store.SetOrigin(s.origin, false, nil)
	f.Log.Warn("keys of an issuer count no longer: it has not shown them for too long", "url", s.origin.URL, "issuer", s.origin.Issuer, "since", s.good)
}

// proceed begins the fetches whose turn it is.
func (f *Fetcher) proceed(ctx context.Context) {
	for _, l := range [...]*line{f.good, f.doubtful} {
		for s, namespace := l.next(); s != nil; s, namespace = l.next() {
			go func() {
				f.refresh(ctx, s)
				f.mu.Lock()
				l.done(namespace)
				f.proceed(ctx)
				f.mu.Unlock()
				s.ended()
				select {
				case f.ended <- struct{}{}:
				default: // it is told already
				}
			}()
		}
	}
}

// next is when something is due, of what is not being fetched, or keys cease to
// count.
func (f *Fetcher) next() time.Time {
	next := f.Clock().Add(2 * MaxInterval) // beyond every pause, jitter and all
	for _, s := range f.sources {
		if s.beyond {
			continue
		}
		if !s.busy && s.next.Before(next) {
			next = s.next
		}
		if end := s.good.Add(MaxStale); s.loaded && end.Before(next) {
			next = end
		}
	}
	return next
}

// refresh fetches one origin and says when to do so again.
func (f *Fetcher) refresh(ctx context.Context, s *source) {
	origin := s.origin
	f.mu.Lock()
	now := f.Clock()
	s.asked, s.wanted = now, false
	f.mu.Unlock()
	keys, maxAge, err := f.fetch(ctx, origin)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.busy = false
	if ctx.Err() != nil || f.sources[origin] != s {
		return // nobody names it any more
	}
	if err != nil {
		s.failures++
		f.expire(s, f.Clock())
		longest := MinInterval
		if !s.loaded {
			longest = MaxInterval
		}
		pause := longest
		if s.failures < 10 { // far beyond either
			pause = min(RetryInterval<<(s.failures-1), longest)
		}
		s.next = now.Add(jitter(pause))
		f.Log.Warn("keys of an issuer could not be fetched", "url", origin.URL, "issuer", origin.Issuer, "error", err.Error(), "denied", !s.loaded)
		return
	}
	if s.failures > 0 || !s.loaded {
		f.Log.Info("keys of an issuer are loaded", "url", origin.URL, "issuer", origin.Issuer, "keys", len(keys))
	}
	s.failures, s.good, s.loaded = 0, now, true
	s.next = now.Add(jitter(min(max(maxAge, MinInterval), MaxInterval)))
	f.Store.SetOrigin(origin, true, keys)
}

// jitter keeps many gates from asking at once.
func jitter(d time.Duration) time.Duration {
	return d + rand.N(d/10) //nolint:gosec // it spreads load, and hides nothing
}

func (f *Fetcher) fetch(ctx context.Context, origin policy.Origin) (keys []authz.RemoteKey, maxAge time.Duration, err error) {
	target := origin.URL
	if origin.Discovery {
		raw, _, err := f.Client.Get(ctx, strings.TrimSuffix(target, "/")+"/.well-known/openid-configuration")
		if err != nil {
			return nil, 0, fmt.Errorf("its discovery document %w", err)
		}
		var doc struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}
		if json.Unmarshal(raw, &doc) != nil {
			return nil, 0, errors.New("its discovery document is not JSON")
		}
		if doc.Issuer != origin.Issuer {
			return nil, 0, errors.New("its discovery document names another issuer")
		}
		target = doc.JWKSURI
	}
	raw, header, err := f.Client.Get(ctx, target)
	if err != nil {
		return nil, 0, fmt.Errorf("its JWK Set %w", err)
	}
	if keys, err = Parse(raw); err != nil {
		return nil, 0, fmt.Errorf("its JWK Set %w", err)
	}
	return keys, maxAgeOf(header), nil
}

// maxAgeOf reads Cache-Control; what cannot be read says nothing.
func maxAgeOf(header http.Header) time.Duration {
	for _, directive := range strings.Split(strings.Join(header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		if name == "no-store" || name == "no-cache" {
			return MinInterval
		}
		if name == "max-age" {
			if n, err := strconv.ParseUint(value, 10, 31); err == nil {
				return time.Duration(n) * time.Second
			}
		}
	}
	return DefaultInterval
}
