package nginx

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

const (
	pollInterval = 20 * time.Millisecond
	stopTimeout  = 10 * time.Second

	// defaultCacheDuration is that of ingress-nginx.
	defaultCacheDuration = "200 202 401 5m"

	generationPath = "/.generation"
	// generationHost is no host of a caller: .invalid is reserved (RFC 2606).
	generationHost = "nginx.invalid"
)

// ErrNotInstalled says that there is no nginx to run.
var ErrNotInstalled = errors.New("nginx with auth_request is not installed; run `make deps` (Debian package nginx-extras)")

//go:embed nginx.conf.tmpl
var configTemplate string

var config = template.Must(template.New("nginx.conf").
	Funcs(template.FuncMap{"upstreamVariable": upstreamVariable}).
	Parse(configTemplate))

// Options are what a caller may choose.
type Options struct {
	// Port on 127.0.0.1; 0 takes a free one.
	Port int
	// Servers in the order in which nginx gets them, at least one.
	Servers []Server
	// Log receives nginx's error log. Nil keeps none but what an error of
	// Start quotes.
	Log io.Writer
}

// Server is one Ingress with one host and the path /.
type Server struct {
	// Host is what requests for it carry, for example "shop.example.com".
	Host string
	// AuthURL is the annotation auth-url: absolute, its host an IP address
	// (there is no resolver), variables of nginx such as $host allowed in path
	// and query. Empty protects nothing.
	AuthURL string
	// ResponseHeaders is the annotation auth-response-headers: headers of an
	// allowing answer that the backend gets. The client's own never arrive.
	ResponseHeaders []string
	// CacheKey is the annotation auth-cache-key, for example
	// "$http_authorization$request_method$request_uri". Empty asks each time.
	CacheKey string
	// CacheDuration is the annotation auth-cache-duration, by default
	// "200 202 401 5m".
	CacheDuration string
	// AuthCAFile makes nginx verify the certificate of an https AuthURL against
	// this PEM file, which ingress-nginx does not.
	AuthCAFile string
	// AuthServerName is the DNS name that the certificate must be for, and the
	// SNI. Needed with AuthCAFile, since nginx verifies no IP address.
	AuthServerName string
	// Backend is where allowed requests go, scheme and address only, for
	// example "http://127.0.0.1:8080".
	Backend string
}

