//go:build linux

package gate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

const (
	// pace of a load, requests a second, and what it must reach at least.
	pace      = 150
	leastPace = 100
	workers   = 24

	leastRotations = 3
)

// runLoads is about what must not be noticed, through all callers at once.
func runLoads(t *testing.T, cs []*caller) {
	t.Run("a certificate is replaced under load and nobody is refused", func(t *testing.T) { certificateIsReplaced(t, cs) })
	t.Run("a gate is replaced under load and nobody is refused", func(t *testing.T) { gateIsReplaced(t, cs) })
	t.Run("a token and a key are revoked under load, and nobody else is refused", func(t *testing.T) { tokenAndKeyAreRevoked(t, cs) })
	t.Run("a key rotates under load, nobody is refused and nobody accepted wrongly", func(t *testing.T) { keyRotates(t, cs) })
}

// question is a request of a load. A good one must pass, a bad one must get 401.
type question struct {
	url, token, kind string
	good             bool
	// answered, if any, is called when the answer has been counted.
	answered func()
}

// tally is what came of a load.
type tally struct {
	good, bad      atomic.Int64
	refused, wrong atomic.Int64 // good ones that did not pass, bad ones that did
	failed         atomic.Int64 // bad ones with neither 401 nor 200
	left           atomic.Int64 // not sent, as all workers were busy

	mu     sync.Mutex
	kinds  map[string]int
	faults []string // the first few

	started, stopped time.Time
}

func (y *tally) sent() int64 { return y.good.Load() + y.bad.Load() }

func (y *tally) perSecond() float64 {
	return float64(y.sent()) / y.stopped.Sub(y.started).Seconds()
}

func (y *tally) String() string {
	return fmt.Sprintf("%d requests in %.1f s (%.0f a second): refused: %d, accepted wrongly: %d, other faults: %d; by kind: %v",
		y.sent(), y.stopped.Sub(y.started).Seconds(), y.perSecond(), y.refused.Load(), y.wrong.Load(), y.failed.Load(), y.kinds)
}

func (y *tally) count(q question, c *caller, status int, err error) {
	counter, sort := &y.good, &y.refused
	if !q.good {
		counter, sort = &y.bad, &y.failed
		if status == http.StatusOK {
			sort = &y.wrong
		}
	}
	counter.Add(1)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.kinds[q.kind]++
	if err == nil && ((q.good && status == http.StatusOK) || (!q.good && status == http.StatusUnauthorized)) {
		return
	}
	sort.Add(1)
	if len(y.faults) < 10 {
		y.faults = append(y.faults, fmt.Sprintf("%s: %s, by %s: status %d, %v", time.Now().Format("15:04:05.000"), q.kind, c.name, status, err))
	}
}

// check fails the test for everything that should not be, and for a kind of
// question that was never asked.
func (y *tally) check(t *testing.T, kinds ...string) {
	t.Helper()
	t.Log(y)
	for _, kind := range kinds {
		if y.kinds[kind] == 0 {
			t.Errorf("none was %s", kind)
		}
	}
	if y.refused.Load()+y.wrong.Load()+y.failed.Load() > 0 {
		t.Errorf("among them:\n%s", strings.Join(y.faults, "\n"))
	}
	if y.perSecond() < leastPace {
		t.Errorf("the load was %.0f requests a second, want %d at least (%d not sent in time)", y.perSecond(), leastPace, y.left.Load())
	}
}

// underLoad asks through the callers in turn, at a steady pace, while during runs.
func underLoad(t *testing.T, cs []*caller, next func(n int64) (question, error), during func(*tally)) *tally {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	y := &tally{kinds: map[string]int{}, started: time.Now()}
	due := make(chan int64, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range due {
				q, err := next(n)
				// Not by n alone: kinds of questions go by n too.
				c := cs[(n/10+n)%int64(len(cs))]
				status := 0
				if err == nil {
					// Not ctx: what is under way at the end gets its answer.
					status, err = send(t.Context(), c, http.MethodGet, q.url, q.token)
				}
				y.count(q, c, status, err)
				if q.answered != nil {
					q.answered()
				}
			}
		})
	}
	wg.Go(func() {
		defer close(due)
		tick := time.NewTicker(time.Second / pace)
		defer tick.Stop()
		for n := int64(0); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			// A busy machine swallows ticks: what is due goes by the clock.
			for ; n < int64(time.Since(y.started).Seconds()*pace); n++ {
				select {
				case due <- n:
				default:
					y.left.Add(1)
				}
			}
		}
	})
	during(y)
	cancel()
	wg.Wait()
	y.stopped = time.Now()
	return y
}

