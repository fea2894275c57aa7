package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/keywright/keywright/hack/e2e/stack"
)

// replica is a controller or a gate, in whatever process it runs just now.
type replica struct {
	w     *world
	name  string
	isA   string // controller or gate
	link  *link
	args  []string
	admin string // host:port of health
	// metrics is where a controller says whether it leads.
	metrics string

	// Of gates: where they are asked, and by whom.
	url  string
	http *http.Client

	// busy is held by whoever does something to the replica.
	busy sync.Mutex

	mu      sync.Mutex
	process *stack.Process
	life    *life
	paused  bool
	// disturbed counts what was done to it, so that an answer that did not
	// come is not held against it.
	disturbed int
	killed    *stack.Process // the last one that was ended here
	offset    time.Duration  // of its clock
}

// life is one process of a gate, from its start to its end.
type life struct {
	offset         time.Duration
	started, ready time.Time
	epoch          int // when it became ready

	mu         sync.Mutex
	heard      []heard
	complained bool
}

// heard says that at a time a gate showed to have seen all that was written
// before another.
type heard struct {
	at    time.Time
	epoch int
	upTo  time.Time
}

// settle is how long before a question a gate must have shown what it has
// heard: what came with one list is not loaded in one instant. What it shows is
// of SigningKeys; it may hear of HS* secrets as much later as it waits before
// it asks the API server again.
const (
	settle        = 200 * time.Millisecond
	settleSecrets = 5 * time.Second
)

// heardBy is what a gate had shown to have heard, by epoch, so long before at.
func (l *life) heardBy(at time.Time, settle time.Duration) map[int]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[int]time.Time{}
	for i := len(l.heard) - 1; i >= 0; i-- {
		h := l.heard[i]
		if h.at.After(at.Add(-settle)) {
			continue
		}
		if h.upTo.After(out[h.epoch]) {
			out[h.epoch] = h.upTo
		}
	}
	return out
}

func (l *life) complainOnce() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.complained
	l.complained = true
	return first
}

func (l *life) hears(c canary) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.heard); n > 0 && l.heard[n-1].upTo.Equal(c.at) {
		return
	}
	l.heard = append(l.heard, heard{at: time.Now(), epoch: c.epoch, upTo: c.at})
	if n := len(l.heard); n > 200 { // the newest of each epoch, and those of late
		last := map[int]heard{}
		for _, h := range l.heard[:n-50] {
			last[h.epoch] = h
		}
		l.heard = append(slices.Collect(maps.Values(last)), l.heard[n-50:]...)
	}
}

// newReplica prepares one. addresses are those of its link and of health, then
// of metrics or of questions.
func (w *world) newReplica(ctx context.Context, isA, name string, addresses []string) (*replica, error) {
	r := &replica{w: w, name: name, isA: isA, admin: addresses[1]}
	account := stack.ControllerAccount
	if isA == "gate" {
		account = stack.GateAccount
	}
	path, err := w.stack.Plane.KubeconfigFor(ctx, stack.Namespace, account)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a kubeconfig: %w", err)
	}
	for _, cluster := range config.Clusters {
		server, err := url.Parse(cluster.Server)
		if err != nil {
			return nil, fmt.Errorf("reading a kubeconfig: %w", err)
		}
		if r.link, err = newLink(addresses[0], server.Host); err != nil {
			return nil, err
		}
		server.Host = r.link.address
		cluster.Server = server.String()
	}
	path = filepath.Join(w.stack.Dir(), name+".kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return nil, fmt.Errorf("writing a kubeconfig: %w", err)
	}
	shared := []string{"--kubeconfig", path, "--namespace", stack.Namespace, "--log-format", "text"}
	if isA == "controller" {
		r.metrics = "http://" + addresses[2] + "/metrics"
		r.args = append([]string{"controller", "--min-interval", "1s", "--health-listen", addresses[1], "--metrics-listen", addresses[2]}, shared...)
		return r, nil
	}
	r.url = "https://" + addresses[2]
	cert, key := filepath.Join(w.stack.Dir(), name+".crt"), filepath.Join(w.stack.Dir(), name+".key")
	if err := stack.WriteCertificate(cert, key); err != nil {
		return nil, err
	}
	r.args = append([]string{
		"webhook", "--admin-listen", addresses[1], "--listen", addresses[2], "--tls-cert-file", cert, "--tls-key-file", key, "--shutdown-delay", "1s",
	}, shared...)
	raw, err := os.ReadFile(cert)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	r.http = &http.Client{
		Timeout:   20 * time.Second, // more than the longest pause
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: 32},
	}
	return r, nil
}

