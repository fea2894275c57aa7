package webhook

import (
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync/atomic"
)

// heapLeast is how large the heap may become before it is worth collecting.
const heapLeast = 64 << 20

// The collector runs when the heap has grown by so many percent of what is
// live, as Go has it and at the most.
const (
	usualGrowth = 100
	// What was made while the collector ran counts as live until it runs
	// again: a heap that was full of it grows to so much more.
	mostGrowth = 300
	// growthStep keeps small changes of what is live from changing it.
	growthStep = 50
)

// keepHeap lets the collector run less often while little is live, until stop
// is called: as it comes it starts anew whenever the heap has doubled, and a
// gate of few objects, which makes garbage with every request, would spend a
// quarter of its time on a heap of some megabytes. A heap beyond heapLeast is
// collected as usual. GOGC, if set, is what counts instead.
func keepHeap() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	var stopped atomic.Bool
	var after func(growth int)
	after = func(growth int) {
		if stopped.Load() {
			return
		}
		if next := growthFor(collected()); next != growth {
			debug.SetGCPercent(next)
			growth = next
		}
		// An object that nothing refers to is found dead by the next
		// collection, after which what is live is known anew.
		runtime.AddCleanup(new([64]byte), after, growth)
	}
	after(usualGrowth)
	return func() {
		stopped.Store(true)
		debug.SetGCPercent(usualGrowth)
	}
}

// growthFor says by how many percent the heap may grow when so many bytes of it
// are live, and the collector goes through so many bytes of stacks and globals
// beside: Go lets it grow by the percentage of all of them.
func growthFor(live, beside uint64) int {
	if live == 0 {
		return usualGrowth // not known yet
	}
	growth := (max(heapLeast, live) - live) * 100 / (live + beside)
	growth -= growth % growthStep
	return int(min(max(growth, usualGrowth), mostGrowth)) //nolint:gosec // at most mostGrowth
}

// collected is what the last collection went through, in bytes.
func collected() (live, beside uint64) {
	samples := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	runtimemetrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64() + samples[2].Value.Uint64()
}
