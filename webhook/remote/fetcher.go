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
	// MaxStale is how long the keys of a source count that fails.
	MaxStale = time.Hour
)

// leastPause is between two rounds.
const leastPause = time.Second

// atOnce is how many sources are asked at the same time: of those that answered
// last time, and as many of all others. So whoever names sources that hang
// delays no good one.
const atOnce = 16

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

	begin    sync.Once
	good     chan struct{} // slots
	doubtful chan struct{}
	ended    chan struct{} // told when a fetch has ended

	mu      sync.Mutex
	sources map[authz.Origin]*source
}

// source is what is known of an origin. next is not known while it is busy.
type source struct {
	next, asked, good time.Time
	failures          int
	wanted, busy      bool
}

func (f *Fetcher) prepare() {
	f.begin.Do(func() {
		f.sources = map[authz.Origin]*source{}
		f.good, f.doubtful = make(chan struct{}, atOnce), make(chan struct{}, atOnce)
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

// Asked says whether each origin that policies name has been asked once, with
// whatever success.
func (f *Fetcher) Asked() bool {
	f.prepare()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, origin := range f.Store.AllOrigins() {
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

// start begins to fetch what is due, and says when to look again unless a fetch
// ends before.
func (f *Fetcher) start(ctx context.Context) (next time.Time, fetches *sync.WaitGroup) {
	now := f.Clock()
	origins := f.Store.Origins()
	f.mu.Lock()
	defer f.mu.Unlock()
	for origin := range f.sources {
		if _, named := origins[origin]; !named {
			delete(f.sources, origin)
		}
	}
	fetches = &sync.WaitGroup{}
	for origin, wanted := range origins {
		s, known := f.sources[origin]
		if !known {
			s = &source{next: now}
			f.sources[origin] = s
		}
		s.wanted = s.wanted || wanted
		if s.busy {
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
		slots := f.doubtful
		if !s.good.IsZero() && s.failures == 0 {
			slots = f.good
		}
		s.busy = true
		fetches.Go(func() {
			slots <- struct{}{}
			f.refresh(ctx, origin, s)
			<-slots
			select {
			case f.ended <- struct{}{}:
			default: // it is told already
			}
		})
	}
	return f.next(), fetches
}

// next is when something is due, of what is not being fetched.
func (f *Fetcher) next() time.Time {
	next := f.Clock().Add(2 * MaxInterval) // beyond every pause, jitter and all
	for _, s := range f.sources {
		if !s.busy && s.next.Before(next) {
			next = s.next
		}
	}
	return next
}

// refresh fetches one origin and says when to do so again.
func (f *Fetcher) refresh(ctx context.Context, origin authz.Origin, s *source) {
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
		stale := s.good.IsZero() || now.Sub(s.good) >= MaxStale
		longest := MinInterval
		if stale {
			longest = MaxInterval
			f.Store.SetOrigin(origin, false, nil)
		}
		pause := longest
		if s.failures < 10 { // far beyond either
			pause = min(RetryInterval<<(s.failures-1), longest)
		}
		s.next = now.Add(jitter(pause))
		f.Log.Warn("keys of an issuer could not be fetched", "url", origin.URL, "issuer", origin.Issuer, "error", err.Error(), "denied", stale)
		return
	}
	if s.failures > 0 || s.good.IsZero() {
		f.Log.Info("keys of an issuer are loaded", "url", origin.URL, "issuer", origin.Issuer, "keys", len(keys))
	}
	s.failures, s.good = 0, now
	s.next = now.Add(jitter(min(max(maxAge, MinInterval), MaxInterval)))
	f.Store.SetOrigin(origin, true, keys)
}

// jitter keeps many gates from asking at once.
func jitter(d time.Duration) time.Duration {
	return d + rand.N(d/10) //nolint:gosec // it spreads load, and hides nothing
}

func (f *Fetcher) fetch(ctx context.Context, origin authz.Origin) (keys []authz.RemoteKey, maxAge time.Duration, err error) {
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
