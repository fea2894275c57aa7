package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/keywright/keywright/api/fetch"
	"github.com/keywright/keywright/api/v1alpha1"
)

// Options are the settings of "keywright controller", named like its flags.
type Options struct {
	// Namespace that Keywright runs in: the lease and the Secret
	// keywright-hmac are there.
	Namespace string
	// WatchNamespaces are those whose resources count; all when empty. When
	// set, labels of namespaces are not read, and allowedNamespaces with a
	// selector allow no other namespace.
	WatchNamespaces []string
	// LeaderElect makes one of several replicas act.
	LeaderElect bool
	// MinInterval is the least time between two activations of a SigningKey.
	MinInterval time.Duration
	// Gates are addresses (host:port) at which gates are asked which keys they
	// have loaded, and GatesService a Service in Namespace whose ready
	// endpoints are asked as well, on their port "keysets". Both empty: gates
	// are not asked.
	Gates        []string
	GatesService string
	// AllowPrivateURLs lets propagation.evidence.urls lead to addresses that
	// are not public.
	AllowPrivateURLs bool
	// FetchCAFile holds, in PEM, authorities for what propagation.evidence.urls
	// lead to, beside the system's. It is read again for each connection.
	FetchCAFile string
	// HealthListen is the address of /healthz and /readyz.
	HealthListen string
	// MetricsListen is the address of /metrics; "0": none.
	MetricsListen string
}

// Validate names the flag that is wrong.
func (o Options) Validate() error {
	switch {
	case o.Namespace == "":
		return errors.New("--namespace: is required (or the environment variable POD_NAMESPACE)")
	case o.MinInterval < time.Second:
		return fmt.Errorf("--min-interval: must be at least 1s, is %s", o.MinInterval)
	}
	for _, address := range o.Gates {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("--gates: must be host:port, is %q", address)
		}
	}
	return nil
}

// Run runs the controller until ctx ends.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	now := time.Now //nolint:forbidigo // the clock of this process, handed to all that needs one
	documents := &DocumentClient{Client: fetch.Client{AllowPrivate: o.AllowPrivateURLs, CAFile: o.FetchCAFile}, Now: now}
	if err := documents.Client.Check(); err != nil {
		return fmt.Errorf("--fetch-ca-file: %w", err)
	}
	clock := &ServerClock{Now: now}
	cfg.Wrap(clock.Wrap)
	cfg.QPS, cfg.Burst = 200, 400 // a storm of rotations is bounded by the API server's own fairness

	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("registering types: %w", err)
	}
	live, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         cache.Options{ByObject: cachedOutputs(o), DefaultNamespaces: cachedNamespaces(o)},
		Metrics:                       server.Options{BindAddress: o.MetricsListen},
		HealthProbeBindAddress:        o.HealthListen,
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              "keywright-controller",
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	keys := &SigningKeyReconciler{
		Live:            live,
		Namespace:       o.Namespace,
		MinInterval:     o.MinInterval,
		WatchNamespaces: o.WatchNamespaces,
		Now:             now,
		Clock:           clock.Bounds,
		Events:          mgr.GetEventRecorder("keywright-controller"),
	}
	keys.Fetch = documents.Fetch
	if len(o.Gates) > 0 || o.GatesService != "" {
		certificate := &GateCertificate{Live: live, Namespace: o.Namespace, Now: now}
		gates := &GateClient{Addresses: o.Gates, Namespace: o.Namespace, Service: o.GatesService, Certificate: certificate, Now: now}
		if o.GatesService != "" {
			gates.Cache = mgr.GetClient()
		}
		keys.Gates = gates.Ask
		if err := mgr.Add(certificate); err != nil {
			return fmt.Errorf("starting: %w", err)
		}
	}
	policies := &AccessPolicyReconciler{Client: mgr.GetClient(), WatchNamespaces: o.WatchNamespaces, Now: now}
	err = errors.Join(
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("ping", healthz.Ping),
		keys.SetupWithManager(mgr),
		policies.SetupWithManager(mgr),
	)
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running: %w", err)
	}
	return nil
}

// cachedNamespaces limits the cache to the namespaces that count.
func cachedNamespaces(o Options) map[string]cache.Config {
	if len(o.WatchNamespaces) == 0 {
		return nil
	}
	out := map[string]cache.Config{}
	for _, namespace := range o.WatchNamespaces {
		out[namespace] = cache.Config{}
	}
	return out
}
