package main

import (
	"context"
	"encoding/json"
	"errors"
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
	"time"

	"github.com/keywright/keywright/hack/e2e/stack"
)

// command is a program pinned to one core, with one thread that runs Go.
func command(ctx context.Context, cpu int, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"--cpu-list", strconv.Itoa(cpu), program}, args...)...)
	cmd.Env = append(slices.Clone(os.Environ()), "GOMAXPROCS=1")
	return cmd
}

// self is this program, for another role.
func self() string { return "/proc/" + strconv.Itoa(os.Getpid()) + "/exe" }

// server is a running server.
type server struct {
	role string
	// address, and for gRPC that of the gate is another.
	address, grpc string
	// expect is what every answer must hold.
	expect string
	cmd    *exec.Cmd
	alive  io.Closer
	log    *tail
}

// start starts a server and waits until it is ready. It ends when its standard
// input does, also when this process is killed.
func (b *bench) start(ctx context.Context, role string, args ...string) (*server, error) {
	ports, err := stack.FreePorts(3)
	if err != nil {
		return nil, err
	}
	s := &server{role: role, address: ports[0], grpc: ports[0], log: &tail{}}
	args = append([]string{role, "-listen", ports[0]}, args...)
	if role == roleGate {
		s.grpc, s.expect = ports[2], subject
		args = append(args, "-admin-listen", ports[1], "-grpc-listen", ports[2])
	}
	s.cmd = command(context.WithoutCancel(ctx), b.serverCPU, self(), args...)
	s.cmd.Stderr = s.log
	if s.alive, err = s.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	b.servers = append(b.servers, s)
	if role == roleGate {
		return s, awaitReady(ctx, "http://"+ports[1]+"/readyz")
	}
	return s, await(ctx, ports[0], func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", ports[0])
		if err != nil {
			return err
		}
		return conn.Close()
	})
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

// profileFlag names the profiles of a gate, if they are wanted.
func (b *bench) profileFlag(name string) []string {
	if b.profile == "" {
		return nil
	}
	return []string{"-profile", filepath.Join(b.profile, fileName(name))}
}

// fileName is a case's name in names of files and benchmarks.
func fileName(name string) string {
	return strings.NewReplacer(", ", "-", ",", "", " ", "-").Replace(strings.ToLower(name))
}

// loadTimeout bounds one load.
const loadTimeout = 5 * time.Minute

// load runs the load against one server, with a token of those in turn for each
// request. It warms the server up before it measures.
func (b *bench) load(ctx context.Context, s *server, c *measured, tokens []string, requests int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	address := s.address
	if c.talk == talkGRPC {
		address = s.grpc
	}
	cmd := command(ctx, b.loadCPU, self(), roleLoad, "-address", address, "-pid", strconv.Itoa(s.cmd.Process.Pid),
		"-talk", c.talk, "-policy", policyOf(c.algorithm),
		"-warm-up", strconv.Itoa(warmUp(requests)), "-requests", strconv.Itoa(requests), "-expect", s.expect)
	cmd.Stdin = strings.NewReader(strings.Join(tokens, "\n"))
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

// warmUp is how many requests come before those that count.
func warmUp(requests int) int { return max(4*inFlight, requests/10) }

// awaitReady asks until url answers 200.
func awaitReady(ctx context.Context, url string) error {
	return await(ctx, url, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// await tries until there is no error, for a minute at most.
func await(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail keeps the end of a log.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-4096):]
	return len(p), nil
}

func (t *tail) String() string { return string(*t) }
