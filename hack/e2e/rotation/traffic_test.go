package rotation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// await polls until something holds.
func await(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: it did not come in %s", what, limit)
		}
	}
}

// httpsClient trusts the gate's certificate and nothing else.
func httpsClient(t *testing.T, gates ...*stack.Gate) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	for _, g := range gates {
		raw, err := os.ReadFile(g.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		pool.AppendCertsFromPEM(raw)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// briskLag is within what the watch of a gate needs on a machine that is busy
// with other tests.
const briskLag = 2 * time.Second

// brisk is a SigningKey that turns every few seconds.
func brisk(every time.Duration) v1alpha1.SigningKeySpec {
	interval := duration(every)
	return v1alpha1.SigningKeySpec{
		Algorithm: "ES256", Issuer: "https://auth.shop.example", MaxTokenTTL: duration(5 * time.Second),
		Rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationAutomatic, Interval: &interval},
		Propagation: v1alpha1.Propagation{
			VerifierLag: duration(briskLag), SignerLag: duration(time.Second), ClockSkew: duration(0), Leeway: duration(time.Second),
		},
		JWKS: &v1alpha1.JWKS{ConfigMapName: "shop-jwks"},
	}
}

// applied makes a namespace with a SigningKey and an AccessPolicy that trusts
// it.
func applied(t *testing.T, s v1alpha1.SigningKeySpec) (ns string) {
	t.Helper()
	ns = newNamespace(t, "live")
	meta := metav1.ObjectMeta{Namespace: ns, Name: name}
	for _, obj := range []client.Object{
		&v1alpha1.SigningKey{ObjectMeta: meta, Spec: s},
		&v1alpha1.AccessPolicy{ObjectMeta: meta, Spec: v1alpha1.AccessPolicySpec{
			Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: name}, Audiences: []string{"orders"}}},
		}},
	} {
		if err := theStack(t).Client.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	return ns
}

// monitor follows a keyring and a status by watches and checks what must hold
// at each version of the keyring.
type monitor struct {
	t  *testing.T
	ns string
	// mayEnd says that the API server is about to go away, and watches with it.
	mayEnd atomic.Bool

	mu   sync.Mutex
	last lifecycle.Keyring
	// versions and activations count what was seen.
	versions    int
	activations []time.Time
	private     map[string]signer
	// ends are verifyUntil as status says.
	ends map[string]time.Time
	// active is the active key in status.
	active string
}

// startMonitor begins with nothing: the keyring must not exist yet.
func startMonitor(ctx context.Context, t *testing.T, ns string) *monitor {
	t.Helper()
	m := &monitor{t: t, ns: ns, private: map[string]signer{}, ends: map[string]time.Time{}}
	c := newClient(t, theStack(t).Plane.AdminConfig())
	follow := func(list client.ObjectList, see func(watch.Event)) {
		if err := c.List(ctx, list, client.InNamespace(ns)); err != nil {
			t.Fatal(err)
		}
		w, err := c.Watch(ctx, list, client.InNamespace(ns), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer w.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case e, open := <-w.ResultChan():
					if !open || e.Type == watch.Error {
						if ctx.Err() == nil && !m.mayEnd.Load() {
							t.Errorf("a watch ended: %v", e.Object)
						}
						return
					}
					see(e)
				}
			}
		}()
	}
	follow(&corev1.SecretList{}, m.secret)
	follow(&v1alpha1.SigningKeyList{}, m.status)
	return m
}

func (m *monitor) status(e watch.Event) {
	sk, ok := e.Object.(*v1alpha1.SigningKey)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active = sk.Status.ActiveKeyID
	for _, k := range sk.Status.Keys {
		if k.VerifyUntil != nil {
			m.ends[k.KeyID] = k.VerifyUntil.Time
		} else {
			delete(m.ends, k.KeyID)
		}
	}
}

