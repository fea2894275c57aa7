package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/hack/e2e/stack"
)

const (
	howManyGates       = 3
	howManyControllers = 2
)

// options are what the command line says.
type options struct {
	seed uint64
	// faults is how long faults are injected.
	faults time.Duration
	// plainRestore restores etcd without raising its revision.
	plainRestore bool
}

// world is all that runs.
type world struct {
	options
	began    time.Time
	screen   *screen
	stack    *stack.Stack
	binary   string
	specs    []spec
	evidence bool
	history  *history
	follower *follower
	tally    *tally
	crowd    *crowd

	controllers, gates []*replica
	background         sync.WaitGroup

	plane plane

	mu       sync.Mutex
	events   []string
	injected map[string]int
	faults   int
}

// run is a whole soak. The report is there also when it was interrupted.
func run(ctx context.Context, o options, out io.Writer) (*world, error) {
	w := &world{options: o, began: time.Now(), injected: map[string]int{}, tally: newTally()}
	w.screen = newScreen(out, w.began)
	defer w.screen.close()
	w.screen.say("seed %d: %s of faults", o.seed, o.faults)

	// What runs goes on until everything is torn down, also when interrupted.
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer w.background.Wait()
	defer end()
	err := w.start(ctx, alive)
	if err == nil {
		err = w.soak(ctx, alive)
	}
	return w, errors.Join(err, w.stop(end))
}

// start brings everything up, until every gate takes tokens of every key.
func (w *world) start(ctx, alive context.Context) (err error) {
	w.screen.does("starting etcd, API server and controller manager, and installing the chart")
	if w.stack, err = stack.Start(ctx, w.screen); err != nil {
		return err
	}
	w.screen.does("building keywright with clocks that can be set wrong")
	if w.binary, err = buildWithOffset(ctx, w.stack.Dir()); err != nil {
		return err
	}
	if w.evidence, err = w.canBeAsked(ctx); err != nil {
		return err
	}
	w.specs = specs(w.evidence)
	w.history = newHistory(w.specs, w.fault)
	w.follower = &follower{
		etcd: &etcd{url: w.stack.Plane.EtcdURL(), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}},
		into: w.history, beats: map[string]time.Time{},
	}
	if err := w.follower.begin(alive, time.Now()); err != nil {
		return err
	}
	w.screen.does("starting gates and controllers")
	if err := w.startReplicas(ctx, alive); err != nil {
		return err
	}
	for _, obj := range w.objects() {
		if err := w.stack.Client.Create(ctx, obj); err != nil {
			return fmt.Errorf("creating %s: %w", obj.GetName(), err)
		}
	}
	forgers, err := newForgers()
	if err != nil {
		return err
	}
	w.crowd = &crowd{w: w, forgers: forgers, held: map[string][]*token{}}
	w.screen.does("waiting for every gate to take a token of every SigningKey")
	return w.awaitFirst(ctx)
}

func (w *world) objects() []client.Object {
	out := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		canaryKey(),
	}
	for _, s := range w.specs {
		out = append(out, s.signingKey(), s.accessPolicy())
	}
	return out
}

// canBeAsked says whether this build's gates can be asked what they have
// loaded.
func (w *world) canBeAsked(ctx context.Context) (bool, error) {
	out, err := exec.CommandContext(ctx, w.binary, "webhook", "--help").CombinedOutput() //nolint:gosec // built above
	if err != nil {
		return false, fmt.Errorf("asking keywright for its flags: %w\n%s", err, out)
	}
	return strings.Contains(string(out), "--keysets-listen"), nil
}

