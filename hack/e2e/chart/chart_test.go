package chart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	chartDir  = "charts/keywright"
	namespace = "keywright-system"
)

// root is the repository's folder, in which all commands run.
var root = must(filepath.Abs("../../.."))

func must(path string, err error) string {
	if err != nil {
		panic(err)
	}
	return path
}

// withTLS are the values that every installation has to choose.
var withTLS = []string{"--set", "webhook.tls.secretName=gate-tls"}

// helm runs bin/helm in the repository's folder, with nothing of this user's
// own Helm, and returns what it printed.
func helm(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	program := filepath.Join(root, "bin", "helm")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("finding Helm: %v: run `make bin/helm`", err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(),
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "HELM_NAMESPACE="+namespace)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w: %s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// render returns what the chart installs.
func render(t *testing.T, args ...string) manifests {
	t.Helper()
	out, err := helm(t, append([]string{"template", "keywright", chartDir}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, strings.NewReader(out))
}

type manifests []*unstructured.Unstructured

func parse(t *testing.T, r io.Reader) manifests {
	t.Helper()
	var all manifests
	decoder := yaml.NewYAMLOrJSONDecoder(r, 4096)
	for {
		object := map[string]any{}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("reading manifests: %v", err)
		}
		if len(object) > 0 {
			all = append(all, &unstructured.Unstructured{Object: object})
		}
	}
}

// names lists the objects of a kind as namespace/name, in their order.
func (m manifests) names(kind string) []string {
	var names []string
	for _, o := range m {
		if o.GetKind() == kind {
			names = append(names, strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/"))
		}
	}
	return names
}

// find reads the one object of a kind and name into a typed one.
func find[T any](t *testing.T, m manifests, kind, name string) *T {
	t.Helper()
	for _, o := range m {
		if o.GetKind() != kind || o.GetName() != name {
			continue
		}
		typed := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, typed, true); err != nil {
			t.Fatalf("reading %s %s: %v", kind, name, err)
		}
		return typed
	}
	t.Fatalf("%s %s is not rendered", kind, name)
	return nil
}

// write puts the manifests into a file for kubectl.
func (m manifests) write(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifests.json")
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	for _, o := range m {
		list.Items = append(list.Items, *o)
	}
	raw, err := list.MarshalJSON()
	if err != nil {
		t.Fatalf("writing manifests: %v", err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatalf("writing manifests: %v", err)
	}
	return path
}
