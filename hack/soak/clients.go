package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
)

const (
	askEvery    = 20 * time.Millisecond // all clients together
	mostAtOnce  = 48
	signEvery   = 250 * time.Millisecond // each application
	singEvery   = 400 * time.Millisecond
	listenEvery = 200 * time.Millisecond
)

// applications are how late the two applications of each SigningKey read their
// mounts, and how wrong their clocks are.
var applications = []struct{ lag, offset time.Duration }{
	{100 * time.Millisecond, -clockSkew / 2},
	{signerLag - 200*time.Millisecond, clockSkew / 2},
}

// question is one token shown to one gate, and what came of it. Times are by
// the true clock.
type question struct {
	token           *token
	gateName        string
	gate            *life
	epoch           int
	heard           map[int]time.Time
	asked, answered time.Time
	status          int
	path            string
	events          []string
}

// crowd are the applications, the clients and the thieves.
type crowd struct {
	w       *world
	forgers forgers

	mu    sync.Mutex
	held  map[string][]*token // by SigningKey, oldest first
	asked int

	pending []*question // not judged yet
}

// run lets them act until ctx ends. What is pending then is still to be judged.
func (c *crowd) run(ctx context.Context, seed uint64) {
	var running sync.WaitGroup
	for _, s := range c.w.specs {
		for _, a := range applications {
			running.Go(func() {
				every(ctx, signEvery, func() { c.sign(s, a.lag, a.offset) })
			})
		}
	}
	running.Go(func() { c.sing(ctx) })
	for _, g := range c.w.gates {
		running.Go(func() { every(ctx, listenEvery, func() { c.listen(ctx, g) }) })
	}
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // it has to be repeatable
	slots := make(chan struct{}, mostAtOnce)
	running.Go(func() {
		every(ctx, askEvery, func() {
			g := c.w.gates[rng.IntN(len(c.w.gates))]
			t := c.choose(rng)
			if t == nil {
				return
			}
			select {
			case slots <- struct{}{}:
			default:
				c.w.tally.aside("not asked: too many questions are open")
				return
			}
			running.Go(func() {
				defer func() { <-slots }()
				c.ask(ctx, g, t)
			})
		})
	})
	running.Wait()
}

