package chart

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/keywright/keywright/hack/e2e/controlplane"
)

var (
	signingKeys = schema.GroupVersionResource{Group: "keywright.dev", Version: "v1alpha1", Resource: "signingkeys"}
	policies    = schema.GroupVersionResource{Group: "keywright.dev", Version: "v1alpha1", Resource: "accesspolicies"}
)

// cluster is a control plane and its administrator.
type cluster struct {
	*controlplane.ControlPlane
	admin kubernetes.Interface
}

// TestInstallation walks one installation through its life; each step builds
// on those before it.
func TestInstallation(t *testing.T) {
	cp, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Errorf("stopping the control plane: %v", err)
		}
	})
	c := &cluster{ControlPlane: cp, admin: kubernetes.NewForConfigOrDie(cp.AdminConfig())}
	c.makeNamespace(t, namespace)

	for _, step := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"Helm installs it", func(t *testing.T) { c.helm(t, "install", withTLS...) }},
		{"the server takes every rendering", c.takesEveryRendering},
		{"the server takes config/default", c.takesConfigDefault},
		{"the server takes each sample", c.takesEachSample},
		{"pods keep to the restricted standard", c.podsKeepToTheRestrictedStandard},
		{"status is the controller's alone", func(t *testing.T) { c.statusIsTheControllersAlone(t, namespace, "shop", "shop") }},
		{"the gate reads two Secrets and writes nothing", c.theGateReadsTwoSecrets},
		{"the controller may do what it does", c.theControllerMayDoWhatItDoes},
		{"editors and viewers get no status", c.editorsAndViewersGetNoStatus},
		{"Helm upgrades it", func(t *testing.T) { c.helm(t, "upgrade", "--set", "webhook.insecureHTTP=true") }},
		{"keys outlive the release", c.keysOutliveTheRelease},
		{"watching some namespaces", c.watchingSomeNamespaces},
	} {
		if !t.Run(step.name, step.run) {
			t.FailNow()
		}
	}
}

func (c *cluster) helm(t *testing.T, command string, args ...string) {
	t.Helper()
	c.helmIn(t, namespace, command, args...)
}

func (c *cluster) helmIn(t *testing.T, namespace, command string, args ...string) {
	t.Helper()
	base := []string{command, "keywright", "--namespace", namespace, "--kubeconfig", c.AdminKubeconfig()}
	if command != "uninstall" {
		base = append(base, chartDir)
	}
	out, err := helm(t, append(base, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out)
}

func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	return out
}

// makeNamespace makes one in which pods must keep to the restricted standard.
func (c *cluster) makeNamespace(t *testing.T, name string) {
	t.Helper()
	_, err := c.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("making namespace %s: %v", name, err)
	}
}

func (c *cluster) takesEveryRendering(t *testing.T) {
	c.makeNamespace(t, "team-a")
	c.makeNamespace(t, "team-b")
	for name, tc := range matrix {
		t.Run(name, func(t *testing.T) {
			file := render(t, tc.set...).write(t)
			c.kubectl(t, "apply", "--dry-run=server", "--validate=strict", "--server-side", "--force-conflicts", "-f", file)
		})
	}
}

// takesConfigDefault holds that Kustomize gives what Helm gives, and that the
// server takes it.
func (c *cluster) takesConfigDefault(t *testing.T) {
	path := filepath.Join(root, "config/default")
	c.kubectl(t, "apply", "--dry-run=server", "--validate=strict", "--server-side", "--force-conflicts", "-k", path)

	index := func(m manifests) map[string]any {
		all := map[string]any{}
		for _, o := range m {
			labels := o.GetLabels()
			delete(labels, "helm.sh/chart")
			delete(labels, "app.kubernetes.io/managed-by")
			o.SetLabels(labels)
			annotations := o.GetAnnotations()
			delete(annotations, "helm.sh/resource-policy")
			o.SetAnnotations(annotations)
			all[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = o.Object
		}
		return all
	}
	got := index(parse(t, strings.NewReader(c.kubectl(t, "kustomize", path))))
	delete(got, "Namespace /"+namespace) // Helm makes it with --create-namespace
	want := index(render(t, "--set", "webhook.tls.secretName=keywright-webhook-tls"))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run hack/sync-chart.sh (-chart +config/default):\n%s", diff)
	}
}

