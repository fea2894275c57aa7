//go:build linux

package ingressnginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/hack/e2e/controlplane"
)

const (
	testNamespace = "shop"
	// Building control plane and controller for the first time is part of it.
	setUpTimeout = 30 * time.Minute
	waitTimeout  = 60 * time.Second
)

// fixture is one control plane with one controller for all tests of this
// package, as starting them takes longer than the tests.
type fixture struct {
	controller *Controller
	client     client.Client
	gate       *gate
	gateURL    string // for nginx, without a path
	hostBefore map[string]string
}

var shared fixture

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ingressnginx:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	plane, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	if shared.client, err = client.New(plane.AdminConfig(), client.Options{Scheme: scheme.Scheme}); err != nil {
		return 0, err
	}
	shared.hostBefore = hostFiles()
	if shared.controller, err = Start(ctx, Options{Kubeconfig: plane.AdminKubeconfig()}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, shared.controller.Stop()) }()

	shared.gate = &gate{}
	gateServer := httptest.NewServer(shared.gate)
	defer gateServer.Close()
	gateAddress, err := shared.controller.Expose(ctx, gateServer.Listener.Addr().String())
	if err != nil {
		return 0, err
	}
	shared.gateURL = "http://" + gateAddress
	app := httptest.NewServer(http.HandlerFunc(echo))
	defer app.Close()
	appAddress, err := shared.controller.Expose(ctx, app.Listener.Addr().String())
	if err != nil {
		return 0, err
	}
	backend, err := Backend(testNamespace, "app", appAddress)
	if err != nil {
		return 0, err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: testNamespace}}
	if err := Apply(ctx, shared.client, append([]client.Object{namespace}, backend...)...); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// gate stands in for the real one: it allows the bearer token "good", forbids
// "weak" and knows no other.
type gate struct {
	mu    sync.Mutex
	asked []*http.Request
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.asked = append(g.asked, r)
	g.mu.Unlock()
	switch r.Header.Get("Authorization") {
	case "Bearer good":
		w.Header().Set("X-Auth-Subject", "alice")
	case "Bearer weak":
		w.WriteHeader(http.StatusForbidden)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// take returns what was asked since the last take.
func (g *gate) take() []*http.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	g.asked = nil
	return asked
}

// echo is the backend: it answers with what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "%s %s host=%s subject=%q groups=%q", r.Method, r.RequestURI, r.Host,
		r.Header.Values("X-Auth-Subject"), r.Header.Values("X-Auth-Groups"))
}

// serve applies an Ingress of a host of its own and waits until it is served.
func serve(t *testing.T, host string, annotations map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	ingress := Ingress(testNamespace, strings.ReplaceAll(host, ".", "-"), host, "app", annotations)
	if err := Apply(ctx, shared.client, ingress); err != nil {
		t.Fatal(err)
	}
	if err := shared.controller.WaitSynced(ctx, ingress); err != nil {
		t.Fatal(err)
	}
	shared.gate.take()
}

func send(t *testing.T, method, url string, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := shared.controller.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp, read(t, resp)
}

