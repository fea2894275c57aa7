package chart

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// sorted compares lists of names without regard to their order.
var sorted = cmp.Transformer("sorted", func(names []string) sortedNames { return slices.Sorted(slices.Values(names)) })

type sortedNames []string

// matrix holds values that installations choose.
var matrix = map[string]struct {
	set   []string
	check func(t *testing.T, m manifests)
}{
	"a certificate from a Secret": {
		set: withTLS,
		check: func(t *testing.T, m manifests) {
			gate := find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template.Spec
			wantArgs(t, gate, "--tls-cert-file=/etc/keywright/tls/tls.crt", "--tls-key-file=/etc/keywright/tls/tls.key", "--tls-min-version=1.3")
			if got := gate.Volumes[0].Secret.SecretName; got != "gate-tls" {
				t.Errorf("the gate mounts Secret %q, want gate-tls", got)
			}
			if got := find[corev1.Service](t, m, "Service", "keywright-webhook").Spec.Ports; len(got) != 1 || got[0].Port != 443 || got[0].TargetPort.StrVal != "auth" {
				t.Errorf("the gate's Service has ports %v, want 443 to auth alone", got)
			}
			if got := gate.Containers[0].Image; got != "keywright:0.1.0" {
				t.Errorf("image is %q, want the chart's appVersion", got)
			}
		},
	},
	"plain HTTP": {
		set: []string{"--set", "webhook.insecureHTTP=true"},
		check: func(t *testing.T, m manifests) {
			gate := find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template.Spec
			wantArgs(t, gate, "--insecure-http")
			for _, arg := range gate.Containers[0].Args {
				if strings.HasPrefix(arg, "--tls") {
					t.Errorf("the gate has %s beside --insecure-http", arg)
				}
			}
			if len(gate.Volumes) != 0 {
				t.Errorf("the gate mounts %v without a certificate", gate.Volumes)
			}
			if got := find[corev1.Service](t, m, "Service", "keywright-webhook").Spec.Ports; len(got) != 1 || got[0].Port != 80 {
				t.Errorf("the gate's Service has ports %v, want 80 alone", got)
			}
		},
	},
	"two watched namespaces": {
		set: slices.Concat(withTLS, []string{"--set", "watchNamespaces={team-a,team-b}"}),
		check: func(t *testing.T, m manifests) {
			want := []string{
				"team-a/keywright-controller", "team-b/keywright-controller", "keywright-system/keywright-controller-own",
				"team-a/keywright-webhook", "team-b/keywright-webhook", "keywright-system/keywright-webhook-own",
			}
			for _, kind := range []string{"Role", "RoleBinding"} {
				if diff := cmp.Diff(want, m.names(kind), sorted); diff != "" {
					t.Errorf("%ss (-want +got):\n%s", kind, diff)
				}
			}
			if diff := cmp.Diff([]string{"keywright-view", "keywright-edit"}, m.names("ClusterRole"), sorted); diff != "" {
				t.Errorf("ClusterRoles (-want +got):\n%s", diff)
			}
			for _, process := range []string{"controller", "webhook"} {
				wantArgs(t, find[appsv1.Deployment](t, m, "Deployment", "keywright-"+process).Spec.Template.Spec, "--watch-namespaces=team-a,team-b")
			}
		},
	},
	"all namespaces": {
		set: withTLS,
		check: func(t *testing.T, m manifests) {
			if diff := cmp.Diff([]string{"keywright-system/keywright-controller-own", "keywright-system/keywright-webhook-own"}, m.names("Role"), sorted); diff != "" {
				t.Errorf("Roles (-want +got):\n%s", diff)
			}
			for _, process := range []string{"controller", "webhook"} {
				for _, arg := range find[appsv1.Deployment](t, m, "Deployment", "keywright-"+process).Spec.Template.Spec.Containers[0].Args {
					if strings.HasPrefix(arg, "--watch-namespaces") {
						t.Errorf("the %s has %s", process, arg)
					}
				}
			}
		},
	},
	"an image by digest": {
		set: slices.Concat(withTLS, []string{"--set", "image.repository=registry.example/keywright,image.tag=ignored,image.digest=" + digest, "--set", "imagePullSecrets[0].name=pull"}),
		check: func(t *testing.T, m manifests) {
			for _, process := range []string{"controller", "webhook"} {
				pod := find[appsv1.Deployment](t, m, "Deployment", "keywright-"+process).Spec.Template.Spec
				if got, want := pod.Containers[0].Image, "registry.example/keywright@"+digest; got != want {
					t.Errorf("the %s's image is %q, want %q", process, got, want)
				}
				if len(pod.ImagePullSecrets) != 1 || pod.ImagePullSecrets[0].Name != "pull" {
					t.Errorf("the %s's pull secrets are %v", process, pod.ImagePullSecrets)
				}
			}
		},
	},
	"all settings of the processes": {
		set: slices.Concat(withTLS, []string{
			"--set", "controller.minInterval=1m,controller.allowPrivateURLs=true,controller.leaderElect=false,controller.logLevel=debug,controller.logFormat=text",
			"--set", "webhook.publicURL=https://keys.example,webhook.issuerHosts.auth\\.example=shop/shop,webhook.issuerHosts.login\\.example=shop/login,webhook.cacheSize=5000000,webhook.shutdownDelay=5s,webhook.tls.minVersion=1.2,webhook.logLevel=warn",
			"--set", "controller.extraArgs={--one=1,--two}", "--set", "webhook.extraArgs={--three}",
			"--set", "controller.extraEnv[0].name=GOMEMLIMIT,controller.extraEnv[0].value=100MiB",
			"--set", "webhook.podLabels.team=edge,webhook.podAnnotations.note=hello,webhook.priorityClassName=system-cluster-critical",
			"--set", "webhook.nodeSelector.disk=ssd,webhook.tolerations[0].operator=Exists",
			"--set-json", `webhook.affinity={"podAntiAffinity":{}}`,
		}),
		check: func(t *testing.T, m manifests) {
			controller := find[appsv1.Deployment](t, m, "Deployment", "keywright-controller").Spec.Template
			if diff := cmp.Diff([]string{
				"controller", "--namespace=$(POD_NAMESPACE)", "--leader-elect=false", "--min-interval=1m",
				"--gates-service=keywright-webhook-admin", "--allow-private-urls", "--health-listen=:8081", "--metrics-listen=:8080", "--log-level=debug", "--log-format=text", "--one=1", "--two",
			}, controller.Spec.Containers[0].Args); diff != "" {
				t.Errorf("the controller's arguments (-want +got):\n%s", diff)
			}
			if got := controller.Spec.Containers[0].Env; len(got) != 2 || got[1].Name != "GOMEMLIMIT" {
				t.Errorf("the controller's environment is %v", got)
			}
			gate := find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template
			if diff := cmp.Diff([]string{
				"webhook", "--namespace=$(POD_NAMESPACE)", "--listen=:8443", "--admin-listen=:8081", "--keysets-listen=:8082",
				"--tls-cert-file=/etc/keywright/tls/tls.crt", "--tls-key-file=/etc/keywright/tls/tls.key", "--tls-min-version=1.2",
				"--public-url=https://keys.example", "--issuer-hosts=auth.example=shop/shop", "--issuer-hosts=login.example=shop/login", "--cache-size=5000000", "--shutdown-delay=5s", "--log-level=warn", "--log-format=json", "--three",
			}, gate.Spec.Containers[0].Args); diff != "" {
				t.Errorf("the gate's arguments (-want +got):\n%s", diff)
			}
			if gate.Labels["team"] != "edge" || gate.Annotations["note"] != "hello" || gate.Spec.PriorityClassName != "system-cluster-critical" ||
				gate.Spec.NodeSelector["disk"] != "ssd" || len(gate.Spec.Tolerations) != 1 || gate.Spec.Affinity == nil {
				t.Errorf("the gate's pod does not carry all settings: %+v", gate)
			}
		},
	},
	"a gate for Envoy": {
		set: slices.Concat(withTLS, []string{"--set", "webhook.grpc.enabled=true,webhook.grpc.port=50051"}),
		check: func(t *testing.T, m manifests) {
			wantArgs(t, find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template.Spec, "--grpc-listen=:9443")
			if got := find[corev1.Service](t, m, "Service", "keywright-webhook").Spec.Ports; len(got) != 2 || got[1].Port != 50051 || got[1].TargetPort.StrVal != "grpc" {
				t.Errorf("the gate's Service has ports %v, want 50051 to grpc as the second", got)
			}
		},
	},
	"callers that prove themselves": {
		set: slices.Concat(withTLS, []string{"--set", "webhook.caller.secretName=callers,webhook.caller.caSecretName=callers-ca"}),
		check: func(t *testing.T, m manifests) {
			gate := find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template.Spec
			wantArgs(t, gate, "--caller-secret-file=/etc/keywright/caller/secret", "--caller-ca-file=/etc/keywright/caller-ca/ca.crt")
			mounted := map[string]string{}
			for i, v := range gate.Volumes {
				mounted[gate.Containers[0].VolumeMounts[i].MountPath] = v.Secret.SecretName
			}
			if diff := cmp.Diff(map[string]string{
				"/etc/keywright/tls": "gate-tls", "/etc/keywright/caller": "callers", "/etc/keywright/caller-ca": "callers-ca",
			}, mounted); diff != "" {
				t.Errorf("mounted Secrets (-want +got):\n%s", diff)
			}
			if items := gate.Volumes[2].Secret.Items; len(items) != 1 || items[0].Key != "ca.crt" {
				t.Errorf("of the authority's Secret %v is mounted, want ca.crt alone", items)
			}
		},
	},
	"callers with a secret over plain HTTP": {
		set: []string{"--set", "webhook.insecureHTTP=true,webhook.caller.secretName=callers"},
		check: func(t *testing.T, m manifests) {
			gate := find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template.Spec
			if len(gate.Volumes) != 1 || gate.Volumes[0].Secret.SecretName != "callers" {
				t.Errorf("the gate mounts %v", gate.Volumes)
			}
		},
	},
	"authorities for what is fetched": {
		set: slices.Concat(withTLS, []string{"--set", "controller.fetchCAConfigMap=ours,webhook.fetchCAConfigMap=theirs"}),
		check: func(t *testing.T, m manifests) {
			for process, want := range map[string]string{"controller": "ours", "webhook": "theirs"} {
				pod := find[appsv1.Deployment](t, m, "Deployment", "keywright-"+process).Spec.Template.Spec
				wantArgs(t, pod, "--fetch-ca-file=/etc/keywright/fetch-ca/ca.crt")
				i := len(pod.Volumes) - 1
				if i < 0 || pod.Volumes[i].ConfigMap == nil || pod.Volumes[i].ConfigMap.Name != want || len(pod.Containers[0].VolumeMounts) != i+1 ||
					pod.Containers[0].VolumeMounts[i].Name != pod.Volumes[i].Name || pod.Containers[0].VolumeMounts[i].MountPath != "/etc/keywright/fetch-ca" {
					t.Errorf("the %s mounts %v at %v", process, pod.Volumes, pod.Containers[0].VolumeMounts)
				}
			}
		},
	},
	"limits": {
		set: slices.Concat(withTLS, []string{"--set", "webhook.maxStaleness=10m,webhook.maxConcurrent=100,webhook.maxConnections=5000000,webhook.allowPrivateURLs=true,webhook.logAllowedSample=0.01"}),
		check: func(t *testing.T, m manifests) {
			wantArgs(t, find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template.Spec,
				"--allow-private-urls", "--log-allowed-sample=0.01", "--max-staleness=10m", "--max-concurrent=100", "--max-connections=5000000")
		},
	},
	"a network policy": {
		set: slices.Concat(withTLS, []string{
			"--set", "webhook.networkPolicy.enabled=true,webhook.grpc.enabled=true",
			"--set-json", `webhook.networkPolicy.from=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ingress-nginx"}}}]`,
			"--set-json", `webhook.networkPolicy.metricsFrom=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]`,
			"--set-json", `webhook.networkPolicy.egress=[{"ports":[{"port":443},{"port":6443}]}]`,
		}),
		check: func(t *testing.T, m manifests) {
			spec := find[networkingv1.NetworkPolicy](t, m, "NetworkPolicy", "keywright-webhook").Spec
			gate := find[appsv1.Deployment](t, m, "Deployment", "keywright-webhook").Spec.Template
			for k, v := range spec.PodSelector.MatchLabels {
				if gate.Labels[k] != v {
					t.Errorf("it selects %s=%s, which the gate's pods do not carry", k, v)
				}
			}
			got := map[string][]string{}
			for _, rule := range spec.Ingress {
				if len(rule.From) != 1 {
					t.Fatalf("rule %v lets in more than one kind", rule)
				}
				var selector map[string]string
				if from := rule.From[0]; from.NamespaceSelector != nil {
					selector = from.NamespaceSelector.MatchLabels
				} else {
					selector = from.PodSelector.MatchLabels
				}
				from := selector["kubernetes.io/metadata.name"] + selector["app.kubernetes.io/component"]
				for _, p := range rule.Ports {
					got[from] = append(got[from], p.Port.StrVal)
					if !slices.ContainsFunc(gate.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool { return c.Name == p.Port.StrVal }) {
						t.Errorf("port %s is none of the gate's", p.Port.StrVal)
					}
				}
			}
			if diff := cmp.Diff(map[string][]string{"ingress-nginx": {"auth", "grpc"}, "controller": {"keysets"}, "monitoring": {"admin"}}, got); diff != "" {
				t.Errorf("who is let in where (-want +got):\n%s", diff)
			}
			if len(spec.PolicyTypes) != 2 || len(spec.Egress) != 2 || len(spec.Egress[0].Ports) != 2 || spec.Egress[0].Ports[0].Port.IntVal != 53 || spec.Egress[1].Ports[1].Port.IntVal != 6443 {
				t.Errorf("egress is %v %v", spec.PolicyTypes, spec.Egress)
			}
		},
	},
	"a network policy that lets the gate go anywhere": {
		set: slices.Concat(withTLS, []string{"--set", "webhook.networkPolicy.enabled=true", "--set-json", `webhook.networkPolicy.from=[{"podSelector":{}}]`}),
		check: func(t *testing.T, m manifests) {
			spec := find[networkingv1.NetworkPolicy](t, m, "NetworkPolicy", "keywright-webhook").Spec
			if len(spec.PolicyTypes) != 1 || spec.PolicyTypes[0] != networkingv1.PolicyTypeIngress || len(spec.Ingress) != 2 {
				t.Errorf("got %+v", spec)
			}
		},
	},
	"no CRDs": {
		set: slices.Concat(withTLS, []string{"--set", "crds.enabled=false"}),
		check: func(t *testing.T, m manifests) {
			if got := m.names("CustomResourceDefinition"); len(got) != 0 {
				t.Errorf("CRDs %v are rendered", got)
			}
		},
	},
	"CRDs that go with the release": {
		set: slices.Concat(withTLS, []string{"--set", "crds.keep=false"}),
		check: func(t *testing.T, m manifests) {
			for _, o := range m {
				if _, keep := o.GetAnnotations()["helm.sh/resource-policy"]; keep {
					t.Errorf("%s is kept", o.GetName())
				}
			}
		},
	},
	"service accounts that are there already": {
		set: slices.Concat(withTLS, []string{"--set", "controller.serviceAccount.create=false,controller.serviceAccount.name=mine,webhook.serviceAccount.name=gate"}),
		check: func(t *testing.T, m manifests) {
			if diff := cmp.Diff([]string{"keywright-system/gate"}, m.names("ServiceAccount")); diff != "" {
				t.Errorf("ServiceAccounts (-want +got):\n%s", diff)
			}
			if got := find[appsv1.Deployment](t, m, "Deployment", "keywright-controller").Spec.Template.Spec.ServiceAccountName; got != "mine" {
				t.Errorf("the controller runs as %q", got)
			}
			if got := find[rbacv1.ClusterRoleBinding](t, m, "ClusterRoleBinding", "keywright-controller").Subjects; len(got) != 1 || got[0].Name != "mine" || got[0].Namespace != namespace {
				t.Errorf("the controller's ClusterRole is bound to %v", got)
			}
			policy := find[unstructured.Unstructured](t, m, "ValidatingAdmissionPolicy", "keywright-status")
			if raw, _ := policy.MarshalJSON(); !strings.Contains(string(raw), "== 'system:serviceaccount:keywright-system:mine'") {
				t.Errorf("the admission policy lets another account through: %s", raw)
			}
		},
	},
	"one gate": {
		set: slices.Concat(withTLS, []string{"--set", "webhook.replicas=1"}),
		check: func(t *testing.T, m manifests) {
			if got := m.names("PodDisruptionBudget"); len(got) != 0 {
				t.Errorf("%v would keep a node from being drained", got)
			}
		},
	},
	"a long name": {
		set: slices.Concat(withTLS, []string{"--set", "fullnameOverride=" + strings.Repeat("x", 40)}),
		check: func(t *testing.T, m manifests) {
			for _, name := range m.names("Service") {
				if name = strings.TrimPrefix(name, namespace+"/"); len(name) > 63 {
					t.Errorf("Service %s has %d characters, at most 63 are allowed", name, len(name))
				}
			}
		},
	},
}

