package storm

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/keywright/keywright/hack/e2e/stack"
)

// sample is one line of metrics.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

var (
	line  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	label = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// scrape reads those metrics of a process that are asked for.
func scrape(ctx context.Context, c *http.Client, url string, names ...string) ([]sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers with status %d", url, resp.StatusCode)
	}
	var out []sample
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		found := line.FindStringSubmatch(lines.Text())
		if found == nil || !slices.Contains(names, found[1]) {
			continue
		}
		value, err := strconv.ParseFloat(found[3], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", url, lines.Text(), err)
		}
		s := sample{name: found[1], labels: map[string]string{}, value: value}
		for _, pair := range label.FindAllStringSubmatch(found[2], -1) {
			s.labels[pair[1]] = pair[2]
		}
		out = append(out, s)
	}
	return out, lines.Err()
}

// requests are answers of the API server, by "VERB resource/subresource", to
// requests that change what the controller alone changes. refused are those
// that changed nothing: conflicts above all.
type requests struct{ written, refused map[string]float64 }

// counted asks the API server what it has been asked for so far.
func counted(ctx context.Context, t *testing.T, config *rest.Config) requests {
	t.Helper()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	samples, err := scrape(ctx, c, strings.TrimSuffix(config.Host, "/")+"/metrics", "apiserver_request_total")
	if err != nil {
		t.Fatal(err)
	}
	out := requests{map[string]float64{}, map[string]float64{}}
	for _, s := range samples {
		verb, what := s.labels["verb"], s.labels["resource"]
		if sub := s.labels["subresource"]; sub != "" {
			what += "/" + sub
		}
		// The controller writes no spec: the SigningKeys are the test's.
		ours := slices.Contains([]string{"secrets", "configmaps", "signingkeys/status", "events"}, what)
		if !ours || !slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE"}, verb) || s.labels["dry_run"] != "" {
			continue
		}
		if strings.HasPrefix(s.labels["code"], "2") {
			out.written[verb+" "+what] += s.value
		} else {
			out.refused[verb+" "+what+" "+s.labels["code"]] += s.value
		}
	}
	return out
}

// since is what was counted after an earlier count.
func (r requests) since(before requests) requests {
	out := requests{map[string]float64{}, map[string]float64{}}
	for what, n := range r.written {
		if n -= before.written[what]; n > 0 {
			out.written[what] = n
		}
	}
	for what, n := range r.refused {
		if n -= before.refused[what]; n > 0 {
			out.refused[what] = n
		}
	}
	return out
}

// writes are all but the events, which tell and store nothing.
func (r requests) writes() (n float64) {
	for what, m := range r.written {
		if !strings.HasSuffix(what, " events") {
			n += m
		}
	}
	return n
}

// by lists counts for each of n keys.
func by(n int, counts map[string]float64) string {
	var out []string
	for what, m := range counts {
		out = append(out, fmt.Sprintf("%s %.2f", what, m/float64(n)))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// usage is what a process has used.
type usage struct {
	cpu      float64 // seconds
	resident float64 // bytes
	asked    float64 // requests to the API server
	rounds   float64 // reconciles of SigningKeys
}

func used(ctx context.Context, p *stack.Process) (usage, error) {
	samples, err := scrape(ctx, http.DefaultClient, p.Metrics, "process_cpu_seconds_total", "process_resident_memory_bytes", "rest_client_requests_total", "controller_runtime_reconcile_total")
	if err != nil {
		return usage{}, err
	}
	var u usage
	for _, s := range samples {
		switch s.name {
		case "process_cpu_seconds_total":
			u.cpu = s.value
		case "process_resident_memory_bytes":
			u.resident = s.value
		case "rest_client_requests_total":
			u.asked += s.value
		case "controller_runtime_reconcile_total":
			if s.labels["controller"] == "signingkey" {
				u.rounds += s.value
			}
		}
	}
	if u.cpu == 0 || u.resident == 0 || u.asked == 0 {
		return usage{}, fmt.Errorf("%s does not say what it uses: %+v", p.Metrics, u)
	}
	return u, nil
}

// gauge looks at a process now and then, for the most memory that it had.
type gauge struct {
	t       *testing.T
	process *stack.Process

	mu   sync.Mutex
	most float64
	last usage // at the last lap
}

func startGauge(ctx context.Context, t *testing.T, p *stack.Process) *gauge {
	g := &gauge{t: t, process: p}
	go func() {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if u, err := used(ctx, p); err == nil { // lap says when it cannot be asked
				g.mu.Lock()
				g.most = max(g.most, u.resident)
				g.mu.Unlock()
			}
		}
	}()
	return g
}

// lap says what was used since the last lap, and the most memory in it.
func (g *gauge) lap(n int) string {
	g.t.Helper()
	u, err := used(g.t.Context(), g.process)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	each := float64(n)
	text := fmt.Sprintf("controller: %.1f CPU seconds (%.1f ms a key), at most %.0f MiB resident, %.1f requests in %.1f reconciles a key",
		u.cpu-g.last.cpu, 1000*(u.cpu-g.last.cpu)/each, max(g.most, u.resident)/(1<<20), (u.asked-g.last.asked)/each, (u.rounds-g.last.rounds)/each)
	g.most, g.last = 0, u
	return text
}

// spread describes durations, by nearest rank.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "n=0"
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(share float64) time.Duration {
		rank := int(math.Ceil(share * float64(len(sorted))))
		return sorted[max(0, rank-1)].Round(time.Millisecond)
	}
	return fmt.Sprintf("n=%d, least %s, median %s, p99 %s, most %s", len(sorted), at(0), at(0.5), at(0.99), at(1))
}
