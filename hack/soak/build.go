package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/keywright/keywright/hack/e2e/stack"
)

// offsetVariable sets the clock of a process of the soak's build wrong. The
// product has no such setting, and must not have one.
const offsetVariable = "SOAK_CLOCK_OFFSET"

// clockLine is where a process takes its one clock from.
const clockLine = "time.Now //nolint:forbidigo // the clock of this process"

const soakClock = `package %s

import (
	"os"
	"time"
)

func soakClock() func() time.Time {
	offset, err := time.ParseDuration(os.Getenv(%q))
	if err != nil {
		panic(err)
	}
	return func() time.Time { return time.Now().Add(offset) }
}
`

// buildWithOffset builds the product with clocks that can be set wrong.
func buildWithOffset(ctx context.Context, dir string) (binary string, err error) {
	overlay := map[string]string{}
	for path, pkg := range map[string]string{"controllers/run.go": "controllers", "webhook/server.go": "webhook"} {
		source, err := os.ReadFile(filepath.Join(stack.Root(), path))
		if err != nil {
			return "", fmt.Errorf("setting clocks: %w", err)
		}
		changed, err := withSoakClock(string(source))
		if err != nil {
			return "", fmt.Errorf("setting the clock in %s: %w", path, err)
		}
		put := func(of, content string) error {
			file := filepath.Join(dir, strings.ReplaceAll(of, "/", "_"))
			overlay[filepath.Join(stack.Root(), of)] = file
			return os.WriteFile(file, []byte(content), 0o600)
		}
		if err := errors.Join(put(path, changed), put(pkg+"/soakclock.go", fmt.Sprintf(soakClock, pkg, offsetVariable))); err != nil {
			return "", fmt.Errorf("setting clocks: %w", err)
		}
	}
	raw, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", fmt.Errorf("setting clocks: %w", err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, raw, 0o600); err != nil {
		return "", fmt.Errorf("setting clocks: %w", err)
	}
	binary = filepath.Join(dir, "keywright-soak")
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", overlayFile, "-o", binary, "./cmd/keywright") //nolint:gosec // paths of our own
	cmd.Dir = stack.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building keywright with other clocks: %w\n%s", err, out)
	}
	return binary, nil
}

// withSoakClock replaces the one place where a process takes its clock from.
func withSoakClock(source string) (string, error) {
	if n := strings.Count(source, clockLine); n != 1 {
		return "", fmt.Errorf("%q is there %d times, not once: keep the soak in step with the source", clockLine, n)
	}
	if n := strings.Count(source, "time.Now"); n != 1 {
		return "", fmt.Errorf("time.Now is there %d times, not once: a clock would go unchanged", n)
	}
	return strings.Replace(source, "time.Now", "soakClock()", 1), nil
}