func (c *cluster) takesEachSample(t *testing.T) {
	c.kubectl(t, "wait", "--for=condition=Established", "--timeout=30s", "crd/signingkeys.keywright.dev", "crd/accesspolicies.keywright.dev")
	dir := filepath.Join(root, "config/samples")
	c.kubectl(t, "apply", "--validate=strict", "-k", filepath.Join(dir, "quickstart"))
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("finding samples: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c.kubectl(t, "apply", "--validate=strict", "-f", file)
			// What the server made of it is what was written: nothing is
			// spelt in a way that a server would drop.
			c.kubectl(t, "diff", "-f", file)
		})
	}
}

func (c *cluster) podsKeepToTheRestrictedStandard(t *testing.T) {
	for name, tc := range matrix {
		if name == "service accounts that are there already" || name == "a long name" {
			continue // their service accounts are not those of this release
		}
		t.Run(name, func(t *testing.T) {
			m := render(t, tc.set...)
			for _, process := range []string{"controller", "webhook"} {
				template := find[appsv1.Deployment](t, m, "Deployment", "keywright-"+process).Spec.Template
				pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
				pod.GenerateName = process + "-"
				if _, err := c.admin.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
					t.Errorf("making a pod of the %s: %v", process, err)
				}
			}
		})
	}

	t.Run("which is enforced here", func(t *testing.T) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "loose-"}, Spec: corev1.PodSpec{
			ServiceAccountName: "keywright-webhook", Containers: []corev1.Container{{Name: "loose", Image: "loose"}},
		}}
		_, err := c.admin.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
			t.Errorf("a pod without a security context: %v, want it refused by PodSecurity", err)
		}
	})
}

// statusIsTheControllersAlone tries to write status in all the ways that there
// are as those whom RBAC lets.
func (c *cluster) statusIsTheControllersAlone(t *testing.T, release, in, key string) {
	ctx := t.Context()
	c.makeWildcard(t)

	patch := []byte(`{"status":{"sequence":7}}`)
	write := func(config *rest.Config, dryRun ...string) error {
		_, err := dynamic.NewForConfigOrDie(config).Resource(signingKeys).Namespace(in).Patch(ctx, key, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "test", DryRun: dryRun}, "status")
		return err
	}
	as := func(name string, groups ...string) *rest.Config {
		config := c.AdminConfig()
		config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: groups}
		return config
	}
	serviceAccount := func(namespace, name string) *rest.Config {
		config, err := c.ConfigFor(ctx, namespace, name)
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	const message = "status is written by Keywright's controller alone"

	// The server takes a moment to know a policy, and lets writes pass until then.
	await(t, "the admission policy is in force", func() error {
		err := write(c.AdminConfig(), metav1.DryRunAll)
		if err == nil {
			return errors.New("the administrator's write went through")
		}
		if !strings.Contains(err.Error(), message) {
			return fmt.Errorf("the administrator's write: %w", err)
		}
		return nil
	})

	for name, config := range map[string]*rest.Config{
		"the administrator, whom RBAC does not bind":   c.AdminConfig(),
		"a user with a wildcard role":                  as("mallory"),
		"a service account with a wildcard role":       serviceAccount("default", "operator"),
		"an impersonator of the group of masters":      as("eve", "system:masters"),
		"the controller's name in another namespace":   as("system:serviceaccount:default:keywright-controller", "system:masters"),
		"a name that begins like the controller's":     as("system:serviceaccount:"+release+":keywright-controller2", "system:masters"),
		"a user named as the account is, without more": as("keywright-controller", "system:masters"),
	} {
		t.Run(name, func(t *testing.T) {
			err := write(config)
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), message) {
				t.Fatalf("a patch: %v, want it refused with %q", err, message)
			}
			t.Logf("%v", err)
			client := dynamic.NewForConfigOrDie(config)
			for gvr, object := range map[schema.GroupVersionResource]string{signingKeys: key, policies: "orders"} {
				current, err := client.Resource(gvr).Namespace(in).Get(ctx, object, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				current.Object["status"] = map[string]any{"observedGeneration": int64(99)}
				if _, err := client.Resource(gvr).Namespace(in).UpdateStatus(ctx, current, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
					t.Errorf("an update of %s: %v", gvr.Resource, err)
				}
				current.SetManagedFields(nil)
				current.SetResourceVersion("")
				if _, err := client.Resource(gvr).Namespace(in).ApplyStatus(ctx, object, current, metav1.ApplyOptions{FieldManager: "test", Force: true}); !apierrors.IsForbidden(err) {
					t.Errorf("a server-side apply of %s: %v", gvr.Resource, err)
				}
			}
			// Through the object itself, status is dropped by the server.
			if _, err := client.Resource(signingKeys).Namespace(in).Patch(ctx, key, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				t.Errorf("a patch of the object itself: %v", err)
			}
			after, err := client.Resource(signingKeys).Namespace(in).Get(ctx, key, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, found, _ := unstructured.NestedInt64(after.Object, "status", "sequence"); found {
				t.Errorf("status was written: %v", after.Object["status"])
			}
		})
	}

	t.Run("the gate", func(t *testing.T) {
		if err := write(serviceAccount(release, "keywright-webhook")); !apierrors.IsForbidden(err) {
			t.Errorf("the gate's write: %v", err)
		}
	})
	t.Run("the controller", func(t *testing.T) {
		client := dynamic.NewForConfigOrDie(serviceAccount(release, "keywright-controller"))
		for gvr, object := range map[schema.GroupVersionResource]string{signingKeys: key, policies: "orders"} {
			current, err := client.Resource(gvr).Namespace(in).Get(ctx, object, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			current.Object["status"] = map[string]any{"observedGeneration": current.GetGeneration()}
			if _, err := client.Resource(gvr).Namespace(in).UpdateStatus(ctx, current, metav1.UpdateOptions{}); err != nil {
				t.Errorf("the controller's update of %s: %v", gvr.Resource, err)
			}
		}
	})
}

// makeWildcard gives a user and a service account a role with "*".
func (c *cluster) makeWildcard(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"create", "serviceaccount", "operator", "--namespace=default"},
		{"create", "clusterrolebinding", "wildcard", "--clusterrole=cluster-admin", "--user=mallory", "--serviceaccount=default:operator"},
	} {
		if _, _, err := c.Kubectl(t.Context(), args...); err != nil && !strings.Contains(err.Error(), "already exists") {
			t.Fatal(err)
		}
	}
}

