//go:build linux

package ingressnginx

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Annotations of ingress-nginx that the tests use.
const (
	AnnotationPrefix    = "nginx.ingress.kubernetes.io/"
	AuthURL             = AnnotationPrefix + "auth-url"
	AuthMethod          = AnnotationPrefix + "auth-method"
	AuthResponseHeaders = AnnotationPrefix + "auth-response-headers"
	AuthCacheKey        = AnnotationPrefix + "auth-cache-key"
	AuthCacheDuration   = AnnotationPrefix + "auth-cache-duration"
	AuthSignin          = AnnotationPrefix + "auth-signin"
	AuthKeepalive       = AnnotationPrefix + "auth-keepalive"
	AuthKeepaliveReqs   = AnnotationPrefix + "auth-keepalive-requests"
	AuthProxySetHeaders = AnnotationPrefix + "auth-proxy-set-headers"
	EnableGlobalAuth    = AnnotationPrefix + "enable-global-auth"
	EnableCORS          = AnnotationPrefix + "enable-cors"
)

// IngressClass is the class that the controller serves, and the default one.
const IngressClass = "nginx"

// BackendPort is the port of each Service that Backend builds.
const BackendPort = 80

// name is the controller's in each kind of object that it needs.
const name = "ingress-nginx-controller"

// Ingress serves a host, all paths of it, from port BackendPort of the Service
// backend in the same namespace.
func Ingress(namespace, name, host, backend string, annotations map[string]string) *networkingv1.Ingress {
	class := IngressClass
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: maps.Clone(annotations)},
		Spec: networkingv1.IngressSpec{
			IngressClassName: &class,
			Rules:            []networkingv1.IngressRule{Rule(host, backend, "/")},
		},
	}
}

// Rule routes the given path prefixes of a host to port BackendPort of a
// Service, for an Ingress with more than Ingress gives it.
func Rule(host, backend string, prefixes ...string) networkingv1.IngressRule {
	prefix := networkingv1.PathTypePrefix
	rule := networkingv1.IngressRule{Host: host}
	rule.HTTP = &networkingv1.HTTPIngressRuleValue{}
	for _, path := range prefixes {
		rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{
			Path:     path,
			PathType: &prefix,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
				Name: backend,
				Port: networkingv1.ServiceBackendPort{Number: BackendPort},
			}},
		})
	}
	return rule
}

// Backend is a Service and its EndpointSlice for something that listens on
// address, an IP and port that the controller can reach: Expose gives one.
func Backend(namespace, name, address string) ([]client.Object, error) {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("building the backend %s/%s: %w", namespace, name, err)
	}
	if parsed.Addr().IsLoopback() {
		return nil, fmt.Errorf("building the backend %s/%s: an EndpointSlice may not hold the loopback address %s; pass what Expose returns", namespace, name, address)
	}
	var (
		ready     = true
		portName  = ""
		port      = int32(parsed.Port())
		protocol  = corev1.ProtocolTCP
		addresses = discoveryv1.AddressTypeIPv4
	)
	if parsed.Addr().Is6() {
		addresses = discoveryv1.AddressTypeIPv6
	}
	return []client.Object{
		// Without a selector, so that no controller looks for Pods behind it.
		&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: BackendPort, Protocol: protocol}}},
		},
		&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace,
				Name:      name,
				Labels:    map[string]string{discoveryv1.LabelServiceName: name},
			},
			AddressType: addresses,
			Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses:  []string{parsed.Addr().String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			}},
		},
	}, nil
}

// Apply creates each object, or replaces the one of its name.
func Apply(ctx context.Context, c client.Client, objects ...client.Object) error {
	for _, object := range objects {
		err := c.Create(ctx, object)
		if apierrors.IsAlreadyExists(err) {
			err = replace(ctx, c, object)
		}
		if err != nil {
			return fmt.Errorf("applying %T %s: %w", object, client.ObjectKeyFromObject(object), err)
		}
	}
	return nil
}

func replace(ctx context.Context, c client.Client, object client.Object) error {
	existing, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T is copied as another type", object)
	}
	if err := c.Get(ctx, client.ObjectKeyFromObject(object), existing); err != nil {
		return err
	}
	object.SetResourceVersion(existing.GetResourceVersion())
	if service, ok := object.(*corev1.Service); ok {
		// Given once by the API server, and then to be repeated.
		service.Spec.ClusterIP = existing.(*corev1.Service).Spec.ClusterIP
		service.Spec.ClusterIPs = existing.(*corev1.Service).Spec.ClusterIPs
	}
	return c.Update(ctx, object)
}

// configuration is the ConfigMap's data. What the caller sets comes on top,
// except for what this package relies on.
func configuration(extra map[string]string) map[string]string {
	data := map[string]string{
		"disable-access-log":      "true",
		"disable-ipv6":            "true",
		"error-log-path":          "/dev/stderr",
		"max-worker-connections":  "1024",
		"max-worker-open-files":   "4096",
		"worker-shutdown-timeout": "10s",
		// The directive for it is newer than Debian's nginx.
		"use-http2": "false",
	}
	maps.Copy(data, extra)
	// WaitSynced asks the one worker.
	data["worker-processes"] = "1"
	return data
}

// Configure replaces Options.Config of a controller in the default namespace.
// It counts a second or two later, which WaitSynced does not see.
func Configure(ctx context.Context, c client.Client, config map[string]string) error {
	return Apply(ctx, c, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: defaultNamespace, Name: name}, Data: configuration(config),
	})
}

// objects are those that the controller needs to run, in the order in which
// they can be created.
func objects(namespace string, config map[string]string) []client.Object {
	labels := map[string]string{"app.kubernetes.io/name": name}
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}
	global := metav1.ObjectMeta{Name: namespace + "-" + name, Labels: labels}
	read := []string{"get", "list", "watch"}
	return []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.ServiceAccount{ObjectMeta: meta},
		// What ingress-nginx's own chart grants, less what it needs for writing
		// status and electing a leader, which it does not do here.
		&rbacv1.ClusterRole{ObjectMeta: global, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"configmaps", "endpoints", "namespaces", "nodes", "pods", "secrets", "services"}, Verbs: read},
			{APIGroups: []string{discoveryv1.GroupName}, Resources: []string{"endpointslices"}, Verbs: read},
			{APIGroups: []string{networkingv1.GroupName}, Resources: []string{"ingresses", "ingressclasses"}, Verbs: read},
			{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: global,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: global.Name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
		},
		&networkingv1.IngressClass{
			ObjectMeta: metav1.ObjectMeta{
				Name:        IngressClass,
				Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"},
			},
			Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx"},
		},
		&corev1.ConfigMap{ObjectMeta: meta, Data: configuration(config)},
		// Never run: the controller reads the Pod that it believes to be in.
		&corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
			ServiceAccountName: name,
			Containers:         []corev1.Container{{Name: "controller", Image: "none.invalid/ingress-nginx"}},
		}},
	}
}