// start starts a process, with a clock that is wrong by offset, and waits until
// it is ready.
func (r *replica) start(ctx context.Context, offset time.Duration) error {
	l := &life{offset: offset, started: time.Now()}
	p, err := r.w.stack.Launch(r.name, r.w.binary, []string{offsetVariable + "=" + offset.String()}, r.args...)
	if err != nil {
		return err
	}
	p.Admin, p.Metrics = "http://"+r.admin, r.metrics
	r.mu.Lock()
	r.process, r.offset = p, offset
	r.mu.Unlock()
	r.w.background.Go(func() { r.watch(ctx, p) })
	for {
		err := p.WaitReady(ctx)
		select {
		case <-p.Done():
			return fmt.Errorf("%w: %w", errEnded, err)
		default:
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.w.fault("%s is not ready %s after its start", r.name, time.Since(l.started).Round(time.Second))
	}
	l.ready, l.epoch = time.Now(), r.w.history.currentEpoch()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life = l
	return nil
}

// errEnded says that a process ended before it was ready. A controller does so
// while the API server is away.
var errEnded = errors.New("ended")

// watch starts a process again that ended by itself, as a kubelet would. A
// controller may do that, when it lost the lease.
func (r *replica) watch(ctx context.Context, p *stack.Process) {
	select {
	case <-p.Done():
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	expected, offset := r.killed == p, r.offset
	r.life = nil
	r.disturbed++
	r.mu.Unlock()
	if expected || ctx.Err() != nil {
		return
	}
	if r.isA == "gate" {
		r.w.fault("%s ended by itself:\n%s", r.name, tail(p.Log, 10))
	} else {
		r.w.event("%s ended by itself (%s)", r.name, strings.TrimSpace(tail(p.Log, 1)))
		r.w.count("(a controller ended by itself, and was started)")
	}
	sleep(ctx, time.Second)
	r.busy.Lock()
	defer r.busy.Unlock()
	r.mu.Lock()
	still := r.process == p
	r.mu.Unlock()
	if still && ctx.Err() == nil {
		r.again(ctx, offset)
	}
}

// again starts the replica. Should it end at once, watch sees to it.
func (r *replica) again(ctx context.Context, offset time.Duration) {
	if err := r.start(ctx, offset); err != nil && ctx.Err() == nil && !errors.Is(err, errEnded) {
		r.w.fault("starting %s again: %v", r.name, err)
	}
}

// kill ends the process at once.
func (r *replica) kill() {
	r.mu.Lock()
	p := r.process
	r.killed, r.life, r.paused = p, nil, false
	r.disturbed++
	r.mu.Unlock()
	if p != nil {
		p.Kill()
	}
}

// pause stops the process for a while, or until ctx ends.
func (r *replica) pause(ctx context.Context, d time.Duration) {
	r.mu.Lock()
	p := r.process
	r.paused = true
	r.disturbed++
	r.mu.Unlock()
	_ = p.Signal(syscall.SIGSTOP) // it may have ended
	sleep(ctx, d)
	_ = p.Signal(syscall.SIGCONT)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = false
	r.disturbed++
}

// disturbance is how often something was done to the replica.
func (r *replica) disturbance() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disturbed
}

// up gives the life of a gate that can be asked.
func (r *replica) up() (l *life, paused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life, r.paused
}

// leads asks a controller whether it holds the lease.
func (r *replica) leads(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.metrics, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "leader_election_master_status{") {
			return strings.HasSuffix(lines.Text(), " 1")
		}
	}
	return false
}

// tail gives the last lines of a file.
func tail(path string, lines int) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// freeAddresses gives addresses on loopback that are free, and outside of the
// range from which connections take theirs: a process that was killed finds its
// own again.
func freeAddresses(n int) ([]string, error) {
	var out []string
	for port := 20000 + os.Getpid()%8000; len(out) < n; port++ {
		if port > 32000 {
			return nil, fmt.Errorf("no %d free ports below %d", n, port)
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = listener.Close()
		out = append(out, address)
	}
	return out, nil
}
