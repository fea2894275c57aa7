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
	// RetryInterval is after the first failure, and doubles to MinInterval.
	RetryInterval = 5 * time.Second
	// MaxStale is how long the keys of a source count that fails.
	MaxStale = time.Hour
)

// leastPause is between two rounds.
const leastPause = time.Second

// atOnce is how many sources are asked at the same time.
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

	sources map[authz.Origin]*source
}

// source is what is known of an origin between two fetches.
type source struct {
	next, asked, good time.Time
	failures          int
	wanted            bool
}

// Run fetches until ctx ends.
func (f *Fetcher) Run(ctx context.Context) {
	for {
		next := f.Round(ctx)
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
		case <-f.Store.Wanted():
			timer.Stop()
		}
	}
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
	now := f.Clock()
	if f.sources == nil {
		f.sources = map[authz.Origin]*source{}
	}
	origins := f.Store.Origins()
	for origin := range f.sources {
		if _, named := origins[origin]; !named {
			delete(f.sources, origin)
		}
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for origin, wanted := range origins {
		s, known := f.sources[origin]
		if !known {
			s = &source{next: now}
			f.sources[origin] = s
		}
		if s.wanted = s.wanted || wanted; s.wanted && !s.asked.IsZero() {
			if early := s.asked.Add(EarlyInterval); early.Before(s.next) {
				s.next = early
			}
		}
		if now.Before(s.next) {
			continue
		}
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			f.refresh(ctx, origin, s, now)
		})
	}
	wait.Wait()
	next = now.Add(MaxInterval)
	for _, s := range f.sources {
		if s.next.Before(next) {
			next = s.next
		}
	}
	return next
}

// refresh fetches one origin and says when to do so again.
func (f *Fetcher) refresh(ctx context.Context, origin authz.Origin, s *source, now time.Time) {
	s.asked, s.wanted = now, false
	keys, maxAge, err := f.fetch(ctx, origin)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.failures++
		pause := MinInterval
		if s.failures < 5 {
			pause = min(RetryInterval<<(s.failures-1), MinInterval)
		}
		s.next = now.Add(jitter(pause))
		stale := s.good.IsZero() || now.Sub(s.good) >= MaxStale
		if stale {
			f.Store.SetOrigin(origin, false, nil)
		}
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
