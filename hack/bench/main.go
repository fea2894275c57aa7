package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// options of a run.
type options struct {
	rounds             int
	duration           time.Duration
	serverCPU, loadCPU int
	profile, output    string
}

// measured is one case: what is asked of the gate and of its floor.
type measured struct {
	name  string
	floor string // the role of the floor
	fresh bool   // every token new
	// bar is the least ratio now, later the one that is aimed at.
	bar, later float64
}

var cases = []measured{
	{"token seen before", roleFloor, false, 0.70, 0.85},
	{"every token new, ES256", roleCheck, true, 0.80, 0.90},
}

// The roles in which this program starts itself.
const (
	roleFloor = "floor"
	roleCheck = "check"
	roleGate  = "gate"
	roleLoad  = "load"
)

func main() {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	var err error
	switch role {
	case roleFloor, roleCheck, roleGate:
		err = runServer(role, os.Args[2:])
	case roleLoad:
		err = runLoad(os.Args[2:])
	default:
		var o options
		flag.IntVar(&o.rounds, "rounds", 7, "how often to measure everything")
		flag.DurationVar(&o.duration, "duration", 3*time.Second, "about how long to measure each server in a round")
		flag.IntVar(&o.serverCPU, "server-cpu", 0, "core of the servers")
		flag.IntVar(&o.loadCPU, "load-cpu", 1, "core of the load; not the server core's sibling")
		flag.StringVar(&o.profile, "profile", "", "folder for CPU and allocation profiles of the gate; the figures suffer a little")
		flag.StringVar(&o.output, "o", "", "file for every round in Go's benchmark format, for benchstat -col /server")
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

func run(ctx context.Context, o options) (err error) {
	if o.rounds < 1 || o.duration <= 0 || o.serverCPU == o.loadCPU {
		return errors.New("-rounds and -duration must be positive, -server-cpu and -load-cpu different")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	api, closeAPI, err := startAPI(key)
	if err != nil {
		return err
	}
	defer closeAPI()
	b := &bench{options: o, key: base64.StdEncoding.EncodeToString(der)}
	defer func() {
		for _, s := range b.servers {
			err = errors.Join(err, s.stop())
		}
	}()

	described := describeMachine()
	fmt.Printf("%s\n%d rounds, %d connections, plain HTTP, server on core %d, load on core %d\n",
		described, o.rounds, connections, o.serverCPU, o.loadCPU)
	table := make([]result, len(cases))
	for i, c := range cases {
		if table[i], err = b.prepare(ctx, c, api); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for round := range o.rounds {
		for i := range table {
			if err := b.measure(ctx, &table[i], round); err != nil {
				return fmt.Errorf("%s: %w", table[i].name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d, load average %s\n", round+1, o.rounds, loadAverage())
	}
	report(os.Stdout, table)
	if o.output == "" {
		return nil
	}
	return writeRounds(o.output, described, table)
}

// bench is a run.
type bench struct {
	options
	key     string
	servers []*server
}

// prepare starts the servers of a case and finds out how many requests take
// about as long as was asked for.
func (b *bench) prepare(ctx context.Context, c measured, api string) (result, error) {
	r := result{measured: c}
	var err error
	if r.servers[floor], err = b.start(ctx, c.floor, ""); err != nil {
		return r, err
	}
	profile := ""
	if b.profile != "" {
		profile = filepath.Join(b.profile, "seen")
		if c.fresh {
			profile = filepath.Join(b.profile, "new")
		}
	}
	if r.servers[gate], err = b.start(ctx, roleGate, profile, "-api", api); err != nil {
		return r, err
	}
	if c.fresh {
		// Until its cache is full the gate's heap grows, and each new page
		// costs: one time only, so it is not what is measured.
		if _, err := b.load(ctx, r.servers[gate], true, cacheSize*3/2); err != nil {
			return r, err
		}
	}
	const pilot = 5000
	s, err := b.load(ctx, r.servers[floor], c.fresh, pilot)
	if err != nil {
		return r, err
	}
	r.requests = max(pilot, int(float64(pilot)*b.duration.Seconds()/s.Seconds))
	return r, nil
}

// measure asks the floor and the gate of a case, in an order that changes.
func (b *bench) measure(ctx context.Context, r *result, round int) error {
	for i := range r.servers {
		which := (round + i) % len(r.servers)
		s, err := b.load(ctx, r.servers[which], r.fresh, r.requests)
		if err != nil {
			return err
		}
		r.samples[which] = append(r.samples[which], s)
	}
	return nil
}

// load runs the load against one server. It makes its tokens first and warms
// the server up, neither of which counts.
func (b *bench) load(ctx context.Context, s *server, fresh bool, requests int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	cmd := b.command(ctx, b.loadCPU, roleLoad, "-address", s.address, "-pid", strconv.Itoa(s.cmd.Process.Pid),
		"-requests", strconv.Itoa(requests), "-fresh="+strconv.FormatBool(fresh), "-expect", s.expect)
	cmd.Stderr = os.Stderr
	var out sample
	raw, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return out, fmt.Errorf("loading %s: %w", s.role, err)
	}
	return out, nil
}

// command is this program in another role, pinned to one core.
func (b *bench) command(ctx context.Context, cpu int, role string, args ...string) *exec.Cmd {
	args = append([]string{"--cpu-list", strconv.Itoa(cpu), "/proc/" + strconv.Itoa(os.Getpid()) + "/exe", role}, args...)
	cmd := exec.CommandContext(ctx, "taskset", args...)
	cmd.Env = append(slices.Clone(os.Environ()), "GOMAXPROCS=1", keyVariable+"="+b.key)
	return cmd
}

// server is a running server.
type server struct {
	role, address string
	// expect is what every answer must hold.
	expect string
	cmd    *exec.Cmd
	alive  io.Closer
	log    *tail
}

// start starts a server and waits until it is ready. It ends when its standard
// input does, also when this process is killed.
func (b *bench) start(ctx context.Context, role, profile string, args ...string) (*server, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &server{role: role, address: ports[0], log: &tail{}}
	ready := "http://" + ports[0] + "/"
	args = append(args, "-listen", ports[0])
	if role == roleGate {
		s.expect = identityHeader + ": " + subject
		ready = "http://" + ports[1] + "/readyz"
		args = append(args, "-admin-listen", ports[1], "-profile", profile)
	}
	s.cmd = b.command(context.WithoutCancel(ctx), b.serverCPU, role, args...)
	s.cmd.Stderr = s.log
	if s.alive, err = s.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	b.servers = append(b.servers, s)
	return s, awaitReady(ctx, ready)
}

// stop ends the server and says what it wrote when it ended badly.
func (s *server) stop() error {
	_ = s.alive.Close() // it may have ended by itself
	slow := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer slow.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", s.role, err, s.log)
	}
	return nil
}

// tail keeps the end of a log.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-4096):]
	return len(p), nil
}

func (t *tail) String() string { return string(*t) }

func freePorts(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer l.Close() //nolint:errcheck // nothing was written
		out = append(out, l.Addr().String())
	}
	return out, nil
}
