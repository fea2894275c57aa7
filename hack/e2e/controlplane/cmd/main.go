// Command cmd is `make controlplane-up`: a control plane in the foreground
// until Ctrl-C, with its kubeconfig printed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/keywright/keywright/hack/e2e/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cp, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		return err
	}
	kubectl := filepath.Join(cp.Assets(), "kubectl")
	fmt.Printf(`A control plane runs at %s, with RBAC on and no node.

  kubeconfig   %s
  logs         %s

Use it in another terminal:

  export KUBECONFIG=%s
  %s get namespaces

Ctrl-C ends it and removes its data.
`, cp.AdminConfig().Host, cp.AdminKubeconfig(), filepath.Join(cp.Dir(), "*.log"), cp.AdminKubeconfig(), kubectl)
	<-ctx.Done()
	fmt.Println("stopping")
	return cp.Stop()
}