func (w *world) startReplicas(ctx, alive context.Context) error {
	addresses, err := freeAddresses(4*howManyGates + 3*howManyControllers)
	if err != nil {
		return err
	}
	take := func(n int) (out []string) {
		out, addresses = addresses[:n], addresses[n:]
		return out
	}
	var asked []string
	for i := range howManyGates {
		at := take(4)
		g, err := w.newReplica(alive, "gate", fmt.Sprintf("gate-%d", i), at)
		if err != nil {
			return err
		}
		if w.evidence {
			asked = append(asked, at[3])
			g.args = append(g.args, "--keysets-listen", at[3])
		}
		w.gates = append(w.gates, g)
	}
	for i := range howManyControllers {
		c, err := w.newReplica(alive, "controller", fmt.Sprintf("controller-%d", i), take(3))
		if err != nil {
			return err
		}
		if w.evidence {
			c.args = append(c.args, "--gates", strings.Join(asked, ","))
		}
		w.controllers = append(w.controllers, c)
	}
	rng := rand.New(rand.NewPCG(w.seed, 2)) //nolint:gosec // it has to be repeatable
	for _, r := range w.replicas() {
		if err := r.start(alive, anOffset(rng)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (w *world) replicas() []*replica {
	return append(append([]*replica(nil), w.controllers...), w.gates...)
}

// anOffset is a clock's: any two differ by at most the skew. The ends come more
// often than anything between.
func anOffset(rng *rand.Rand) time.Duration {
	half := clockSkew / 2
	switch rng.IntN(4) {
	case 0:
		return half
	case 1:
		return -half
	}
	return time.Duration(rng.Int64N(int64(clockSkew))) - half
}

func (w *world) awaitFirst(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, s := range w.specs {
		for _, g := range w.gates {
			for {
				w.crowd.sign(s, 0, 0)
				if t := w.crowd.newest(s); t != nil {
					status, _, err := g.get(limited, "/auth/nginx/"+namespace+"/"+t.of, http.Header{
						"X-Original-Url": {"https://soak.example/"}, "X-Original-Method": {"GET"}, "Authorization": {"Bearer " + t.raw},
					})
					if err == nil && status == http.StatusOK {
						break
					}
				}
				if sleep(limited, 200*time.Millisecond); limited.Err() != nil {
					return fmt.Errorf("waiting for %s to take a token of %s: %w", g.name, s.name, limited.Err())
				}
			}
		}
	}
	return nil
}

// soak lets the crowd act while faults are injected, and then until everything
// goes on by itself.
func (w *world) soak(ctx, alive context.Context) error {
	w.screen.tells(w.progress)
	acting, stopActing := context.WithCancel(ctx)
	defer stopActing()
	var running sync.WaitGroup
	running.Go(func() { w.crowd.run(acting, w.seed) })
	running.Go(func() { every(acting, 100*time.Millisecond, w.crowd.judge) })
	w.inject(ctx, alive)

	w.screen.say("no more faults: waiting for every key to rotate once more")
	before := w.history.rotations()
	quiet := time.Now()
	for ctx.Err() == nil && !w.history.rotatedSince(before) {
		if time.Since(quiet) > recoverWithin {
			w.fault("not every key has rotated within %s after the last fault", recoverWithin)
			break
		}
		sleep(ctx, 200*time.Millisecond)
	}
	w.history.checkSequences(w.ranThrough())
	stopActing()
	running.Wait()
	for deadline := time.Now().Add(10 * time.Second); w.crowd.left() > 0 && time.Now().Before(deadline) && ctx.Err() == nil; {
		sleep(alive, 50*time.Millisecond)
		w.crowd.judge()
	}
	if n := w.crowd.left(); n > 0 && ctx.Err() == nil {
		w.fault("%d answers could not be judged: etcd's history is not complete", n)
	}
	return ctx.Err()
}

// recoverWithin is how long it may take until every key rotates again. A
// controller that found a gate away leaves it alone for up to a minute.
const recoverWithin = 150 * time.Second

// ranThrough says whether the controller could know what was before the last
// restore: some gate has run since.
func (w *world) ranThrough() bool {
	for _, g := range w.gates {
		if l, _ := g.up(); l != nil && l.epoch < w.history.currentEpoch() {
			return w.evidence
		}
	}
	return false
}

// stop ends all that was started.
func (w *world) stop(end func()) error {
	w.screen.does("ending all processes")
	if w.follower != nil {
		w.follower.end()
	}
	end()
	for _, r := range w.replicas() {
		r.kill()
		r.link.close()
	}
	if w.stack == nil {
		return nil
	}
	return w.stack.Stop()
}

func (w *world) logOf(name string) string { return filepath.Join(w.stack.Dir(), name+".log") }

// event notes and shows what was done to the world.
func (w *world) event(format string, args ...any) {
	line := clock(time.Now()) + " " + fmt.Sprintf(format, args...)
	w.screen.say("%s", line)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, line)
}

func (w *world) lastEvents(n int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events[max(0, len(w.events)-n):len(w.events):len(w.events)]
}

// count counts an injected fault.
func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.injected[what]++
}

// shownFaults is how many faults are printed in full.
const shownFaults = 20

// fault notes something else than an answer that must not be.
func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	w.faults++
	n := w.faults
	last := strings.Join(w.events[max(0, len(w.events)-8):], "\n    ")
	w.mu.Unlock()
	if n <= shownFaults {
		w.screen.say("FAULT (seed %d): %s\n  last events:\n    %s", w.seed, fmt.Sprintf(format, args...), last)
	}
}

// violation prints an answer that must not be.
func (w *world) violation(q *question, v verdict, why string) {
	if n := w.tally.violates(v); n > shownFaults {
		return
	}
	t := q.token
	w.screen.say(`VIOLATION (seed %d): %s answered %d, and the token %s (%s)
  token of %s, kid %s, signed %s, iat %s, exp %s
  asked %s, answered %s; the gate's clock is %s off; it runs since %s (epoch %d, now %d)
  it had shown to know what was written before %s
  key: %s
  its log: %s
  last events:
    %s`, w.seed, q.gateName, q.status, v, why,
		t.of, t.kid, clock(t.signed), clock(t.iat), clock(t.exp),
		clock(q.asked), clock(q.answered), q.gate.offset, clock(q.gate.started), q.gate.epoch, q.epoch,
		clocks(q.heard), w.history.life(t.kid), w.reason(q), strings.Join(q.events, "\n    "))
}

func clocks(of map[int]time.Time) string {
	var out []string
	for epoch, at := range of {
		out = append(out, fmt.Sprintf("%s in epoch %d", clock(at), epoch))
	}
	return strings.Join(out, ", ")
}