func wantArgs(t *testing.T, pod corev1.PodSpec, want ...string) {
	t.Helper()
	for _, arg := range want {
		if !slices.Contains(pod.Containers[0].Args, arg) {
			t.Errorf("%s is not among the arguments %q", arg, pod.Containers[0].Args)
		}
	}
}

func TestValuesReachWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	for name, tc := range matrix {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := helm(t, append([]string{"lint", "--strict", chartDir}, tc.set...)...); err != nil {
				t.Errorf("linting: %v", err)
			} else if strings.Contains(out, "[WARNING]") {
				t.Errorf("lint warns:\n%s", out)
			}
			m := render(t, tc.set...)
			tc.check(t, m)
			checkPods(t, m)
			checkServices(t, m)
		})
	}
}

// checkPods holds what is true of every pod, whatever the values.
func checkPods(t *testing.T, m manifests) {
	t.Helper()
	pods := 0
	for _, o := range m {
		if o.GetKind() != "Deployment" {
			continue
		}
		pods++
		d := find[appsv1.Deployment](t, m, "Deployment", o.GetName())
		pod := d.Spec.Template.Spec
		for k, v := range d.Spec.Selector.MatchLabels {
			if d.Spec.Template.Labels[k] != v {
				t.Errorf("%s selects %s=%s, which its pods do not carry", d.Name, k, v)
			}
		}
		if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: pod security is %+v", d.Name, s)
		}
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Errorf("%s shares the node's namespaces", d.Name)
		}
		if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
			t.Fatalf("%s has %d containers and %d before them", d.Name, len(pod.Containers), len(pod.InitContainers))
		}
		c := pod.Containers[0]
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.Privileged != nil || s.Capabilities == nil || len(s.Capabilities.Add) != 0 || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s: container security is %+v", d.Name, s)
		}
		for what, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != what {
				t.Errorf("%s has no probe of %s", d.Name, what)
				continue
			}
			i := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == probe.HTTPGet.Port.StrVal })
			if i < 0 || c.Ports[i].ContainerPort != 8081 {
				t.Errorf("%s: %s is asked at %s, which is not the admin port", d.Name, what, probe.HTTPGet.Port.StrVal)
			}
		}
	}
	if pods != 2 {
		t.Errorf("%d Deployments are rendered, want 2", pods)
	}
}

