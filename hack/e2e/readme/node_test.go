//go:build linux

package readme

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/hack/e2e/stack"
)

// node stands in for what a cluster has and a control plane alone lacks: it
// runs what the two Deployments describe, once, as soon as they and the Secret
// with the certificate are there, lists where that listens behind the Services,
// and reports the Deployments as rolled out.
type node struct {
	c    *cluster
	done chan struct{} // closed when all runs, or nothing will
	err  error         // read after done is closed

	address string // of the gate, as nginx and the API server reach it
	metrics struct{ gate, controller string }
}

func newNode(c *cluster) *node {
	return &node{c: c, done: make(chan struct{})}
}

func (n *node) run(ctx context.Context) {
	defer close(n.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		switch err := n.deploy(ctx); {
		case err == nil:
			return
		case !apierrors.IsNotFound(err):
			n.err = err
			fmt.Fprintln(os.Stderr, "node:", err) // the command that waits for it says less
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.err = ctx.Err()
			return
		}
	}
}

// gate is where the gate listens, once it does.
func (n *node) gate(ctx context.Context, t *testing.T) string {
	t.Helper()
	select {
	case <-n.done:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	if n.err != nil {
		t.Fatal(n.err)
	}
	return n.address
}

// deploy gives a NotFound error as long as something is not there.
func (n *node) deploy(ctx context.Context) error {
	controller, webhook := &appsv1.Deployment{}, &appsv1.Deployment{}
	for name, into := range map[string]*appsv1.Deployment{stack.ControllerAccount: controller, stack.GateAccount: webhook} {
		if err := n.c.Client.Get(ctx, client.ObjectKey{Namespace: stack.Namespace, Name: name}, into); err != nil {
			return err
		}
		if got := into.Spec.Template.Spec.ServiceAccountName; got != name {
			return fmt.Errorf("the Deployment %s runs as %s", name, got)
		}
	}
	certificate, err := n.certificate(ctx, webhook)
	if err != nil {
		return err
	}
	process, err := n.c.StartController(ctx, "controller", arguments(controller)...)
	if err != nil {
		return err
	}
	gate, err := n.c.StartGate(ctx, "gate", append(arguments(webhook), certificate...)...)
	if err != nil {
		return err
	}
	n.metrics.gate, n.metrics.controller = gate.Metrics, process.Metrics

	pod, err := n.pod(ctx, webhook)
	if err != nil {
		return err
	}
	for _, listener := range []struct{ service, port, address string }{
		{"keywright-webhook", "https", gate.Address},
		{"keywright-webhook-admin", "admin", strings.TrimPrefix(gate.Admin, "http://")},
		{"keywright-webhook-admin", "keysets", gate.Keysets},
	} {
		exposed, err := n.c.ingress.Expose(ctx, listener.address)
		if err != nil {
			return err
		}
		if listener.service == "keywright-webhook" {
			n.address = exposed
		}
		if err := n.c.Client.Create(ctx, endpoints(listener.service, listener.port, exposed, pod)); err != nil {
			return fmt.Errorf("listing the endpoint of %s: %w", listener.service, err)
		}
	}
	for _, d := range []*appsv1.Deployment{controller, webhook} {
		replicas := *d.Spec.Replicas
		d.Status = appsv1.DeploymentStatus{
			ObservedGeneration: d.Generation,
			Replicas:           replicas, UpdatedReplicas: replicas, ReadyReplicas: replicas, AvailableReplicas: replicas,
		}
		if err := n.c.Client.Status().Update(ctx, d); err != nil {
			return fmt.Errorf("reporting %s as rolled out: %w", d.Name, err)
		}
	}
	return nil
}

// certificate writes the Secret that the gate's pod mounts, and names the files.
func (n *node) certificate(ctx context.Context, d *appsv1.Deployment) ([]string, error) {
	for _, volume := range d.Spec.Template.Spec.Volumes {
		if volume.Secret == nil {
			continue
		}
		secret := &corev1.Secret{}
		if err := n.c.Client.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: volume.Secret.SecretName}, secret); err != nil {
			return nil, err
		}
		dir, err := os.MkdirTemp(n.c.Dir(), "tls-")
		if err != nil {
			return nil, fmt.Errorf("mounting the certificate: %w", err)
		}
		cert, key := filepath.Join(dir, corev1.TLSCertKey), filepath.Join(dir, corev1.TLSPrivateKeyKey)
		err = errors.Join(
			os.WriteFile(cert, secret.Data[corev1.TLSCertKey], 0o600),
			os.WriteFile(key, secret.Data[corev1.TLSPrivateKeyKey], 0o600),
		)
		return []string{"--tls-cert-file=" + cert, "--tls-key-file=" + key}, err
	}
	return nil, fmt.Errorf("the Deployment %s mounts no certificate", d.Name)
}

// arguments are those of a Deployment's container, without what depends on
// being in a pod, and without the TLS version: Debian's nginx is one of those
// for which the README says to lower it.
func arguments(d *appsv1.Deployment) []string {
	var out []string
	for _, argument := range d.Spec.Template.Spec.Containers[0].Args[1:] {
		switch name, _, _ := strings.Cut(argument, "="); name {
		case "--namespace", "--listen", "--admin-listen", "--keysets-listen", "--health-listen", "--metrics-listen",
			"--tls-cert-file", "--tls-key-file", "--tls-min-version":
		default:
			out = append(out, argument)
		}
	}
	return out
}

// pod is what the API server's proxy wants to see behind an endpoint: a Pod of
// the Deployment that says it has the address.
func (n *node) pod(ctx context.Context, d *appsv1.Deployment) (*corev1.Pod, error) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name, Labels: d.Spec.Template.Labels},
		Spec:       d.Spec.Template.Spec,
	}
	if err := n.c.Client.Create(ctx, pod); err != nil {
		return nil, fmt.Errorf("making a Pod of %s: %w", d.Name, err)
	}
	ip := n.c.ingress.HostIP()
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	if err := n.c.Client.Status().Update(ctx, pod); err != nil {
		return nil, fmt.Errorf("giving the Pod of %s an address: %w", d.Name, err)
	}
	return pod, nil
}

func endpoints(service, portName, address string, pod *corev1.Pod) *discoveryv1.EndpointSlice {
	at := netip.MustParseAddrPort(address)
	port, protocol, ready := int32(at.Port()), corev1.ProtocolTCP, true
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: stack.Namespace, Name: service + "-" + portName, Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{at.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name},
		}},
	}
}
