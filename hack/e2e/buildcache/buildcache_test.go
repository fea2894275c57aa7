package buildcache

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	// What the script finds it does not build.
	assets := t.TempDir()
	for _, program := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"} {
		if err := os.WriteFile(filepath.Join(assets, program), nil, 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	t.Chdir(assets) // it is found from anywhere
	if got, err := Path(t.Context(), "controlplane", io.Discard); err != nil || got != assets {
		t.Errorf("got %q, %v, want %s", got, err, assets)
	}
	if _, err := Path(t.Context(), "nothing", io.Discard); err == nil || !strings.Contains(err.Error(), "make nothing") {
		t.Errorf("where there is no script: %v", err)
	}
}
