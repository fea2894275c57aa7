package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"

	// startTimeout is generous because two cores may be compiling meanwhile.
	startTimeout = 2 * time.Minute
	stopTimeout  = 20 * time.Second
	pollInterval = 50 * time.Millisecond

	tokenLifetime = 24 * time.Hour
)

// controllers are those whose work can be seen without a node.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"garbage-collector-controller",
	"namespace-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"validatingadmissionpolicy-status-controller",
}

// Options are what a caller may choose.
type Options struct {
	// Progress receives what a first build of the programs reports; nil means
	// standard error.
	Progress io.Writer
}

// ControlPlane is a running control plane. Its methods may be called from
// several goroutines, except that etcd and the API server are stopped, started,
// paused and resumed from one at a time.
type ControlPlane struct {
	assets string
	dir    string
	env    *envtest.Environment
	kcm    *exec.Cmd
	kcmEnd chan struct{} // closed when it has ended; kcm.ProcessState then says how
	// lifeline ends the processes when this one dies without calling Stop.
	lifeline      *exec.Cmd
	lifelineStdin io.WriteCloser
	paused        map[string]bool

	stopOnce sync.Once
	stopErr  error
}

// quiet gives envtest a logger, or it prints a stack trace for want of one. A
// caller that wants its log sets one before.
var quiet sync.Once

// Start finds or builds the programs, starts them, and returns when the
// controller manager has done its first work. The caller must call Stop.
func Start(ctx context.Context, opts Options) (_ *ControlPlane, err error) {
	quiet.Do(func() { log.SetLogger(logr.Discard()) })
	progress := opts.Progress
	if progress == nil {
		progress = os.Stderr
	}
	assets, err := findAssets(ctx, progress)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-controlplane-")
	if err != nil {
		return nil, fmt.Errorf("making the folder of the control plane: %w", err)
	}
	cp := &ControlPlane{assets: assets, dir: dir, paused: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, cp.logTails())
			err = errors.Join(err, cp.Stop())
		}
	}()
	if err := cp.startLifeline(); err != nil {
		return nil, err
	}
	if err := cp.startEnvironment(); err != nil {
		return nil, err
	}
	if err := cp.startControllerManager(); err != nil {
		return nil, err
	}
	if err := cp.awaitControllers(ctx); err != nil {
		return nil, err
	}
	return cp, nil
}

// findAssets asks hack/controlplane/build.sh, which alone knows the order in
// which the programs are looked for.
func findAssets(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	script := filepath.Join("hack", "controlplane", "build.sh")
	for {
		if _, err := os.Stat(filepath.Join(dir, script)); err == nil {
			break
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return "", fmt.Errorf("finding %s: not in the working directory nor above it; run from inside the repository", script)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, script))
	cmd.Stderr = progress
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("getting the programs of the control plane with %s: %w; run `make controlplane` to see why", script, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// wrap writes a script that leaves its process ID in a file and becomes the
// program. envtest does not tell the process IDs of what it starts.
func (cp *ControlPlane) wrap(program string) (string, error) {
	path := filepath.Join(cp.dir, program)
	script := fmt.Sprintf("#!/bin/sh\necho $$ >'%s.pid'\nexec '%s' \"$@\"\n", path, filepath.Join(cp.assets, program))
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		return "", fmt.Errorf("writing the script that starts %s: %w", program, err)
	}
	return path, nil
}

// startLifeline starts a shell that waits for its input to end, which happens
// when this process dies in whatever way, and then kills the processes and
// removes the folder.
func (cp *ControlPlane) startLifeline() error {
	cmd := exec.Command("/bin/sh", "-c", `
		read -r stopped && exit 0
		for f in "$1"/*.pid; do kill -KILL "$(cat "$f")" 2>/dev/null; done
		rm -rf "$1" || { sleep 1; rm -rf "$1"; }`, "lifeline", cp.dir)
	// A group of its own: Ctrl-C in the terminal must not end it first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("making the lifeline's pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the lifeline: %w", err)
	}
	cp.lifeline, cp.lifelineStdin = cmd, stdin
	return nil
}

