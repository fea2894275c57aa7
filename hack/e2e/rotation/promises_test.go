package rotation

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
	"github.com/keywright/keywright/webhook/token"
)

// promises are tokens that have to pass until they end, and keys whose tokens
// must never pass again, at a gate that runs all along and at one that starts
// anew each time.
type promises struct {
	w       *world
	running *gate
	kept    []promised
	stolen  []stolen
}

type promised struct {
	what, raw string
	end       time.Time
}

type stolen struct {
	what    string
	signer  signer
	reasons []error
}

// promises looks at its tokens whenever time has passed or the controller has
// worked.
func (w *world) promises() *promises {
	w.t.Helper()
	p := &promises{w: w, running: w.gate()}
	w.each = func() { p.check("meanwhile") }
	return p
}

// keep adds a token that is signed now.
func (p *promises) keep(what string, s signer) {
	p.w.t.Helper()
	p.kept = append(p.kept, promised{what: what, raw: s.token(p.w.t, p.w.now), end: p.w.now.Truncate(time.Second).Add(s.ttl)})
}

// revoked says that nothing of a key passes from now on. Its thief goes on
// signing.
func (p *promises) revoked(what string, s signer) {
	p.stolen = append(p.stolen, stolen{what, s, []error{token.ErrUnknownKey}})
}

// retired is revoked for a key that came to its end by itself.
func (p *promises) retired(what string, s signer) {
	p.stolen = append(p.stolen, stolen{what, s, []error{token.ErrUnknownKey, token.ErrKeyRetired}})
}

func (p *promises) check(when string) {
	p.w.t.Helper()
	p.running.load()
	for which, g := range map[string]*gate{"the gate that runs all along": p.running, "a gate that starts anew": p.w.gate()} {
		for _, k := range p.kept {
			if p.w.now.Before(k.end) {
				g.accepts(k.raw, p.w.now, fmt.Sprintf("%s, %s: %s", when, which, k.what))
			}
		}
		for _, s := range p.stolen {
			g.refuses(s.signer.token(p.w.t, p.w.now), p.w.now, fmt.Sprintf("%s, %s: %s", when, which, s.what), s.reasons...)
		}
	}
}

// restore puts a Secret back as a backup tool does, whatever has become of it.
func (w *world) restore(backup *corev1.Secret) {
	w.t.Helper()
	s := backup.DeepCopy()
	s.ResourceVersion, s.UID = "", ""
	now := &corev1.Secret{}
	err := w.api.Get(w.ctx, client.ObjectKeyFromObject(backup), now)
	switch {
	case client.IgnoreNotFound(err) != nil:
	case err != nil:
		err = w.api.Create(w.ctx, s)
	default:
		s.ResourceVersion = now.ResourceVersion
		err = w.api.Update(w.ctx, s)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.wake = w.now // the controller hears of it
}

// standbyOf is who would sign with the key that stands by.
func (w *world) standbyOf() signer {
	w.t.Helper()
	return w.holderOf(w.ring().Standby().Private)
}

// holderOf is who has got hold of a private JWK.
func (w *world) holderOf(jwk json.RawMessage) signer {
	w.t.Helper()
	s := signerOf(w.t, jwk)
	s.iss, s.ttl = w.sk().Spec.Issuer, w.sk().Spec.MaxTokenTTL.Duration
	return s
}

// lasting is a SigningKey for real processes whose tokens live longer than a
// test runs, and which rotates when it is told to.
func lasting(edits ...func(*v1alpha1.SigningKeySpec)) v1alpha1.SigningKeySpec {
	s := brisk(time.Hour)
	s.MaxTokenTTL = duration(10 * time.Minute)
	for _, edit := range edits {
		edit(&s)
	}
	return s
}

// hs256 makes of a spec one that has a secret, which is never published.
func hs256(s *v1alpha1.SigningKeySpec) { s.Algorithm, s.JWKS = "HS256", nil }

// gates starts more gates and gives all n.
func (l *live) gates(n int) []*stack.Gate {
	l.t.Helper()
	gates := []*stack.Gate{l.gate}
	for i := 2; i <= n; i++ {
		gates = append(gates, l.startGate(fmt.Sprintf("gate-%d", i)))
	}
	return gates
}

// standsBy waits until a key stands by that is not one of others, and all
// verifiers know it.
func (l *live) standsBy(others ...string) string {
	l.t.Helper()
	id := ""
	await(l.t, time.Minute, "a key that stands by", func() bool {
		sk := &v1alpha1.SigningKey{}
		if err := l.api.Get(l.ctx, client.ObjectKey{Namespace: l.ns, Name: l.name}, sk); err != nil {
			return false // the API server may be busy
		}
		for _, k := range sk.Status.Keys {
			if k.KeyID == sk.Status.NextKeyID && k.PublishedAt != nil && !slices.Contains(others, k.KeyID) {
				id = k.KeyID
				return sk.Status.ActiveKeyID != "" && time.Since(k.PublishedAt.Time) > briskLag
			}
		}
		return false
	})
	return id
}

// turn triggers a rotation and gives who signed before.
func (l *live) turn(trigger string) (old signer) {
	l.t.Helper()
	old, next := l.app(), l.standsBy()
	l.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = trigger })
	l.awaitActive(next)
	return old
}