// every calls do at a fixed rate until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// sign makes a token as a correct application does.
func (c *crowd) sign(s spec, lag, offset time.Duration) {
	now := time.Now()
	m := c.w.history.mounted(s.name, now, lag)
	if m == nil {
		c.w.tally.aside("not signed: nothing is mounted, or it may be too old")
		return
	}
	iat := now.Add(offset).Truncate(time.Second)
	t := token{
		of: s.name, kid: m.file.Kid, signed: now, iat: iat, exp: iat.Add(time.Duration(m.file.MaxTokenTTL) * time.Second),
		signsAgain: c.w.history.signsAgain(m.file.Kid),
	}
	made, err := t.sign(m.file.private, m.file.Alg, m.file.Iss)
	if err != nil {
		c.w.fault("%v", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	held := append(c.held[s.name], made)
	for len(held) > 0 && now.After(held[0].exp.Add(leeway+2*time.Second)) {
		held = held[1:]
	}
	c.held[s.name] = held
}

// choose takes the token of the next question.
func (c *crowd) choose(rng *rand.Rand) *token {
	s := c.w.specs[rng.IntN(len(c.w.specs))]
	now := time.Now()
	switch n := rng.IntN(100); {
	case n < 8:
		return c.fake(s, now, forgedToken, maxTokenTTL)
	case n < 14:
		return c.fake(s, now, longToken, maxTokenTTL+leeway+time.Second+time.Duration(rng.IntN(20))*time.Second)
	case n < 30:
		ended, revoked := c.w.history.thefts(s.name, now)
		if len(revoked) > 0 && (n < 22 || len(ended) == 0) {
			return c.stolen(revoked[rng.IntN(len(revoked))], now)
		}
		if len(ended) > 0 {
			return c.stolen(ended[rng.IntN(len(ended))], now)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held[s.name]
	if len(held) == 0 {
		return nil
	}
	switch rng.IntN(5) {
	case 0:
		return held[rng.IntN(len(held))]
	case 1, 2, 3: // one that is close to its last moment
		i, _ := slices.BinarySearchFunc(held, now, func(t *token, now time.Time) int { return t.exp.Add(leeway).Compare(now) })
		return held[min(i+rng.IntN(4), len(held)-1)]
	}
	return held[len(held)-1]
}

// fake makes a token under the active key's ID that must not pass.
func (c *crowd) fake(s spec, now time.Time, kind tokenKind, life time.Duration) *token {
	m := c.w.history.mounted(s.name, now, 0)
	if m == nil {
		return nil
	}
	private := m.file.private
	if kind == forgedToken {
		private = c.forgers[s.alg]
	}
	iat := now.Truncate(time.Second)
	t := token{of: s.name, kid: m.file.Kid, kind: kind, signed: now, iat: iat, exp: iat.Add(life)}
	return c.made(t.sign(private, m.file.Alg, m.file.Iss))
}

func (c *crowd) stolen(from theft, now time.Time) *token {
	iat := now.Truncate(time.Second)
	t := token{of: from.of, kid: from.id, kind: stolenToken, signed: now, iat: iat, exp: iat.Add(maxTokenTTL)}
	return c.made(t.sign(from.private, string(from.alg), from.iss))
}

func (c *crowd) made(t *token, err error) *token {
	if err != nil {
		c.w.fault("%v", err)
		return nil
	}
	return t
}

// ask shows a token to a gate and leaves the answer to be judged.
func (c *crowd) ask(ctx context.Context, g *replica, t *token) *question {
	l, paused := g.up()
	switch {
	case paused:
		c.w.tally.aside("not asked: the gate is paused")
		return nil
	case l == nil:
		c.w.tally.aside("not asked: the gate is not there, or not ready")
		return nil
	}
	c.mu.Lock()
	c.asked++
	number := c.asked
	c.mu.Unlock()
	before := g.disturbance()
	q := &question{token: t, gateName: g.name, gate: l, epoch: c.w.history.currentEpoch(), asked: time.Now(), path: "/orders/" + strconv.Itoa(number)}
	q.heard = l.heardBy(q.asked, settle)
	if c.w.history.symmetric(t.kid) {
		q.heard = l.heardBy(q.asked, settleSecrets)
	}
	status, _, err := g.get(ctx, "/auth/nginx/"+namespace+"/"+t.of, http.Header{
		"X-Original-Url": {"https://soak.example" + q.path}, "X-Original-Method": {"GET"}, "Authorization": {"Bearer " + t.raw},
	})
	q.answered, q.status = time.Now(), status
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil && g.disturbance() != before:
		c.w.tally.aside("no answer: the gate was killed or paused meanwhile")
		return nil
	case err != nil:
		c.w.fault("%s gave no answer after %s: %v", g.name, q.answered.Sub(q.asked), err)
		return nil
	}
	q.events = c.w.lastEvents(12)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, q)
	return q
}

// get asks a gate for something.
func (r *replica) get(ctx context.Context, path string, header http.Header) (status int, got http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("asking %s: %w", r.name, err)
	}
	req.Header = header
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("asking %s: %w", r.name, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header, err
}

// judge judges what can be judged: answers that history has caught up with.
func (c *crowd) judge() {
	complete := c.w.history.completeUpTo()
	c.mu.Lock()
	var ripe []*question
	c.pending = slices.DeleteFunc(c.pending, func(q *question) bool {
		if q.answered.Before(complete) {
			ripe = append(ripe, q)
			return true
		}
		return false
	})
	c.mu.Unlock()
	for _, q := range ripe {
		verdict, why := judge(c.w.history.facts(q))
		c.w.tally.add(q, verdict, why)
		passed := q.status == http.StatusOK
		if (verdict == mustPass && !passed) || (verdict == mustRefuse && passed) {
			c.w.violation(q, verdict, why)
		}
	}
}

func (c *crowd) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// sing raises the canary's number. Where it cannot be written, the next one is
// tried.
func (c *crowd) sing(ctx context.Context) {
	number := 1
	every(ctx, singEvery, func() {
		number++
		c.w.history.sings(number)
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		patch := fmt.Appendf(nil, `{"spec":{"jwks":{"maxAge":"%ds"}}}`, number)
		_ = c.w.stack.Client.Patch(limited, canaryKey(), client.RawPatch("application/merge-patch+json", patch))
	})
}

// listen looks which number a gate shows.
func (c *crowd) listen(ctx context.Context, g *replica) {
	l, paused := g.up()
	if paused || l == nil {
		return
	}
	status, header, err := g.get(ctx, "/keys/"+namespace+"/"+canaryName+"/jwks.json", http.Header{})
	if err != nil || status != http.StatusOK {
		return
	}
	_, text, _ := strings.Cut(header.Get("Cache-Control"), "max-age=")
	number, err := strconv.Atoi(text)
	if err != nil {
		return
	}
	if s, ok := c.w.history.sang(number); ok {
		l.hears(s)
	}
	behind := c.w.history.behind(number)
	c.w.tally.wasBehind(behind, g.name)
	if behind > longestBehind && l.complainOnce() {
		c.w.fault("%s is %s behind what the API server holds", g.name, behind.Round(time.Second))
	}
}

// longestBehind is how long a gate that runs may be behind: its informers try
// again after at most a minute.
const longestBehind = 90 * time.Second

// revoke revokes the active key of a SigningKey and measures how long each gate
// that can be asked goes on taking one of its tokens.
func (c *crowd) revoke(ctx context.Context, s spec) (kid string, err error) {
	kid = c.w.history.activeKey(s.name)
	now := time.Now()
	m := c.w.history.mounted(s.name, now, 0)
	if m == nil || m.file.Kid != kid {
		return "", errors.New("there is no active key to be revoked")
	}
	iat := now.Truncate(time.Second)
	t := c.made(token{of: s.name, kid: kid, kind: soundToken, signed: now, iat: iat, exp: iat.Add(maxTokenTTL)}.sign(m.file.private, m.file.Alg, m.file.Iss))
	if t == nil {
		return "", errors.New("there is no token to show")
	}
	c.w.history.revokes(kid)
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		sk := &v1alpha1.SigningKey{}
		if err := c.w.stack.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: s.name}, sk); err != nil {
			return err
		}
		if len(sk.Spec.RevokedKeys) > 100 {
			return errors.New("the list is full")
		}
		sk.Spec.RevokedKeys = append(sk.Spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: kid, Reason: "Compromised"})
		return c.w.stack.Client.Update(ctx, sk)
	})
	if err != nil {
		return kid, err
	}
	done := time.Now()
	var waiting sync.WaitGroup
	for _, g := range c.w.gates {
		waiting.Go(func() {
			before := g.disturbance()
			for ctx.Err() == nil && time.Since(done) < maxTokenTTL {
				q := c.ask(ctx, g, t)
				if q != nil && q.status != http.StatusOK {
					c.w.tally.refusedAfter(max(q.asked.Sub(done), 0), g.disturbance() != before || c.w.planeDisturbed(done))
					return
				}
				sleep(ctx, 20*time.Millisecond)
			}
		})
	}
	waiting.Wait()
	return kid, nil
}

// reason looks up in a gate's log why it denied.
func (w *world) reason(q *question) string {
	raw, err := os.ReadFile(w.logOf(q.gateName))
	if err != nil {
		return err.Error()
	}
	if line := regexp.MustCompile("(?m)^.*" + q.path + `\b.*$`).Find(raw); line != nil {
		return string(line)
	}
	return "nothing in its log (it logs denials up to a rate)"
}
