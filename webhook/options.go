package webhook

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
)

// Options of the process. Errors name the flag of the command that sets them.
type Options struct {
	// Listen and AdminListen are addresses, host:port.
	Listen, AdminListen string
	// GRPCListen is the address where Envoy asks over gRPC, with the same TLS
	// as Listen; 0 or empty: none.
	GRPCListen string
	// KeysetsListen is the address where the controller asks what is loaded;
	// 0 or empty: none.
	KeysetsListen string
	// TLSCertFile and TLSKeyFile are PEM files, read again when they change.
	TLSCertFile, TLSKeyFile string
	// TLSMinVersion is 1.2 or 1.3.
	TLSMinVersion string
	// InsecureHTTP serves without TLS instead.
	InsecureHTTP bool
	// CallerSecretFile and CallerCAFile hold what callers prove themselves by:
	// secrets, one a line, of which one comes in the header X-Keywright-Caller
	// or in gRPC metadata of that name; and certificates in PEM of authorities
	// for client certificates. Both are read again when they change. One proof
	// is enough; when neither is set, anybody may ask.
	CallerSecretFile, CallerCAFile string
	// Namespace is the one of the controller, and so of the Secrets with HS*
	// secrets and with the certificate for KeysetsListen.
	Namespace string
	// WatchNamespaces are those whose SigningKeys and AccessPolicies count;
	// all when empty. When set, namespaces' labels are not read, and
	// allowedNamespaces with a selector allow no other namespace.
	WatchNamespaces []string
	// CacheSize is how many verified tokens are remembered.
	CacheSize int
	// MaxStaleness is how long the API server may be silent until everything
	// is denied; 0: for ever.
	MaxStaleness time.Duration
	// MaxConcurrent is how many requests are answered at once, and
	// MaxConnections how many connections callers may have open. Beyond them,
	// requests are denied.
	MaxConcurrent, MaxConnections int
	// AllowPrivateURLs lets oidc and jwks of AccessPolicies lead to addresses
	// that are not public.
	AllowPrivateURLs bool
	// FetchCAFile holds, in PEM, authorities for what oidc and jwks lead to,
	// beside the system's. It is read again for each connection.
	FetchCAFile string
	// LogAllowedSample is which part of allowed requests is logged, from 0
	// to 1.
	LogAllowedSample float64
	// ShutdownDelay is how long the process goes on answering once it is not
	// ready.
	ShutdownDelay time.Duration
	// PublicURL is where verifiers reach this process, for discovery
	// documents.
	PublicURL string
	// IssuerHosts are hosts at which issuers' documents are served, with the
	// SigningKey of each as namespace/name.
	IssuerHosts map[string]string
}

// Validate says what is wrong with all fields.
func (o *Options) Validate() error {
	var faults []error
	fault := func(flag, format string, args ...any) {
		faults = append(faults, fmt.Errorf("--"+flag+": "+format, args...))
	}
	addresses := []struct{ flag, value string }{{"listen", o.Listen}, {"admin-listen", o.AdminListen}}
	if o.servesGRPC() {
		addresses = append(addresses, struct{ flag, value string }{"grpc-listen", o.GRPCListen})
	}
	if o.servesKeysets() {
		addresses = append(addresses, struct{ flag, value string }{"keysets-listen", o.KeysetsListen})
	}
	for _, address := range addresses {
		if _, _, err := net.SplitHostPort(address.value); err != nil {
			fault(address.flag, "write an address such as :8443: %v", err)
		}
	}
	switch {
	case o.InsecureHTTP && (o.TLSCertFile != "" || o.TLSKeyFile != ""):
		fault("insecure-http", "goes without --tls-cert-file and --tls-key-file: choose one")
	case o.InsecureHTTP:
	case o.TLSCertFile == "":
		fault("tls-cert-file", "name the certificate, or say --insecure-http to serve without TLS")
	case o.TLSKeyFile == "":
		fault("tls-key-file", "name the certificate's key")
	}
	if _, err := o.tlsMinVersion(); err != nil {
		fault("tls-min-version", "%v", err)
	}
	if o.Namespace == "" {
		fault("namespace", "name the namespace that this process runs in, or set POD_NAMESPACE")
	} else if wrong := validation.IsDNS1123Label(o.Namespace); len(wrong) > 0 {
		fault("namespace", "%q is not a namespace: %s", o.Namespace, wrong[0])
	}
	for _, name := range o.WatchNamespaces {
		if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
			fault("watch-namespaces", "%q is not a namespace: %s", name, wrong[0])
		}
	}
	if o.CallerCAFile != "" && o.InsecureHTTP {
		fault("caller-ca-file", "goes without --insecure-http: certificates are shown in TLS")
	}
	if o.CacheSize < 1 {
		fault("cache-size", "must be at least 1")
	}
	if o.MaxStaleness != 0 && o.MaxStaleness < minStaleness {
		fault("max-staleness", "must be 0 or at least %s: a watch may be silent for about a minute", minStaleness)
	}
	if o.MaxConcurrent < 1 || o.MaxConcurrent > maxLimit {
		fault("max-concurrent", "must be from 1 to %d", maxLimit)
	}
	if o.MaxConnections < 1 || o.MaxConnections > maxLimit {
		fault("max-connections", "must be from 1 to %d", maxLimit)
	}
	if !(o.LogAllowedSample >= 0 && o.LogAllowedSample <= 1) {
		fault("log-allowed-sample", "must be from 0 (none) to 1 (all)")
	}
	if o.ShutdownDelay < 0 {
		fault("shutdown-delay", "must not be negative")
	}
	if o.PublicURL != "" {
		u, err := url.Parse(o.PublicURL)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			fault("public-url", "write a URL such as https://keys.example.com, without query and fragment")
		}
	}
	for _, host := range slices.Sorted(maps.Keys(o.IssuerHosts)) {
		if normal, err := policy.NormalizeHost(host); err != nil || normal != host {
			fault("issuer-hosts", "%q is no host: write it in lower case and without a port, such as auth.example.com", host)
		}
		if _, ok := authz.ParseRef(o.IssuerHosts[host]); !ok {
			fault("issuer-hosts", "%s=%q: name its SigningKey as namespace/name", host, o.IssuerHosts[host])
		}
	}
	return errors.Join(faults...)
}

// issuerHosts are valid.
func (o *Options) issuerHosts() map[string]authz.Ref {
	hosts := map[string]authz.Ref{}
	for host, name := range o.IssuerHosts {
		hosts[host], _ = authz.ParseRef(name)
	}
	return hosts
}

const (
	// minStaleness is more than the time between two bookmarks of a watch.
	minStaleness = 2 * time.Minute
	// maxLimit is more than there are ports and file descriptors for.
	maxLimit = 1 << 20
)

func (o *Options) servesGRPC() bool { return o.GRPCListen != "" && o.GRPCListen != "0" }

func (o *Options) servesKeysets() bool { return o.KeysetsListen != "" && o.KeysetsListen != "0" }

func (o *Options) tlsMinVersion() (uint16, error) {
	switch o.TLSMinVersion {
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, errors.New("must be 1.2 or 1.3")
}
