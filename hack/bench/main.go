package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// options of a run.
type options struct {
	rounds             int
	duration           time.Duration
	serverCPU, loadCPU int
	only               string
	profile            string
	output             string
	markdown, svg      string
	sizes
}

func main() {
	isRole, err := runRole(os.Args[1:])
	if !isRole {
		o := options{sizes: full}
		flag.IntVar(&o.rounds, "rounds", 7, "how often to measure everything")
		flag.DurationVar(&o.duration, "duration", 3*time.Second, "about how long to measure each server in a round")
		flag.IntVar(&o.serverCPU, "server-cpu", 0, "core of the servers")
		flag.IntVar(&o.loadCPU, "load-cpu", 1, "core of the load; not the server core's sibling")
		flag.StringVar(&o.only, "run", "", "regular expression for the names of the cases to measure; all if empty")
		flag.StringVar(&o.profile, "profile", "", "folder for CPU and allocation profiles of the gate, by case; the figures suffer a little")
		flag.StringVar(&o.output, "o", "", "file for every round in Go's benchmark format, for benchstat -col /server")
		flag.StringVar(&o.markdown, "markdown", "", "file for the report in Markdown")
		flag.StringVar(&o.svg, "svg", "", "file for a picture of the report")
		flag.Parse()
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// runRole is this program as one of its own processes.
func runRole(args []string) (isRole bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch role := args[0]; role {
	case roleFloor, roleFloorGRPC, roleCheck, roleGate:
		return true, runServer(role, args[1:])
	case roleLoad:
		return true, runLoad(args[1:])
	}
	return false, nil
}

// bench is a run.
type bench struct {
	options
	signers map[keyset.Algorithm]*signer
	api     string
	servers []*server
}

func run(ctx context.Context, o options) (err error) {
	if o.rounds < 1 || o.duration <= 0 || o.serverCPU == o.loadCPU {
		return errors.New("-rounds and -duration must be positive, -server-cpu and -load-cpu different")
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	b := &bench{options: o, signers: map[keyset.Algorithm]*signer{}}
	stop, err := b.startAPI()
	if err != nil {
		return err
	}
	defer stop()
	defer func() {
		for _, s := range b.servers {
			err = errors.Join(err, s.stop())
		}
	}()

	all := outcome{machine: describeMachine(), setting: fmt.Sprintf("%d rounds, %d requests at once, without TLS, server on core %d, load on core %d",
		o.rounds, inFlight, o.serverCPU, o.loadCPU)}
	fmt.Printf("%s\n%s\n", all.machine, all.setting)
	for _, c := range cases {
		if !only.MatchString(c.name) {
			continue
		}
		progress("preparing %s", c.name)
		r, err := b.prepare(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		all.results = append(all.results, r)
	}
	for round := range o.rounds {
		if len(all.results) == 0 {
			break
		}
		for i := range all.results {
			r := &all.results[i]
			if err := b.measure(ctx, r, round); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
		progress("round %d of %d, load average %s", round+1, o.rounds, loadAverage())
	}
	for _, l := range limits {
		if !only.MatchString(l.name) {
			continue
		}
		progress("measuring %s", l.name)
		figures, err := l.measure(b, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		for i := range figures {
			figures[i].of = l.name
		}
		all.figures = append(all.figures, figures...)
		if l.note != "" {
			all.remarks = append(all.remarks, l.note)
		}
	}
	return all.write(&o)
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// startAPI starts the stand-in for the API server, with a SigningKey and an
// AccessPolicy for each algorithm.
func (b *bench) startAPI() (stop func(), err error) {
	var keys []v1alpha1.SigningKey
	var policies []v1alpha1.AccessPolicy
	for _, algorithm := range []keyset.Algorithm{keyset.ES256, keyset.EdDSA, keyset.RS256} {
		s, err := newSigner(algorithm)
		if err != nil {
			return nil, err
		}
		sk, err := signingKey("shop", policyOf(algorithm), s)
		if err != nil {
			return nil, err
		}
		b.signers[algorithm] = s
		keys, policies = append(keys, sk), append(policies, accessPolicy("shop", policyOf(algorithm)))
	}
	api, err := startCluster(keys, policies, "shop")
	if err != nil {
		return nil, err
	}
	b.api = api.URL
	return api.Close, nil
}

// prepare starts the servers of a case and finds out how many requests take
// about as long as was asked for.
func (b *bench) prepare(ctx context.Context, c measured) (result, error) {
	r := result{measured: c}
	public, err := publicText(b.signers[c.algorithm].private.Public())
	if err != nil {
		return r, err
	}
	if r.servers[floor], err = b.start(ctx, c.floor, "-public", public); err != nil {
		return r, err
	}
	if r.servers[gate], err = b.start(ctx, roleGate, append(b.profileFlag(c.name), "-api", b.api)...); err != nil {
		return r, err
	}
	if c.fresh {
		// Until its cache is full the gate's heap grows, and each new page
		// costs: one time only, so it is not what is measured. Tokens of this
		// algorithm are made fastest, and fill a cache for all.
		if err := b.fillCache(ctx, c, r.servers[gate]); err != nil {
			return r, err
		}
	}
	s, err := b.ask(ctx, &c, b.pilot, r.servers[floor])
	if err != nil {
		return r, err
	}
	r.requests = max(b.pilot, int(s[0].rate()*b.duration.Seconds()))
	if c.fresh {
		r.requests = min(r.requests, maxFresh)
	}
	return r, nil
}

// measure asks the floor and the gate of a case, in an order that changes.
func (b *bench) measure(ctx context.Context, r *result, round int) error {
	first, second := round%sides, (round+1)%sides
	s, err := b.ask(ctx, &r.measured, r.requests, r.servers[first], r.servers[second])
	if err != nil {
		return err
	}
	r.samples[first], r.samples[second] = append(r.samples[first], s[0]), append(r.samples[second], s[1])
	return nil
}

// fillCache makes a gate remember as many tokens as it can: those that come a
// second time.
func (b *bench) fillCache(ctx context.Context, c measured, s *server) error {
	c.algorithm = keyset.EdDSA
	once, err := b.signers[c.algorithm].tokens(b.fill)
	if err != nil {
		return err
	}
	tokens := make([]string, 0, 2*len(once))
	for _, token := range once {
		tokens = append(tokens, token, token)
	}
	_, err = b.load(ctx, s, &c, tokens, len(tokens))
	return err
}

// ask loads one server after the other, with the same tokens. Those of a fresh
// case have never been before.
func (b *bench) ask(ctx context.Context, c *measured, requests int, servers ...*server) ([]sample, error) {
	n := inFlight
	if c.fresh {
		n = requests + warmUp(requests)
	}
	tokens, err := b.signers[c.algorithm].tokens(n)
	if err != nil {
		return nil, err
	}
	out := make([]sample, len(servers))
	for i, s := range servers {
		if out[i], err = b.load(ctx, s, c, tokens, requests); err != nil {
			return nil, err
		}
	}
	return out, nil
}
