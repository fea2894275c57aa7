// Command demo shows Keywright at work: a real control plane, the chart's
// resources and rights, both processes under their own service accounts, a
// real nginx that asks the gate, and an application that signs tokens with the
// Secret as a pod would see it, late. Under load the key rotates every few
// seconds, and nobody is refused.
//
// It ends in exit 0 only when no valid request was refused and no invalid one
// was let in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/nginx"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// How fast the demo's key rotates. Such short lags are true only here, where
// the demo is the only signer and the gate the only verifier.
const fast = `{"spec":{"maxTokenTTL":"5s","rotation":{"interval":"6s"},` +
	`"propagation":{"verifierLag":"2s","signerLag":"1s","clockSkew":"1s","leeway":"1s"},` +
	`"jwks":{"configMapName":"shop-jwks","maxAge":"1s"}}}`

const (
	signerLag     = time.Second
	host          = "orders.shop.example"
	wantRotations = 5
	wantRate      = 200
)

func main() {
	keep := flag.Bool("keep", false, "stay up until Ctrl-C when all has been shown")
	duration := flag.Duration("duration", 45*time.Second, "how long the load lasts")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *keep, *duration); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

func run(ctx context.Context, keep bool, duration time.Duration) (err error) {
	say("starting a control plane (etcd, kube-apiserver, kube-controller-manager) and installing the chart")
	s, err := stack.Start(ctx, os.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()

	say("starting the gate and the controller, each under the chart's service account")
	gate, err := s.StartGate(ctx, "gate")
	if err != nil {
		return err
	}
	if _, err := s.StartController(ctx, "controller", "--gates", gate.Keysets); err != nil {
		return err
	}

	say("applying config/samples/quickstart, and making its key rotate every few seconds")
	for _, args := range [][]string{
		{"apply", "-k", filepath.Join(stack.Root(), "config", "samples", "quickstart")},
		{"patch", "signingkey", "shop", "-n", "shop", "--type=merge", "-p", fast},
	} {
		if _, stderr, err := s.Plane.Kubectl(ctx, args...); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", args[0], err, stderr)
		}
	}
	if err := awaitReady(ctx, s.Client); err != nil {
		return err
	}

	say("starting a backend, and nginx in front of it as ingress-nginx would configure it")
	backend, err := startBackend(ctx)
	if err != nil {
		return err
	}
	proxy, err := nginx.Start(ctx, nginx.Options{Servers: []nginx.Server{{
		Host:            host,
		AuthURL:         gate.URL + "/auth/nginx/shop/orders?host=$host",
		ResponseHeaders: []string{"X-Auth-Subject", "X-Auth-Roles"},
		CacheKey:        "$http_authorization",
		AuthCAFile:      gate.CAFile,
		AuthServerName:  "localhost",
		Backend:         backend,
	}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, proxy.Stop()) }()

	say(fmt.Sprintf("load: more than %d requests a second for %s", wantRate, duration))
	l := newLoad(s.Client, proxy)
	report, err := l.run(ctx, duration)
	if err != nil {
		return err
	}
	fmt.Print(report.text())
	if keep {
		fmt.Printf("\nIt stays up. In another terminal:\n\n  export KUBECONFIG=%s\n  kubectl -n shop get signingkey shop --watch\n  curl -i -H 'Host: %s' %s/orders\n\nCtrl-C ends it.\n", s.Plane.AdminKubeconfig(), host, proxy.URL())
		<-ctx.Done()
	}
	return report.verdict()
}

var started = time.Now()

func say(what string) {
	fmt.Printf("%5.1fs  %s\n", time.Since(started).Seconds(), what)
}

// awaitReady waits until key and policy are in force with the fast spec.
func awaitReady(ctx context.Context, c client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		sk, ap := &v1alpha1.SigningKey{}, &v1alpha1.AccessPolicy{}
		err := errors.Join(
			c.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "shop"}, sk),
			c.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "orders"}, ap),
		)
		if err == nil && sk.Status.ObservedGeneration == sk.Generation &&
			meta.IsStatusConditionTrue(sk.Status.Conditions, v1alpha1.ConditionReady) &&
			meta.IsStatusConditionTrue(ap.Status.Conditions, v1alpha1.ConditionReady) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the quickstart to be ready: %w (%w)", ctx.Err(), err)
		}
	}
}

// startBackend serves what stands for the protected application: it answers
// with who it was told the caller is.
func startBackend(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("starting the backend: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Header.Get("X-Auth-Subject"))
		}),
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}