// checkServices holds that a Service leads to ports that there are, and that
// none leads to both the gate and its admin listener.
func checkServices(t *testing.T, m manifests) {
	t.Helper()
	for _, o := range m {
		if o.GetKind() != "Service" {
			continue
		}
		service := find[corev1.Service](t, m, "Service", o.GetName())
		var target *appsv1.Deployment
		for _, d := range m {
			if d.GetKind() != "Deployment" {
				continue
			}
			d := find[appsv1.Deployment](t, m, "Deployment", d.GetName())
			if d.Spec.Template.Labels["app.kubernetes.io/component"] == service.Spec.Selector["app.kubernetes.io/component"] {
				target = d
			}
		}
		if target == nil {
			t.Errorf("Service %s selects no pods", service.Name)
			continue
		}
		var targets []string
		for _, p := range service.Spec.Ports {
			targets = append(targets, p.TargetPort.StrVal)
			if !slices.ContainsFunc(target.Spec.Template.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool { return c.Name == p.TargetPort.StrVal }) {
				t.Errorf("Service %s leads to port %s, which %s does not have", service.Name, p.TargetPort.StrVal, target.Name)
			}
		}
		if slices.Contains(targets, "auth") && (slices.Contains(targets, "admin") || slices.Contains(targets, "keysets")) {
			t.Errorf("Service %s leads to %v: what is for the cluster can be reached where the gate is exposed", service.Name, targets)
		}
	}
}

