package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// plane is what is done to etcd and the API server, one at a time.
type plane struct {
	busy sync.Mutex

	mu     sync.Mutex
	last   time.Time // when something was last done
	back   time.Time // when the API server came back
	copies []copied
}

// copied is a copy of etcd's data, and which keys it has: by SigningKey those
// that were active, and all.
type copied struct {
	dir    string
	at     time.Time
	active map[string]string
	keys   map[string]bool
}

// betweenOutages is how long the API server is left alone after it was away:
// a controller that lost the lease comes back after 15s, and something has to
// happen before the next outage.
const betweenOutages = 30 * time.Second

// outage takes the plane once it is free and the last outage long enough ago.
func (p *plane) outage(ctx context.Context) (end func(), ok bool) {
	for p.begin(ctx) {
		p.mu.Lock()
		wait := time.Until(p.back.Add(betweenOutages))
		p.mu.Unlock()
		if wait <= 0 {
			return func() {
				p.mu.Lock()
				p.back = time.Now()
				p.mu.Unlock()
				p.end()
			}, true
		}
		p.end()
		sleep(ctx, wait)
	}
	return nil, false
}

// begin takes the plane once it is free; false: ctx ended before.
func (p *plane) begin(ctx context.Context) bool {
	p.busy.Lock()
	if ctx.Err() != nil {
		p.busy.Unlock()
		return false
	}
	p.touched()
	return true
}

func (p *plane) end() {
	p.touched()
	p.busy.Unlock()
}

func (p *plane) touched() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}

// planeDisturbed says whether something was done to etcd, the API server or the
// network to it since shortly before a time.
func (w *world) planeDisturbed(since time.Time) bool {
	w.plane.mu.Lock()
	defer w.plane.mu.Unlock()
	return w.plane.last.After(since.Add(-5 * time.Second))
}

func (w *world) pauseAPIServer(ctx, _ context.Context, rng *rand.Rand) bool {
	return w.pausePlane(ctx, rng, "the API server", w.stack.Plane.PauseAPIServer, w.stack.Plane.ResumeAPIServer)
}

func (w *world) pauseEtcd(ctx, _ context.Context, rng *rand.Rand) bool {
	return w.pausePlane(ctx, rng, "etcd", w.stack.Plane.PauseEtcd, w.stack.Plane.ResumeEtcd)
}

func (w *world) pausePlane(ctx context.Context, rng *rand.Rand, name string, pause, resume func() error) bool {
	if !w.plane.begin(ctx) {
		return false
	}
	defer w.plane.end()
	d := between(rng, 500*time.Millisecond, 5*time.Second)
	w.event("pause of %s for %s", name, short(d))
	err := pause()
	sleep(ctx, d)
	w.noted("pausing "+name, errors.Join(err, resume()))
	return true
}

// noted says that the soak itself could not do something.
func (w *world) noted(what string, err error) {
	if err != nil {
		w.fault("%s: %v", what, err)
	}
}

func (w *world) restartAPIServer(ctx, _ context.Context, rng *rand.Rand) bool {
	end, ok := w.plane.outage(ctx)
	if !ok {
		return false
	}
	defer end()
	down := between(rng, 0, 3*time.Second)
	w.event("kill -9 of the API server, for %s and as long as it takes to start", short(down))
	start := w.stopAPIServer(rng)
	sleep(ctx, down)
	w.noted("restarting the API server", start())
	w.event("the API server is back")
	return true
}

// restartEtcd kills etcd and keeps a copy of its data.
func (w *world) restartEtcd(ctx, _ context.Context, _ *rand.Rand) bool {
	if !w.plane.begin(ctx) {
		return false
	}
	defer w.plane.end()
	w.copyEtcd()
	return true
}

