package crd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/controlplane"
)

const namespace = "default"

// rule is one rule of a schema.
type rule struct {
	accepted, refused string
	// want is what kubectl says of refused, without the beginning that names
	// the object.
	want string
}

// change is an edit of an object that is there.
type change struct {
	before, accepted, refused string
	want                      string
}

// server is a real API server with the custom resources.
type server struct {
	*controlplane.ControlPlane
	client dynamic.Interface
}

func TestCustomResources(t *testing.T) {
	cp, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Errorf("stopping the control plane: %v", err)
		}
	})
	s := &server{ControlPlane: cp, client: dynamic.NewForConfigOrDie(cp.AdminConfig())}
	s.kubectl(t, "apply", "-f", filepath.Join("..", "..", "..", "config", "crd", "bases"))
	s.kubectl(t, "wait", "--for=condition=Established", "--timeout=1m", "crd/signingkeys.keywright.dev", "crd/accesspolicies.keywright.dev")

	t.Run("SigningKey", func(t *testing.T) {
		s.rules(t, "SigningKey", signingKeyRules)
		for name, tc := range signingKeyChanges {
			t.Run(name, func(t *testing.T) { s.change(t, tc) })
		}
		for name, tc := range signingKeyEdits {
			t.Run(name, func(t *testing.T) { s.change(t, tc) })
		}
		t.Run("its name leaves room for the names of outputs", s.namesLeaveRoom)
		t.Run("an empty spec has every default", s.emptySpec)
		t.Run("nothing but metadata has every default", s.noSpec)
		t.Run("its columns say how it stands", s.columns)
	})
	t.Run("AccessPolicy", func(t *testing.T) {
		s.rules(t, "AccessPolicy", accessPolicyRules)
		t.Run("it has a spec", s.policyHasSpec)
		t.Run("a smallest spec has every default", s.smallestPolicy)
		t.Run("its columns say how it stands", s.policyColumns)
	})
}

// rules tries each rule of a kind from both sides, several at a time: nothing is
// stored.
func (s *server) rules(t *testing.T, kind string, rules map[string]rule) {
	for name, tc := range rules {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			object := parse(t, manifest(kind, "case", tc.accepted))
			_, err := s.resource(kind).Create(t.Context(), object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
			if err != nil {
				t.Errorf("%s is refused: %v", tc.accepted, err)
			}
			s.refuses(t, manifest(kind, "case", tc.refused), tc.want)
		})
	}
}

// change makes a SigningKey and edits it.
func (s *server) change(t *testing.T, tc change) {
	const kind, name = "SigningKey", "case"
	s.create(t, manifest(kind, name, tc.before))
	if tc.accepted != "" {
		s.kubectl(t, "apply", "-f", write(t, manifest(kind, name, tc.accepted)))
		return
	}
	s.refuses(t, manifest(kind, name, tc.refused), tc.want)
}

func (s *server) namesLeaveRoom(t *testing.T) {
	longest := strings.Repeat("n", 200)
	s.create(t, manifest("SigningKey", longest, `{}`))
	s.refuses(t, manifest("SigningKey", longest+"n", `{}`),
		`<nil>: Invalid value: metadata.name: use at most 200 characters, so that the names of the outputs fit`)
}

// allDefaults is the spec of a SigningKey that asks for nothing in particular.
var allDefaults = map[string]any{
	"algorithm":   "ES256",
	"maxTokenTTL": "1h",
	"rotation":    map[string]any{"policy": "Automatic"},
	"propagation": map[string]any{
		"verifierLag": "30m", "signerLag": "5m", "clockSkew": "1m", "leeway": "1m", "evidence": map[string]any{"gates": true},
	},
	"allowedNamespaces": map[string]any{"from": "Same"},
	"deletionPolicy":    "Retain",
	"historyLimit":      int64(10),
}

func (s *server) emptySpec(t *testing.T) {
	got := s.create(t, manifest("SigningKey", "case", `{}`))
	if diff := cmp.Diff(allDefaults, got.Object["spec"]); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	// A part of a struct leaves the defaults of its other fields.
	for part, want := range map[string]map[string]any{
		`{rotation: {trigger: now}}`:              {"rotation": map[string]any{"policy": "Automatic", "trigger": "now"}},
		`{propagation: {verifierLag: 10m}}`:       {"propagation": map[string]any{"verifierLag": "10m", "signerLag": "5m", "clockSkew": "1m", "leeway": "1m", "evidence": map[string]any{"gates": true}}},
		`{propagation: {evidence: {}}}`:           {"propagation": allDefaults["propagation"]},
		`{rotation: {}, allowedNamespaces: {}}`:   {"rotation": map[string]any{"policy": "Automatic"}, "allowedNamespaces": map[string]any{"from": "Same"}},
		`{propagation: {}, deletionPolicy: null}`: {"propagation": allDefaults["propagation"], "deletionPolicy": "Retain"},
	} {
		got, err := s.resource("SigningKey").Create(t.Context(), parse(t, manifest("SigningKey", "part", part)), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Errorf("%s: %v", part, err)
			continue
		}
		spec, _ := got.Object["spec"].(map[string]any)
		for field, value := range want {
			if diff := cmp.Diff(value, spec[field]); diff != "" {
				t.Errorf("%s of %s (-want +got):\n%s", field, part, diff)
			}
		}
	}
}

