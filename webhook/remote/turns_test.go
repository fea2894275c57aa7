package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
	"github.com/keywright/keywright/webhook/remote"
)

// stuck is a Getter whose every source hangs until it is let go, one by one,
// except for those with good in their names.
type stuck struct {
	good  chan string
	hangs chan string
	free  chan struct{}
}

func (s *stuck) Get(_ context.Context, target string) ([]byte, http.Header, error) {
	if strings.Contains(target, "good") {
		s.good <- target
		return []byte(`{"keys":[]}`), http.Header{}, nil
	}
	s.hangs <- target
	<-s.free
	return nil, nil, errors.New("timed out")
}

// queue is a Fetcher over policies of many namespaces.
type queue struct {
	t       *testing.T
	now     time.Time
	store   *authz.Store
	stuck   *stuck
	fetcher *remote.Fetcher
	log     bytes.Buffer
}

func newQueue(t *testing.T) *queue {
	q := &queue{t: t, now: start, store: authz.NewStore(), stuck: &stuck{good: make(chan string, 1000), hangs: make(chan string, 10_000), free: make(chan struct{})}}
	q.fetcher = &remote.Fetcher{
		Store: q.store, Client: q.stuck, Clock: func() time.Time { return q.now }, Log: slog.New(slog.NewTextHandler(&q.log, nil)),
	}
	return q
}

// policy names so many sources.
func (q *queue) policy(namespace, name string, kind string, sources int) {
	q.t.Helper()
	spec := v1alpha1.AccessPolicySpec{}
	for i := range sources {
		spec.Issuers = append(spec.Issuers, v1alpha1.TokenIssuerRef{
			JWKS:      &v1alpha1.JWKSIssuer{URL: fmt.Sprintf("https://%s.example/%s/%s/%d", kind, namespace, name, i), Issuer: "i"},
			Audiences: []string{"a"}, Algorithms: []string{"ES256"},
		})
	}
	p, err := policy.Compile(namespace, name, &spec)
	if err != nil {
		q.t.Fatal(err)
	}
	q.store.SetPolicy(authz.Ref{Namespace: namespace, Name: name}, p, nil)
}

// However many sources others have that hang, the first good source of a
// namespace is asked after a number of fetches that their namespaces bound, and
// not their sources.
func TestSourcesThatHangDelayNoOtherNamespace(t *testing.T) {
	for name, tc := range map[string]struct {
		namespaces int
		// later: the good source comes when the others hang already.
		later bool
		// ends is how many fetches may have to end before.
		ends int
	}{
		"one namespace, at a start":      {namespaces: 1},
		"one namespace, later":           {namespaces: 1, later: true},
		"three namespaces, at a start":   {namespaces: 3},
		"three namespaces, later":        {namespaces: 3, later: true},
		"twenty namespaces, at a start":  {namespaces: 20, ends: 21},
		"twenty namespaces, later":       {namespaces: 20, later: true, ends: 21},
		"hundred namespaces, at a start": {namespaces: 100, ends: 101},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(t)
			q.policy("witness", "w", "good", 1)
			q.fetcher.Round(t.Context())
			<-q.stuck.good
			for i := range tc.namespaces {
				for j := range 4 {
					q.policy(fmt.Sprintf("evil-%d", i), fmt.Sprintf("p%d", j), "hang", 16)
				}
			}
			var rounds sync.WaitGroup
			round := func() { rounds.Go(func() { q.fetcher.Round(t.Context()) }) }
			if tc.later {
				round()
				for range min(16, 4*tc.namespaces) {
					<-q.stuck.hangs
				}
			}
			// When the witness is asked again, all others wait in their lines.
			q.now = q.now.Add(2 * remote.MaxInterval)
			q.policy("shop", "orders", "good", 1)
			round()
			asked := func(target string) bool { return strings.Contains(target, "/shop/") }
			first := asked(<-q.stuck.good)
			for range tc.ends {
				if first {
					break
				}
				select {
				case target := <-q.stuck.good:
					first = asked(target)
				case q.stuck.free <- struct{}{}:
				}
			}
			if !first { // with no other that ends
				first = asked(<-q.stuck.good)
			}
			if !first {
				t.Error("it is not asked")
			}
			close(q.stuck.free)
			rounds.Wait()
			if !q.fetcher.Asked() {
				t.Error("not all are asked at the end")
			}
		})
	}
}