func sendRaw(t *testing.T, lines ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	raw := strings.Join(append(lines, "Connection: close", "", ""), "\r\n")
	resp, err := shared.controller.RawRequest(ctx, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return resp, read(t, resp)
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestVerdictReachesClientAndBackend(t *testing.T) {
	serve(t, "verdict.test", map[string]string{
		AuthURL:             shared.gateURL + "/auth/nginx/shop/orders",
		AuthResponseHeaders: "X-Auth-Subject, X-Auth-Groups",
	})
	tests := map[string]struct {
		scheme, token    string
		wantStatus       int
		wantAuthenticate string
		wantBody         string
	}{
		"a good token passes, with the gate's identity in place of the client's": {
			scheme: "http", token: "good", wantStatus: http.StatusOK,
			wantBody: `GET /orders?x=1 host=verdict.test subject=["alice"] groups=[]`,
		},
		"over TLS it is the same": {
			scheme: "https", token: "good", wantStatus: http.StatusOK,
			wantBody: `GET /orders?x=1 host=verdict.test subject=["alice"] groups=[]`,
		},
		"no token is 401 with the gate's challenge": {
			scheme: "http", wantStatus: http.StatusUnauthorized, wantAuthenticate: `Bearer realm="test"`,
		},
		"a token that may not is 403": {
			scheme: "http", token: "weak", wantStatus: http.StatusForbidden,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			header := http.Header{"X-Auth-Subject": {"mallory"}, "X-Auth-Groups": {"admins"}}
			if tc.token != "" {
				header.Set("Authorization", "Bearer "+tc.token)
			}
			resp, body := send(t, http.MethodGet, tc.scheme+"://verdict.test/orders?x=1", header)
			if resp.StatusCode != tc.wantStatus {
				t.Fatalf("status %d, want %d; body %q", resp.StatusCode, tc.wantStatus, body)
			}
			if got := resp.Header.Get("WWW-Authenticate"); got != tc.wantAuthenticate {
				t.Errorf("WWW-Authenticate %q, want %q", got, tc.wantAuthenticate)
			}
			if tc.wantBody != "" && body != tc.wantBody {
				t.Errorf("the backend got %q, want %q", body, tc.wantBody)
			}
		})
	}
}

func TestQuestionReplacesWhatTheClientClaims(t *testing.T) {
	serve(t, "question.test", map[string]string{AuthURL: shared.gateURL + "/auth/nginx/shop/orders?host=$host"})
	send(t, http.MethodPut, "http://question.test/orders?x=1", http.Header{
		"Authorization":           {"Bearer good"},
		"X-Original-Url":          {"http://elsewhere/"},
		"X-Original-Method":       {"GET"},
		"X-Sent-From":             {"me"},
		"X-Real-Ip":               {"192.0.2.1"},
		"X-Forwarded-For":         {"192.0.2.1"},
		"X-Auth-Request-Redirect": {"/elsewhere"},
		"X-Tenant":                {"t-1"},
	})
	asked := shared.gate.take()
	if len(asked) != 1 {
		t.Fatalf("the gate was asked %d times, want once", len(asked))
	}
	got := map[string][]string{"method": {asked[0].Method}, "target": {asked[0].RequestURI}}
	want := map[string][]string{
		"method":                  {http.MethodGet},
		"target":                  {"/auth/nginx/shop/orders?host=question.test"},
		"X-Original-Url":          {"http://question.test/orders?x=1"},
		"X-Original-Method":       {http.MethodPut},
		"X-Sent-From":             {"nginx-ingress-controller"},
		"X-Real-Ip":               {shared.controller.HostIP()},
		"X-Forwarded-For":         {shared.controller.HostIP()},
		"X-Auth-Request-Redirect": {"/orders?x=1"},
		"X-Tenant":                {"t-1"},
		"Content-Length":          nil,
	}
	for name := range want {
		if name != "method" && name != "target" {
			got[name] = asked[0].Header.Values(name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the question (-want +got):\n%s", diff)
	}
}

func TestGateSeesTheRawTarget(t *testing.T) {
	serve(t, "raw.test", map[string]string{AuthURL: shared.gateURL + "/verify?host=$host"})
	serve(t, "plain.test", map[string]string{AuthURL: shared.gateURL + "/verify?host=$host"})
	tests := map[string]struct {
		line, host   string
		wantOriginal string
		wantRouted   string // what $host in auth-url gives
		wantTarget   string // what the backend gets
	}{
		"dot segments": {
			line: "GET /public/../admin HTTP/1.1", host: "raw.test",
			wantOriginal: "http://raw.test/public/../admin", wantRouted: "raw.test", wantTarget: "/public/../admin",
		},
		"encoded dots and slashes": {
			line: "GET /public/x/%2e%2e/..%2fadmin HTTP/1.1", host: "raw.test",
			wantOriginal: "http://raw.test/public/x/%2e%2e/..%2fadmin", wantRouted: "raw.test", wantTarget: "/public/x/%2e%2e/..%2fadmin",
		},
		"two slashes": {
			line: "GET //admin HTTP/1.1", host: "raw.test",
			wantOriginal: "http://raw.test//admin", wantRouted: "raw.test", wantTarget: "//admin",
		},
		"an absolute-form target is routed by its host, while X-Original-URL repeats the Host header": {
			line: "GET http://raw.test/x HTTP/1.1", host: "plain.test",
			wantOriginal: "http://plain.test/x", wantRouted: "raw.test", wantTarget: "/x",
		},
		"a host in other letters with a dot and a port is routed without them, while X-Original-URL repeats it": {
			line: "GET /x HTTP/1.1", host: "RAW.test.:80",
			wantOriginal: "http://RAW.test.:80/x", wantRouted: "raw.test", wantTarget: "/x",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			shared.gate.take()
			resp, body := sendRaw(t, tc.line, "Host: "+tc.host, "Authorization: Bearer good")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("status %d, want 200; body %q", resp.StatusCode, body)
			}
			asked := shared.gate.take()
			if len(asked) != 1 {
				t.Fatalf("the gate was asked %d times, want once", len(asked))
			}
			if got := asked[0].Header.Get("X-Original-Url"); got != tc.wantOriginal {
				t.Errorf("X-Original-URL %q, want %q", got, tc.wantOriginal)
			}
			if got := asked[0].URL.Query().Get("host"); got != tc.wantRouted {
				t.Errorf("$host %q, want %q", got, tc.wantRouted)
			}
			if !strings.HasPrefix(body, "GET "+tc.wantTarget+" ") {
				t.Errorf("the backend got %q, want the target %s", body, tc.wantTarget)
			}
		})
	}
	t.Run("two Authorization headers never reach the gate", func(t *testing.T) {
		shared.gate.take()
		resp, _ := sendRaw(t, "GET / HTTP/1.1", "Host: raw.test", "Authorization: Bearer weak", "Authorization: Bearer good")
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d, want 400", resp.StatusCode)
		}
		if asked := shared.gate.take(); len(asked) != 0 {
			t.Errorf("the gate was asked %d times, want never", len(asked))
		}
	})
}

