package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRootsWithoutASystem runs itself as in the image, where there is no file
// with root certificates: they are read once in a process.
func TestRootsWithoutASystem(t *testing.T) {
	const inside = "KEYWRIGHT_TEST_NO_SYSTEM_ROOTS"
	if os.Getenv(inside) != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			t.Fatal(err)
		}
		if roots.Equal(x509.NewCertPool()) {
			t.Fatal("there are none: nothing can be fetched from the image")
		}
		return
	}
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRootsWithoutASystem$", "-test.v")
	again.Env = append(os.Environ(), inside+"=1", "SSL_CERT_FILE="+empty, "SSL_CERT_DIR="+dir)
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestAuthoritiesThatAreNotThere: a process without what it was told to trust
// would fetch nothing, and say so late.
func TestAuthoritiesThatAreNotThere(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(`{
		"apiVersion": "v1", "kind": "Config", "current-context": "none",
		"clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
		"contexts": [{"name": "none", "context": {"cluster": "none"}}]
	}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	for name, args := range map[string][]string{
		"controller": {"controller"},
		"webhook":    {"webhook", "--insecure-http", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--keysets-listen=0"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := newCommand()
			cmd.SetArgs(append(args, "--namespace=keywright", "--fetch-ca-file="+filepath.Join(dir, "ca.crt")))
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "--fetch-ca-file: open ") {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}