// rules are what the server says that a service account may do in a namespace,
// beyond what every service account may: resource.group[names] to verbs.
func (c *cluster) rules(t *testing.T, account, namespace string) map[string]string {
	t.Helper()
	rules, everyone := c.allRules(t, account, namespace), c.allRules(t, "default/default", namespace)
	maps.DeleteFunc(rules, func(resource, verbs string) bool { return everyone[resource] == verbs })
	return rules
}

func (c *cluster) allRules(t *testing.T, account, in string) map[string]string {
	t.Helper()
	namespace, name, _ := strings.Cut(account, "/")
	config, err := c.ConfigFor(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	review, err := kubernetes.NewForConfigOrDie(config).AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: in}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("asking what %s may do in %s: %v", account, in, err)
	}
	if review.Status.Incomplete {
		t.Fatalf("what %s may do in %s is not known in full: %s", account, in, review.Status.EvaluationError)
	}
	verbs := map[string][]string{}
	for _, rule := range review.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				key := strings.TrimSuffix(resource+"."+group, ".")
				if len(rule.ResourceNames) > 0 {
					key += fmt.Sprint(rule.ResourceNames)
				}
				verbs[key] = append(verbs[key], rule.Verbs...)
			}
		}
	}
	rules := map[string]string{}
	for key, all := range verbs {
		slices.Sort(all)
		rules[key] = strings.Join(slices.Compact(all), " ")
	}
	return rules
}

func wantRules(t *testing.T, where string, want, got map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what it may do in %s (-want +got):\n%s", where, diff)
	}
}