func (cp *ControlPlane) startEnvironment() error {
	env := &envtest.Environment{
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  stopTimeout,
	}
	no := false
	env.UseExistingCluster = &no

	etcdPath, err := cp.wrap(etcd)
	if err != nil {
		return err
	}
	etcdLog, err := cp.logFile(etcd)
	if err != nil {
		return err
	}
	env.ControlPlane.Etcd = &envtest.Etcd{
		Path:    etcdPath,
		DataDir: cp.EtcdData(),
		Out:     etcdLog,
		Err:     etcdLog,
	}

	api := env.ControlPlane.GetAPIServer()
	if api.Path, err = cp.wrap(apiServer); err != nil {
		return err
	}
	apiLog, err := cp.logFile(apiServer)
	if err != nil {
		return err
	}
	api.Out, api.Err = apiLog, apiLog
	// A folder that we name outlives a stop of the API server, and with it the
	// certificates and the service accounts' signing key.
	api.CertDir = filepath.Join(cp.dir, "pki")
	if err := os.Mkdir(api.CertDir, 0o700); err != nil {
		return fmt.Errorf("making the folder of certificates: %w", err)
	}
	api.Configure().
		// envtest turns ServiceAccount admission off because it runs no
		// controller that makes the accounts; here there is one.
		Disable("disable-admission-plugins").
		// The address is also what "kubernetes.default" would lead to; a
		// machine without a network has no other, and no pod asks for it.
		Set("advertise-address", "127.0.0.1").
		Set("endpoint-reconciler-type", "none")

	if _, err := env.Start(); err != nil {
		return fmt.Errorf("starting etcd and kube-apiserver: %w", err)
	}
	cp.env = env
	if err := os.WriteFile(cp.AdminKubeconfig(), env.KubeConfig, 0o600); err != nil {
		return fmt.Errorf("writing the admin's kubeconfig: %w", err)
	}
	return nil
}

func (cp *ControlPlane) startControllerManager() error {
	user, err := cp.env.AddUser(envtest.User{Name: "system:kube-controller-manager"}, nil)
	if err != nil {
		return fmt.Errorf("adding the user of %s: %w", controllerManager, err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		return fmt.Errorf("writing the kubeconfig of %s: %w", controllerManager, err)
	}
	kubeconfigPath := filepath.Join(cp.dir, controllerManager+".kubeconfig")
	caPath := filepath.Join(cp.dir, "ca.crt")
	if err := errors.Join(
		os.WriteFile(kubeconfigPath, kubeconfig, 0o600),
		os.WriteFile(caPath, cp.AdminConfig().CAData, 0o600),
	); err != nil {
		return fmt.Errorf("writing the files of %s: %w", controllerManager, err)
	}
	path, err := cp.wrap(controllerManager)
	if err != nil {
		return err
	}
	log, err := cp.logFile(controllerManager)
	if err != nil {
		return err
	}
	cmd := exec.Command(path,
		"--kubeconfig="+kubeconfigPath,
		"--leader-elect=false",
		"--secure-port=0", // no listener: nobody asks it anything
		"--use-service-account-credentials",
		// The pair of the certificate that envtest gives the API server as
		// --service-account-key-file.
		"--service-account-private-key-file="+filepath.Join(cp.env.ControlPlane.GetAPIServer().CertDir, "sa-signer.key"),
		"--root-ca-file="+caPath,
		"--controllers="+strings.Join(controllers, ","),
	)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", controllerManager, err)
	}
	cp.kcm, cp.kcmEnd = cmd, make(chan struct{})
	go func() {
		defer close(cp.kcmEnd)
		// An error says no more than ProcessState, except that a log could not
		// be written, which the log would be the place to say.
		_ = cmd.Wait()
	}()
	return nil
}

// awaitControllers waits for the first work of the controller manager: the
// service account and the root certificate of namespace default.
func (cp *ControlPlane) awaitControllers(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(cp.AdminConfig())
	if err != nil {
		return fmt.Errorf("making the admin's client: %w", err)
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, pollInterval, startTimeout, true, func(ctx context.Context) (bool, error) {
		select {
		case <-cp.kcmEnd:
			return false, fmt.Errorf("%s ended: %s", controllerManager, cp.kcm.ProcessState)
		default:
		}
		if _, last = client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{}); last != nil {
			return false, nil
		}
		_, last = client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the first work of %s: %w (last answer: %w)", controllerManager, err, last)
	}
	return nil
}

// Dir is the folder that holds logs (NAME.log), kubeconfigs and data until
// Stop removes it.
func (cp *ControlPlane) Dir() string { return cp.dir }

// Assets is the folder of the programs.
func (cp *ControlPlane) Assets() string { return cp.assets }

// AdminConfig returns a new client configuration of a cluster administrator.
func (cp *ControlPlane) AdminConfig() *rest.Config { return rest.CopyConfig(cp.env.Config) }