func TestCacheKeySharesAVerdict(t *testing.T) {
	serve(t, "cache.test", map[string]string{
		AuthURL:      shared.gateURL + "/verify",
		AuthCacheKey: "$http_authorization",
	})
	for _, path := range []string{"/a", "/b", "/c"} {
		resp, _ := send(t, http.MethodGet, "http://cache.test"+path, http.Header{"Authorization": {"Bearer good"}})
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, want 200", path, resp.StatusCode)
		}
	}
	if got := len(shared.gate.take()); got != 1 {
		t.Errorf("the gate was asked %d times, want once: the key is the same", got)
	}
}

func TestWaitSyncedSeesAChangedAnnotation(t *testing.T) {
	for i := range 3 {
		path := fmt.Sprintf("/round/%d", i)
		serve(t, "changing.test", map[string]string{AuthURL: shared.gateURL + path})
		send(t, http.MethodGet, "http://changing.test/", http.Header{"Authorization": {"Bearer good"}})
		asked := shared.gate.take()
		if len(asked) != 1 || asked[0].RequestURI != path {
			t.Fatalf("round %d: the gate was asked %v, want %s", i, asked, path)
		}
	}
	serve(t, "changing.test", nil)
	if resp, _ := send(t, http.MethodGet, "http://changing.test/", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("without annotations: status %d, want 200", resp.StatusCode)
	}
	if asked := shared.gate.take(); len(asked) != 0 {
		t.Errorf("the gate was asked %d times, want never", len(asked))
	}
}

func TestWaitSyncedSaysWhatIsRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	ingress := Ingress(testNamespace, "refused", "refused.test", "app", map[string]string{AuthURL: "not a URL"})
	if err := Apply(ctx, shared.client, ingress); err != nil {
		t.Fatal(err)
	}
	err := shared.controller.WaitSynced(ctx, ingress)
	if refused := (*refusedError)(nil); !errors.As(err, &refused) {
		t.Fatalf("error %v, want a refusal", err)
	}
	if !strings.Contains(err.Error(), "shop/refused") {
		t.Errorf("error %q does not name the Ingress", err)
	}
}

func TestWaitSyncedSaysWhatIsMissing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := shared.controller.WaitSynced(ctx, Ingress(testNamespace, "never-applied", "never.test", "app", nil))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "shop/never-applied") {
		t.Errorf("error %v, want the deadline and the Ingress's name", err)
	}
}

func TestHostStaysAsItWas(t *testing.T) {
	if diff := cmp.Diff(shared.hostBefore, hostFiles()); diff != "" {
		t.Errorf("the host's files (-before +now):\n%s", diff)
	}
}

// hostFiles are those that the controller would write or make if it had no
// mounts of its own, with the time of their last change.
func hostFiles() map[string]string {
	files := map[string]string{}
	for _, path := range []string{"/tmp/nginx", "/etc/ingress-controller", "/etc/nginx/nginx.conf", "/etc/nginx/lua", "/etc/nginx/template", "/etc/resolv.conf", "/var/lib/nginx/body", "/var/log/nginx"} {
		info, err := os.Stat(path)
		if err != nil {
			files[path] = "not there"
			continue
		}
		files[path] = info.ModTime().String()
	}
	return files
}

func TestBackendRefusesALoopbackAddress(t *testing.T) {
	_, err := Backend("shop", "app", "127.0.0.1:80")
	if err == nil || !strings.Contains(err.Error(), "Expose") {
		t.Errorf("error %v, want one that names Expose", err)
	}
}

func TestWhatIsStaleGoes(t *testing.T) {
	// No process has the highest possible ID: the kernel gives out less.
	const stale = interfacePrefix + "4194304.1"
	ctx := t.Context()
	if err := ip(ctx, "link", "add", stale, "type", "veth", "peer", "name", "kwin-peer"); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(os.TempDir(), folderPrefix+"4194304-1")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := removeStale(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of a process that is gone: %v, want it gone", err)
	}
	if _, err := os.Stat(shared.controller.dir); err != nil {
		t.Errorf("the folder of this process: %v", err)
	}
	if _, err := net.InterfaceByName(stale); err == nil {
		t.Error("the interface of a process that is gone is still there")
	}
	if _, err := net.InterfaceByName(shared.controller.network.name); err != nil {
		t.Errorf("the interface of this process: %v", err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	// The first process alone, as a controller would take the other's objects.
	n, err := choose()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &Controller{dir: filepath.Join(dir, "run"), logFile: filepath.Join(dir, "log"), network: n, exited: make(chan struct{})}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.start(Options{}); err != nil {
		t.Fatal(err)
	}
	if err := n.connect(t.Context(), c.process.Pid); err != nil {
		t.Error(err)
	}
	address, err := c.Expose(t.Context(), "127.0.0.1:1")
	if err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := net.InterfaceByName(n.name); err == nil {
		t.Errorf("interface %s is still there", n.name)
	}
	if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", address); err == nil {
		t.Errorf("the forwarder still listens: %v", conn.Close())
	}
	if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v, want it gone", err)
	}
}
