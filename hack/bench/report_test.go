package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var near = cmpopts.EquateApprox(0, 1e-9)

// second is a second of a server at a rate, with shares of the cores.
func second(rate int, server float64) sample {
	return sample{Requests: rate, Seconds: 1, ServerCPU: server}
}

func TestRoundsThatCount(t *testing.T) {
	tests := map[string]struct {
		floor, gate []sample
		want        verdict
		counts      []float64
	}{
		"undisturbed": {
			floor:  []sample{second(1000, 1), second(1000, 1), second(1000, 1)},
			gate:   []sample{second(800, 1), second(900, 1), second(850, 1)},
			want:   verdict{rates: []float64{0.8, 0.9, 0.85}, times: []float64{0.8, 0.9, 0.85}, rounds: 3},
			counts: []float64{0.8, 0.9, 0.85},
		},
		"one round of four disturbed": {
			floor:  []sample{second(1000, 1), second(500, 0.5), second(1000, 1), second(1000, 1)},
			gate:   []sample{second(800, 1), second(800, 1), second(800, 1), second(800, 1)},
			want:   verdict{rates: []float64{0.8, 0.8, 0.8}, times: []float64{0.8, 0.8, 0.8}, rounds: 4},
			counts: []float64{0.8, 0.8, 0.8},
		},
		"the load is the limit": {
			floor:  []sample{second(1000, 0.5), second(1000, 0.5), second(1000, 0.5)},
			gate:   []sample{second(1000, 0.625), second(1000, 0.625), second(1000, 0.625)},
			want:   verdict{rates: []float64{1, 1, 1}, times: []float64{0.8, 0.8, 0.8}, rounds: 3, byTime: true},
			counts: []float64{0.8, 0.8, 0.8},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := result{samples: [sides][]sample{tc.floor, tc.gate}}
			got := r.judge()
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(verdict{}), near); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tc.counts, got.counts(), near); diff != "" {
				t.Errorf("what counts, -want +got:\n%s", diff)
			}
		})
	}
}

// madeUp has a case that meets its bar, one that misses it, and figures.
func madeUp() *outcome {
	floors := []sample{second(1000, 1), second(1000, 1), second(1000, 1)}
	gates := []sample{second(900, 1), second(860, 1), second(880, 1)}
	return &outcome{
		machine: "a machine <of> ours", setting: "3 rounds",
		results: []result{
			{measured: measured{name: "low bar", bar: 0.85}, samples: [sides][]sample{floors, gates}},
			{measured: measured{name: "high bar", bar: 0.9}, samples: [sides][]sample{floors, gates}},
		},
		figures: []figure{
			{of: "Check", what: "time", unit: "ns", value: 612, low: 580, high: 700, limit: 1000},
			{of: "Check", what: "allocations", value: 3, low: 3, high: 3, limit: 2},
		},
	}
}

func TestReport(t *testing.T) {
	want := `a machine <of> ours\
3 rounds

| case | server | requests/s | CPU µs/request | server's core |
|---|---|---|---|---|
| low bar | floor | 1000 | 1000.0 | 100 % |
| low bar | gate | 880 | 1136.4 | 100 % |
| high bar | floor | 1000 | 1000.0 | 100 % |
| high bar | gate | 880 | 1136.4 | 100 % |

| gate to floor | by rate | by CPU time | counts | bar |  | rounds |
|---|---|---|---|---|---|---|
| low bar | 0.880 (0.860 to 0.900) | 0.880 (0.860 to 0.900) | rate | 0.85 | met | 3 of 3 |
| high bar | 0.880 (0.860 to 0.900) | 0.880 (0.860 to 0.900) | rate | 0.90 | missed | 3 of 3 |

| limit |  | measured | low to high | at most |  |
|---|---|---|---|---|---|
| Check | time | 612 ns | 580 to 700 | 1000 ns | met |
| Check | allocations | 3 | 3 to 3 | 2 | missed |

Medians; in parentheses the lowest and the highest round that counts.
`
	if diff := cmp.Diff(want, madeUp().inMarkdown()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPicture(t *testing.T) {
	picture := madeUp().picture()
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		"low bar, floor 1000.0, gate 1136.4 µs of CPU a request: 0.880 by rate, bar 0.85, met.",
		"Check, allocations: 3 of 2, missed.",
	} {
		if !strings.Contains(picture, want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	var drawn []string
	for part := range strings.SplitSeq(picture, "<rect class=") {
		if class, _, _ := strings.Cut(strings.TrimPrefix(part, `"`), `"`); class == "floor" || class == "met" || class == "missed" {
			drawn = append(drawn, class)
		}
	}
	if diff := cmp.Diff([]string{"floor", "met", "floor", "missed", "met", "missed"}, drawn); diff != "" {
		t.Errorf("bars, -want +got:\n%s", diff)
	}
}

func TestPercentile(t *testing.T) {
	values := make([]float64, 200)
	for i := range values {
		values[i] = float64(i + 1)
	}
	if got := percentile(values, 99); got != 198 {
		t.Errorf("of 200: got %v, want the third from the end", got)
	}
	if got := percentile(values[:1], 99); got != 1 {
		t.Errorf("of one: got %v", got)
	}
}

func TestBenchmarkOutput(t *testing.T) {
	got, err := checkFigures("goos: linux\n" +
		"BenchmarkCheckHit-1 \t 2000000\t       612.5 ns/op\t     112 B/op\t       2 allocs/op\n" +
		"BenchmarkCheckHit   \t 2000000\t       580 ns/op\t     112 B/op\t       1 allocs/op\nPASS\n")
	want := []figure{
		{what: "time", unit: "ns", value: 596.25, low: 580, high: 612.5, limit: 1000},
		{what: "allocations", value: 2, low: 1, high: 2, limit: 2},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(figure{})); diff != "" || err != nil {
		t.Errorf("error %v, -want +got:\n%s", err, diff)
	}
	if got, err := checkFigures("PASS\n"); err == nil {
		t.Errorf("nothing measured: got %v", got)
	}
}