func (m *monitor) secret(e watch.Event) {
	s, ok := e.Object.(*corev1.Secret)
	if !ok || s.Type != v1alpha1.SecretTypeKeyring {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Name != name+"-keyring" || e.Type == watch.Deleted || (e.Type == watch.Added) != (m.versions == 0) {
		m.t.Errorf("keyring Secret %s: %s after %d versions, want one keyring, made once", s.Name, e.Type, m.versions)
		return
	}
	ring, err := lifecycle.DecodeKeyring(s.Data[controllers.KeyringEntry])
	if err != nil {
		m.t.Errorf("keyring at %s: %v", s.ResourceVersion, err)
		return
	}
	same := reflect.DeepEqual(ring.Keys, m.last.Keys)
	switch {
	case same && ring.Sequence != m.last.Sequence:
		m.t.Errorf("the sequence went from %d to %d and the keys stayed", m.last.Sequence, ring.Sequence)
	case !same && ring.Sequence != m.last.Sequence+1:
		m.t.Errorf("the keys changed and the sequence went from %d to %d", m.last.Sequence, ring.Sequence)
	}
	standbys, signing := 0, 0
	for _, k := range ring.Keys {
		switch {
		case k.ActivatedAt.IsZero():
			standbys++
		case k.DeactivatedAt.IsZero():
			signing++
		}
		if was := m.last.Find(k.ID); !k.ActivatedAt.IsZero() && (was == nil || was.ActivatedAt.IsZero()) {
			m.activations = append(m.activations, k.ActivatedAt)
			v := k.ActivatedAt.Sub(k.PublishedAt)
			if v < briskLag { // V + e; the first key is shown for as long
				m.t.Errorf("key %s was activated %s after it was published", k.ID, v)
			}
		}
		if k.Private != nil {
			if thief, err := parseSigner(k.Private); err == nil {
				thief.iss, thief.ttl = k.Issuer, k.MaxTokenTTL
				m.private[k.ID] = thief
			}
		}
	}
	if standbys > 1 || signing > 2 || (signing == 2 && ring.Active() == nil) {
		m.t.Errorf("sequence %d: %d keys stand by and %d sign", ring.Sequence, standbys, signing)
	}
	now := time.Now()
	for _, k := range m.last.Keys {
		if ring.Find(k.ID) == nil && (k.VerifyUntil.IsZero() || now.Before(k.VerifyUntil)) {
			m.t.Errorf("sequence %d: key %s is lost", ring.Sequence, k.ID)
		}
	}
	m.last = ring
	m.versions++
}

// rotations is how many keys have become active after the first.
func (m *monitor) rotations() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, len(m.activations)-1)
}

func (m *monitor) activatedAt() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]time.Time(nil), m.activations...)
}

// retired gives a key that no longer verifies at now, with its private half,
// as a thief would have it: one of the newest such keys.
func (m *monitor) retired(now time.Time) (signer, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found signer
	var newest time.Time
	for id, end := range m.ends {
		thief, ok := m.private[id]
		if ok && !now.Before(end) && end.After(newest) {
			found, newest = thief, end
		}
	}
	return found, !newest.IsZero()
}

// traffic is an application that signs tokens from a signer Secret that it
// reads late, and clients that use them until they end, at a fixed rate.
type traffic struct {
	monitor *monitor
	gates   []*stack.Gate
	https   *http.Client
	forger  *ecdsa.PrivateKey

	mu sync.Mutex
	// mounted are the versions of the Secret that the application has, and
	// since when each is known to be the one that counts.
	mounted []mounted
	tokens  []issued
	counts  counts
	faults  []string
}

type mounted struct {
	asked time.Time
	raw   string
	app   signer
}

type issued struct {
	raw string
	exp time.Time
}

type counts struct {
	requests, refused, acceptedWrongly int
	forged, retired                    int
	keys                               map[string]int
	unread                             int // ticks at which the application had no Secret that was new enough
}

func (c counts) String() string {
	out := fmt.Sprintf("requests: %d with valid tokens of %d keys, %d forged, %d of retired keys; refused: %d, accepted wrongly: %d",
		c.requests, len(c.keys), c.forged, c.retired, c.refused, c.acceptedWrongly)
	if c.unread > 0 {
		out += fmt.Sprintf("; %d times nothing could be signed, because the signer Secret was not read in time", c.unread)
	}
	return out
}

// startTraffic begins once the signer Secret is there; stop ends it and waits.
func startTraffic(t *testing.T, m *monitor, gates ...*stack.Gate) (tr *traffic, stop func() counts) {
	t.Helper()
	forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tr = &traffic{monitor: m, gates: gates, https: httpsClient(t, gates...), forger: forger, counts: counts{keys: map[string]int{}}}
	ctx, cancel := context.WithCancel(t.Context())
	c := newClient(t, theStack(t).Plane.AdminConfig())
	await(t, time.Minute, "a key that signs and that every gate knows", func() bool {
		tr.read(ctx, c)
		if len(tr.mounted) == 0 {
			return false
		}
		for _, g := range gates {
			raw, err := tr.mounted[0].app.sign(time.Now(), 5*time.Second)
			if err != nil || tr.ask(ctx, g, raw) != http.StatusOK {
				return false
			}
		}
		return true
	})
	var running sync.WaitGroup
	running.Go(func() { every(ctx, 100*time.Millisecond, func(int) { tr.read(ctx, c) }) })
	running.Go(func() {
		every(ctx, 20*time.Millisecond, func(n int) { running.Go(func() { tr.request(ctx, n) }) })
	})
	return tr, func() counts {
		cancel()
		running.Wait()
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for _, fault := range tr.faults {
			t.Error(fault)
		}
		return tr.counts
	}
}

// mountedKey is the key that the application has read last.
func (tr *traffic) mountedKey() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.mounted[len(tr.mounted)-1].app.kid
}

// retired is how often a token of a retired key was tried so far.
func (tr *traffic) retired() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.counts.retired
}

// every calls do at a fixed rate until ctx ends.
func every(ctx context.Context, d time.Duration, do func(n int)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			do(n)
		case <-ctx.Done():
			return
		}
	}
}

