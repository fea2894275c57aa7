package main

import (
	"fmt"
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
}

// figure is something measured that must not exceed a limit. In a case with one
// measurement low and high are the same.
type figure struct {
	of, what                string
	unit                    string
	value, low, high, limit float64
}

// outcome of a run.
type outcome struct {
	machine, setting string
	results          []result
	figures          []figure
	remarks          []string
}

// verdict is a case beside its bar. Ratios are gate to floor, round by round.
type verdict struct {
	rates, times []float64
	// rounds were measured; those count in which both servers had their core.
	rounds int
	// byTime means that the ratios by CPU time count: in too few rounds the
	// servers had their core, so that rates are the load's or others'.
	byTime bool
}

// busyEnough is the least share of its core that a server must have had for
// its rate to be its own, and not the load's or other processes'.
const busyEnough = 0.95

// enough is how many undisturbed rounds make the others count for nothing.
const enough = 3

// judge leaves only the rounds in which both servers had their core to
// themselves, if there are enough of them; if not, all stay.
func (r *result) judge() verdict {
	v := verdict{rounds: len(r.samples[gate])}
	var all []int
	for i := range v.rounds {
		all = append(all, i)
	}
	kept := slices.DeleteFunc(slices.Clone(all), func(i int) bool {
		return r.samples[floor][i].serverShare() < busyEnough || r.samples[gate][i].serverShare() < busyEnough
	})
	if len(kept) < enough {
		v.byTime, kept = true, all
	}
	for _, i := range kept {
		f, g := r.samples[floor][i], r.samples[gate][i]
		v.rates = append(v.rates, g.rate()/f.rate())
		v.times = append(v.times, f.perRequest()/g.perRequest())
	}
	return v
}

// counts are the ratios that are held against the bar.
func (v verdict) counts() []float64 {
	if v.byTime {
		return v.times
	}
	return v.rates
}

// table is rows of cells, the first of them heads.
type table [][]string

func (t *table) row(cells ...string) { *t = append(*t, cells) }

// servers shows what was measured, rounds that do not count too.
func (o *outcome) servers() table {
	t := table{{"case", "server", "requests/s", "CPU µs/request", "server's core"}}
	percent := func(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
	for i := range o.results {
		r := &o.results[i]
		for side, samples := range r.samples {
			of := func(what func(sample) float64) float64 { return median(each(samples, what)) }
			t.row(r.name, sideNames[side], fmt.Sprintf("%.0f", of(sample.rate)), fmt.Sprintf("%.1f", of(sample.perRequest)),
				percent(of(sample.serverShare)))
		}
	}
	return t
}

// ratios shows the cases beside their bars.
func (o *outcome) ratios() table {
	t := table{{"gate to floor", "by rate", "by CPU time", "counts", "bar", "", "rounds"}}
	for i := range o.results {
		r := &o.results[i]
		v := r.judge()
		by := "rate"
		if v.byTime {
			by = "CPU time"
		}
		t.row(r.name, spread(v.rates), spread(v.times), by, fmt.Sprintf("%.2f", r.bar),
			met(median(v.counts()) >= r.bar), fmt.Sprintf("%d of %d", len(v.rates), v.rounds))
	}
	return t
}

// limits shows the figures beside their limits.
func (o *outcome) limits() table {
	t := table{{"limit", "", "measured", "low to high", "at most", ""}}
	for _, f := range o.figures {
		t.row(f.of, f.what, f.text(f.value), number(f.low)+" to "+number(f.high), f.text(f.limit), met(f.value <= f.limit))
	}
	return t
}

func (f *figure) text(x float64) string { return strings.TrimSpace(number(x) + " " + f.unit) }

// number writes three digits or all before the point.
func number(x float64) string {
	switch {
	case x == float64(int64(x)) || x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func spread(ratios []float64) string {
	return fmt.Sprintf("%.3f (%.3f to %.3f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func met(is bool) string {
	if is {
		return "met"
	}
	return "missed"
}

// tables are all that have rows.
func (o *outcome) tables() []table {
	return slices.DeleteFunc([]table{o.servers(), o.ratios(), o.limits()}, func(t table) bool { return len(t) == 1 })
}

// notes say how to read the tables.
func (o *outcome) notes() []string {
	var out []string
	if len(o.results) > 0 {
		out = append(out, "Medians; in parentheses the lowest and the highest round that counts.")
	}
	if slices.ContainsFunc(o.results, func(r result) bool { return r.judge().byTime }) {
		out = append(out, fmt.Sprintf("Where CPU time counts, a server had less than %.0f %% of its core in nearly all rounds: something else ran there, or the load was too slow. Rates are worth little then.", 100*busyEnough))
	}
	return append(out, o.remarks...)
}

func (o *outcome) terminal() string {
	var b strings.Builder
	for _, t := range o.tables() {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w) // a Builder takes everything
		for _, cells := range t {
			_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
		_ = w.Flush()
	}
	return b.String() + "\n" + strings.Join(o.notes(), "\n") + "\n"
}

func (o *outcome) inMarkdown() string {
	parts := []string{o.machine + "\\\n" + o.setting}
	for _, t := range o.tables() {
		var b strings.Builder
		for i, cells := range t {
			b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
			if i == 0 {
				b.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
			}
		}
		parts = append(parts, strings.TrimSuffix(b.String(), "\n"))
	}
	return strings.Join(append(parts, o.notes()...), "\n\n") + "\n"
}

// rounds are what benchstat reads.
func (o *outcome) rounds() string {
	var b strings.Builder
	fmt.Fprintf(&b, "machine: %s\n", o.machine)
	for i := range o.results {
		r := &o.results[i]
		for side, samples := range r.samples {
			for _, s := range samples {
				fmt.Fprintf(&b, "BenchmarkGate/case=%s/server=%s %d %.1f req/s %.3f cpu-µs/op\n",
					fileName(r.name), sideNames[side], s.Requests, s.rate(), s.perRequest())
			}
		}
	}
	return b.String()
}

// write prints the report and writes the files that are asked for.
func (o *outcome) write(to *options) error {
	fmt.Print(o.terminal())
	for _, file := range []struct {
		flag, path string
		text       func() string
	}{
		{"-o", to.output, o.rounds},
		{"-markdown", to.markdown, o.inMarkdown},
		{"-svg", to.svg, o.picture},
	} {
		if file.path == "" {
			continue
		}
		if err := os.WriteFile(file.path, []byte(file.text()), 0o600); err != nil {
			return fmt.Errorf("%s: %w", file.flag, err)
		}
	}
	return nil
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
