package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// What the flood is like: more tokens than the cache holds, several times.
const (
	floodCache  = 10_000
	floodTokens = 4 * floodCache
	floodConns  = 8
)

// maxPerToken is what one remembered token may cost: its text of up to 1 KiB
// by the cache's own measure, and its claims and the cache's entry for it.
const maxPerToken = 1<<10 + 2<<10

// maxFlood is what the flooded gate may have resident at its peak, in bytes.
// The cache holds floodCache good tokens and a tenth as many bad ones, and the
// collector runs when the heap has doubled and is not small. GOMEMLIMIT is not
// set: it would hold the figure down by running the collector more often, and
// so hide a cache without a bound until the process is slow. The rest, program
// and connections, is what the idle process has, and half as much again.
func maxFlood(idle int64) int64 {
	const smallHeap = 64 << 20
	return idle + idle/2 + max(smallHeap, 2*(floodCache+floodCache/10)*maxPerToken)
}

// TestMemoryIsBoundedUnderAFlood floods the real program over loopback with
// tokens that are all different, first bad ones, then good ones, then bad ones
// as long as may be, and looks at what it has resident. Each token comes twice,
// as what comes once is not remembered.
func TestMemoryIsBoundedUnderAFlood(t *testing.T) {
	s, err := newSigner(keyset.ES256)
	if err != nil {
		t.Fatal(err)
	}
	sk, err := signingKey("shop", "orders", s)
	if err != nil {
		t.Fatal(err)
	}
	api, err := startCluster([]v1alpha1.SigningKey{sk}, []v1alpha1.AccessPolicy{accessPolicy("shop", "orders")}, "shop")
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	dir := t.TempDir()
	binary, kubeconfig := filepath.Join(dir, "keywright"), filepath.Join(dir, "kubeconfig")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/keywright").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],"clusters":[{"name":"c","cluster":{"server":%q}}]}`, api.URL)
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ports, err := stack.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	gate := exec.Command(binary, "webhook", "--insecure-http", "--listen="+ports[0], "--admin-listen="+ports[1], "--keysets-listen=0",
		"--namespace=keywright-system", "--kubeconfig="+kubeconfig, "--log-level=error", "--shutdown-delay=0s", "--cache-size="+strconv.Itoa(floodCache))
	gate.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOGC=") }), "GOMEMLIMIT=off")
	var output strings.Builder
	gate.Stdout, gate.Stderr = &output, &output
	if err := gate.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = gate.Process.Kill()
		_ = gate.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	}()
	if err := awaitReady(t.Context(), "http://"+ports[1]+"/readyz"); err != nil {
		t.Fatal(err)
	}

	now := time.Now()
	good := func(i int) (string, error) { return s.sign(now, "good-"+strconv.Itoa(i)) }
	first, err := good(0)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := first[:strings.LastIndexByte(first, '.')+1]
	bad := func(size int) func(int) (string, error) {
		return func(i int) (string, error) {
			return unsigned + fmt.Sprintf("%0*d", size-len(unsigned), i), nil
		}
	}
	idle, _ := residentOf(t, gate.Process.Pid)
	t.Logf("idle: %s", mib(idle))
	floods := []struct {
		name   string
		tokens func(int) (string, error)
		n      int
		want   string
	}{
		{"bad tokens", bad(len(first)), floodTokens, "401"},
		{"good tokens", good, floodTokens, "200"},
		{"bad tokens of 8 KiB", bad(8 << 10), floodTokens / 2, "401"},
	}
	for _, f := range floods {
		flood(t, ports[0], f.tokens, f.n, f.want)
		after, peak := residentOf(t, gate.Process.Pid)
		t.Logf("%d %s: peak so far %s, after %s", f.n, f.name, mib(peak), mib(after))
		if limit := maxFlood(idle); peak > limit {
			t.Errorf("%s: peak %s, want %s at most", f.name, mib(peak), mib(limit))
		}
	}
	after, peak := residentOf(t, gate.Process.Pid)
	t.Logf("before %s, peak %s, after %s, bound %s", mib(idle), mib(peak), mib(after), mib(maxFlood(idle)))
}

// flood asks with n tokens, each twice.
func flood(t *testing.T, address string, token func(int) (string, error), n int, want string) {
	t.Helper()
	var running sync.WaitGroup
	faults := make(chan error, floodConns)
	for c := range floodConns {
		running.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				faults <- err
				return
			}
			defer func() { _ = conn.Close() }()
			answers := bufio.NewReader(conn)
			for i := range 2 * n {
				if i/2%floodConns != c {
					continue
				}
				raw, err := token(i / 2)
				if err == nil {
					_, err = io.WriteString(conn, "GET /auth/nginx/shop/orders?host=h HTTP/1.1\r\nHost: g\r\nX-Original-Method: GET\r\nX-Original-URL: http://h/orders/1\r\nAuthorization: Bearer "+raw+"\r\n\r\n")
				}
				var response *http.Response
				if err == nil {
					response, err = http.ReadResponse(answers, nil)
				}
				if err != nil {
					faults <- err
					return
				}
				_ = response.Body.Close()
				if got := strconv.Itoa(response.StatusCode); got != want {
					faults <- fmt.Errorf("token %d: got %s, want %s", i/2, got, want)
					return
				}
			}
		})
	}
	running.Wait()
	close(faults)
	for err := range faults {
		t.Fatal(err)
	}
}

func residentOf(t *testing.T, pid int) (now, peak int64) {
	t.Helper()
	now, peak, err := resident(pid)
	if err != nil {
		t.Fatal(err)
	}
	return now, peak
}

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", mebi(n)) }
