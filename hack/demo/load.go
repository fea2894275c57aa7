package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/nginx"
)

// rate is how many requests a second are sent.
const rate = 250

// load sends requests and keeps count.
type load struct {
	client client.Client
	proxy  *nginx.Nginx
	http   *http.Client
	mount  mount

	mu     sync.Mutex
	held   []heldToken
	thefts []*signingFile // every signing file ever seen, as a thief would keep it
	report report
}

// heldToken is a token that a client got and goes on using until it expires.
type heldToken struct {
	raw string
	exp time.Time
}

func newLoad(c client.Client, proxy *nginx.Nginx) *load {
	h := proxy.Client()
	h.Timeout = 10 * time.Second
	return &load{client: c, proxy: proxy, http: h, report: report{cases: map[string]*tally{}}}
}

// scenario is one kind of request.
type scenario struct {
	name   string
	weight int
	path   string
	want   int
	// token to send; empty: none. ok is false when there is none to be had.
	token func(*load, *signingFile) (raw string, ok bool, err error)
}

var scenarios = []scenario{
	{"valid token, just signed", 25, "/orders", http.StatusOK, (*load).fresh},
	{"valid token, signed a while ago", 45, "/orders", http.StatusOK, (*load).old},
	{"valid token with role admin", 6, "/admin/users", http.StatusOK, with(jwt.MapClaims{"roles": []string{"admin"}})},
	{"anonymous, allowed path", 6, "/healthz", http.StatusOK, none},
	{"anonymous, protected path", 3, "/orders", http.StatusUnauthorized, none},
	{"wrong role", 3, "/admin/users", http.StatusForbidden, with(jwt.MapClaims{"roles": []string{"clerk"}})},
	{"wrong audience", 3, "/orders", http.StatusUnauthorized, with(jwt.MapClaims{"aud": "billing"})},
	{"expired token", 3, "/orders", http.StatusUnauthorized, expired},
	{"forged token", 3, "/orders", http.StatusUnauthorized, forged},
	{"key retired long ago, token says valid", 3, "/orders", http.StatusUnauthorized, (*load).stolen},
}

func (l *load) fresh(f *signingFile) (string, bool, error) {
	raw, exp, err := f.sign(jwt.MapClaims{"jti": rand.Text()})
	if err == nil {
		l.mu.Lock()
		l.held = append(l.held, heldToken{raw, exp})
		l.mu.Unlock()
	}
	return raw, true, err
}

// old picks a token that a client still holds: valid to its last moment.
func (l *load) old(*signingFile) (string, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	kept := l.held[:0]
	for _, t := range l.held {
		if now.Before(t.exp) {
			kept = append(kept, t)
		}
	}
	l.held = kept
	if len(kept) == 0 {
		return "", false, nil
	}
	// The oldest ones are the most likely to be refused by a gate that is wrong.
	return kept[mathrand.IntN((len(kept)+1)/2)].raw, true, nil
}

func with(claims jwt.MapClaims) func(*load, *signingFile) (string, bool, error) {
	return func(_ *load, f *signingFile) (string, bool, error) {
		raw, _, err := f.sign(claims)
		return raw, true, err
	}
}

func none(*load, *signingFile) (string, bool, error) { return "", true, nil }

func expired(_ *load, f *signingFile) (string, bool, error) {
	past := time.Now().Add(-time.Minute)
	raw, _, err := f.sign(jwt.MapClaims{"iat": past.Unix(), "exp": past.Add(time.Second).Unix()})
	return raw, true, err
}

// forged is signed by another key under the active key's ID.
func forged(_ *load, f *signingFile) (string, bool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", false, fmt.Errorf("making a key: %w", err)
	}
	other := *f
	other.private = key
	raw, _, err := other.sign(nil)
	return raw, true, err
}

// stolen is signed, now, with a key that has been retired.
func (l *load) stolen(*signingFile) (string, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.thefts {
		if l.report.retired[f.Kid] {
			raw, _, err := f.sign(nil)
			return raw, true, err
		}
	}
	return "", false, nil
}

// run sends requests for a while and shows the keys' lives meanwhile.
func (l *load) run(ctx context.Context, duration time.Duration) (*report, error) {
	follow, unfollow := context.WithCancel(ctx)
	defer unfollow()
	go l.mount.follow(follow, l.client, signerLag)

	total := 0
	for _, s := range scenarios {
		total += s.weight
	}
	work := make(chan scenario)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for s := range work {
				l.request(ctx, s)
			}
		})
	}
	begin := time.Now()
	requests, seconds := time.NewTicker(time.Second/rate), time.NewTicker(time.Second)
	defer requests.Stop()
	defer seconds.Stop()
	for time.Since(begin) < duration && ctx.Err() == nil {
		select {
		case <-requests.C:
			n := mathrand.IntN(total)
			for _, s := range scenarios {
				if n -= s.weight; n < 0 {
					work <- s
					break
				}
			}
		case <-seconds.C:
			sk := &v1alpha1.SigningKey{}
			if err := l.client.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "shop"}, sk); err == nil {
				fmt.Println(l.second(sk))
			}
		case <-ctx.Done():
		}
	}
	close(work)
	workers.Wait()
	l.report.took = time.Since(begin)
	return &l.report, ctx.Err()
}

func (l *load) request(ctx context.Context, s scenario) {
	f := l.mount.current.Load()
	if f == nil {
		return
	}
	l.keep(f)
	raw, ok, err := s.token(l, f)
	if err == nil && !ok {
		return
	}
	status := 0
	begin := time.Now()
	if err == nil {
		status, err = l.send(ctx, s.path, raw)
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.count(s, status, err, time.Since(begin))
}

// keep remembers a signing file, as a thief would.
func (l *load) keep(f *signingFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, old := range l.thefts {
		if old.Kid == f.Kid {
			return
		}
	}
	l.thefts = append(l.thefts, f)
}

func (l *load) send(ctx context.Context, path, raw string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return 0, fmt.Errorf("asking: %w", err)
	}
	if raw != "" {
		req.Header.Set("Authorization", "Bearer "+raw)
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("asking: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, fmt.Errorf("asking: %w", err)
	}
	return resp.StatusCode, nil
}