// awaitSent waits until so many more were sent.
func (y *tally) awaitSent(t *testing.T, more int64) {
	t.Helper()
	want := y.sent() + more
	await(t, fmt.Sprintf("%d requests", want), func() error {
		if got := y.sent(); got < want {
			return fmt.Errorf("%d so far", got)
		}
		return nil
	})
}

// Kinds of questions.
const (
	valid      = "valid"
	expired    = "expired"
	forged     = "forged"
	wrongAud   = "wrong audience"
	outlived   = "expired after it had passed"
	keyRetired = "fresh, but by a retired key"
	unattended = "fresh, but by a key that ran out with the controller stopped"
	toRevoke   = "not revoked yet"
	revoked    = "revoked"
	keyGone    = "fresh, but by a revoked key"
	successor  = "by the key that took over"
)

// steady is a load of tokens that do not change.
func steady(url string) func(int64) (question, error) {
	return func(n int64) (question, error) {
		for i, bad := range []string{expired, forged, wrongAud} {
			if n%15 == int64(i) {
				return question{url: url, token: env.tokens[bad], kind: bad}, nil
			}
		}
		return question{url: url, token: env.tokens["user"], kind: valid, good: true}, nil
	}
}

// servedSerial is the serial number of the certificate that an address serves.
func servedSerial(ctx context.Context, address string) (*big.Int, error) {
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it is looked at, not believed
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	serial := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber
	return serial, conn.Close()
}

func certificateIsReplaced(t *testing.T, cs []*caller) {
	before, err := servedSerial(t.Context(), env.gate.Address)
	if err != nil {
		t.Fatal(err)
	}
	underLoad(t, cs, steady("http://ruleless.test/orders"), func(y *tally) {
		y.awaitSent(t, 100)
		if err := stack.WriteCertificate(env.gate.CertFile, env.gate.KeyFile); err != nil {
			t.Fatal(err)
		}
		await(t, "the new certificate", func() error {
			now, err := servedSerial(t.Context(), env.gate.Address)
			if err == nil && now.Cmp(before) == 0 {
				err = errors.New("it is the old one")
			}
			return err
		})
		y.awaitSent(t, 300)
	}).check(t, valid, expired, forged, wrongAud)
}

// balancer stands in for a Service: new connections go to the gate that is
// ready.
type balancer struct {
	listener net.Listener
	target   atomic.Pointer[string]
	accepted atomic.Int64
}

func startBalancer(t *testing.T) *balancer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{listener: listener}
	ctx, hangUp := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return // closed
			}
			b.accepted.Add(1)
			wg.Go(func() { b.forward(ctx, in) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close() // nothing is written to it
		hangUp()             // nginx keeps connections open
		wg.Wait()
	})
	return b
}

func (b *balancer) forward(ctx context.Context, in net.Conn) {
	defer in.Close() //nolint:errcheck // either side may have closed
	out, err := net.Dial("tcp", *b.target.Load())
	if err != nil {
		return
	}
	defer out.Close() //nolint:errcheck // either side may have closed
	defer context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })()
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		wg.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // the client notices
			_ = pair[0].(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
}

// gateIsReplaced is a rollout: the new gate is ready before the old one is told
// to end, and gets the connections once the old one says that it is not ready.
func gateIsReplaced(t *testing.T, cs []*caller) {
	forHTTP, forGRPC := startBalancer(t), startBalancer(t)
	lead := func(g *stack.Gate) {
		forHTTP.target.Store(&g.Address)
		forGRPC.target.Store(&g.GRPC)
	}
	through := endpoint{http: forHTTP.listener.Addr().String(), grpc: forGRPC.listener.Addr().String()}
	start := func(name string) *stack.Gate {
		t.Helper()
		g, err := env.StartGate(t.Context(), "rollout-"+name, debug...)
		if err != nil {
			t.Fatal(err)
		}
		env.logs = append(env.logs, g.Log)
		return g
	}
	old := start("old")
	lead(old)
	for _, c := range cs {
		if err := c.serve(t.Context(), through, site{host: "rollout.test", namespace: "shop", policy: "ruleless"}); err != nil {
			t.Fatal(err)
		}
	}
	underLoad(t, cs, steady("http://rollout.test/orders"), func(y *tally) {
		y.awaitSent(t, 100)
		renewed := start("new")
		ended := make(chan error, 1)
		go func() { ended <- old.Terminate() }()
		await(t, "the old gate to say that it is not ready", func() error {
			resp, _, err := get(t.Context(), http.DefaultClient, http.MethodGet, old.Admin+"/readyz")
			if err == nil && resp.StatusCode == http.StatusOK {
				return errors.New("it is ready")
			}
			return nil
		})
		lead(renewed)
		if err := <-ended; err != nil {
			t.Errorf("the old gate ended with %v", err)
		}
		y.awaitSent(t, 300)
		t.Cleanup(func() {
			if err := renewed.Terminate(); err != nil {
				t.Errorf("the new gate ended with %v", err)
			}
		})
	}).check(t, valid, expired, forged, wrongAud)
}