// read is the kubelet of the application. While the API server is away nothing
// changes, and what is mounted goes on counting.
func (tr *traffic) read(ctx context.Context, c client.Client) {
	asked := time.Now()
	s := &corev1.Secret{}
	err := c.Get(ctx, client.ObjectKey{Namespace: tr.monitor.ns, Name: name + "-signing"}, s)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	next := mounted{asked: asked, raw: string(s.Data[controllers.SigningJWKEntry])}
	if err != nil {
		if len(tr.mounted) == 0 {
			return
		}
		next.app, next.raw = tr.mounted[len(tr.mounted)-1].app, tr.mounted[len(tr.mounted)-1].raw
	} else if next.app, err = parseSigner([]byte(next.raw)); err != nil {
		tr.faults = append(tr.faults, err.Error())
		return
	}
	tr.mounted = append(tr.mounted, next)
	if n := len(tr.mounted); n > 100 {
		tr.mounted = append([]mounted(nil), tr.mounted[n-50:]...)
	}
}

// lag is how late the application is: nearly as late as signerLag allows.
const lag = 900 * time.Millisecond

// sign makes a token with the oldest Secret that a correct application may
// still use.
func (tr *traffic) sign(now time.Time) {
	tr.mu.Lock()
	var app *signer
	for i := range tr.mounted {
		if !tr.mounted[i].asked.Before(now.Add(-lag)) {
			app = &tr.mounted[i].app
			break
		}
	}
	if app == nil {
		tr.counts.unread++
		tr.mu.Unlock()
		return
	}
	s := *app
	tr.mu.Unlock()
	raw, err := s.sign(now, s.ttl)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if err != nil {
		tr.faults = append(tr.faults, err.Error())
		return
	}
	tr.counts.keys[s.kid]++
	tr.tokens = append(tr.tokens, issued{raw: raw, exp: time.Unix(now.Unix(), 0).Add(s.ttl)})
	for len(tr.tokens) > 0 && !now.Before(tr.tokens[0].exp) {
		tr.tokens = tr.tokens[1:]
	}
}

// request is one request of a client: of every ten one is forged, two use a
// retired key, and seven are valid, with tokens of every age.
func (tr *traffic) request(ctx context.Context, n int) {
	now := time.Now()
	g := tr.gates[n%len(tr.gates)]
	turn := n / len(tr.gates) % 10
	if turn == 0 {
		tr.mu.Lock()
		s := tr.mounted[len(tr.mounted)-1].app
		tr.mu.Unlock()
		s.priv = tr.forger
		tr.wrong(ctx, g, s, now, "a forged token", &tr.counts.forged)
		return
	}
	if turn == 3 || turn == 7 {
		if s, ok := tr.monitor.retired(now); ok {
			tr.wrong(ctx, g, s, now, "a token of the retired key "+s.kid, &tr.counts.retired)
			return
		}
	}
	tr.sign(now)
	tr.mu.Lock()
	if len(tr.tokens) == 0 {
		tr.mu.Unlock()
		return
	}
	tok := tr.tokens[n*7919%len(tr.tokens)] // of any age
	tr.mu.Unlock()
	if !now.Before(tok.exp) {
		return
	}
	status := tr.ask(ctx, g, tok.raw)
	if ctx.Err() != nil {
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.counts.requests++
	if status != http.StatusOK {
		tr.counts.refused++
		tr.fault("%s: %s refused a valid token, %s before its end: %d", now.Format("15:04:05.000"), g.Name, tok.exp.Sub(now), status)
	}
}

func (tr *traffic) wrong(ctx context.Context, g *stack.Gate, s signer, now time.Time, what string, count *int) {
	raw, err := s.sign(now, s.ttl)
	status := 0
	if err == nil {
		status = tr.ask(ctx, g, raw)
	}
	if ctx.Err() != nil {
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	*count++
	if status == http.StatusOK {
		tr.counts.acceptedWrongly++
	}
	if status != http.StatusUnauthorized {
		tr.fault("%s: %s answered %d to %s", now.Format("15:04:05.000"), g.Name, status, what)
	}
}

func (tr *traffic) fault(format string, args ...any) {
	if len(tr.faults) < 20 {
		tr.faults = append(tr.faults, fmt.Sprintf(format, args...))
	}
}

// ask sends a token through the endpoint of ingress-nginx; 0: no answer.
func (tr *traffic) ask(ctx context.Context, g *stack.Gate, raw string) int {
	return ask(ctx, tr.https, g, tr.monitor.ns, raw)
}

func ask(ctx context.Context, https *http.Client, g *stack.Gate, ns, raw string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/auth/nginx/"+ns+"/"+name, nil)
	if err != nil {
		return 0
	}
	req.Header.Set("X-Original-URL", "https://shop.example/orders")
	req.Header.Set("X-Original-Method", "GET")
	req.Header.Set("Authorization", "Bearer "+raw)
	resp, err := https.Do(req)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	_ = resp.Body.Close()                 // it was read
	return resp.StatusCode
}

func keyIDs(keys []lifecycle.Key) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.ID
	}
	return out
}