func TestWrongValuesAreRefusedInWords(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"neither certificate nor plain HTTP":  {nil, "webhook.tls.secretName is not set: name a Secret of type kubernetes.io/tls"},
		"certificate and plain HTTP":          {slices.Concat(withTLS, []string{"--set", "webhook.insecureHTTP=true"}), "both set: remove one of them"},
		"a network policy for nobody":         {slices.Concat(withTLS, []string{"--set", "webhook.networkPolicy.enabled=true"}), "webhook.networkPolicy.from is empty: name who may ask"},
		"client certificates over plain HTTP": {[]string{"--set", "webhook.insecureHTTP=true,webhook.caller.caSecretName=x"}, "both set: callers show certificates in TLS"},
		"a Secret that cannot be":             {slices.Concat(withTLS, []string{"--set", "webhook.caller.secretName=A"}), "/webhook/caller/secretName"},
		"a ConfigMap that cannot be":          {slices.Concat(withTLS, []string{"--set", "controller.fetchCAConfigMap=A"}), "/controller/fetchCAConfigMap"},
		"a value that there is not":           {slices.Concat(withTLS, []string{"--set", "webhook.replica=3"}), "additional properties 'replica' not allowed"},
		"an unknown part":                     {slices.Concat(withTLS, []string{"--set", "issuer.replicas=3"}), "additional properties 'issuer' not allowed"},
		"an old TLS version":                  {slices.Concat(withTLS, []string{"--set-string", "webhook.tls.minVersion=1.1"}), "/webhook/tls/minVersion"},
		"a digest without its algorithm":      {slices.Concat(withTLS, []string{"--set-string", "image.digest=0123"}), "/image/digest"},
		"a duration without a unit":           {slices.Concat(withTLS, []string{"--set-string", "webhook.shutdownDelay=10"}), "/webhook/shutdownDelay"},
		"an argument without dashes":          {slices.Concat(withTLS, []string{"--set", "controller.extraArgs={debug}"}), "/controller/extraArgs/0"},
		"a namespace that cannot be":          {slices.Concat(withTLS, []string{"--set", "watchNamespaces={Team}"}), "/watchNamespaces/0"},
		"a namespace twice":                   {slices.Concat(withTLS, []string{"--set", "watchNamespaces={a,a}"}), "/watchNamespaces"},
		"a log level that there is not":       {slices.Concat(withTLS, []string{"--set", "controller.logLevel=loud"}), "/controller/logLevel"},
		"replicas in words":                   {slices.Concat(withTLS, []string{"--set", "webhook.replicas=two"}), "/webhook/replicas"},
		"no service account at all":           {slices.Concat(withTLS, []string{"--set", "webhook.serviceAccount.create=false"}), "webhook.serviceAccount.name: name the service account to use"},
		"an old cluster":                      {slices.Concat(withTLS, []string{"--kube-version", "1.29.9"}), "1.30.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := helm(t, append([]string{"template", "keywright", chartDir}, tc.args...)...)
			if err == nil {
				t.Fatal("it was rendered")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the message is\n%v\nwant in it %q", err, tc.want)
			}
			t.Logf("%v", err)
		})
	}
}

func TestCRDsOfTheChartAreThoseOfConfig(t *testing.T) {
	t.Parallel()
	want := map[string]map[string]any{}
	files, err := filepath.Glob(filepath.Join(root, "config/crd/bases/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("finding CRDs: %v, %v", files, err)
	}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range parse(t, bytes.NewReader(raw)) {
			want[o.GetName()] = o.Object
		}
	}
	got := map[string]map[string]any{}
	for _, o := range render(t, withTLS...) {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		annotations := o.GetAnnotations()
		if annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("CRD %s is not kept when the release goes", o.GetName())
		}
		delete(annotations, "helm.sh/resource-policy")
		o.SetAnnotations(annotations)
		got[o.GetName()] = o.Object
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run hack/sync-chart.sh (-config +chart):\n%s", diff)
	}
}