func (c *cluster) theGateReadsTwoSecrets(t *testing.T) {
	const account = namespace + "/keywright-webhook"
	everywhere := map[string]string{
		"signingkeys.keywright.dev":    "get list watch",
		"accesspolicies.keywright.dev": "get list watch",
		"namespaces":                   "get list watch",
	}
	wantRules(t, "a namespace of users", everywhere, c.rules(t, account, "shop"))
	home := map[string]string{"secrets[keywright-hmac keywright-gates]": "get list watch"}
	for k, v := range everywhere {
		home[k] = v
	}
	wantRules(t, "its own namespace", home, c.rules(t, account, namespace))

	// What the rules say, done.
	for _, in := range []string{namespace, "shop"} {
		for _, name := range []string{"keywright-hmac", "shop-keyring"} {
			if _, err := c.admin.CoreV1().Secrets(in).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	config, err := c.ConfigFor(t.Context(), namespace, "keywright-webhook")
	if err != nil {
		t.Fatal(err)
	}
	gate := kubernetes.NewForConfigOrDie(config).CoreV1()
	only := metav1.ListOptions{FieldSelector: "metadata.name=keywright-hmac"}
	if _, err := gate.Secrets(namespace).Get(t.Context(), "keywright-hmac", metav1.GetOptions{}); err != nil {
		t.Errorf("reading keywright-hmac: %v", err)
	}
	if _, err := gate.Secrets(namespace).List(t.Context(), only); err != nil {
		t.Errorf("listing keywright-hmac: %v", err)
	}
	if w, err := gate.Secrets(namespace).Watch(t.Context(), only); err != nil {
		t.Errorf("watching keywright-hmac: %v", err)
	} else {
		w.Stop()
	}
	for name, try := range map[string]func(context.Context) error{
		"reading another Secret beside it": func(ctx context.Context) error {
			_, err := gate.Secrets(namespace).Get(ctx, "shop-keyring", metav1.GetOptions{})
			return err
		},
		"reading a keyring": func(ctx context.Context) error {
			_, err := gate.Secrets("shop").Get(ctx, "shop-keyring", metav1.GetOptions{})
			return err
		},
		"reading keywright-hmac of another namespace": func(ctx context.Context) error {
			_, err := gate.Secrets("shop").Get(ctx, "keywright-hmac", metav1.GetOptions{})
			return err
		},
		"listing all Secrets beside it": func(ctx context.Context) error {
			_, err := gate.Secrets(namespace).List(ctx, metav1.ListOptions{})
			return err
		},
		"listing Secrets of all namespaces": func(ctx context.Context) error {
			_, err := gate.Secrets("").List(ctx, only)
			return err
		},
		"writing keywright-hmac": func(ctx context.Context) error {
			_, err := gate.Secrets(namespace).Update(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keywright-hmac"}}, metav1.UpdateOptions{})
			return err
		},
		"reading ConfigMaps": func(ctx context.Context) error {
			_, err := gate.ConfigMaps("shop").List(ctx, metav1.ListOptions{})
			return err
		},
	} {
		if err := try(t.Context()); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", name, err)
		}
	}
}

func (c *cluster) theControllerMayDoWhatItDoes(t *testing.T) {
	const account = namespace + "/keywright-controller"
	everywhere := map[string]string{
		"signingkeys.keywright.dev":           "get list watch",
		"accesspolicies.keywright.dev":        "get list watch",
		"signingkeys/status.keywright.dev":    "update",
		"accesspolicies/status.keywright.dev": "update",
		"secrets":                             "create get list update watch",
		"configmaps":                          "create get list update watch",
		"namespaces":                          "get list watch",
		"events":                              "create patch",
		"events.events.k8s.io":                "create patch",
	}
	wantRules(t, "a namespace of users", everywhere, c.rules(t, account, "shop"))
	home := map[string]string{"leases.coordination.k8s.io": "create get update", "endpointslices.discovery.k8s.io": "get list watch"}
	for k, v := range everywhere {
		home[k] = v
	}
	wantRules(t, "its own namespace", home, c.rules(t, account, namespace))
}

func (c *cluster) editorsAndViewersGetNoStatus(t *testing.T) {
	for _, role := range []string{"view", "edit", "admin"} {
		c.kubectl(t, "create", "rolebinding", role, "--clusterrole="+role, "--user="+role, "--namespace=shop")
	}
	can := func(user, verb, resource, subresource string) bool {
		review, err := c.admin.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: "shop", Verb: verb, Group: "keywright.dev", Resource: resource, Subresource: subresource,
			}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return review.Status.Allowed
	}
	// The roles are aggregated by the controller manager, a moment later.
	await(t, "the roles are aggregated", func() error {
		if !can("edit", "create", "signingkeys", "") || !can("view", "get", "signingkeys", "") || !can("admin", "delete", "signingkeys", "") {
			return fmt.Errorf("edit cannot create, view cannot get or admin cannot delete signingkeys yet")
		}
		return nil
	})
	for _, resource := range []string{"signingkeys", "accesspolicies"} {
		for _, verb := range []string{"get", "list", "watch"} {
			for _, user := range []string{"view", "edit", "admin"} {
				if !can(user, verb, resource, "") {
					t.Errorf("%s cannot %s %s", user, verb, resource)
				}
			}
		}
		for _, verb := range []string{"create", "update", "patch", "delete", "deletecollection"} {
			if can("view", verb, resource, "") {
				t.Errorf("view can %s %s", verb, resource)
			}
			for _, user := range []string{"edit", "admin"} {
				if !can(user, verb, resource, "") {
					t.Errorf("%s cannot %s %s", user, verb, resource)
				}
			}
		}
		for _, verb := range []string{"create", "update", "patch"} {
			for _, user := range []string{"view", "edit", "admin"} {
				if can(user, verb, resource, "status") {
					t.Errorf("%s can %s %s/status", user, verb, resource)
				}
			}
		}
	}
}

func (c *cluster) keysOutliveTheRelease(t *testing.T) {
	c.helm(t, "uninstall")
	if out := c.kubectl(t, "get", "signingkeys,accesspolicies", "--namespace=shop", "-o", "name"); !strings.Contains(out, "signingkey.keywright.dev/shop") || !strings.Contains(out, "accesspolicy.keywright.dev/orders") {
		t.Errorf("after helm uninstall there are only %q", out)
	}
	// The same release takes the CRDs up again.
	c.helm(t, "install", withTLS...)
	c.helm(t, "uninstall")
}

func (c *cluster) watchingSomeNamespaces(t *testing.T) {
	const release = "limited"
	c.makeNamespace(t, release)
	c.helmIn(t, release, "install", slices.Concat(withTLS, []string{"--set", "crds.enabled=false,watchNamespaces={team-a,team-b}"})...)
	quickstart := filepath.Join(root, "config/samples/quickstart")
	for _, file := range []string{"signingkey.yaml", "accesspolicy.yaml"} {
		raw, err := os.ReadFile(filepath.Join(quickstart, file))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(raw), "namespace: shop", "namespace: team-a")), 0o600); err != nil {
			t.Fatal(err)
		}
		c.kubectl(t, "apply", "-f", path)
	}

	gate := release + "/keywright-webhook"
	wantRules(t, "a namespace that is not watched", map[string]string{}, c.rules(t, gate, "shop"))
	wantRules(t, "the gate's own namespace", map[string]string{"secrets[keywright-hmac keywright-gates]": "get list watch"}, c.rules(t, gate, release))
	wantRules(t, "a watched namespace", map[string]string{
		"signingkeys.keywright.dev":    "get list watch",
		"accesspolicies.keywright.dev": "get list watch",
	}, c.rules(t, gate, "team-b"))

	wantRules(t, "a namespace that is not watched", map[string]string{}, c.rules(t, release+"/keywright-controller", "shop"))
	wantRules(t, "the controller's own namespace", map[string]string{
		"leases.coordination.k8s.io":      "create get update",
		"endpointslices.discovery.k8s.io": "get list watch",
		"events":                          "create patch",
		"events.events.k8s.io":            "create patch",
		"secrets":                         "create",
		"secrets[keywright-hmac]":         "get list update watch",
		"secrets[keywright-gates]":        "get update",
	}, c.rules(t, release+"/keywright-controller", release))
	wantRules(t, "a watched namespace", map[string]string{
		"signingkeys.keywright.dev":           "get list watch",
		"accesspolicies.keywright.dev":        "get list watch",
		"signingkeys/status.keywright.dev":    "update",
		"accesspolicies/status.keywright.dev": "update",
		"secrets":                             "create get list update watch",
		"configmaps":                          "create get list update watch",
		"events":                              "create patch",
		"events.events.k8s.io":                "create patch",
	}, c.rules(t, release+"/keywright-controller", "team-a"))

	c.statusIsTheControllersAlone(t, release, "team-a", "shop")
	t.Run("other namespaces are left to others", func(t *testing.T) {
		_, err := dynamic.NewForConfigOrDie(c.AdminConfig()).Resource(signingKeys).Namespace("shop").
			Patch(t.Context(), "shop", types.MergePatchType, []byte(`{"status":{"observedGeneration":1}}`), metav1.PatchOptions{}, "status")
		if err != nil {
			t.Errorf("writing status where this installation does not watch: %v", err)
		}
	})
}

func await(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, err)
		}
	}
}
