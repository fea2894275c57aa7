package callers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// ErrNotInstalled says that a program to run is missing.
var ErrNotInstalled = errors.New("run `make deps`")

// Site is a host and what the gate is asked for it.
type Site struct {
	// Host is what requests carry.
	Host string
	// Gate is the gate's address, such as 127.0.0.1:9443, and GRPC the one at
	// which it answers over gRPC.
	Gate, GRPC string
	// Namespace and Policy name the AccessPolicy.
	Namespace, Policy string
	// Identity are the headers that this policy tells, for Caddy: it would copy
	// others as the names of variables.
	Identity []string
	// CAFile, if any, is what the gate's certificate is verified against, for
	// the name localhost. Without it any certificate is believed.
	CAFile string
}

// Options are what all callers need.
type Options struct {
	// App is the address of what the gate protects.
	App string
	// Identity are the headers that the gate's answers tell the app.
	Identity []string
}

// Proxy is a running caller. Its methods may be called from any goroutine,
// Serve from one at a time.
type Proxy struct {
	// Name and Version of the program.
	Name, Version string
	// Address is where it listens.
	Address string
	// Client reaches it whatever the host of a URL is, and follows no
	// redirects.
	Client *http.Client

	serve func(ctx context.Context, sites []Site) error
	stop  func() error
}

// Serve replaces the sites, and returns when only the new ones are served.
func (p *Proxy) Serve(ctx context.Context, sites ...Site) error {
	if err := p.serve(ctx, sites); err != nil {
		return fmt.Errorf("configuring %s: %w", p.Name, err)
	}
	return nil
}

// Stop ends the proxy and removes its files.
func (p *Proxy) Stop() error {
	p.Client.CloseIdleConnections()
	return p.stop()
}

func newProxy(name, version, address string) *Proxy {
	return &Proxy{
		Name: name, Version: version, Address: address,
		Client: &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "tcp", address)
				},
				MaxIdleConnsPerHost: 64,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// find looks for a program, in /usr/sbin too, which is not in every user's PATH.
func find(name string) (string, error) {
	for _, at := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(at); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: %w", name, ErrNotInstalled)
}

// output is the first line that a program prints.
func output(ctx context.Context, binary string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("running %s: %w: %s", binary, err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

// program is a process with a folder of its own.
type program struct {
	dir  string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// run starts a program, which ends with this process.
func run(dir, binary string, args ...string) (*program, error) {
	return runWith(dir, nil, binary, args...)
}

// runWith starts it with more in its environment than this process has.
func runWith(dir string, env []string, binary string, args ...string) (*program, error) {
	p := &program{dir: dir, log: filepath.Join(dir, "log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", binary, err)
	}
	p.cmd = exec.Command(binary, args...) //nolint:gosec,noctx // a proxy of the tests, ended by end
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(p.cmd.SysProcAttr)
	if err := errors.Join(p.cmd.Start(), log.Close()); err != nil {
		return nil, fmt.Errorf("starting %s: %w", binary, err)
	}
	go func() {
		_ = p.cmd.Wait() // await tells how it ended, by its log
		close(p.done)
	}()
	return p, nil
}

// await repeats a check until it gives nil, the program ends or ctx does.
func (p *program) await(ctx context.Context, check func() error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		if last = check(); last == nil {
			return true, nil
		}
		select {
		case <-p.done:
			return false, errors.New("it ended")
		default:
			return false, nil
		}
	})
	if err != nil {
		return fmt.Errorf("%w: %w; its log:\n%s", err, last, p.tail())
	}
	return nil
}

func (p *program) tail() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4000):])
}

// end kills the process.
func (p *program) end() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// render fills in a configuration.
func render(text *template.Template, data any) ([]byte, error) {
	var out bytes.Buffer
	if err := text.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("filling in the configuration: %w", err)
	}
	return out.Bytes(), nil
}

// status asks for a URL and gives what was answered.
func status(ctx context.Context, c *http.Client, url, host string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
