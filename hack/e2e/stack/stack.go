package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/controlplane"
)

// Namespace is where the chart is installed.
const Namespace = "keywright-system"

// The chart's service accounts.
const (
	ControllerAccount = "keywright-controller"
	GateAccount       = "keywright-webhook"
)

// Stack is a control plane with Keywright's resources and rights installed.
type Stack struct {
	// Plane is the control plane.
	Plane *controlplane.ControlPlane
	// Client acts as a cluster administrator.
	Client client.Client

	dir    string // programs, certificates and logs
	binary string

	mu        sync.Mutex // of processes
	processes []*Process
}

// Start starts a control plane and installs the chart in it. Its Deployments
// are made too, but nothing runs them. values are for Helm, such as a=b. The
// caller must call Stop.
func Start(ctx context.Context, progress io.Writer, values ...string) (_ *Stack, err error) {
	s := &Stack{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "keywright-stack-"); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	if s.binary, err = build(ctx, s.dir); err != nil {
		return nil, err
	}
	if s.Plane, err = controlplane.Start(ctx, controlplane.Options{Progress: progress}); err != nil {
		return nil, err
	}
	scheme := kruntime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	if s.Client, err = client.New(s.Plane.AdminConfig(), client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if err := s.install(ctx, values); err != nil {
		return nil, err
	}
	return s, nil
}

// Root is the top folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// build makes the program under test, from the sources as they are.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "keywright")
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", binary, "./cmd/keywright") // as released, and linked sooner
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building keywright: %w\n%s", err, out)
	}
	return binary, nil
}

// install renders the chart with Helm and applies it as kubectl does.
func (s *Stack) install(ctx context.Context, values []string) error {
	helm := filepath.Join(Root(), "bin", "helm")
	if _, err := os.Stat(helm); err != nil {
		return fmt.Errorf("%w: run `make bin/helm`", err)
	}
	cmd := exec.CommandContext(ctx, helm, "template", "keywright", filepath.Join(Root(), "charts", "keywright"),
		"--namespace", Namespace, "--set", strings.Join(append([]string{"webhook.insecureHTTP=true"}, values...), ","))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	rendered, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("rendering the chart: %w\n%s", err, stderr.String())
	}
	file := filepath.Join(s.dir, "chart.yaml")
	if err := os.WriteFile(file, rendered, 0o600); err != nil {
		return fmt.Errorf("rendering the chart: %w", err)
	}
	for _, namespace := range watched(values) {
		if _, stderr, err := s.Plane.Kubectl(ctx, "create", "namespace", namespace); err != nil {
			return fmt.Errorf("creating namespace %s: %w\n%s", namespace, err, stderr)
		}
	}
	for _, args := range [][]string{
		{"create", "namespace", Namespace},
		{"apply", "--server-side", "--validate=strict", "-f", file},
		{"wait", "--for=condition=Established", "--timeout=60s", "crd/signingkeys.keywright.dev", "crd/accesspolicies.keywright.dev"},
	} {
		if _, stderr, err := s.Plane.Kubectl(ctx, args...); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, stderr)
		}
	}
	return nil
}

// watched are the namespaces of the value watchNamespaces, which have to exist
// before the chart is installed.
func watched(values []string) []string {
	for _, value := range values {
		if list, ok := strings.CutPrefix(value, "watchNamespaces={"); ok {
			return strings.Split(strings.TrimSuffix(list, "}"), ",")
		}
	}
	return nil
}

// Dir is a folder that Stop removes.
func (s *Stack) Dir() string { return s.dir }

// Binary is the program under test.
func (s *Stack) Binary() string { return s.binary }

// Stop ends every process that was started and removes all files.
func (s *Stack) Stop() error {
	var errs []error
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.processes {
		p.Kill()
	}
	if s.Plane != nil {
		errs = append(errs, s.Plane.Stop())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