func (w *world) copyEtcd() {
	w.event("kill -9 of etcd, for as long as it takes to copy its data and to start")
	c := copied{dir: filepath.Join(w.stack.Dir(), fmt.Sprintf("etcd-%d", time.Now().UnixNano())), at: time.Now()}
	err := w.stack.Plane.StopEtcd()
	c.active, c.keys = w.history.actives(), w.history.keyIDs()
	err = errors.Join(err, os.CopyFS(c.dir, os.DirFS(w.stack.Plane.EtcdData())), w.stack.Plane.StartEtcd())
	w.noted("copying etcd's data", err)
	if err != nil {
		return
	}
	w.plane.mu.Lock()
	w.plane.copies = append(w.plane.copies, c)
	old := copied{}
	if n := len(w.plane.copies); n > 2 {
		old, w.plane.copies = w.plane.copies[0], slices.Clone(w.plane.copies[1:])
	}
	w.plane.mu.Unlock()
	if old.dir != "" {
		_ = os.RemoveAll(old.dir) // it goes with the stack's folder
	}
}

// restore puts an earlier copy of etcd's data in place, so that at least one
// rotation is rolled back, now and then one to a key that the copy does not
// have, and now and then a revocation as well. Gates run on and know more than
// the API server.
func (w *world) restore(ctx, alive context.Context, rng *rand.Rand) bool {
	if len(w.plane.kept()) == 0 && !w.restartEtcd(ctx, alive, rng) {
		return false
	}
	variant := rng.IntN(3)
	for deadline := time.Now().Add(3 * interval); time.Now().Before(deadline) && ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		if kept := w.plane.kept(); len(kept) > 0 && w.enough(kept[0], variant == 0) {
			if variant == 1 {
				w.revokeIn(ctx, kept[0])
			}
			break
		}
	}
	end, ok := w.plane.outage(ctx)
	if !ok {
		return false
	}
	defer end()
	copies := w.plane.forget() // they are of another history then
	defer func() {
		for _, c := range copies {
			_ = os.RemoveAll(c.dir) // it goes with the stack's folder
		}
	}()
	if len(copies) == 0 {
		return false
	}
	c := copies[0]
	names := w.rolledBack(c)
	if len(names) == 0 {
		return false
	}
	w.event("restore of etcd to %s: rotations of %v are rolled back", clock(c.at), names)
	after := time.Now()
	data := w.stack.Plane.EtcdData()
	start := w.stopAPIServer(rng)
	// What gates may have heard has to be known before it is gone.
	for stopped := time.Now(); w.history.completeUpTo().Before(stopped) && alive.Err() == nil; {
		sleep(alive, 20*time.Millisecond)
	}
	w.follower.end()
	err := errors.Join(w.stack.Plane.StopEtcd(), os.RemoveAll(data), os.CopyFS(data, os.DirFS(c.dir)), os.Chmod(data, 0o700))
	if err == nil {
		err = w.stack.Plane.StartEtcd()
	}
	if err == nil && !w.plainRestore {
		err = w.follower.etcd.outgrow(alive, w.follower.highestRevision())
	}
	if err == nil {
		err = w.follower.begin(alive, after)
	}
	w.noted("restoring etcd", errors.Join(err, start()))
	w.event("the API server is back, with what was there at %s", clock(c.at))
	return true
}

// kept are the copies that there are, the oldest first.
func (p *plane) kept() []copied {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.copies
}

func (p *plane) forget() []copied {
	p.mu.Lock()
	defer p.mu.Unlock()
	copies := p.copies
	p.copies = nil
	return copies
}

// rolledBack are the SigningKeys that have another active key than in a copy.
func (w *world) rolledBack(c copied) (names []string) {
	now := w.history.actives()
	for _, s := range w.specs {
		if now[s.name] != c.active[s.name] {
			names = append(names, s.name)
		}
	}
	return names
}

// enough says whether a restore would roll back something, or lose a key that
// signs.
func (w *world) enough(c copied, loses bool) bool {
	for name, id := range w.history.actives() {
		if (loses && !c.keys[id]) || (!loses && id != c.active[name]) {
			return true
		}
	}
	return false
}

// revokeIn revokes a key that a copy has, which a restore takes back.
func (w *world) revokeIn(ctx context.Context, c copied) {
	for _, s := range w.specs {
		if c.keys[w.history.activeKey(s.name)] {
			w.revoke(ctx, s)
			return
		}
	}
}
