//go:build linux

package ingressnginx

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/hack/e2e/buildcache"
)

const (
	defaultNamespace = "ingress-nginx"

	pollInterval = 50 * time.Millisecond
	stopTimeout  = 10 * time.Second

	// tokenSeconds outlives any test.
	tokenSeconds = 24 * 60 * 60
)

// ErrNotInstalled says that something to run the controller with is missing.
var ErrNotInstalled = errors.New("run `make deps`")

// needed are the files that the controller's nginx and init.sh use, beside
// those that build.sh makes.
var needed = []string{
	"/usr/sbin/nginx",
	"/usr/lib/nginx/modules/ndk_http_module.so",
	"/usr/lib/nginx/modules/ngx_http_lua_module.so",
	"/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so",
	"/usr/lib/nginx/modules/ngx_stream_module.so",
	"/usr/lib/*/lua/5.1/cjson.so",
	"/usr/share/lua/5.1/nginx/cookie.lua",
	"/usr/share/lua/5.1/nginx/dns/resolver.lua",
	"/usr/share/lua/5.1/nginx/string.lua",
	"/usr/share/lua/5.1/resty/core.lua",
	"/usr/share/lua/5.1/resty/lrucache.lua",
	"/var/lib/nginx",
	"/var/log/nginx",
}

//go:embed init.sh
var initScript string

// Options are what a caller may choose.
type Options struct {
	// Kubeconfig is the path of an administrator's kubeconfig for an API server,
	// on loopback or elsewhere. The controller does not get it: it runs as a
	// ServiceAccount of its own.
	Kubeconfig string
	// Namespace of the controller itself, by default "ingress-nginx", made if it
	// is not there. Its Ingresses may be in any.
	Namespace string
	// Config is added to the data of the controller's ConfigMap.
	Config map[string]string
	// BuildDir is what hack/ingress-nginx/build.sh printed; empty runs it, which
	// takes minutes if nothing is cached.
	BuildDir string
	// LogFile keeps the log of controller and nginx. Empty keeps it until Stop,
	// for errors to quote.
	LogFile string
	// Progress receives what build.sh reports; nil means standard error.
	Progress io.Writer
}

// Controller is a running controller. Its methods may be called from any
// goroutine.
type Controller struct {
	dir     string
	logFile string
	version string
	network *network
	client  *http.Client

	process *os.Process
	stdin   io.Closer
	exited  chan struct{}
	exit    error // why it ended; read after exited is closed

	stopOnce sync.Once
	stopErr  error
}

// Start makes the objects that the controller needs, starts it, and returns when
// nginx answers. The caller must call Stop.
func Start(ctx context.Context, opts Options) (_ *Controller, err error) {
	if err := checkNeeds(); err != nil {
		return nil, err
	}
	if opts.Namespace == "" {
		opts.Namespace = defaultNamespace
	}
	if opts.BuildDir == "" {
		if opts.BuildDir, err = buildcache.Path(ctx, "ingress-nginx", opts.Progress); err != nil {
			return nil, err
		}
	}
	admin, err := clientcmd.BuildConfigFromFlags("", opts.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading Kubeconfig: %w", err)
	}
	token, err := prepareCluster(ctx, admin, opts)
	if err != nil {
		return nil, err
	}
	if err := removeStale(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", folderPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("making the controller's folder: %w", err)
	}
	c := &Controller{dir: dir, version: filepath.Base(opts.BuildDir), logFile: opts.LogFile, exited: make(chan struct{})}
	if c.logFile == "" {
		c.logFile = filepath.Join(dir, "log")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if c.network, err = choose(); err != nil {
		return nil, err
	}
	c.client = newClient(c.network.peer)
	begin, err := c.start(opts)
	if err != nil {
		return nil, err
	}
	if err := c.network.connect(ctx, c.process.Pid); err != nil {
		return nil, err
	}
	if err := c.writeKubeconfig(ctx, admin, token); err != nil {
		return nil, err
	}
	if err := begin(); err != nil {
		return nil, err
	}
	if err := c.WaitSynced(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// checkNeeds says all that is missing at once.
func checkNeeds() error {
	if os.Geteuid() != 0 {
		return errors.New("starting ingress-nginx: it needs namespaces and a network interface of its own; run as root, in a container with --privileged")
	}
	var missing []string
	for _, pattern := range needed {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("looking for %s: %w", pattern, err)
		}
		if len(found) == 0 {
			missing = append(missing, pattern)
		}
	}
	for _, program := range []string{"bash", "ip", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("starting ingress-nginx: %s missing: %w", strings.Join(missing, ", "), ErrNotInstalled)
	}
	return nil
}

// prepareCluster applies what the controller needs and returns a token of its
// ServiceAccount.
func prepareCluster(ctx context.Context, admin *rest.Config, opts Options) (string, error) {
	c, err := client.New(admin, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		return "", fmt.Errorf("connecting to the API server: %w", err)
	}
	if err := Apply(ctx, c, objects(opts.Namespace, opts.Config)...); err != nil {
		return "", err
	}
	seconds := int64(tokenSeconds)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: opts.Namespace, Name: name}}
	if err := c.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("requesting a token for the controller: %w", err)
	}
	return request.Status.Token, nil
}

