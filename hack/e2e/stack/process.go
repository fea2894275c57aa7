package stack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is one running process of Keywright.
type Process struct {
	// Name is the log's, and what Kubernetes would call the pod.
	Name string
	// Admin is the base URL of health, readiness and metrics.
	Admin string
	// Metrics is the URL of the metrics.
	Metrics string
	// Log is the path of its log.
	Log string

	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Gate is a running "keywright webhook".
type Gate struct {
	*Process
	// Address is host:port of the auth listener, which serves HTTPS.
	Address string
	// URL is https://Address.
	URL string
	// GRPC is host:port of the listener for Envoy.
	GRPC string
	// Keysets is host:port of the listener for controllers: --gates of one.
	Keysets string
	// CAFile is the certificate that signed the gate's, in PEM.
	CAFile string
	// CertFile and KeyFile are what the gate was given.
	CertFile, KeyFile string
}

// StartController starts a controller and waits until it is ready. Extra
// arguments come last, so that they count.
func (s *Stack) StartController(ctx context.Context, name string, args ...string) (*Process, error) {
	ports, err := FreePorts(2)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := s.Plane.KubeconfigFor(ctx, Namespace, ControllerAccount)
	if err != nil {
		return nil, err
	}
	base := []string{
		"controller", "--kubeconfig", kubeconfig, "--namespace", Namespace, "--min-interval", "1s",
		"--health-listen", ports[0], "--metrics-listen", ports[1], "--log-format", "text",
	}
	p, err := s.Launch(name, s.binary, nil, append(base, args...)...)
	if err != nil {
		return nil, err
	}
	p.Admin, p.Metrics = "http://"+ports[0], "http://"+ports[1]+"/metrics"
	return p, p.WaitReady(ctx)
}

// StartGate starts a gate with a certificate for 127.0.0.1 and waits until it
// is ready.
func (s *Stack) StartGate(ctx context.Context, name string, args ...string) (*Gate, error) {
	ports, err := FreePorts(4)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := s.Plane.KubeconfigFor(ctx, Namespace, GateAccount)
	if err != nil {
		return nil, err
	}
	g := &Gate{
		Address: ports[0], URL: "https://" + ports[0], Keysets: ports[2], GRPC: ports[3],
		CertFile: filepath.Join(s.dir, name+".crt"), KeyFile: filepath.Join(s.dir, name+".key"), CAFile: filepath.Join(s.dir, name+".crt"),
	}
	if err := WriteCertificate(g.CertFile, g.KeyFile); err != nil {
		return nil, err
	}
	base := []string{
		"webhook", "--kubeconfig", kubeconfig, "--namespace", Namespace,
		"--listen", ports[0], "--admin-listen", ports[1], "--keysets-listen", ports[2], "--grpc-listen", ports[3], "--tls-min-version", "1.2",
		"--tls-cert-file", g.CertFile, "--tls-key-file", g.KeyFile, "--shutdown-delay", "1s", "--log-format", "text",
	}
	if g.Process, err = s.Launch(name, s.binary, nil, append(base, args...)...); err != nil {
		return nil, err
	}
	g.Admin, g.Metrics = "http://"+ports[1], "http://"+ports[1]+"/metrics"
	return g, g.WaitReady(ctx)
}

// Launch starts another build of the program, with more in its environment
// than this process has. It does not wait until the process is ready, and only
// the caller knows the process's addresses.
func (s *Stack) Launch(name, binary string, env []string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(s.dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p.cmd = exec.Command(binary, args...) //nolint:gosec,noctx // our own program, ended by Kill or Terminate
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := errors.Join(p.cmd.Start(), log.Close()); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	// The control plane's lifeline ends what has such a file, should this
	// process die without calling Stop.
	pidFile := filepath.Join(s.Plane.Dir(), name+".pid")
	if err := os.WriteFile(pidFile, fmt.Append(nil, p.cmd.Process.Pid), 0o600); err != nil {
		err = errors.Join(err, p.cmd.Process.Kill(), p.cmd.Wait())
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = os.Remove(pidFile) // it goes with its folder
		close(p.done)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// WaitReady waits until the process says that it is ready.
func (p *Process) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Admin+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("asking %s: %w", p.Name, err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.Name, p.err, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, ctx.Err(), p.logTail())
		}
	}
}

func (p *Process) logTail() string {
	raw, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4000):])
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process at once, as a lost node would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Terminate asks the process to end and waits until it has.
func (p *Process) Terminate() error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", p.Name, err)
	}
	<-p.done
	return p.err
}

// FreePorts gives n addresses on loopback, as host:port, that were free a moment
// ago. They differ from each other.
func FreePorts(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer l.Close() //nolint:errcheck // nothing was written
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// WriteCertificate writes a new self-signed certificate for 127.0.0.1, localhost
// and the gate's name, of a server or a client, and its key. The key is in place
// before the certificate.
func WriteCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "keywright gate of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", GateAccount + "." + Namespace + ".svc"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	return errors.Join(
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600),
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
	)
}