// AdminKubeconfig is the path of a kubeconfig file of a cluster administrator.
func (cp *ControlPlane) AdminKubeconfig() string { return filepath.Join(cp.dir, "admin.kubeconfig") }

// ConfigFor returns a client configuration that carries a token of the service
// account and nothing else, so that what it may do is what RBAC gives that
// account. The account must exist; the token lives for a day.
func (cp *ControlPlane) ConfigFor(ctx context.Context, namespace, serviceAccount string) (*rest.Config, error) {
	client, err := kubernetes.NewForConfig(cp.AdminConfig())
	if err != nil {
		return nil, fmt.Errorf("making the admin's client: %w", err)
	}
	seconds := int64(tokenLifetime / time.Second)
	request, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("requesting a token of service account %s/%s: %w", namespace, serviceAccount, err)
	}
	config := rest.AnonymousClientConfig(cp.env.Config)
	config.BearerToken = request.Status.Token
	return config, nil
}

// KubeconfigFor writes ConfigFor into a kubeconfig file, with the namespace as
// its default, and returns its path.
func (cp *ControlPlane) KubeconfigFor(ctx context.Context, namespace, serviceAccount string) (string, error) {
	config, err := cp.ConfigFor(ctx, namespace, serviceAccount)
	if err != nil {
		return "", err
	}
	const name = "keywright"
	path := filepath.Join(cp.dir, namespace+"."+serviceAccount+".kubeconfig")
	err = clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: config.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name, Namespace: namespace}},
		CurrentContext: name,
	}, path)
	if err != nil {
		return "", fmt.Errorf("writing the kubeconfig of service account %s/%s: %w", namespace, serviceAccount, err)
	}
	return path, nil
}

// Kubectl runs the real kubectl as an administrator, with nothing on its
// standard input. A --kubeconfig among the arguments makes it another user.
func (cp *ControlPlane) Kubectl(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(cp.assets, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cp.AdminKubeconfig())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), errs.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), errs.String(), nil
}

// StopAPIServer kills the API server, so that its port refuses connections.
// etcd keeps the data.
func (cp *ControlPlane) StopAPIServer() error {
	return cp.halt(apiServer, cp.env.ControlPlane.GetAPIServer().Stop)
}

// StartAPIServer starts the API server again on the same port, with the same
// certificates, and returns when it is healthy.
func (cp *ControlPlane) StartAPIServer() error {
	return cp.restart(apiServer, cp.env.ControlPlane.GetAPIServer().Start)
}

// PauseAPIServer makes the API server hang: connections open and requests are
// taken, and none is answered until ResumeAPIServer.
func (cp *ControlPlane) PauseAPIServer() error { return cp.pause(apiServer) }

// ResumeAPIServer ends a pause; without one it does nothing.
func (cp *ControlPlane) ResumeAPIServer() error { return cp.resume(apiServer) }

// StopEtcd kills etcd. Its folder EtcdData may then be copied, or replaced by
// an earlier copy.
func (cp *ControlPlane) StopEtcd() error { return cp.halt(etcd, cp.env.ControlPlane.Etcd.Stop) }

// StartEtcd starts etcd again on the same port, with what is in EtcdData, and
// returns when it is healthy.
func (cp *ControlPlane) StartEtcd() error { return cp.restart(etcd, cp.env.ControlPlane.Etcd.Start) }

// PauseEtcd makes etcd hang until ResumeEtcd.
func (cp *ControlPlane) PauseEtcd() error { return cp.pause(etcd) }

// ResumeEtcd ends a pause; without one it does nothing.
func (cp *ControlPlane) ResumeEtcd() error { return cp.resume(etcd) }

// EtcdURL is where etcd answers, without TLS.
func (cp *ControlPlane) EtcdURL() string { return cp.env.ControlPlane.Etcd.URL.String() }

// EtcdData is the folder of etcd's data.
func (cp *ControlPlane) EtcdData() string { return filepath.Join(cp.dir, "etcd-data") }

func (cp *ControlPlane) halt(program string, stop func() error) error {
	if err := cp.kill(program); err != nil {
		return err
	}
	cp.paused[program] = false
	if err := reap(stop); err != nil {
		return fmt.Errorf("stopping %s: %w", program, err)
	}
	return nil
}

func (cp *ControlPlane) restart(program string, start func() error) error {
	if err := start(); err != nil {
		return errors.Join(fmt.Errorf("starting %s again: %w", program, err), cp.logTails())
	}
	return nil
}

