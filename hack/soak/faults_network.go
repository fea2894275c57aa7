package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// some takes one replica's link, or now and then all of them.
func (w *world) some(rng *rand.Rand) (links []*link, name string) {
	all := w.replicas()
	if rng.IntN(4) == 0 {
		for _, r := range all {
			links = append(links, r.link)
		}
		return links, "everyone"
	}
	r := all[rng.IntN(len(all))]
	return []*link{r.link}, r.name
}

func (w *world) slowNetwork(ctx, _ context.Context, rng *rand.Rand) bool {
	links, name := w.some(rng)
	by, d := between(rng, 5*time.Millisecond, 400*time.Millisecond), between(rng, 2*time.Second, 10*time.Second)
	w.event("what %s and the API server say takes %s longer each way, for %s", name, short(by), short(d))
	w.plane.touched()
	for _, l := range links {
		l.slow(by)
	}
	sleep(ctx, d)
	for _, l := range links {
		l.slow(0)
	}
	w.plane.touched()
	return true
}

func (w *world) silentNetwork(ctx, _ context.Context, rng *rand.Rand) bool {
	links, name := w.some(rng)
	d := between(rng, 500*time.Millisecond, 6*time.Second)
	w.event("nothing passes between %s and the API server for %s", name, short(d))
	w.plane.touched()
	for _, l := range links {
		defer l.silence()()
	}
	sleep(ctx, d)
	w.plane.touched()
	return true
}

func (w *world) cutNetwork(ctx, _ context.Context, rng *rand.Rand) bool {
	links, name := w.some(rng)
	d := between(rng, 0, 3*time.Second)
	w.event("connections between %s and the API server are cut, for %s", name, short(d))
	w.plane.touched()
	mend := cut(links, rng.IntN(3) == 0)
	sleep(ctx, d)
	w.noted("mending the network", mend())
	w.plane.touched()
	return true
}

func cut(links []*link, refuse bool) (mend func() error) {
	var ends []func() error
	for _, l := range links {
		ends = append(ends, l.cut(refuse))
	}
	return func() error {
		var errs []error
		for _, end := range ends {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
}

// stopAPIServer kills the API server until the returned function is called. Now
// and then processes find their connections refused meanwhile, as without a
// load balancer in between; after some of those, informers wait up to a minute
// although the API server is back.
func (w *world) stopAPIServer(rng *rand.Rand) (start func() error) {
	var links []*link
	for _, r := range w.replicas() {
		links = append(links, r.link)
	}
	mend := cut(links, rng.IntN(3) == 0)
	err := w.stack.Plane.StopAPIServer()
	return func() error { return errors.Join(err, w.stack.Plane.StartAPIServer(), mend()) }
}
