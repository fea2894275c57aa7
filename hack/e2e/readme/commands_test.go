//go:build linux

package readme

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/ingressnginx"
	"github.com/keywright/keywright/hack/e2e/stack"
)

const (
	// gateHost is what the auth-url of the README names, for DNS to resolve.
	gateHost = "https://keywright-webhook." + stack.Namespace + ".svc.cluster.local/"
	// blockTimeout bounds each block; most take less than a second.
	blockTimeout = 3 * time.Minute
)

// cluster is what a reader of the README has before the first command.
type cluster struct {
	*stack.Stack
	ingress *ingressnginx.Controller
	node    *node
	app     string // host:port of the protected application
	work    string // where the commands run
	env     []string
	// replaced counts the places where an address stands in for DNS.
	replaced int
}

// TestCommands follows the pages as a new user would.
func TestCommands(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	c := start(ctx, t)
	ran, applied, compared := 0, 0, 0
	for _, page := range pages {
		stdout := ""
		for _, b := range blocks(t, page) {
			if b.info != "sh" && b.info != "yaml" && !b.compared() {
				continue // TestNoBlockIsSkippedInSilence asks why
			}
			ok := t.Run(fmt.Sprintf("%s:%d", page, b.line), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(ctx, blockTimeout)
				defer cancel()
				switch targets := b.targets(); {
				case b.info == "sh" && targets != nil:
					makefile := read(t, "Makefile")
					for _, target := range targets {
						if !regexp.MustCompile(`(?m)^` + target + `:.* ## `).MatchString(makefile) {
							t.Errorf("the Makefile has no target %s", target)
						}
					}
					ran++
				case b.info == "sh":
					stdout = c.run(ctx, t, b)
					ran++
				case b.info == "yaml":
					c.apply(ctx, t, b)
					applied++
				default:
					contains(t, stdout, b.text)
					compared++
				}
			})
			if !ok {
				t.Fatal("what follows builds on this block")
			}
		}
	}
	t.Logf("%d blocks of commands, %d of YAML, %d of output, %d named as not run", ran, applied, compared, len(notRun))
	if c.replaced != 1 {
		t.Errorf("%d places where an address stood in for DNS, want 1: the auth-url", c.replaced)
	}
	if ran < 15 || applied < 1 || compared < 2 {
		t.Error("fewer than there were: has the parser lost them?")
	}
	c.metrics(ctx, t)
}

// start brings up all that is not Keywright, and takes away what stack
// installed, so that the README installs it.
func start(ctx context.Context, t *testing.T) *cluster {
	t.Helper()
	fatal := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	for _, program := range []string{"bash", "curl", "openssl", "base64"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: the documentation uses it", err)
		}
	}
	s, err := stack.Start(ctx, os.Stderr)
	fatal(err)
	stop(t, s.Stop)
	for _, args := range [][]string{
		{"-n", stack.Namespace, "delete", "-f", filepath.Join(s.Dir(), "chart.yaml"), "--wait"},
		{"delete", "namespace", stack.Namespace, "--wait"},
	} {
		_, _, err := s.Plane.Kubectl(ctx, args...)
		fatal(err)
	}

	c := &cluster{Stack: s, work: t.TempDir()}
	c.ingress, err = ingressnginx.Start(ctx, ingressnginx.Options{Kubeconfig: s.Plane.AdminKubeconfig()})
	fatal(err)
	stop(t, c.ingress.Stop)
	fatal(c.publishIngress(ctx))

	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	t.Cleanup(app.Close)
	c.app, err = c.ingress.Expose(ctx, app.Listener.Addr().String())
	fatal(err)

	// The commands see the repository, and nothing of this machine's settings.
	for _, name := range []string{"charts", "config", "hack", "Makefile"} {
		fatal(os.Symlink(filepath.Join(stack.Root(), name), filepath.Join(c.work, name)))
	}
	bin := filepath.Join(t.TempDir(), "bin")
	fatal(os.Mkdir(bin, 0o700))
	fatal(os.WriteFile(filepath.Join(bin, "kubectl"), []byte(kubectl), 0o700)) //nolint:gosec // a program
	c.env = []string{
		"PATH=" + strings.Join([]string{bin, filepath.Join(stack.Root(), "bin"), "/usr/bin", "/bin"}, ":"),
		"HOME=" + c.work, "KUBECONFIG=" + s.Plane.AdminKubeconfig(), "LC_ALL=C.UTF-8",
		"REAL_KUBECTL=" + filepath.Join(s.Plane.Assets(), "kubectl"), "GATE_LOG=" + filepath.Join(s.Dir(), "gate.log"),
	}

	c.node = newNode(c)
	running, cancel := context.WithCancel(ctx)
	go c.node.run(running)
	t.Cleanup(func() {
		cancel()
		<-c.node.done
	})
	return c
}