// start starts the first process of the namespaces, which waits until the
// returned function is called.
func (c *Controller) start(opts Options) (begin func() error, err error) {
	if err := os.Mkdir(filepath.Join(c.dir, "etc"), 0o700); err != nil {
		return nil, fmt.Errorf("making the controller's folder: %w", err)
	}
	log, err := os.OpenFile(c.logFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the controller's log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := exec.Command("bash", "-c", initScript, "init.sh",
		"--configmap="+opts.Namespace+"/"+name,
		"--ingress-class="+IngressClass,
		"--update-status=false",
		"--disable-leader-election",
		"--enable-metrics=false",
		"--shutdown-grace-period=0",
		"--post-shutdown-grace-period=0",
	)
	cmd.Env = append(os.Environ(),
		"BUILD="+opts.BuildDir,
		"DIR="+c.dir,
		"ADDRESS="+c.network.prefix(c.network.peer),
		"NAMESPACE="+opts.Namespace,
	)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the controller: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the controller in namespaces of its own: %w", err)
	}
	c.process, c.stdin = cmd.Process, stdin
	go func() {
		c.exit = cmd.Wait()
		close(c.exited)
	}()
	return func() error {
		if _, err := io.WriteString(stdin, "begin\n"); err != nil {
			return fmt.Errorf("starting the controller: %w; its log:\n%s", err, c.logTail())
		}
		return nil
	}, nil
}

// writeKubeconfig lets the controller reach the API server, which may be on the
// host's loopback, through a forwarder, and verify it by the name that it has
// there.
func (c *Controller) writeKubeconfig(ctx context.Context, admin *rest.Config, token string) error {
	server, err := url.Parse(admin.Host)
	if err != nil {
		return fmt.Errorf("reading the API server's address: %w", err)
	}
	if server.Scheme != "https" || server.Port() == "" {
		return fmt.Errorf("reading the API server's address: %q, want https://host:port", admin.Host)
	}
	ca := admin.CAData
	if len(ca) == 0 && admin.CAFile != "" {
		if ca, err = os.ReadFile(admin.CAFile); err != nil {
			return fmt.Errorf("reading the API server's CA: %w", err)
		}
	}
	address, err := c.Expose(ctx, server.Host)
	if err != nil {
		return err
	}
	serverName := admin.ServerName
	if serverName == "" {
		serverName = server.Hostname()
	}
	config := clientcmdapi.NewConfig()
	config.CurrentContext = name
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   "https://" + address,
		CertificateAuthorityData: ca,
		TLSServerName:            serverName,
	}
	if err := clientcmd.WriteToFile(*config, filepath.Join(c.dir, "kubeconfig")); err != nil {
		return fmt.Errorf("writing the controller's kubeconfig: %w", err)
	}
	return nil
}

// Expose makes what listens on the host, at an address such as
// "127.0.0.1:9443", reachable for the controller and its nginx, until Stop. It
// returns the address to use there, in an auth-url or for Backend.
func (c *Controller) Expose(ctx context.Context, address string) (string, error) {
	exposed, err := c.network.forwards.add(ctx, c.network.host, address)
	if err != nil {
		return "", fmt.Errorf("exposing %s to the controller: %w", address, err)
	}
	return exposed, nil
}

// HostIP is the host's address as the controller sees it, and the client's
// address for nginx. What listens on it needs no Expose.
func (c *Controller) HostIP() string { return c.network.host.String() }

// Version is that of the controller's Go module.
func (c *Controller) Version() string { return c.version }

// Stop ends the controller and its nginx at once and removes all that Start made
// on this machine; the objects in the API server stay. It may be called more
// than once.
func (c *Controller) Stop() error {
	c.stopOnce.Do(func() { c.stopErr = c.stop() })
	return c.stopErr
}

func (c *Controller) stop() error {
	var errs []error
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	if c.process != nil {
		if err := c.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, fmt.Errorf("stopping the controller: %w", err))
		}
		select {
		case <-c.exited:
		case <-time.After(stopTimeout):
			// The first process of its PID namespace: all others end with it.
			if err := c.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				errs = append(errs, fmt.Errorf("killing the controller: %w", err))
			}
			<-c.exited
		}
	}
	if c.network != nil {
		errs = append(errs, c.network.close())
	}
	if err := os.RemoveAll(c.dir); err != nil {
		errs = append(errs, fmt.Errorf("removing the controller's folder: %w", err))
	}
	return errors.Join(errs...)
}

// logTail is the end of the log, for errors to quote.
func (c *Controller) logTail() string {
	const length = 4 << 10
	text, err := os.ReadFile(c.logFile)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-length):])
}
