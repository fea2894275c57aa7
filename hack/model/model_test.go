package model

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	histories      = flag.Int("histories", fromEnv("HISTORIES", 10000), "how many random histories")
	firstSeed      = flag.Uint64("seed", 1, "seed of the first history; the next ones count on")
	faultHistories = flag.Int("fault-histories", 2000, "how many histories may pass before a planted fault must have shown")
	verbose        = flag.Bool("history", false, "print the history of -seed, whether it fails or not")
	shrinkTries    = flag.Int("shrink", 500, "how many shorter histories are tried when one fails")
	onlySteps      = stepList(allSteps())
)

func init() {
	flag.Var(&onlySteps, "steps", "with -history: the steps to run, such as 3,17,22")
}

func fromEnv(name string, fallback int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return fallback
}

// stepList is steps of a history as a flag: 3,17,22.
type stepList []int

func (l stepList) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(l)), " ", ","), "[]")
}

// Set reads what String writes.
func (l *stepList) Set(text string) error {
	*l = nil
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no step: write 3,17,22", field)
		}
		*l = append(*l, n)
	}
	return nil
}

// TestModel walks random histories. A failure names its seed, and the few
// steps that suffice for it.
func TestModel(t *testing.T) {
	if *verbose {
		w := run(*firstSeed, onlySteps)
		t.Log("\n" + strings.Join(w.log, "\n"))
		if w.failure != "" {
			t.Fatalf("seed %d: %s", *firstSeed, w.failure)
		}
		return
	}
	// Most of what a history makes is garbage soon, and little of it is alive
	// at once: memory is cheaper than collecting it often.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	walked := walk(*firstSeed, uint64(*histories)) //nolint:gosec // a count from a flag
	t.Logf("%d histories from seed %d: %d activations, %d tokens signed", *histories, *firstSeed, walked.activations.Load(), walked.tokens.Load())
	if n := walked.firstFailing.Load(); n < uint64(*histories) { //nolint:gosec // a count from a flag
		t.Error(explain(*firstSeed+n, *shrinkTries))
	}
}

// walked is what came of many histories.
type walked struct {
	// firstFailing is the place of the first history that failed; as many as
	// there are when none did.
	firstFailing        atomic.Uint64
	activations, tokens atomic.Int64
}

// walk runs histories, up to the first one that fails.
func walk(seed, count uint64) *walked {
	var out walked
	out.firstFailing.Store(count)
	var next atomic.Uint64
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			// Earlier ones are finished whatever a later one does: which one
			// is named must not depend on who was faster.
			for n := next.Add(1) - 1; n < out.firstFailing.Load(); n = next.Add(1) - 1 {
				w := run(seed+n, allSteps())
				out.activations.Add(int64(w.inv.activations))
				out.tokens.Add(int64(w.signed))
				if w.failure != "" {
					lower(&out.firstFailing, n)
				}
			}
		})
	}
	wait.Wait()
	return &out
}

// lower sets a to n, unless it is lower already.
func lower(a *atomic.Uint64, n uint64) {
	for old := a.Load(); n < old; old = a.Load() {
		if a.CompareAndSwap(old, n) {
			return
		}
	}
}

// explain reports a history that fails, by the shortest one like it that was
// found in so many tries.
func explain(seed uint64, tries int) string {
	steps := stepList(shrink(allSteps(), tries, func(steps []int) bool { return run(seed, steps).failure != "" }))
	w := run(seed, steps)
	return fmt.Sprintf("seed %d: %s\nIt fails with these of its %d steps:\n%s\nAgain: go test ./hack/model -run Model -seed %[1]d -history -steps %[5]q",
		seed, w.failure, historyLength, strings.Join(w.log, "\n"), steps)
}

// TestReplay holds what shrinking stands on: a history goes the same way each
// time, although its keys are others.
func TestReplay(t *testing.T) {
	for seed := range uint64(20) {
		for _, steps := range [][]int{allSteps(), {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37}} {
			first, second := run(seed, steps), run(seed, steps)
			if !slices.Equal(first.log, second.log) || !first.t.Equal(second.t) || first.api.seq != second.api.seq {
				t.Errorf("seed %d went two ways:\n%s\n\n%s", seed, strings.Join(first.log, "\n"), strings.Join(second.log, "\n"))
			}
		}
	}
}
