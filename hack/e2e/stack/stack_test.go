package stack

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
)

// TestBothProcessesRunUnderTheChartsAccounts brings a key to life and has the
// gate answer, with the rights of the chart and no others.
func TestBothProcessesRunUnderTheChartsAccounts(t *testing.T) {
	t.Run("all namespaces", func(t *testing.T) { runs(t, nil, nil) })
	t.Run("some namespaces", func(t *testing.T) {
		runs(t, []string{"watchNamespaces={shop}"}, []string{"--watch-namespaces", "shop"})
	})
}

func runs(t *testing.T, values, args []string) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := Start(ctx, os.Stderr, values...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	controller, err := s.StartController(ctx, "controller", args...)
	if err != nil {
		t.Fatal(err)
	}
	gate, err := s.StartGate(ctx, "gate", args...)
	if err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := s.Plane.Kubectl(ctx, "apply", "-k", filepath.Join(Root(), "config", "samples", "quickstart")); err != nil {
		t.Fatal(err, stderr)
	}

	sk := &v1alpha1.SigningKey{}
	await(ctx, t, "the SigningKey to be ready", func() bool {
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "shop"}, sk)
		return err == nil && meta.IsStatusConditionTrue(sk.Status.Conditions, v1alpha1.ConditionReady)
	})
	ap := &v1alpha1.AccessPolicy{}
	await(ctx, t, "the AccessPolicy to be ready", func() bool {
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "orders"}, ap)
		return err == nil && meta.IsStatusConditionTrue(ap.Status.Conditions, v1alpha1.ConditionReady)
	})

	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // a certificate of this test
	ask := func(path string) int {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, gate.URL+"/auth/nginx/shop/orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Original-URL", "http://shop.example"+path)
		req.Header.Set("X-Original-Method", "GET")
		resp, err := insecure.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() //nolint:errcheck // it is empty
		return resp.StatusCode
	}
	if got := ask("/healthz"); got != http.StatusOK {
		t.Errorf("GET /healthz = %d, want 200", got)
	}
	if got := ask("/orders"); got != http.StatusUnauthorized {
		t.Errorf("GET /orders without a token = %d, want 401", got)
	}

	for _, p := range []*Process{controller, gate.Process} {
		if err := p.Terminate(); err != nil {
			t.Errorf("%s: %v\n%s", p.Name, err, p.logTail())
		}
		log, err := os.ReadFile(p.Log)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"forbidden", "Forbidden", "panic"} {
			if strings.Contains(string(log), bad) {
				t.Errorf("%s logged %q:\n%s", p.Name, bad, log)
			}
		}
		if err := p.Signal(syscall.Signal(0)); err == nil {
			t.Errorf("%s is still there", p.Name)
		}
	}
}

// await polls until a condition holds.
func await(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, ctx.Err())
		}
	}
}
