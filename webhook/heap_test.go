package webhook

import (
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"
	"time"
)

func TestGrowthFor(t *testing.T) {
	for name, tc := range map[string]struct {
		live, beside uint64
		want         int
	}{
		"not known yet":                       {0, 0, 100},
		"almost nothing":                      {1 << 20, 1 << 20, 300},
		"a gate of few objects":               {18 << 20, 0, 250},
		"little changes it little":            {18<<20 + 1<<16, 0, 250},
		"with many requests at once":          {18 << 20, 6 << 20, 150},
		"half of what may be before it grows": {32 << 20, 0, 100},
		"more":                                {200 << 20, 0, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if got := growthFor(tc.live, tc.beside); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

// The collector follows what is live, with each of its runs.
func TestKeepHeap(t *testing.T) {
	growth := func() uint64 {
		sample := []runtimemetrics.Sample{{Name: "/gc/gogc:percent"}}
		runtimemetrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	await := func(what string, ok func(growth uint64) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(growth()); runtime.GC() { // what follows a run comes beside
			if time.Now().After(deadline) {
				t.Fatalf("%s: the heap may grow by %d %%", what, growth())
			}
		}
	}
	usual := func(growth uint64) bool { return growth == usualGrowth }

	t.Setenv("GOGC", "100")
	keepHeap()()
	await("as GOGC says", usual)
	t.Setenv("GOGC", "")
	stop := keepHeap()
	await("little is live", func(growth uint64) bool { return growth > usualGrowth })
	much := make([]byte, 2*heapLeast)
	await("much is live", usual)
	runtime.KeepAlive(much)
	await("it is gone", func(growth uint64) bool { return growth > usualGrowth })
	stop()
	await("at the end", usual)
}
