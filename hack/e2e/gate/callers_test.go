//go:build linux

package gate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/keywright/keywright/hack/e2e/ingressnginx"
	"github.com/keywright/keywright/hack/e2e/nginx"
)

// TestIngressNginx asks through the real ingress-nginx controller, on Ingress
// objects with the annotations auth-url, auth-response-headers and, for one,
// auth-cache-key.
func TestIngressNginx(t *testing.T) {
	runCaller(t, startIngressNginx(t))
}

// TestPlainNginx asks through an nginx that is configured as ingress-nginx
// would for the same annotations.
func TestPlainNginx(t *testing.T) {
	runCaller(t, startPlainNginx(t))
}

func runCaller(t *testing.T, c *caller) {
	if err := c.serve(t.Context(), env.gate.Address, sites...); err != nil {
		t.Fatal(err)
	}
	runScenarios(t, c)
	runChanges(t, c)
	runLoads(t, c)
}

func startIngressNginx(t *testing.T) *caller {
	t.Helper()
	controller, err := ingressnginx.Start(t.Context(), ingressnginx.Options{
		Kubeconfig: env.Plane.AdminKubeconfig(),
		// So that the gate, not nginx, refuses a token that is too large.
		Config: map[string]string{"large-client-header-buffers": "4 32k"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := controller.Stop(); err != nil {
			t.Error(err)
		}
	})
	appAddress, err := controller.Expose(t.Context(), env.appAddress)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := ingressnginx.Backend("shop", "app", appAddress)
	if err != nil {
		t.Fatal(err)
	}
	if err := ingressnginx.Apply(t.Context(), env.Client, backend...); err != nil {
		t.Fatal(err)
	}
	exposed := map[string]string{}
	return &caller{
		name:   "ingress-nginx",
		client: controller.Client(),
		raw:    controller.RawRequest,
		serve: func(ctx context.Context, gate string, sites ...site) error {
			if exposed[gate] == "" {
				address, err := controller.Expose(ctx, gate)
				if err != nil {
					return err
				}
				exposed[gate] = address
			}
			var objects []client.Object
			var ingresses []*networkingv1.Ingress
			for _, s := range sites {
				annotations := map[string]string{
					ingressnginx.AuthURL:             s.authURL(exposed[gate]),
					ingressnginx.AuthResponseHeaders: strings.Join(identity, ", "),
				}
				if s.cacheKey != "" {
					annotations[ingressnginx.AuthCacheKey] = s.cacheKey
				}
				ingress := ingressnginx.Ingress("shop", strings.ReplaceAll(s.host, ".", "-"), s.host, "app", annotations)
				objects, ingresses = append(objects, ingress), append(ingresses, ingress)
			}
			if err := ingressnginx.Apply(ctx, env.Client, objects...); err != nil {
				return err
			}
			return controller.WaitSynced(ctx, ingresses...)
		},
	}
}

func startPlainNginx(t *testing.T) *caller {
	t.Helper()
	var servers []nginx.Server
	var proxy *nginx.Nginx
	t.Cleanup(func() {
		if proxy == nil {
			return
		}
		if err := proxy.Stop(); err != nil {
			t.Error(err)
		}
	})
	// What nginx was told to believe at its start, even when the gate's
	// certificate is replaced later.
	ca, err := os.ReadFile(env.gate.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &caller{name: "plain nginx", client: &http.Client{}}
	c.raw = func(ctx context.Context, raw []byte) (*http.Response, error) {
		return rawRequest(ctx, strings.TrimPrefix(proxy.URL(), "http://"), raw)
	}
	c.serve = func(ctx context.Context, gate string, sites ...site) error {
		for _, s := range sites {
			server := nginx.Server{
				Host: s.host, AuthURL: s.authURL(gate), ResponseHeaders: identity, CacheKey: s.cacheKey, Backend: "http://" + env.appAddress,
			}
			if s.host == "any.test" {
				// One that verifies the gate's certificate.
				server.AuthCAFile, server.AuthServerName = caFile, "localhost"
			}
			servers = append(slices.DeleteFunc(servers, func(o nginx.Server) bool { return o.Host == s.host }), server)
		}
		if proxy != nil {
			return proxy.Reload(ctx, servers)
		}
		var err error
		if proxy, err = nginx.Start(ctx, nginx.Options{Servers: servers}); err != nil {
			return err
		}
		c.client = proxy.Client()
		return nil
	}
	return c
}

// rawRequest sends bytes as they are, on a connection of its own, and reads the
// whole answer.
func rawRequest(ctx context.Context, address string, raw []byte) (*http.Response, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting to nginx: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the answer is read
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write(raw); err != nil {
		return nil, fmt.Errorf("sending a raw request: %w", errors.Join(ctx.Err(), err))
	}
	method, _, _ := bytes.Cut(raw, []byte(" "))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: string(method)})
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", errors.Join(ctx.Err(), err))
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, err
}
