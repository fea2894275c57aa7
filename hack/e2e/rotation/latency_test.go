package rotation

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

var revocations = flag.Int("revocations", 10, "how many keys TestRevocationLatency revokes")

// maxListed is how many keys one spec can revoke.
const maxListed = 128

// TestRevocationLatency revokes active keys, one after the other, and measures
// how long after the API server's answer each of three gates goes on letting
// their tokens pass. It demands that they are refused, and stay so.
func TestRevocationLatency(t *testing.T) {
	var all []time.Duration
	byGate := map[string][]time.Duration{}
	for left := *revocations; left > 0; left -= maxListed {
		took := revokeInARow(t, min(left, maxListed))
		for gate, latencies := range took {
			byGate[gate] = append(byGate[gate], latencies...)
			all = append(all, latencies...)
		}
	}
	for _, gate := range slices.Sorted(maps.Keys(byGate)) {
		t.Logf("%s: %s", gate, spread(byGate[gate]))
	}
	t.Logf("from the API server's answer to the refusal, all gates: %s", spread(all))
}

// spread describes durations, by nearest rank. Where one is negative a gate was
// faster than the answer to who made the edit.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "n=0"
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(share float64) time.Duration {
		rank := int(math.Ceil(share * float64(len(sorted))))
		return sorted[max(0, rank-1)].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("n=%d, least %s, median %s, p99 %s, worst %s", len(sorted), at(0), at(0.5), at(0.99), at(1))
}

// revokeInARow revokes n keys of one SigningKey.
func revokeInARow(t *testing.T, n int) map[string][]time.Duration {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Duration(n)*30*time.Second)
	defer cancel()
	l := newLive(t, lasting())
	l.ctx, l.world.ctx = ctx, ctx // a key takes some seconds
	gates := l.gates(3)
	https := httpsClient(t, gates...)
	l.controller = l.start("controller")
	took := map[string][]time.Duration{}
	previous := ""
	for range n {
		await(t, time.Minute, "a key that signs", func() bool {
			sk := &v1alpha1.SigningKey{}
			err := l.api.Get(ctx, client.ObjectKey{Namespace: l.ns, Name: l.name}, sk)
			return err == nil && sk.Status.ActiveKeyID != "" && sk.Status.ActiveKeyID != previous && sk.Status.NextKeyID != ""
		})
		previous = l.active()
		l.awaitActive(previous)
		raw := l.app().token(t, time.Now())
		l.passes(https, gates, "a token of the active key", raw)

		// Without a pause: what is measured is the gate.
		answers := make([]polled, len(gates))
		polling, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		for i, g := range gates {
			running.Go(func() { answers[i] = poll(polling, https, g, l.ns, raw) })
		}
		sk := l.sk()
		before := client.MergeFrom(sk.DeepCopy()) // whatever the controller writes meanwhile
		revoking("Compromised", previous)(&sk.Spec)
		if err := l.api.Patch(ctx, sk, before); err != nil {
			stop()
			t.Fatal(err)
		}
		answered := time.Now()
		running.Wait()
		stop()
		for i, g := range gates {
			switch p := answers[i]; {
			case p.passed.IsZero() || p.passed.After(p.refused):
				t.Errorf("%s: the token of key %s did not pass just before", g.Name, previous)
			case p.refused.IsZero():
				t.Errorf("%s: the token of the revoked key %s was never refused", g.Name, previous)
			case p.again != 0:
				t.Errorf("%s: after the refusal the token of the revoked key %s was answered with %d", g.Name, previous, p.again)
			default:
				took[g.Name] = append(took[g.Name], p.refused.Sub(answered))
			}
		}
	}
	return took
}

// polled is what came of asking one gate over and over.
type polled struct {
	// passed is when the token last passed, and refused when the first refusal
	// had come.
	passed, refused time.Time
	// again is another answer after the refusal; 0: there was none.
	again int
}

// poll asks a gate until it has refused a token, and a little longer.
func poll(ctx context.Context, https *http.Client, g *stack.Gate, ns, raw string) (p polled) {
	const longer = 50
	for after := 0; after < longer && ctx.Err() == nil; {
		switch status := ask(ctx, https, g, ns, raw); {
		case status == http.StatusOK && p.refused.IsZero():
			p.passed = time.Now()
		case status == http.StatusUnauthorized && p.refused.IsZero():
			p.refused = time.Now()
		case status == http.StatusUnauthorized:
			after++
		case !p.refused.IsZero():
			p.again = status
			return p
		}
	}
	return p
}
