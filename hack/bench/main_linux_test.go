package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test be the processes of a run.
func TestMain(m *testing.M) {
	isRole, err := runRole(os.Args[1:])
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case !isRole:
		os.Exit(m.Run())
	}
}

// TestARunMeasuresEveryCase runs everything for an instant. What it measures
// means nothing; that servers and loads understand one another does.
func TestARunMeasuresEveryCase(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Fatal("a run needs a core for the servers and one for the load")
	}
	dir := t.TempDir()
	o := options{
		rounds: 1, duration: time.Millisecond, serverCPU: 0, loadCPU: 1, profile: dir,
		markdown: filepath.Join(dir, "report.md"), svg: filepath.Join(dir, "report.svg"), output: filepath.Join(dir, "rounds.txt"),
		sizes: sizes{fill: 100, pilot: 200, objects: 100, revocations: 10},
	}
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{o.markdown, o.svg} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			if !strings.Contains(string(raw), c.name) {
				t.Errorf("%s lacks %q", path, c.name)
			}
		}
		for _, l := range limits {
			if !strings.Contains(string(raw), l.name) {
				t.Errorf("%s lacks %q", path, l.name)
			}
		}
	}
	profiles, err := filepath.Glob(filepath.Join(dir, "*.pprof"))
	if want := 2 * (len(cases) + len(limits)); err != nil || len(profiles) != want {
		t.Errorf("profiles: got %v, error %v, want %d", profiles, err, want)
	}
}
