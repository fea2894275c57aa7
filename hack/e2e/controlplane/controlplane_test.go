package controlplane

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestControlPlane(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cp, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if _, err := os.Stat(cp.Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder after Stop: %v, want it gone", err)
		}
		if _, err := net.Dial("tcp", host(t, cp)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the API server's port after Stop: %v, want a refused connection", err)
		}
	})
	admin := clientFor(t, cp.AdminConfig())
	const namespace = "controlplane-test"
	if _, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	t.Run("what is owned goes with its owner", func(t *testing.T) {
		configMaps := admin.CoreV1().ConfigMaps(namespace)
		owner, err := configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		owned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID},
		}}}
		if _, err := configMaps.Create(ctx, owned, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := configMaps.Delete(ctx, owner.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		await(ctx, t, "the owned ConfigMap to vanish", func(ctx context.Context) bool {
			_, err := configMaps.Get(ctx, owned.Name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})

	t.Run("a service account may do what RBAC gives it and no more", func(t *testing.T) {
		await(ctx, t, "the default service account", func(ctx context.Context) bool {
			_, err := admin.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
			return err == nil
		})
		kubeconfig, err := cp.KubeconfigFor(ctx, namespace, "default")
		if err != nil {
			t.Fatal(err)
		}
		stdout, _, err := cp.Kubectl(ctx, "auth", "whoami", "--kubeconfig", kubeconfig, "-o", "jsonpath={.status.userInfo.username}")
		if want := "system:serviceaccount:" + namespace + ":default"; err != nil || stdout != want {
			t.Errorf("whoami: %q, %v, want %q", stdout, err, want)
		}
		_, stderr, err := cp.Kubectl(ctx, "get", "secrets", "--kubeconfig", kubeconfig)
		if err == nil || !strings.Contains(stderr, "Forbidden") {
			t.Errorf("get secrets: %q, %v, want Forbidden", stderr, err)
		}
		config, err := cp.ConfigFor(ctx, namespace, "default")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := clientFor(t, config).CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list secrets: %v, want Forbidden", err)
		}
	})

	t.Run("a paused API server hangs and answers when resumed", func(t *testing.T) {
		if err := cp.PauseAPIServer(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := admin.CoreV1().Namespaces().Get(short, namespace, metav1.GetOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a request to the paused API server: %v, want a deadline", err)
		}
		if err := cp.ResumeAPIServer(); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); err != nil {
			t.Errorf("a request after the resume: %v", err)
		}
	})

	t.Run("a stopped API server refuses and comes back with its data", func(t *testing.T) {
		before := host(t, cp)
		if err := cp.StopAPIServer(); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a request to the stopped API server: %v, want a refused connection", err)
		}
		if err := cp.StartAPIServer(); err != nil {
			t.Fatal(err)
		}
		if after := host(t, cp); after != before {
			t.Errorf("the API server moved from %s to %s", before, after)
		}
		if _, err := admin.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); err != nil {
			t.Errorf("the namespace after the restart: %v", err)
		}
	})

	t.Run("a deleted namespace goes, also after a restart of the API server", func(t *testing.T) {
		if err := admin.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		await(ctx, t, "the namespace to vanish", func(ctx context.Context) bool {
			_, err := admin.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
}

func await(ctx context.Context, t *testing.T, what string, done func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(ctx context.Context) (bool, error) {
		return done(ctx), nil
	})
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func host(t *testing.T, cp *ControlPlane) string {
	t.Helper()
	u, err := url.Parse(cp.AdminConfig().Host)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