// AuthHost is the Host header of the question: as ingress-nginx sends it, the
// host of AuthURL without its port.
func (s Server) AuthHost() string {
	u, err := url.Parse(s.AuthURL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Nginx is a running nginx. Client, URL and Stop may be called from any goroutine,
// Reload from one at a time.
type Nginx struct {
	binary     string
	dir        string
	address    string
	generation int
	log        *tail
	process    *os.Process
	exited     chan struct{}
	exit       error // why it ended; read after exited is closed
	client     *http.Client

	stopOnce sync.Once
	stopErr  error
}

// Start starts nginx and returns when it answers. The caller must call Stop; if
// the calling process dies without it, the kernel ends nginx (on Linux).
func Start(ctx context.Context, opts Options) (_ *Nginx, err error) {
	binary, err := find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-nginx-")
	if err != nil {
		return nil, fmt.Errorf("making nginx's folder: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(opts.Port)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("taking a port for nginx: %w", err), os.RemoveAll(dir))
	}
	n := &Nginx{
		binary:  binary,
		dir:     dir,
		address: listener.Addr().String(),
		log:     &tail{next: opts.Log},
		exited:  make(chan struct{}),
	}
	n.client = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp4", n.address)
			},
			MaxIdleConnsPerHost: 64,
		},
		// The tests look at what nginx answers, not at where that leads.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	socket, err := listener.(*net.TCPListener).File()
	err = errors.Join(err, listener.Close())
	if err == nil {
		err = n.configure(opts.Servers)
	}
	if err == nil {
		err = n.start(socket)
	}
	if socket != nil {
		// Only nginx holds it now, so its end refuses connections.
		err = errors.Join(err, socket.Close())
	}
	if err == nil {
		err = n.awaitGeneration(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

// find returns a path of nginx. /usr/sbin is not in every user's PATH.
func find() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}

// configure writes the configuration of the next generation.
func (n *Nginx) configure(servers []Server) error {
	if len(servers) == 0 {
		return errors.New("configuring nginx: Servers is empty")
	}
	hosts := map[string]bool{}
	for i := range servers {
		if err := servers[i].validate(); err != nil {
			return fmt.Errorf("configuring nginx: Servers[%d].%w", i, err)
		}
		if hosts[servers[i].Host] {
			return fmt.Errorf("configuring nginx: Servers[%d].Host: %s is already taken", i, servers[i].Host)
		}
		hosts[servers[i].Host] = true
	}
	account, err := workerAccount()
	if err != nil {
		return err
	}
	withDefaults := make([]Server, len(servers))
	for i, server := range servers {
		if server.CacheDuration == "" {
			server.CacheDuration = defaultCacheDuration
		}
		withDefaults[i] = server
	}
	var text strings.Builder
	err = config.Execute(&text, struct {
		User, Dir, Listen, GenerationPath string
		Generation                        int
		Servers                           []Server
	}{account, n.dir, n.address, generationPath, n.generation + 1, withDefaults})
	if err != nil {
		return fmt.Errorf("filling in nginx's configuration: %w", err)
	}
	if err := os.WriteFile(n.configFile(), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("writing nginx's configuration: %w", err)
	}
	n.generation++
	return nil
}

func (n *Nginx) configFile() string { return filepath.Join(n.dir, "nginx.conf") }

// workerAccount is "user group" for root, whose workers nginx would otherwise
// run as somebody who may not enter its folder; empty for all others.
func workerAccount() (string, error) {
	if os.Geteuid() != 0 {
		return "", nil
	}
	current, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("finding the account of nginx's workers: %w", err)
	}
	group, err := user.LookupGroupId(current.Gid)
	if err != nil {
		return "", fmt.Errorf("finding the group of nginx's workers: %w", err)
	}
	return current.Username + " " + group.Name, nil
}

// Each pattern is what may stand unquoted (or within double quotes) in
// nginx.conf: a value must not be able to end its directive.
var (
	hostPattern     = regexp.MustCompile(`^[A-Za-z0-9*._-]+$`)
	urlPattern      = regexp.MustCompile(`^https?://[^\s;{}"'\\]+$`)
	headerPattern   = regexp.MustCompile(`^[A-Za-z0-9-]+$`)
	keyPattern      = regexp.MustCompile(`^[^\s;{}"'\\]*$`)
	durationPattern = regexp.MustCompile(`^[0-9a-z ]*$`)
	pathPattern     = regexp.MustCompile(`^[^\s;{}"'\\]*$`)
	backendPattern  = regexp.MustCompile(`^https?://[A-Za-z0-9.:\[\]-]+$`)
)

// validate starts its message with the name of the field.
func (s Server) validate() error {
	for _, field := range []struct {
		name, value string
		pattern     *regexp.Regexp
		optional    bool
	}{
		{"Host", s.Host, hostPattern, false},
		{"AuthURL", s.AuthURL, urlPattern, true},
		{"CacheKey", s.CacheKey, keyPattern, true},
		{"CacheDuration", s.CacheDuration, durationPattern, true},
		{"AuthCAFile", s.AuthCAFile, pathPattern, true},
		{"AuthServerName", s.AuthServerName, hostPattern, true},
		{"Backend", s.Backend, backendPattern, false},
	} {
		if field.value == "" && field.optional {
			continue
		}
		if !field.pattern.MatchString(field.value) {
			return fmt.Errorf("%s: %q cannot be written into nginx.conf, want %s", field.name, field.value, field.pattern)
		}
	}
	for _, header := range s.ResponseHeaders {
		if !headerPattern.MatchString(header) {
			return fmt.Errorf("ResponseHeaders: %q is not a header name", header)
		}
	}
	if s.AuthURL != "" && net.ParseIP(s.AuthHost()) == nil {
		return fmt.Errorf("AuthURL: %q: the host must be an IP address, nginx has no resolver here", s.AuthURL)
	}
	if s.AuthCAFile != "" && s.AuthServerName == "" {
		return errors.New("AuthServerName: needed with AuthCAFile, since nginx verifies no IP address")
	}
	return nil
}

// upstreamVariable is nginx's variable for a header of the auth answer.
func upstreamVariable(header string) string {
	return "upstream_http_" + strings.ReplaceAll(strings.ToLower(header), "-", "_")
}

// start runs nginx on the inherited socket.
func (n *Nginx) start(socket *os.File) error {
	cmd := exec.Command(n.binary, "-p", n.dir, "-c", n.configFile())
	// File descriptor 3 is the first of ExtraFiles; the variable is how a
	// running nginx tells its successor which sockets it may keep.
	cmd.Env = append(os.Environ(), "NGINX=3;")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.SysProcAttr = endWithParent()
	started := make(chan error)
	go func() {
		// The kernel's "end with the parent" means the thread that started the
		// process, so that thread must not end before nginx does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("starting %s: %w", n.binary, err)
			return
		}
		n.process = cmd.Process
		started <- unblock(socket)
		n.exit = cmd.Wait()
		close(n.exited)
	}()
	return <-started
}

// unblock undoes what handing a file to a process does: makes it block. The flag
// is the socket's, not the descriptor's, so nginx sees it too, and of its two
// workers during a reload the slower to accept would hang in it.
func unblock(socket *os.File) error {
	if err := syscall.SetNonblock(int(socket.Fd()), true); err != nil {
		return fmt.Errorf("making nginx's socket non-blocking: %w", err)
	}
	return nil
}

// awaitGeneration returns when the configuration that was written last is the
// only one that answers.
func (n *Nginx) awaitGeneration(ctx context.Context) error {
	want := strconv.Itoa(n.generation)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		got, err := n.askGeneration(ctx)
		if err == nil && got == want && soleWorker(n.process.Pid) {
			return nil
		}
		select {
		case <-n.exited:
			return fmt.Errorf("%w; its log:\n%s", errors.Join(errors.New("nginx ended"), n.exit), n.log)
		case <-ctx.Done():
			return fmt.Errorf("waiting for nginx to use its configuration: %w (answered %q); its log:\n%s", errors.Join(ctx.Err(), err), got, n.log)
		case <-tick.C:
		}
	}
}

