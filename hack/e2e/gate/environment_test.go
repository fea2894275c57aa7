//go:build linux

package gate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

const (
	// Building control plane and ingress-nginx for the first time is part of it.
	setUpTimeout = 30 * time.Minute
	waitTimeout  = time.Minute
)

// environment is one stack for all tests of this package, as starting it takes
// longer than most of them.
type environment struct {
	*stack.Stack
	controller *stack.Process
	gate       *stack.Gate
	logs       []string // of all gates and controllers that there were
	app        *app
	appAddress string
	tokens     map[string]string
}

var env environment

// debug makes a process say all that it ever says, for TestSecretsNeverLeak.
var debug = []string{"--log-level", "debug"}

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard()) // else it complains that nobody did
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	if env.Stack, err = stack.Start(ctx, os.Stderr); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	if env.controller, err = env.StartController(ctx, "controller", debug...); err != nil {
		return 0, err
	}
	if env.gate, err = env.StartGate(ctx, "gate", debug...); err != nil {
		return 0, err
	}
	env.logs = []string{env.controller.Log, env.gate.Log}
	env.app = &app{}
	server := httptest.NewServer(env.app)
	defer server.Close()
	env.appAddress = server.Listener.Addr().String()
	if _, _, err := env.Plane.Kubectl(ctx, "apply", "--server-side", "--validate=strict", "-f", filepath.Join("testdata", "objects.yaml")); err != nil {
		return 0, err
	}
	for _, name := range []string{"shop", "partner", "secret"} {
		if err := awaitReady(ctx, &v1alpha1.SigningKey{}, "shop", name); err != nil {
			return 0, err
		}
	}
	if err := awaitPolicies(ctx); err != nil {
		return 0, err
	}
	if env.tokens, err = mintAll(ctx); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// awaitReady waits until an object says that it is Ready.
func awaitReady(ctx context.Context, object client.Object, namespace, name string) error {
	return poll(ctx, fmt.Sprintf("%T %s/%s to be ready", object, namespace, name), func() error {
		if err := env.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object); err != nil {
			return err
		}
		var ready bool
		switch o := object.(type) {
		case *v1alpha1.SigningKey:
			ready = meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionReady)
		case *v1alpha1.AccessPolicy:
			ready = meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionReady)
		}
		if !ready {
			return errors.New("it is not")
		}
		return nil
	})
}

// awaitPolicies waits until the gate knows all policies, and that all are in
// force but the two that never are.
func awaitPolicies(ctx context.Context) error {
	var list v1alpha1.AccessPolicyList
	if err := env.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing policies: %w", err)
	}
	return poll(ctx, "the gate to know all policies", func() error {
		text, err := metricsText(ctx)
		if err != nil {
			return err
		}
		for _, want := range []string{
			fmt.Sprintf("\nkeywright_gate_policies %d\n", len(list.Items)),
			"\nkeywright_gate_policies_not_ready 2\n",
			"\nkeywright_gate_signing_keys 3\n",
		} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("the metrics lack %q", want)
			}
		}
		return nil
	})
}

// poll repeats a check until it gives nil, or for waitTimeout.
func poll(ctx context.Context, what string, check func() error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, waitTimeout, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w: %w", what, err, last)
	}
	return nil
}

// await is poll for tests.
func await(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := poll(t.Context(), what, check); err != nil {
		t.Fatal(err)
	}
}

// get fetches a URL.
func get(ctx context.Context, c *http.Client, method, url string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), errors.Join(err, resp.Body.Close())
}

func metricsText(ctx context.Context) (string, error) {
	_, body, err := get(ctx, http.DefaultClient, http.MethodGet, env.gate.Metrics)
	return body, err
}

var decisionPattern = regexp.MustCompile(`(?m)^keywright_gate_decisions_total\{policy="([^"]*)",policy_namespace="([^"]*)",reason="([^"]*)",result="[a-z]+"\} ([0-9.e+]+)$`)

// decisions are what the gate has counted so far for a policy, a namespace and
// a name, by reason of denial; those that allowed have the reason "".
func decisions(ctx context.Context, namespace, name string) (map[string]int, error) {
	text, err := metricsText(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, m := range decisionPattern.FindAllStringSubmatch(text, -1) {
		if m[1] != name || m[2] != namespace {
			continue
		}
		n, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return nil, fmt.Errorf("reading the metrics: %w", err)
		}
		out[m[3]] = int(n)
	}
	return out, nil
}

// received is a request as the app got it.
type received struct {
	method, target string
	header         http.Header
	length         int
	sum            [sha256.Size]byte
}

// caseHeader names the scenario in requests that the app shall remember.
const caseHeader = "X-Case"

// app is what the gate protects: it remembers what it got.
type app struct {
	mu  sync.Mutex
	got map[string][]received
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get(caseHeader)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if r.Header.Get("Upgrade") == "websocket" {
		defer switchProtocols(w)
	}
	if name == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.got == nil {
		a.got = map[string][]received{}
	}
	a.got[name] = append(a.got[name], received{
		method: r.Method, target: r.RequestURI, header: r.Header, length: len(body), sum: sha256.Sum256(body),
	})
}

// switchProtocols agrees to a WebSocket and hangs up.
func switchProtocols(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the client notices
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n") // the client notices
	_ = conn.Close() // all is said
}

// take gives and forgets what came for a scenario.
func (a *app) take(name string) []received {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.got[name]
	delete(a.got, name)
	return got
}
