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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/hack/e2e/stack"
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

// tamperedEntry marks a signer Secret that the soak wrote: no application can
// be held to what is in there.
const tamperedEntry = "tampered"

// change does something to an object as an administrator. It may fail, when the
// API server is away.
func (w *world) change(ctx context.Context, what string, do func(context.Context) error) bool {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	w.event("%s", what)
	if err := do(limited); err != nil {
		w.event("that failed: %v", err)
		return false
	}
	return true
}

func (w *world) aSpec(rng *rand.Rand) spec { return w.specs[rng.IntN(len(w.specs))] }

// output is one that the controller keeps.
func (w *world) output(rng *rand.Rand) (obj client.Object, name string) {
	s := w.aSpec(rng)
	switch {
	case rng.IntN(2) == 0:
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name + signerSuffix}}, "signer Secret of " + s.name
	case s.alg.Symmetric():
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: stack.Namespace, Name: keyset.HMACSecretName}}, "Secret " + keyset.HMACSecretName
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name + "-jwks"}}, "JWKS ConfigMap of " + s.name
}

func (w *world) deleteOutput(ctx, _ context.Context, rng *rand.Rand) bool {
	obj, name := w.output(rng)
	return w.change(ctx, "delete "+name, func(ctx context.Context) error { return w.stack.Client.Delete(ctx, obj) })
}

func (w *world) overwriteOutput(ctx, _ context.Context, rng *rand.Rand) bool {
	obj, name := w.output(rng)
	how := rng.IntN(3)
	return w.change(ctx, fmt.Sprintf("overwrite %s (%s)", name, []string{"with nothing", "with nonsense", "with what was"}[how]), func(ctx context.Context) error {
		if err := w.stack.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err
		}
		switch o := obj.(type) {
		case *corev1.ConfigMap:
			o.Data = [...]map[string]string{nil, {controllers.JWKSEntry: "{"}, {controllers.JWKSEntry: `{"keys":[]}`}}[how]
		case *corev1.Secret:
			if o.Name == keyset.HMACSecretName {
				o.Data = [...]map[string][]byte{nil, {keyset.HMACEntryName(namespace, "hs256"): []byte("{")}, {}}[how]
				break
			}
			o.Data = map[string][]byte{tamperedEntry: []byte("yes")}
			if how > 0 {
				o.Data[controllers.SigningJWKEntry] = []byte("{")
			}
			if of := o.Name[:len(o.Name)-len(signerSuffix)]; how == 2 {
				if old := w.history.olderSigner(of); old != nil {
					o.Data[controllers.SigningJWKEntry] = old
				}
			}
		}
		return w.stack.Client.Update(ctx, obj)
	})
}

func (w *world) deleteKeyring(ctx, _ context.Context, rng *rand.Rand) bool {
	s := w.aSpec(rng)
	w.history.shakes(s.name)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name + keyringSuffix}}
	return w.change(ctx, "delete the keyring of "+s.name, func(ctx context.Context) error { return w.stack.Client.Delete(ctx, secret) })
}

func (w *world) rollBackKeyring(ctx, _ context.Context, rng *rand.Rand) bool {
	s := w.aSpec(rng)
	old := w.history.olderRing(s.name)
	if old == nil {
		return false
	}
	w.history.shakes(s.name)
	return w.change(ctx, "roll back the keyring of "+s.name, func(ctx context.Context) error {
		secret := &corev1.Secret{}
		if err := w.stack.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: s.name + keyringSuffix}, secret); err != nil {
			return err
		}
		secret.Data[controllers.KeyringEntry] = old
		return w.stack.Client.Update(ctx, secret)
	})
}

func (w *world) revokeActive(ctx, _ context.Context, rng *rand.Rand) bool {
	return w.revoke(ctx, w.aSpec(rng))
}

func (w *world) revoke(ctx context.Context, s spec) bool {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	w.event("revoke the active key of %s", s.name)
	kid, err := w.crowd.revoke(limited, s)
	if err != nil {
		w.event("revoking key %s of %s failed: %v", kid, s.name, err)
		return false
	}
	return true
}

// short is a span for people.
func short(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