// A source that an evil namespace names too is not held up by that.
func TestASharedSourceWaitsWhereTheWaitIsShortest(t *testing.T) {
	q := newQueue(t)
	q.policy("evil", "a", "hang", 16)
	spec := v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{
		JWKS: &v1alpha1.JWKSIssuer{URL: "https://good.example/", Issuer: "i"}, Audiences: []string{"a"}, Algorithms: []string{"ES256"},
	}}}
	p, err := policy.Compile("evil", "b", &spec)
	if err != nil {
		t.Fatal(err)
	}
	done, again := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); q.fetcher.Round(t.Context()) }()
	for range 4 {
		<-q.stuck.hangs
	}
	q.store.SetPolicy(authz.Ref{Namespace: "evil", Name: "b"}, p, nil)
	q.store.SetPolicy(authz.Ref{Namespace: "shop", Name: "orders"}, p, nil)
	go func() { defer close(again); q.fetcher.Round(t.Context()) }()
	<-q.stuck.good
	close(q.stuck.free)
	<-done
	<-again
}

func TestANamespaceHasSoManySources(t *testing.T) {
	q := newQueue(t)
	for i := range 5 {
		q.policy("shop", fmt.Sprintf("p%d", i), "good", 16)
	}
	q.policy("other", "p", "good", 1)
	q.fetcher.Round(t.Context())
	q.fetcher.Round(t.Context())
	if n := len(q.stuck.good); n != policy.MaxOrigins+1 {
		t.Errorf("%d are asked, want %d", n, policy.MaxOrigins+1)
	}
	if n := strings.Count(q.log.String(), "its namespace names too many"); n != 16 {
		t.Errorf("%d lines of those that are not, want 16", n)
	}
	if !q.fetcher.Asked() {
		t.Error("what is not asked is waited for")
	}
	if loaded, missing := q.store.OriginsLoaded(); loaded != policy.MaxOrigins+1 || missing != 16 {
		t.Errorf("%d loaded, %d missing", loaded, missing)
	}
	// An earlier policy takes the place of the last one, whose keys go.
	q.policy("shop", "a", "good", 3)
	q.fetcher.Round(t.Context())
	if loaded, missing := q.store.OriginsLoaded(); loaded != policy.MaxOrigins+1 || missing != 19 {
		t.Errorf("%d loaded, %d missing with an earlier policy", loaded, missing)
	}
	// One that goes makes room.
	q.store.DeletePolicy(authz.Ref{Namespace: "shop", Name: "p0"})
	select {
	case <-q.store.Wanted():
	default:
		t.Error("nobody is woken")
	}
	q.fetcher.Round(t.Context())
	if loaded, missing := q.store.OriginsLoaded(); loaded != policy.MaxOrigins+1 || missing != 3 {
		t.Errorf("%d loaded, %d missing once one is gone", loaded, missing)
	}
}

// Keys count for MaxStale by the clock, even if the fetch that would tell hangs.
func TestKeysCeaseToCountWhileTheirFetchHangs(t *testing.T) {
	a, s := newSigner(t, "a"), newSite(t)
	s.shows(set(t, a))
	w := newWorld(t, s)
	w.set(jwks(s, "https://a.example"))
	next := w.round()
	raw := a.token(t, "https://a.example")
	w.want(raw, "")
	h := &hanging{Getter: w.fetcher.Client, at: s.URL, hung: make(chan struct{}, 1), free: make(chan struct{})}
	w.fetcher.Client = h
	w.now = next
	done := make(chan struct{})
	go func() { defer close(done); w.round() }()
	<-h.hung
	if again := w.round(); !again.After(w.now) || again.After(start.Add(remote.MaxStale)) {
		t.Errorf("looks again at %s, keys count until %s", again, start.Add(remote.MaxStale))
	}
	w.now = start.Add(remote.MaxStale - time.Second)
	w.round()
	w.want(raw, "")
	w.now = start.Add(remote.MaxStale)
	w.round()
	w.want(raw, "issuer_not_loaded")
	close(h.free)
	<-done
	w.want(raw, "")
}