// kubectl is the real one, but for logs, which would come from a kubelet.
const kubectl = `#!/bin/sh
if [ "$*" = "-n keywright-system logs deployment/keywright-webhook" ]; then exec cat "$GATE_LOG"; fi
exec "$REAL_KUBECTL" "$@"
`

func stop(t *testing.T, end func() error) {
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// publishIngress makes the Service by which ingress-nginx is reached, as its
// chart and a load balancer do.
func (c *cluster) publishIngress(ctx context.Context) error {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ingress-nginx", Name: "ingress-nginx-controller"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if err := c.Client.Create(ctx, service); err != nil {
		return fmt.Errorf("publishing ingress-nginx: %w", err)
	}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: strings.TrimPrefix(c.ingress.URL(), "http://")}}
	if err := c.Client.Status().Update(ctx, service); err != nil {
		return fmt.Errorf("publishing ingress-nginx: %w", err)
	}
	return nil
}

// run runs a block and gives what it printed. Variables and functions outlive it.
func (c *cluster) run(ctx context.Context, t *testing.T, b block) string {
	t.Helper()
	text := b.text
	if n := strings.Count(text, gateHost); n > 0 {
		c.replaced += n
		text = strings.ReplaceAll(text, gateHost, "https://"+c.node.gate(ctx, t)+"/")
	}
	ingress := strings.Contains(text, "kind: Ingress\n")
	if ingress {
		objects, err := ingressnginx.Backend("shop", "orders", c.app)
		if err != nil {
			t.Fatal(err)
		}
		if err := ingressnginx.Apply(ctx, c.Client, objects...); err != nil {
			t.Fatal(err)
		}
	}
	script := "set -euo pipefail\n[ ! -e .shell ] || . ./.shell\nset -a\n" + text + "\n{ export -p; declare -f; } >.shell\n"
	cmd := exec.CommandContext(ctx, "bash", "-c", script) //nolint:gosec // what our own pages say
	cmd.Dir, cmd.Env = c.work, c.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\nstdout:\n%s\nstderr:\n%s", err, text, out.String(), errs.String())
	}
	if ingress {
		got := &networkingv1.Ingress{}
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "orders"}, got); err != nil {
			t.Fatal(err)
		}
		if err := c.ingress.WaitSynced(ctx, got); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s%s", out.String(), errs.String())
	return out.String()
}

// apply applies a block of YAML; what it makes has to become ready.
func (c *cluster) apply(ctx context.Context, t *testing.T, b block) {
	t.Helper()
	file := filepath.Join(c.work, "applied.yaml")
	if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Plane.Kubectl(ctx, "apply", "--validate=strict", "-f", file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Plane.Kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=60s", "-f", file); err != nil {
		t.Fatal(err)
	}
}

// contains holds that the lines were printed, in this order.
func contains(t *testing.T, stdout, lines string) {
	t.Helper()
	rest := stdout
	for want := range strings.Lines(lines) {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("%q was not printed, or not in this order; printed was\n%s", want, stdout)
		}
		rest = after
	}
}

// metrics compares the reference with what both processes expose by now.
func (c *cluster) metrics(ctx context.Context, t *testing.T) {
	t.Helper()
	var real []string
	for _, url := range []string{c.node.metrics.gate, c.node.metrics.controller} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, err = body.ReadFrom(resp.Body)
		_ = resp.Body.Close() // it was read to the end
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (keywright_\w+) `).FindAllStringSubmatch(body.String(), -1) {
			real = append(real, m[1])
		}
	}
	same(t, "metrics", rows(t, operations, "## Metrics", 0), real)

	// And nothing that the commands did left a key or a policy in trouble.
	sk, ap := &v1alpha1.SigningKey{}, &v1alpha1.AccessPolicy{}
	for name, object := range map[string]client.Object{"shop": sk, "orders": ap} {
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: "shop", Name: name}, object); err != nil {
			t.Fatal(err)
		}
	}
	if !meta.IsStatusConditionFalse(sk.Status.Conditions, v1alpha1.ConditionDegraded) ||
		!meta.IsStatusConditionTrue(ap.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("in the end: SigningKey %v, AccessPolicy %v", sk.Status.Conditions, ap.Status.Conditions)
	}
}