// askGeneration uses a connection of its own: a kept one belongs to the worker
// of the configuration before.
func (n *Nginx) askGeneration(ctx context.Context) (string, error) {
	// nginx may end without having answered on the inherited socket.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+generationPath, nil)
	if err != nil {
		return "", fmt.Errorf("asking for the generation: %w", err)
	}
	req.Host = generationHost
	req.Close = true
	resp, err := n.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking for the generation: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	return string(body), errors.Join(err, resp.Body.Close())
}

// URL is where nginx listens, for example "http://127.0.0.1:40213". A request
// to it needs the Host of a Server.
func (n *Nginx) URL() string { return "http://" + n.address }

// Client reaches nginx whatever the host of the URL is, so a request for
// "http://shop.example.com/" carries that Host. It follows no redirects.
func (n *Nginx) Client() *http.Client { return n.client }

// Reload replaces the servers without refusing a request, and returns when only
// the new ones answer. On an error the old ones go on.
func (n *Nginx) Reload(ctx context.Context, servers []Server) error {
	before, err := os.ReadFile(n.configFile())
	if err != nil {
		return fmt.Errorf("reading nginx's configuration: %w", err)
	}
	if err := n.configure(servers); err != nil {
		return err
	}
	test := exec.CommandContext(ctx, n.binary, "-t", "-q", "-p", n.dir, "-c", n.configFile())
	if out, err := test.CombinedOutput(); err != nil {
		n.generation--
		return errors.Join(fmt.Errorf("testing nginx's configuration: %w: %s", err, out),
			os.WriteFile(n.configFile(), before, 0o600))
	}
	if err := n.process.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("telling nginx to reload: %w", err)
	}
	return n.awaitGeneration(ctx)
}

// Stop ends nginx, after the requests that it is answering, and removes its
// folder. It may be called more than once.
func (n *Nginx) Stop() error {
	n.stopOnce.Do(func() { n.stopErr = n.stop() })
	return n.stopErr
}

func (n *Nginx) stop() error {
	n.client.CloseIdleConnections()
	if n.process != nil {
		// It may have ended by itself; then there is nothing to tell it.
		if err := n.process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping nginx: %w", err)
		}
		select {
		case <-n.exited:
		case <-time.After(stopTimeout):
			// SIGTERM, not SIGKILL: the master must take its worker along.
			if err := n.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("stopping nginx: %w", err)
			}
			<-n.exited
		}
	}
	if err := os.RemoveAll(n.dir); err != nil {
		return fmt.Errorf("removing nginx's folder: %w", err)
	}
	return nil
}

// tail keeps the end of what nginx logs, for errors to quote.
type tail struct {
	next io.Writer

	mu   sync.Mutex
	kept []byte
}

const tailLength = 4 << 10

// Write keeps p's end and passes all of it on.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailLength; over > 0 {
		t.kept = append([]byte(nil), t.kept[over:]...)
	}
	if t.next == nil {
		return len(p), nil
	}
	return t.next.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
