package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// Indexes of a case's servers.
const (
	floor = iota
	gate
	sides
)

var sideNames = [sides]string{"floor", "gate"}

// result is a case with what was measured.
type result struct {
	measured
	servers  [sides]*server
	requests int
	samples  [sides][]sample // one a round
	rounds   int             // measured
}

// busyEnough is the least share of its core that a server must have had for
// its rate to be its own, and not the load's or other processes'.
const busyEnough = 0.95

// enough is how many undisturbed rounds make the others count for nothing.
const enough = 3

func report(w io.Writer, table []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) } // to a terminal
	row("\ncase\tserver\trequests/s\tCPU µs/request\tserver's core\tload's core")
	disturbed := false
	for i := range table {
		r := &table[i]
		disturbed = !r.dropDisturbed() || disturbed
		for side, samples := range r.samples {
			row("%s\t%s\t%.0f\t%.1f\t%.0f %%\t%.0f %%", r.name, sideNames[side],
				median(each(samples, sample.rate)), median(each(samples, sample.perRequest)),
				100*median(each(samples, sample.serverShare)),
				100*median(each(samples, func(s sample) float64 { return s.LoadCPU / s.Seconds })))
		}
	}
	row("\ngate/floor\tby rate\tby CPU time\tbar\tlater bar\trounds")
	for i := range table {
		r := &table[i]
		rates := r.ratios(sample.rate)
		times := r.ratios(func(s sample) float64 { return 1 / s.perRequest() })
		row("%s\t%s\t%s\t%s\t%s\t%d of %d", r.name, spread(rates), spread(times),
			against(r.bar, rates), against(r.later, rates), len(rates), r.rounds)
	}
	_ = t.Flush() // to a terminal
	_, _ = fmt.Fprintln(w, "\nMedians of the rounds that count; in parentheses the lowest and the highest.")
	if disturbed {
		_, _ = fmt.Fprintf(w, "In nearly all rounds of a case a server had less than %.0f %% of its core: something else ran there,\n"+
			"or the load was too slow. Its rates are worth little; its ratio by CPU time is worth more.\n", 100*busyEnough)
	}
}

// dropDisturbed leaves only the rounds in which both servers had their core to
// themselves, and says whether there are enough of them; if not, all stay.
func (r *result) dropDisturbed() bool {
	r.rounds = len(r.samples[gate])
	var kept [sides][]sample
	for i := range r.rounds {
		if r.samples[floor][i].serverShare() < busyEnough || r.samples[gate][i].serverShare() < busyEnough {
			continue
		}
		for side := range kept {
			kept[side] = append(kept[side], r.samples[side][i])
		}
	}
	if len(kept[gate]) < enough {
		return false
	}
	r.samples = kept
	return true
}

// ratios are gate to floor, round by round.
func (r *result) ratios(of func(sample) float64) []float64 {
	out := make([]float64, len(r.samples[gate]))
	for i, s := range r.samples[gate] {
		out[i] = of(s) / of(r.samples[floor][i])
	}
	return out
}

func spread(ratios []float64) string {
	return fmt.Sprintf("%.3f (%.3f to %.3f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func against(bar float64, ratios []float64) string {
	if median(ratios) >= bar {
		return fmt.Sprintf("%.2f met", bar)
	}
	return fmt.Sprintf("%.2f missed", bar)
}

func each(samples []sample, of func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = of(s)
	}
	return out
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// writeRounds writes what benchstat reads.
func writeRounds(path, described string, table []result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "machine: %s\n", described)
	for i := range table {
		r := &table[i]
		for side, samples := range r.samples {
			for _, s := range samples {
				fmt.Fprintf(&b, "BenchmarkGate/case=%s/server=%s %d %.1f req/s %.3f cpu-µs/op\n",
					strings.Map(hyphen, r.name), sideNames[side], s.Requests, s.rate(), s.perRequest())
			}
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("-o: %w", err)
	}
	return nil
}

func hyphen(r rune) rune {
	if r == ' ' || r == ',' {
		return '-'
	}
	return r
}

// describeMachine names what the figures depend on most.
func describeMachine() string {
	model := "unknown CPU"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s/%s, load average %s",
		runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH, loadAverage())
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}
