package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// kind is a kind of fault. do injects one and returns when it is over; false:
// what it is for is busy with another one.
type kind struct {
	name string
	in   int // how often it is in the deck
	do   func(w *world, ctx, alive context.Context, rng *rand.Rand) bool
}

// kinds are shuffled like a deck of cards and taken one after another, so that
// each comes in time.
var kinds = []kind{
	{"kill -9 of a controller, and start", 1, (*world).killController},
	{"kill -9 of a gate, and start", 4, (*world).killGate},
	{"pause of a controller", 2, (*world).pauseController},
	{"pause of a gate", 3, (*world).pauseGate},
	{"pause of the API server", 2, (*world).pauseAPIServer},
	{"pause of etcd", 2, (*world).pauseEtcd},
	{"kill -9 of the API server, and start", 2, (*world).restartAPIServer},
	{"kill -9 of etcd, copy, and start", 2, (*world).restartEtcd},
	{"restore of etcd from an earlier copy", 2, (*world).restore},
	{"slow network", 3, (*world).slowNetwork},
	{"silent network", 2, (*world).silentNetwork},
	{"cut network", 3, (*world).cutNetwork},
	{"output deleted", 4, (*world).deleteOutput},
	{"output overwritten", 4, (*world).overwriteOutput},
	{"keyring deleted", 2, (*world).deleteKeyring},
	{"keyring rolled back", 2, (*world).rollBackKeyring},
	{"active key revoked", 4, (*world).revokeActive},
}

// between gives a span.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

// inject injects faults for a while and waits until the last one is over. What
// is begun is brought to its end, also when ctx ends.
func (w *world) inject(ctx, alive context.Context) {
	rng := rand.New(rand.NewPCG(w.seed, 0)) //nolint:gosec // it has to be repeatable
	limited, cancel := context.WithTimeout(ctx, w.options.faults)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	var deck []kind
	for {
		sleep(limited, between(rng, 500*time.Millisecond, 3500*time.Millisecond))
		if limited.Err() != nil {
			return
		}
		if len(deck) == 0 {
			for _, k := range kinds {
				for range k.in {
					deck = append(deck, k)
				}
			}
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		next := deck[0]
		deck = deck[1:]
		own := rand.New(rand.NewPCG(rng.Uint64(), 0)) //nolint:gosec // it has to be repeatable
		running.Go(func() {
			if next.do(w, limited, alive, own) {
				w.count(next.name)
			}
		})
	}
}

// one takes a replica that nobody else is busy with.
func one(rng *rand.Rand, of []*replica) *replica {
	for _, i := range rng.Perm(len(of)) {
		if of[i].busy.TryLock() {
			return of[i]
		}
	}
	return nil
}

func (w *world) killController(ctx, alive context.Context, rng *rand.Rand) bool {
	candidates := w.controllers
	if rng.IntN(2) > 0 { // the one that leads
		for _, c := range w.controllers {
			if c.leads(ctx) {
				candidates = []*replica{c}
			}
		}
	}
	return w.killOne(ctx, alive, rng, candidates)
}

func (w *world) killGate(ctx, alive context.Context, rng *rand.Rand) bool {
	return w.killOne(ctx, alive, rng, w.gates)
}

func (w *world) killOne(ctx, alive context.Context, rng *rand.Rand, of []*replica) bool {
	r := one(rng, of)
	if r == nil {
		return false
	}
	defer r.busy.Unlock()
	down, offset := between(rng, 0, 3*time.Second), anOffset(rng)
	w.event("kill -9 of %s, for %s; then its clock is %s off", r.name, short(down), short(offset))
	r.kill()
	sleep(ctx, down)
	r.again(alive, offset)
	return true
}

func (w *world) pauseController(ctx, _ context.Context, rng *rand.Rand) bool {
	long := 5 * time.Second
	if rng.IntN(4) == 0 {
		long = 22 * time.Second // longer than the lease lives
	}
	return w.pauseOne(ctx, rng, w.controllers, long)
}

func (w *world) pauseGate(ctx, _ context.Context, rng *rand.Rand) bool {
	return w.pauseOne(ctx, rng, w.gates, 8*time.Second)
}

func (w *world) pauseOne(ctx context.Context, rng *rand.Rand, of []*replica, long time.Duration) bool {
	r := one(rng, of)
	if r == nil {
		return false
	}
	defer r.busy.Unlock()
	d := between(rng, long/8, long)
	w.event("pause of %s for %s", r.name, short(d))
	r.pause(ctx, d)
	return true
}

// short is a span for people.
func short(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
