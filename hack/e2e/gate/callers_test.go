//go:build linux

package gate

import (
	"context"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/hack/e2e/callers"
	"github.com/keywright/keywright/hack/e2e/ingressnginx"
	"github.com/keywright/keywright/hack/e2e/nginx"
)

// TestCallers runs the scenarios through every caller, one after another, and
// the loads through all at once.
func TestCallers(t *testing.T) {
	starters := []struct {
		name  string
		start func(*testing.T) *caller
	}{
		// The annotations auth-url, auth-response-headers and, for one site,
		// auth-cache-key.
		{"ingress-nginx", startIngressNginx},
		// As ingress-nginx would be configured for the same annotations.
		{"plain nginx", startPlainNginx},
		{"Traefik", func(t *testing.T) *caller { return startProxy(t, callers.StartTraefik) }},
		{"Caddy", func(t *testing.T) *caller { return startProxy(t, callers.StartCaddy) }},
		{"HAProxy", func(t *testing.T) *caller {
			c := startProxy(t, callers.StartHAProxy)
			c.blind = true
			return c
		}},
		{"Envoy HTTP", func(t *testing.T) *caller { return startProxy(t, callers.StartEnvoy) }},
		{"Envoy gRPC", func(t *testing.T) *caller { return startProxy(t, callers.StartEnvoyGRPC) }},
		// On Ingresses with auth-url too, behind the Service of ingress-nginx's.
		{"Traefik Ingress", startTraefikIngress},
	}
	var cs []*caller
	for _, s := range starters {
		c := s.start(t)
		if c.name != s.name {
			t.Fatalf("%s calls itself %s", s.name, c.name)
		}
		if err := c.serve(t.Context(), endpointOf(env.gate), sites...); err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	for _, c := range cs {
		t.Run(c.name, func(t *testing.T) {
			runScenarios(t, c)
			runChanges(t, c)
			if c.annotated != nil {
				runAnnotations(t, c)
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		runLoads(t, slices.DeleteFunc(slices.Clone(cs), func(c *caller) bool { return c.still }))
	})
	t.Log("\n" + outcomes.table(cs))
}

// tells are the identity headers of the policies that have some.
var tells = map[string][]string{"orders": identity, "ruleless": identity, "by-cookie": identity[:1], "by-query": identity[:1], "by-subprotocol": identity[:1], "preflight": identity[:1]}

// startProxy starts one of package callers.
func startProxy(t *testing.T, start func(context.Context, callers.Options) (*callers.Proxy, error)) *caller {
	t.Helper()
	p, err := start(t.Context(), callers.Options{App: env.appAddress, Identity: identity})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	caFile := keepCA(t)
	var served []callers.Site
	return &caller{
		name: p.Name, version: p.Version, client: p.Client,
		raw: func(ctx context.Context, raw []byte) (*http.Response, error) {
			return ingressnginx.RawRequest(ctx, p.Address, raw)
		},
		serve: func(ctx context.Context, gate endpoint, sites ...site) error {
			for _, s := range sites {
				to := callers.Site{Host: s.host, Gate: gate.http, GRPC: gate.grpc, Namespace: s.namespace, Policy: s.policy, Identity: tells[s.policy]}
				if s.host == "any.test" {
					// One that verifies the gate's certificate.
					to.CAFile = caFile
				}
				served = append(slices.DeleteFunc(served, func(o callers.Site) bool { return o.Host == s.host }), to)
			}
			return p.Serve(ctx, served...)
		},
	}
}

// startTraefikIngress starts Traefik with its provider for Ingresses with the
// annotations of ingress-nginx.
func startTraefikIngress(t *testing.T) *caller {
	t.Helper()
	const class = "traefik"
	p, err := callers.StartTraefikIngress(t.Context(), env.Plane.AdminKubeconfig(), keepCA(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := ingressnginx.Apply(t.Context(), env.Client, &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: networkingv1.IngressClassSpec{Controller: callers.IngressController},
	}); err != nil {
		t.Fatal(err)
	}
	return &caller{
		name: p.Name, version: p.Version, client: p.Client, still: true,
		raw: func(ctx context.Context, raw []byte) (*http.Response, error) {
			return ingressnginx.RawRequest(ctx, p.Address, raw)
		},
		serve: func(ctx context.Context, gate endpoint, sites ...site) error {
			var served []callers.Site
			for _, s := range sites {
				ingress := ingressnginx.Ingress("shop", class+"-"+strings.ReplaceAll(s.host, ".", "-"), s.host, "app", map[string]string{
					ingressnginx.AuthURL:             "https://" + gate.http + "/auth/forward/" + s.namespace + "/" + s.policy,
					ingressnginx.AuthResponseHeaders: strings.Join(identity, ", "),
				})
				ingress.Spec.IngressClassName = new(class)
				if err := ingressnginx.Apply(ctx, env.Client, ingress); err != nil {
					return err
				}
				served = append(served, callers.Site{Host: s.host})
			}
			return p.Serve(ctx, served...)
		},
	}
}

// keepCA gives what the proxies are told to believe at their start, even when
// the gate's certificate is replaced later.
func keepCA(t *testing.T) string {
	t.Helper()
	ca, err := os.ReadFile(env.gate.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return caFile
}

func startIngressNginx(t *testing.T) *caller {
	t.Helper()
	controller, err := ingressnginx.Start(t.Context(), ingressnginx.Options{
		Kubeconfig: env.Plane.AdminKubeconfig(),
		Config:     nginxConfig,
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
	in := &ingresses{controller: controller, exposed: map[string]string{}}
	return &caller{
		name:      "ingress-nginx",
		version:   controller.Version(),
		client:    controller.Client(),
		raw:       controller.RawRequest,
		annotated: in,
		serve: func(ctx context.Context, gate endpoint, sites ...site) error {
			var served []*networkingv1.Ingress
			for _, s := range sites {
				ingress, err := in.protected(ctx, gate.http, s, nil)
				if err != nil {
					return err
				}
				served = append(served, ingress)
			}
			return in.serve(ctx, served...)
		},
	}
}

// nginxConfig is so that the gate, not nginx, refuses a token that is too large.
var nginxConfig = map[string]string{"large-client-header-buffers": "4 32k", "proxy-body-size": "16m"}

// ingresses are what the real controller serves.
type ingresses struct {
	controller *ingressnginx.Controller
	exposed    map[string]string // by address on this machine
}

// protected is the Ingress of a site, with annotations on top of those that
// protect it.
func (in *ingresses) protected(ctx context.Context, gate string, s site, more map[string]string) (*networkingv1.Ingress, error) {
	if in.exposed[gate] == "" {
		address, err := in.controller.Expose(ctx, gate)
		if err != nil {
			return nil, err
		}
		in.exposed[gate] = address
	}
	annotations := map[string]string{
		ingressnginx.AuthURL:             s.authURL(in.exposed[gate]),
		ingressnginx.AuthResponseHeaders: strings.Join(identity, ", "),
	}
	if s.cacheKey != "" {
		annotations[ingressnginx.AuthCacheKey] = s.cacheKey
	}
	maps.Copy(annotations, more)
	return in.plain(s.host, annotations), nil
}

// plain is the Ingress of a host with no annotations but these.
func (in *ingresses) plain(host string, annotations map[string]string) *networkingv1.Ingress {
	return ingressnginx.Ingress("shop", strings.ReplaceAll(host, ".", "-"), host, "app", annotations)
}

func (in *ingresses) serve(ctx context.Context, served ...*networkingv1.Ingress) error {
	for _, ingress := range served {
		if err := ingressnginx.Apply(ctx, env.Client, ingress); err != nil {
			return err
		}
	}
	return in.controller.WaitSynced(ctx, served...)
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
	caFile := keepCA(t)
	c := &caller{name: "plain nginx", version: nginxVersion(t), client: &http.Client{}}
	c.raw = func(ctx context.Context, raw []byte) (*http.Response, error) {
		return ingressnginx.RawRequest(ctx, strings.TrimPrefix(proxy.URL(), "http://"), raw)
	}
	c.serve = func(ctx context.Context, gate endpoint, sites ...site) error {
		for _, s := range sites {
			server := nginx.Server{
				Host: s.host, AuthURL: s.authURL(gate.http), ResponseHeaders: identity, CacheKey: s.cacheKey, Backend: "http://" + env.appAddress,
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

// nginxVersion is that of Debian's nginx.
func nginxVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/usr/sbin/nginx", "-v").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(strings.TrimSpace(string(out)), "nginx/")
	return version
}