func (s *server) noSpec(t *testing.T) {
	path := write(t, "{apiVersion: keywright.dev/v1alpha1, kind: SigningKey, metadata: {name: case, namespace: "+namespace+"}}")
	s.kubectl(t, "apply", "-f", path)
	s.deleteAfter(t, "SigningKey", "case")
	got, err := s.resource("SigningKey").Get(t.Context(), "case", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(allDefaults, got.Object["spec"]); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	s.kubectl(t, "apply", "-f", path) // a second time changes nothing
}

func (s *server) columns(t *testing.T) {
	object := s.create(t, manifest("SigningKey", "case", `{algorithm: RS256}`))
	object.Object["status"] = map[string]any{
		"sequence": int64(7), "activeKeyID": "kid-1", "nextKeyID": "kid-2",
		"nextTransition": map[string]any{"type": "Activate", "keyID": "kid-2", "time": "2126-03-01T12:00:00Z"},
		"conditions":     []any{condition("Ready", "True", "KeyActive")},
	}
	if _, err := s.resource("SigningKey").UpdateStatus(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	table(t, s.kubectl(t, "get", "signingkeys", "case"), `
NAME   ALGORITHM   READY   ACTIVE   NEXT       AT                     AGE
case   RS256       True    kid-1    Activate   2126-03-01T12:00:00Z   AGE`)
	table(t, s.kubectl(t, "get", "sk", "case", "-o", "wide"), `
NAME   ALGORITHM   READY   ACTIVE   NEXT       AT                     REASON      SEQUENCE   AGE
case   RS256       True    kid-1    Activate   2126-03-01T12:00:00Z   KeyActive   7          AGE`)
	if got := s.kubectl(t, "get", "keywright"); !strings.Contains(got, "signingkey.keywright.dev/case") {
		t.Errorf("kubectl get keywright does not list it:\n%s", got)
	}
}

func (s *server) policyHasSpec(t *testing.T) {
	s.refuses(t, "{apiVersion: keywright.dev/v1alpha1, kind: AccessPolicy, metadata: {name: case, namespace: "+namespace+"}}",
		`* spec: Required value`+unchecked)
}

func (s *server) smallestPolicy(t *testing.T) {
	got := s.create(t, manifest("AccessPolicy", "case", with(`rules: [{name: r}]`)))
	want := map[string]any{
		"ambiguousPaths": "Deny",
		"preflight":      "Deny",
		"issuers":        []any{map[string]any{"signingKeyRef": map[string]any{"name": "shop"}}},
		"rules":          []any{map[string]any{"name": "r", "access": "Authenticated"}},
	}
	if diff := cmp.Diff(want, got.Object["spec"]); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func (s *server) policyColumns(t *testing.T) {
	object := s.create(t, manifest("AccessPolicy", "case", with(`realm: shop`)))
	object.Object["status"] = map[string]any{
		"rules":      int64(3),
		"conditions": []any{condition("Ready", "False", "KeyNotAvailable")},
	}
	if _, err := s.resource("AccessPolicy").UpdateStatus(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	table(t, s.kubectl(t, "get", "ap", "case"), `
NAME   READY   REASON            RULES   AGE
case   False   KeyNotAvailable   3       AGE`)
}

func condition(kind, status, reason string) map[string]any {
	return map[string]any{"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-03-01T12:00:00Z"}
}

// age is the last column, which time changes.
var age = regexp.MustCompile(`(?m)[0-9a-z]+$`)

// table compares what kubectl shows, but for the age.
func table(t *testing.T, got, want string) {
	t.Helper()
	t.Logf("\n%s", got)
	got = age.ReplaceAllString(strings.TrimSpace(got), "AGE")
	if diff := cmp.Diff(strings.TrimSpace(want), got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// refuses asks the real kubectl to apply a manifest and compares what it says.
func (s *server) refuses(t *testing.T, manifest, want string) {
	t.Helper()
	path := write(t, manifest)
	stdout, stderr, err := s.Kubectl(t.Context(), "apply", "-f", path)
	if err == nil {
		s.deleteAfter(t, parse(t, manifest).GetKind(), "case")
		t.Fatalf("%s is accepted: %s", manifest, stdout)
	}
	got := strings.ReplaceAll(strings.TrimSpace(stderr), path, "FILE")
	t.Logf("%s", got)
	got = named.ReplaceAllString(got, "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kubectl says (-want +got):\n%s", diff)
	}
}

// named is how kubectl begins when an object is not valid.
var named = regexp.MustCompile(`^The \w+ "[^"]*" is invalid:\s*`)

// unchecked is what the API server adds when a value is so far off that it
// did not try the rules that are written in CEL.
const unchecked = "\n* <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"

func manifest(kind, name, spec string) string {
	return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: %s, namespace: %s}, spec: %s}", v1alpha1.GroupVersion, kind, name, namespace, spec)
}

func write(t *testing.T, manifest string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func parse(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
		t.Fatalf("reading %s: %v", manifest, err)
	}
	return object
}

func (s *server) resource(kind string) dynamic.ResourceInterface {
	plural := map[string]string{"SigningKey": "signingkeys", "AccessPolicy": "accesspolicies"}[kind]
	return s.client.Resource(schema.GroupVersionResource{Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Resource: plural}).Namespace(namespace)
}

// create makes an object and removes it when the test ends.
func (s *server) create(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	object := parse(t, manifest)
	s.kubectl(t, "apply", "-f", write(t, manifest))
	s.deleteAfter(t, object.GetKind(), object.GetName())
	got, err := s.resource(object.GetKind()).Get(t.Context(), object.GetName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (s *server) deleteAfter(t *testing.T, kind, name string) {
	t.Helper()
	ctx := t.Context()
	t.Cleanup(func() {
		if err := s.resource(kind).Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting %s %s: %v", kind, name, err)
		}
	})
}

func (s *server) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := s.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}
