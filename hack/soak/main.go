package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	minutes := flag.Float64("minutes", 10, "how long faults are injected")
	seed := flag.Uint64("seed", 0, "of what is injected; 0: another one each time")
	plain := flag.Bool("plain-restore", false, "restore etcd as it was, without raising its revision as etcdutl does with --bump-revision and --mark-compacted")
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) //nolint:gosec // any number
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w, err := run(ctx, options{seed: *seed, faults: time.Duration(*minutes * float64(time.Minute)), plainRestore: *plain}, os.Stdout)
	fmt.Print(w.report())
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nsoak:", err)
	}
	if err != nil || !w.good() {
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}
