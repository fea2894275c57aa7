package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/keywright/keywright/hack/e2e/buildcache"
)

const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"

	// startTimeout is generous because two cores may be compiling meanwhile.
	startTimeout = 2 * time.Minute
	stopTimeout  = 20 * time.Second
	pollInterval = 50 * time.Millisecond
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
	assets, err := buildcache.Path(ctx, "controlplane", opts.Progress)
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
