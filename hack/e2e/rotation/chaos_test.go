package rotation

import (
	"bufio"
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

var (
	chaos     = flag.Duration("chaos", 20*time.Second, "how long TestTwoControllers kills controllers")
	chaosSeed = flag.Uint64("chaos-seed", 0, "of TestTwoControllers; 0: another one each time")
)

// TestTwoControllers runs two controllers with leader election, kills them at
// random moments and starts them again while a key rotates every few seconds.
// A killed leader's lease runs out after 15s: so long rotations pause, and
// tokens pass.
func TestTwoControllers(t *testing.T) {
	t.Parallel()
	s := theStack(t)
	ctx, cancel := context.WithTimeout(t.Context(), *chaos+5*time.Minute)
	defer cancel()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) //nolint:gosec // any number
	}
	t.Logf("seed %d: -chaos %s -chaos-seed %d", seed, *chaos, seed)
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it has to be repeatable
	span := func(low, high time.Duration) time.Duration { return low + time.Duration(rng.Int64N(int64(high-low))) }

	var gates []*stack.Gate
	for _, n := range []string{"gate-chaos-1", "gate-chaos-2"} {
		g, err := s.StartGate(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Kill()
		gates = append(gates, g)
	}
	ns := applied(t, brisk(3*time.Second))
	monitor := startMonitor(ctx, t, ns)
	names := []string{"controller-chaos-1", "controller-chaos-2"}
	var running [2]*stack.Process
	start := func(i int) {
		p, err := s.StartController(ctx, names[i], "--watch-namespaces", ns)
		if err != nil {
			t.Fatal(err)
		}
		running[i] = p
	}
	for i := range running {
		start(i)
		defer func() { running[i].Kill() }()
	}
	tr, stop := startTraffic(t, monitor, gates...)

	holders := map[string]bool{}
	pause := func(d time.Duration, enough func() bool) {
		until := time.NewTimer(d)
		defer until.Stop()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for enough == nil || !enough() {
			lease := &coordinationv1.Lease{}
			key := client.ObjectKey{Namespace: stack.Namespace, Name: "keywright-controller"}
			if err := s.Client.Get(ctx, key, lease); err == nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" {
				holders[*lease.Spec.HolderIdentity] = true
			}
			select {
			case <-until.C:
				return
			case <-tick.C:
			}
		}
	}
	leader := func() int {
		for i, p := range running {
			if leads(ctx, p) {
				return i
			}
		}
		return -1
	}

	kills, ofLeader := 0, 0
	end := time.Now().Add(*chaos)
	left := func() time.Duration { return max(time.Until(end), time.Millisecond) }
	for first := true; time.Now().Before(end); first = false {
		long := 12 * time.Second
		if first {
			long = 4 * time.Second
		}
		pause(min(span(2*time.Second, long), left()), nil)
		leading := leader()
		victim := leading
		if leading < 0 || (!first && rng.IntN(4) == 0) {
			victim = rng.IntN(2)
		}
		running[victim].Kill()
		kills++
		pause(min(span(0, 2*time.Second), left()), nil)
		start(victim)
		if victim == leading {
			ofLeader++
			// Whoever takes over has to live for as long as the lease does.
			pause(min(25*time.Second, left()), func() bool { return leader() >= 0 })
		}
	}
	// It goes on by itself, until a key has come to its end.
	before := monitor.rotations()
	pause(90*time.Second, func() bool { return monitor.rotations() >= before+2 && tr.retired() >= 20 })
	if monitor.rotations() < before+2 {
		t.Errorf("%d rotations in the 90s after the last kill, want two", monitor.rotations()-before)
	}
	c := stop()

	secrets := &corev1.SecretList{}
	if err := s.Client.List(ctx, secrets, client.InNamespace(ns)); err != nil {
		t.Fatal(err)
	}
	keyrings := 0
	for i := range secrets.Items {
		if secrets.Items[i].Type == v1alpha1.SecretTypeKeyring {
			keyrings++
		}
	}
	if keyrings != 1 {
		t.Errorf("%d keyrings, want one", keyrings)
	}
	if ofLeader == 0 || len(holders) < 2 {
		t.Errorf("leadership did not change: %d kills of a leader, %d leaders", ofLeader, len(holders))
	}
	if c.requests == 0 || c.forged == 0 || c.retired == 0 {
		t.Errorf("too little was asked: %s", c)
	}
	monitor.mu.Lock()
	t.Logf("kills: %d (%d of the leader), leaders: %d, rotations: %d, versions of the one keyring: %d, last sequence: %d",
		kills, ofLeader, len(holders), max(0, len(monitor.activations)-1), monitor.versions, monitor.last.Sequence)
	monitor.mu.Unlock()
	t.Log(c)
}

// leads asks a controller whether it holds the lease.
func leads(ctx context.Context, p *stack.Process) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Metrics, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "leader_election_master_status{") {
			return strings.HasSuffix(lines.Text(), " 1")
		}
	}
	return false
}
