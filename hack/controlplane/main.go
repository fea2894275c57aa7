// Command kube is the control plane of a Kubernetes cluster in one binary:
// etcd, kube-apiserver, kube-controller-manager and kubectl, chosen by the
// name it is called as (or, called as "kube", by its first argument).
// Symlinks with those names make a folder that envtest takes as
// KUBEBUILDER_ASSETS.
//
// It exists because the published binaries cannot be downloaded everywhere,
// while the Go modules they are built from can.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	name := filepath.Base(os.Args[0])
	if name == "kube" && len(os.Args) > 1 {
		name, os.Args = os.Args[1], os.Args[1:]
	}
	var cmd *cobra.Command
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
		return
	case "kube-apiserver":
		cmd = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		cmd = controllermanager.NewControllerManagerCommand()
	case "kubectl":
		cmd = kubectl.NewDefaultKubectlCommand()
	default:
		fmt.Fprintln(os.Stderr, "usage: kube etcd | kube-apiserver | kube-controller-manager | kubectl  [flags]")
		os.Exit(2)
	}
	os.Exit(cli.Run(cmd))
}
