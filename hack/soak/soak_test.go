package main

import (
	"context"
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

var (
	soakFor  = flag.Duration("soak", 20*time.Second, "how long TestSoak injects faults")
	soakSeed = flag.Uint64("soak-seed", 1, "of TestSoak")
)

// TestSoak keeps the soak alive: all of it, for a short time.
func TestSoak(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), *soakFor+6*time.Minute)
	defer cancel()
	w, err := run(ctx, options{seed: *soakSeed, faults: *soakFor}, &logged{t: t})
	t.Log(w.report())
	if err != nil {
		t.Fatal(err)
	}
	if !w.good() {
		t.Error("something happened that must not")
	}
	if w.tally.requests == 0 {
		t.Error("nothing was asked")
	}
}

// logged writes to a test's log.
type logged struct{ t *testing.T }

func (l *logged) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

var _ io.Writer = (*logged)(nil)