// What the key of keyRotates says of the world, and how late its signer is
// within that.
const (
	signerLag  = 2 * time.Second
	signerLate = 1500 * time.Millisecond
	tokenTTL   = 4 * time.Second
	keyLeeway  = time.Second
)

// lateSigner is an application that mounts the signer Secret and notices a
// change late.
type lateSigner struct {
	name string

	mu     sync.Mutex
	reads  []read
	tokens []minted // valid ones, oldest first
	over   []minted // those that were, oldest first
	used   map[string]bool
	until  map[string]time.Time // verifyUntil of each key that has one
	alone  string               // the key that runs out with the controller stopped
	forger *ecdsa.PrivateKey
}

// read is the signer Secret as it was read.
type read struct {
	at     time.Time
	signer *signer
}

type minted struct {
	raw string
	exp time.Time
}

// follow reads the signer Secret and the key's status until ctx ends.
func (l *lateSigner) follow(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		// Before the read: what it gives was there at that time or later.
		at := time.Now()
		s, err := readSigner(ctx, "shop", l.name+"-signing")
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		sk := &v1alpha1.SigningKey{}
		if err := env.Client.Get(ctx, client.ObjectKey{Namespace: "shop", Name: l.name}, sk); err != nil {
			return ignoreEnd(ctx, err)
		}
		l.mu.Lock()
		if last := len(l.reads) - 1; last < 0 || l.reads[last].signer.kid != s.kid {
			l.reads = append(l.reads, read{at: at, signer: s})
		}
		for _, k := range sk.Status.Keys {
			if k.VerifyUntil != nil {
				l.until[k.KeyID] = k.VerifyUntil.Time
			}
		}
		l.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// current is what the application signs with: what it read signerLate ago.
func (l *lateSigner) current(now time.Time) *signer {
	s := l.reads[0].signer
	for _, r := range l.reads {
		if now.Sub(r.at) >= signerLate {
			s = r.signer
		}
	}
	return s
}

// next gives valid tokens of all ages and, among them, bad ones.
func (l *lateSigner) next(n int64) (question, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	s := l.current(now)
	q := question{url: "http://fast.test/orders"}
	var err error
	switch n % 10 {
	case 1:
		if len(l.over) > 0 && now.Sub(l.over[0].exp) > keyLeeway {
			q.kind, q.token = outlived, l.over[0].raw
			l.over = l.over[1:]
			return q, nil
		}
		fallthrough
	case 3:
		q.kind = expired
		q.token, err = s.sign(s.claims(now.Add(-tokenTTL-2*keyLeeway), tokenTTL, nil))
	case 6:
		q.kind = forged
		other := *s
		other.key = l.forger
		q.token, err = other.sign(s.claims(now, tokenTTL, nil))
	case 9:
		// Somebody has kept a private key that is retired by now, the newest.
		for _, r := range slices.Backward(l.reads) {
			if until, ok := l.until[r.signer.kid]; ok && now.After(until) {
				q.kind = keyRetired
				if r.signer.kid == l.alone {
					q.kind = unattended
				}
				q.token, err = r.signer.sign(r.signer.claims(now, tokenTTL, nil))
				return q, err
			}
		}
		fallthrough
	default:
		q.kind, q.good = valid, true
		q.token, err = l.token(n, now, s)
	}
	return q, err
}

// token mints one, or gives an older one that is still good for a while.
func (l *lateSigner) token(n int64, now time.Time, s *signer) (string, error) {
	for len(l.tokens) > 0 && l.tokens[0].exp.Sub(now) < time.Second {
		l.over, l.tokens = append(l.over, l.tokens[0]), l.tokens[1:]
	}
	if n%4 != 0 && len(l.tokens) > 0 {
		return l.tokens[int(n)%len(l.tokens)].raw, nil
	}
	raw, err := s.sign(s.claims(now, tokenTTL, jwt.MapClaims{"jti": fmt.Sprint(n)}))
	if err != nil {
		return "", err
	}
	l.used[s.kid] = true
	l.tokens = append(l.tokens, minted{raw: raw, exp: now.Truncate(time.Second).Add(tokenTTL)})
	return raw, nil
}

func keyRotates(t *testing.T, cs []*caller) {
	const name = "fast"
	seconds := func(d time.Duration) v1alpha1.Duration { return v1alpha1.Duration{Duration: d} }
	interval := seconds(4 * time.Second)
	for _, object := range []client.Object{
		&v1alpha1.SigningKey{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec: v1alpha1.SigningKeySpec{
				Algorithm: "ES256", Issuer: "https://fast.example", MaxTokenTTL: seconds(tokenTTL),
				Rotation: v1alpha1.Rotation{Interval: &interval},
				Propagation: v1alpha1.Propagation{
					VerifierLag: seconds(time.Second), SignerLag: seconds(signerLag), ClockSkew: seconds(0), Leeway: seconds(keyLeeway),
				},
			},
		},
		&v1alpha1.AccessPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{
				SigningKeyRef: v1alpha1.SigningKeyRef{Name: name}, Audiences: []string{"orders"}, RequiredClaims: []string{"sub"},
			}}},
		},
	} {
		if err := env.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := env.Client.Delete(context.Background(), object); err != nil {
				t.Error(err)
			}
		})
	}
	if err := awaitReady(t.Context(), &v1alpha1.SigningKey{}, "shop", name); err != nil {
		t.Fatal(err)
	}
	if err := awaitReady(t.Context(), &v1alpha1.AccessPolicy{}, "shop", name); err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		if err := c.serve(t.Context(), endpointOf(env.gate), site{host: "fast.test", namespace: "shop", policy: name}); err != nil {
			t.Fatal(err)
		}
	}

	l := &lateSigner{name: name, used: map[string]bool{}, until: map[string]time.Time{}}
	var err error
	if l.forger, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() { followed <- l.follow(ctx) }()
	defer func() {
		cancel()
		if err := <-followed; err != nil {
			t.Error(err)
		}
	}()
	await(t, "the first key", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.reads) == 0 {
			return errors.New("no key yet")
		}
		return nil
	})
	if _, err := l.next(0); err != nil {
		t.Fatal(err)
	}
	await(t, "the gate to know the first key", func() error {
		got, err := send(t.Context(), cs[0], http.MethodGet, "http://fast.test/orders", l.tokens[0].raw)
		if err == nil && got != http.StatusOK {
			err = fmt.Errorf("status %d", got)
		}
		return err
	})
	underLoad(t, cs, l.next, func(y *tally) {
		await(t, fmt.Sprintf("%d rotations", leastRotations), func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if n := len(l.used) - 1; n < leastRotations {
				return fmt.Errorf("%d so far", n)
			}
			return nil
		})
		keyRunsOutAlone(t, l)
		y.awaitSent(t, 600) // at least, with the last key
	}).check(t, valid, expired, forged, outlived, keyRetired, unattended)
	t.Logf("tokens were signed with %d keys", len(l.used))
}

// keyRunsOutAlone stops the controller from shortly before a key's end until
// after it, so that the gate's own clock is all that refuses the key.
func keyRunsOutAlone(t *testing.T, l *lateSigner) {
	t.Helper()
	var end time.Time
	await(t, "a key that runs out soon", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for kid, until := range l.until {
			if left := time.Until(until); left > 300*time.Millisecond && left < 2*time.Second {
				l.alone, end = kid, until
				return nil
			}
		}
		return errors.New("there is none")
	})
	if err := env.controller.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := env.controller.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	// Well within what the leader's lease allows.
	await(t, "the key's end and some questions", func() error {
		if past := time.Since(end); past < time.Second {
			return fmt.Errorf("it ends in %s", -past)
		}
		return nil
	})
}
