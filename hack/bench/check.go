package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// check runs the benchmark of authz.Check on a hit, which is a rule with
// method, path and scope and one identity header. It has no floor: what is
// around it is the other cases'.
func (b *bench) check(ctx context.Context) (figures []figure, err error) {
	dir, err := os.MkdirTemp("", "keywright-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary := filepath.Join(dir, "authz.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "github.com/keywright/keywright/webhook/authz")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the benchmark: %w\n%s", err, out)
	}
	args := []string{
		"-test.run=^$", "-test.bench=^BenchmarkCheckHit$", "-test.benchmem",
		"-test.count=" + strconv.Itoa(b.rounds), "-test.benchtime=" + b.duration.String(),
	}
	if b.profile != "" {
		prefix, err := filepath.Abs(filepath.Join(b.profile, "authz-check"))
		if err != nil {
			return nil, err
		}
		args = append(args, "-test.cpuprofile="+prefix+".cpu.pprof", "-test.memprofile="+prefix+".allocs.pprof")
	}
	out, err := command(ctx, b.serverCPU, binary, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("running the benchmark: %w\n%s", err, out)
	}
	return checkFigures(string(out))
}

// checkFigures reads what a Go benchmark has written.
func checkFigures(out string) ([]figure, error) {
	measured := map[string][]float64{} // by unit
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "BenchmarkCheckHit") {
			continue
		}
		fields := strings.Fields(line)
		for i := 3; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i-1], 64)
			if err != nil {
				return nil, fmt.Errorf("reading the benchmark: %w", err)
			}
			measured[fields[i]] = append(measured[fields[i]], value)
		}
	}
	times, allocations := measured["ns/op"], measured["allocs/op"]
	if len(times) == 0 || len(allocations) == 0 {
		return nil, fmt.Errorf("the benchmark has measured nothing:\n%s", out)
	}
	return []figure{
		{what: "time", unit: "ns", value: median(times), low: slices.Min(times), high: slices.Max(times), limit: 1000},
		{what: "allocations", value: slices.Max(allocations), low: slices.Min(allocations), high: slices.Max(allocations), limit: 2},
	}, nil
}
