package rotation

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// asking starts a controller that asks gates, and the monitor. args are more
// than what every controller has.
func (l *live) asking(args []string, gates ...*stack.Gate) {
	l.t.Helper()
	l.monitor = startMonitor(l.ctx, l.t, l.ns)
	addresses := make([]string, 0, len(gates))
	for _, g := range gates {
		addresses = append(addresses, g.Keysets)
	}
	args = append([]string{"--leader-elect=false", "--watch-namespaces", l.ns, "--gates", strings.Join(addresses, ",")}, args...)
	p, err := theStack(l.t).StartController(l.ctx, "controller-asking-"+l.ns, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(p.Kill)
	l.controller = p
}

// waitsFor says what the next transition waits for.
func (l *live) waitsFor() string {
	l.t.Helper()
	if next := l.sk().Status.NextTransition; next != nil {
		return next.WaitingFor
	}
	return ""
}

// toldBy gives status and message of a condition.
func (l *live) toldBy(kind string) string {
	l.t.Helper()
	for _, c := range l.sk().Status.Conditions {
		if c.Type == kind {
			return string(c.Status) + " " + c.Message
		}
	}
	return ""
}

// A gate that hangs holds a rotation, and is named; the old key goes on.
func TestARotationWaitsForEveryGate(t *testing.T) {
	t.Parallel()
	l := newLive(t, brisk(4*time.Second))
	second := l.startGate("gate-second")
	l.asking(nil, l.gate, second)
	_, stop := startTraffic(t, l.monitor, l.gate)
	await(t, time.Minute, "two rotations that both gates have confirmed", func() bool { return l.monitor.rotations() >= 2 })

	if err := second.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, time.Minute, "a rotation that waits for the gate that hangs", func() bool { return strings.Contains(l.waitsFor(), second.Keysets) })
	t.Log("waits for", l.waitsFor())
	if got := l.toldBy(v1alpha1.ConditionPropagationConfirmed); !strings.HasPrefix(got, "False") || !strings.Contains(got, second.Keysets) {
		t.Errorf("PropagationConfirmed is %s, want it to name the gate", got)
	}
	held := l.active()
	rotations := l.monitor.rotations()
	due := time.Now()
	await(t, time.Minute, "two more intervals to pass", func() bool { return time.Since(due) > 8*time.Second })
	if l.active() != held || l.monitor.rotations() != rotations {
		t.Errorf("it rotated while a gate hangs")
	}
	if got := l.toldBy(v1alpha1.ConditionReady); !strings.HasPrefix(got, "True") {
		t.Errorf("Ready is %s: signers have a key all the time", got)
	}
	if err := second.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, 2*time.Minute, "the rotation once the gate answers", func() bool { return l.active() != held })
	if c := stop(); c.refused > 0 || c.acceptedWrongly > 0 || c.requests == 0 {
		t.Error(c)
	} else {
		t.Log(c)
	}
}