func (cp *ControlPlane) pause(program string) error {
	pid, err := cp.signal(program, syscall.SIGSTOP)
	if err != nil {
		return err
	}
	cp.paused[program] = true
	// The signal is not there yet when kill returns, and a request in that
	// instant would still be answered: wait until the process has stopped.
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for %s to pause: %w", program, err)
		}
		if !status.Stopped() {
			return fmt.Errorf("waiting for %s to pause: it ended with status %d", program, status)
		}
		return nil
	}
}

func (cp *ControlPlane) resume(program string) error {
	if !cp.paused[program] {
		return nil
	}
	cp.paused[program] = false
	_, err := cp.signal(program, syscall.SIGCONT)
	return err
}

// Stop ends the processes that Start began and removes the folder. It may be
// called more than once.
func (cp *ControlPlane) Stop() error {
	cp.stopOnce.Do(func() { cp.stopErr = cp.stop() })
	return cp.stopErr
}

func (cp *ControlPlane) stop() error {
	errs := []error{cp.stopControllerManager()}
	if cp.env != nil {
		// Nothing is kept, and a graceful end of the API server waits for every
		// watch that a client still holds.
		errs = append(errs, cp.kill(apiServer), cp.kill(etcd))
		if err := reap(cp.env.Stop); err != nil {
			errs = append(errs, fmt.Errorf("stopping etcd and kube-apiserver: %w", err))
		}
	}
	if cp.lifeline != nil {
		// Not told that all has stopped, the lifeline kills what a failed start
		// may have left.
		if cp.env != nil {
			if _, err := io.WriteString(cp.lifelineStdin, "stopped\n"); err != nil {
				errs = append(errs, fmt.Errorf("releasing the lifeline: %w", err))
			}
		}
		errs = append(errs, cp.lifelineStdin.Close(), cp.lifeline.Wait())
	}
	return errors.Join(append(errs, os.RemoveAll(cp.dir))...)
}

// reap calls stop of envtest until it has noticed the end of a process that was
// killed: between the two it answers that there is no such process.
func reap(stop func() error) error {
	var last error
	err := wait.PollUntilContextTimeout(context.Background(), pollInterval, stopTimeout, true, func(context.Context) (bool, error) {
		last = stop()
		return !errors.Is(last, syscall.ESRCH), nil
	})
	return errors.Join(err, last)
}

func (cp *ControlPlane) stopControllerManager() error {
	if cp.kcm == nil {
		return nil
	}
	if err := cp.kcm.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", controllerManager, err)
	}
	select {
	case <-cp.kcmEnd:
		return nil
	case <-time.After(stopTimeout):
	}
	if err := cp.kcm.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", controllerManager, err)
	}
	<-cp.kcmEnd
	return nil
}

func (cp *ControlPlane) pidFile(program string) string {
	return filepath.Join(cp.dir, program+".pid")
}

func (cp *ControlPlane) signal(program string, sig syscall.Signal) (pid int, err error) {
	raw, err := os.ReadFile(cp.pidFile(program))
	if err != nil {
		return 0, fmt.Errorf("finding the process of %s: %w", program, err)
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("reading the process ID of %s: %w", program, err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return 0, fmt.Errorf("sending %s to %s: %w", sig, program, err)
	}
	return pid, nil
}

// kill ends a program and forgets its process ID. One that has ended already is
// no error.
func (cp *ControlPlane) kill(program string) error {
	_, err := cp.signal(program, syscall.SIGKILL)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(cp.pidFile(program))
}

func (cp *ControlPlane) logPath(program string) string {
	return filepath.Join(cp.dir, program+".log")
}

// logFile opens a log. It is handed to a child process and stays open for the
// next start of the same program.
func (cp *ControlPlane) logFile(program string) (*os.File, error) {
	f, err := os.OpenFile(cp.logPath(program), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", program, err)
	}
	return f, nil
}

// logTails returns the last lines of each log as an error, to be joined to the
// one that they explain, since Stop removes the files.
func (cp *ControlPlane) logTails() error {
	const lines = 15
	var errs []error
	for _, program := range []string{etcd, apiServer, controllerManager} {
		raw, err := os.ReadFile(cp.logPath(program))
		if err != nil {
			continue // it was not reached
		}
		all := strings.Split(strings.TrimSpace(string(raw)), "\n")
		tail := all[max(0, len(all)-lines):]
		errs = append(errs, fmt.Errorf("last lines of %s:\n%s", program, strings.Join(tail, "\n")))
	}
	return errors.Join(errs...)
}
