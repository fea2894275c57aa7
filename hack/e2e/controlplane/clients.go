package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const tokenLifetime = 24 * time.Hour

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
	fresh, err := os.CreateTemp(cp.dir, filepath.Base(path)+".")
	if err == nil {
		err = fresh.Close()
	}
	if err == nil {
		err = clientcmd.WriteToFile(clientcmdapi.Config{
			Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: config.Host, CertificateAuthorityData: config.CAData}},
			AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: config.BearerToken}},
			Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name, Namespace: namespace}},
			CurrentContext: name,
		}, fresh.Name())
	}
	if err == nil {
		err = os.Rename(fresh.Name(), path) // a process that has the one before may be reading it
	}
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