// A public document that does not show the key holds a rotation as well.
func TestARotationWaitsForPublicDocuments(t *testing.T) {
	t.Parallel()
	l := newLive(t, brisk(4*time.Second))
	var stale atomic.Bool
	var kept atomic.Pointer[string]
	document := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cm := &corev1.ConfigMap{}
		if err := l.api.Get(l.ctx, client.ObjectKey{Namespace: l.ns, Name: "shop-jwks"}, cm); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		text := cm.Data[controllers.JWKSEntry]
		if stale.Load() {
			if kept.Load() == nil {
				kept.Store(&text)
			}
			text = *kept.Load()
		}
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(document.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: document.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	l.edit(func(s *v1alpha1.SigningKeySpec) { s.Propagation.Evidence.URLs = []string{document.URL + "/jwks.json"} })
	l.asking([]string{"--allow-private-urls", "--fetch-ca-file", roots}, l.gate)
	_, stop := startTraffic(t, l.monitor, l.gate)
	await(t, time.Minute, "two rotations that the document has confirmed", func() bool { return l.monitor.rotations() >= 2 })

	stale.Store(true)
	await(t, time.Minute, "a rotation that waits for the document", func() bool { return strings.Contains(l.waitsFor(), document.URL) })
	if got, want := l.waitsFor(), "the new key to be seen at "+document.URL+"/jwks.json (does not show it)"; got != want {
		t.Errorf("waits for %q, want %q", got, want)
	}
	held := l.active()
	stale.Store(false)
	await(t, 2*time.Minute, "the rotation once the document shows the key", func() bool { return l.active() != held })
	if c := stop(); c.refused > 0 || c.acceptedWrongly > 0 || c.requests == 0 {
		t.Error(c)
	} else {
		t.Log(c)
	}
}

// Row 13: gates see fresh tokens with the old kid after S.
func signerStaysBehind(t *testing.T) {
	s := brisk(time.Hour)
	s.MaxTokenTTL = duration(8 * time.Second)
	l := newLive(t, s)
	l.asking(nil, l.gate)
	await(t, time.Minute, "the first key", func() bool { return l.active() != "" })
	await(t, time.Minute, "the key that stands by", func() bool {
		standby := l.ring().Standby()
		return standby != nil && !standby.PublishedAt.IsZero()
	})
	stuck := l.app() // an environment variable, say: it never changes
	https := httpsClient(t, l.gate)
	l.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "now" })
	await(t, time.Minute, "the old key's end to be known", func() bool { return l.active() != stuck.kid && l.key(stuck.kid).VerifyUntil != nil })
	until := l.key(stuck.kid).VerifyUntil.Time

	// It goes on signing with the old key, for several subjects.
	refusedAt, said := time.Time{}, ""
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; refusedAt.IsZero(); n++ {
		<-tick.C
		if ask(l.ctx, https, l.gate, l.ns, stuck.token(t, time.Now())) != http.StatusOK {
			refusedAt = time.Now()
		}
		if n > 600 {
			t.Fatal("the old key is never refused")
		}
		if n%10 == 0 && said == "" && l.key(stuck.kid).VerifyUntil.After(until) {
			said = l.toldBy(v1alpha1.ConditionSignersCurrent)
		}
	}
	k := l.key(stuck.kid)
	want := until.Add(s.Propagation.SignerLag.Duration + s.MaxTokenTTL.Duration)
	if !k.VerifyUntil.Time.Equal(want) {
		t.Errorf("the old key verifies until %s, want its retirement put off once, by S + L: from %s to %s", k.VerifyUntil, until, want)
	}
	if refusedAt.Before(want) {
		t.Errorf("the old key was refused at %s, before its end at %s", refusedAt, want)
	}
	t.Log("SignersCurrent:", said)
	if !strings.HasPrefix(said, "False") || !strings.Contains(said, stuck.kid) || !strings.Contains(said, stuck.iss) {
		t.Errorf("while the retirement was put off, SignersCurrent was %q, want it to name the key and who signs", said)
	}
	await(t, time.Minute, "lastSeenAt in status", func() bool { return l.key(stuck.kid).LastSeenAt != nil })
	await(t, time.Minute, "SignersCurrent to be True again once the key has retired", func() bool {
		return strings.HasPrefix(l.toldBy(v1alpha1.ConditionSignersCurrent), "True")
	})
}

// Row 14: a verifier of someone else that fetches the JWKS once in V.
func verifierThatCaches(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	fetch := func() map[string]keyset.PublicJWK {
		var doc keyset.Document
		if err := json.Unmarshal([]byte(w.jwks().Data[controllers.JWKSEntry]), &doc); err != nil {
			t.Fatal(err)
		}
		out := map[string]keyset.PublicJWK{}
		for _, k := range doc.Keys {
			out[k.Kid] = k
		}
		return out
	}
	v := w.sk().Spec.Propagation.VerifierLag.Duration
	known, fetched := fetch(), w.now
	rotations, last := 0, w.active()
	for rotations < 3 {
		w.advance(time.Minute)
		if w.now.Sub(fetched) >= v {
			known, fetched = fetch(), w.now
		}
		if id := w.app().kid; known[id].Kid == "" {
			t.Fatalf("%s after its last fetch a verifier does not know key %s, with which signers sign", w.now.Sub(fetched), id)
		}
		if a := w.active(); a != last {
			rotations, last = rotations+1, a
		}
	}
}

// Row 15: random key IDs trigger no lookups and push nothing out of the cache.
func floodOfKeyIDs(t *testing.T) {
	s := brisk(time.Hour)
	s.MaxTokenTTL = duration(time.Minute)
	l := newLive(t, s)
	l.follow()
	await(t, time.Minute, "the first key", func() bool { return l.active() != "" })
	https := httpsClient(t, l.gate)
	app := l.app()
	good := app.token(t, time.Now())
	const verified = `keywright_gate_cache_lookups_total{result="verified"}`
	await(t, time.Minute, "the gate to remember the token", func() bool {
		return ask(l.ctx, https, l.gate, l.ns, good) == http.StatusOK && l.metric(https, verified) > 0
	})
	forged := app
	const flood = 2000
	for i := range flood {
		forged.kid = fmt.Sprintf("random-%d", i)
		if got := ask(l.ctx, https, l.gate, l.ns, forged.token(t, time.Now())); got != http.StatusUnauthorized {
			t.Fatalf("a token with a random kid: %d", got)
		}
	}
	// Of the good token the signature is not checked again.
	before := l.metric(https, verified)
	if got := ask(l.ctx, https, l.gate, l.ns, good); got != http.StatusOK {
		t.Fatalf("the good token after the flood: %d", got)
	}
	if after := l.metric(https, verified); after != before+1 {
		t.Errorf("%v lookups found a verified token after the flood, %v before: the good one was pushed out", after, before)
	}
}

// metric reads one series of the gate.
func (l *live) metric(c *http.Client, series string) (value float64) {
	l.t.Helper()
	response, err := c.Get(l.gate.Metrics)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()

	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, series+" ") {
			if _, err := fmt.Sscan(strings.TrimPrefix(line, series+" "), &value); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	return value
}