// awaitActive waits until a key is active and signers have it.
func (l *live) awaitActive(id string) {
	l.t.Helper()
	await(l.t, time.Minute, "key "+id+" to sign", func() bool {
		s := &corev1.Secret{}
		err := l.api.Get(l.ctx, client.ObjectKey{Namespace: l.ns, Name: l.name + "-signing"}, s)
		return err == nil && l.active() == id && string(s.Data["kid"]) == id
	})
}

// passes waits until a token passes at each gate.
func (l *live) passes(https *http.Client, gates []*stack.Gate, what, raw string) {
	l.t.Helper()
	for _, g := range gates {
		await(l.t, time.Minute, what+" to pass at "+g.Name, func() bool {
			return ask(l.ctx, https, g, l.ns, raw) == http.StatusOK
		})
	}
}

// refused waits until a token passes no more at any gate.
func (l *live) refused(https *http.Client, gates []*stack.Gate, what, raw string) {
	l.t.Helper()
	for _, g := range gates {
		await(l.t, time.Minute, what+" to be refused at "+g.Name, func() bool {
			return ask(l.ctx, https, g, l.ns, raw) == http.StatusUnauthorized
		})
	}
}

// keepAsking sends tokens that have to pass to every gate, over and over. stop
// says how many requests there were; a refusal is an error.
func (l *live) keepAsking(https *http.Client, gates []*stack.Gate, tokens map[string]string) (stop func() (requests int)) {
	ctx, cancel := context.WithCancel(l.ctx)
	var running sync.WaitGroup
	var mu sync.Mutex
	requests := 0
	refused := map[string]string{} // the first of each
	for _, g := range gates {
		running.Go(func() {
			every(ctx, 20*time.Millisecond, func(int) {
				for what, raw := range tokens {
					asked := time.Now()
					status := ask(ctx, https, g, l.ns, raw)
					if ctx.Err() != nil {
						return
					}
					mu.Lock()
					requests++
					if at := what + " at " + g.Name; status != http.StatusOK && refused[at] == "" {
						refused[at] = fmt.Sprintf("%s was answered with %d at %s", at, status, asked.Format("15:04:05.000"))
					}
					mu.Unlock()
				}
			})
		})
	}
	return func() int {
		l.t.Helper()
		cancel()
		running.Wait()
		for _, what := range refused {
			l.t.Errorf("%s: it had to pass", what)
		}
		return requests
	}
}

// served is what a gate serves as the JWKS.
func (l *live) served(https *http.Client, g *stack.Gate) (status int, document string) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.ctx, http.MethodGet, g.URL+"/keys/"+l.ns+"/"+l.name+"/jwks.json", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := https.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// told waits for an event of the SigningKey and gives its text.
func (l *live) told(reason string, has ...string) string {
	l.t.Helper()
	text := ""
	await(l.t, 20*time.Second, "the event "+reason, func() bool {
		list := &eventsv1.EventList{}
		if err := l.api.List(l.ctx, list, client.InNamespace(l.ns)); err != nil {
			return false
		}
		for i := range list.Items {
			e := &list.Items[i]
			if e.Reason == reason && e.Regarding.Name == l.name && !slices.ContainsFunc(has, func(s string) bool { return !strings.Contains(e.Note, s) }) {
				text = e.Type + " " + e.Note
				return true
			}
		}
		return false
	})
	return text
}

// drained are the texts of the events so far, newest last.
func drained(recorder chan string) (texts []string) {
	for {
		select {
		case e := <-recorder:
			texts = append(texts, e)
		default:
			return texts
		}
	}
}

// demand fails unless the texts have one that contains want.
func demand(t *testing.T, when string, texts []string, want string) {
	t.Helper()
	if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, want) }) {
		t.Errorf("%s: no event says %q:\n%s", when, want, strings.Join(texts, "\n"))
	}
}
