package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/keywright/keywright/webhook"
)

func newWebhookCommand() *cobra.Command {
	var o webhook.Options
	var logs logOptions
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Answer the ingress's question whether a request may pass, and serve public keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			log, err := logs.start(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			cluster, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("--%s: %w", config.KubeconfigFlagName, err)
			}
			cluster.UserAgent = "keywright-webhook/" + versionText()
			return webhook.Run(cmd.Context(), cluster, o, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", ":8443", "address on which callers ask and verifiers fetch keys")
	f.StringVar(&o.GRPCListen, "grpc-listen", "", "address on which Envoy asks over gRPC, with the same TLS as --listen; empty or 0 for none")
	f.StringVar(&o.AdminListen, "admin-listen", ":8081", "address of /healthz, /readyz and /metrics, without TLS")
	f.StringVar(&o.KeysetsListen, "keysets-listen", ":8082", "address at which the controller asks what is loaded, with the certificate of the Secret keywright-gates; 0 for none")
	f.StringVar(&o.TLSCertFile, "tls-cert-file", "", "certificate chain in PEM, read again when it changes")
	f.StringVar(&o.TLSKeyFile, "tls-key-file", "", "key of the certificate in PEM, read again when it changes")
	f.StringVar(&o.TLSMinVersion, "tls-min-version", "1.3", "lowest TLS version: 1.2 or 1.3 (nginx before 1.23.4 asks with 1.2 unless proxy_ssl_protocols says otherwise)")
	f.BoolVar(&o.InsecureHTTP, "insecure-http", false, "serve without TLS: tokens cross the network in clear")
	f.StringVar(&o.CallerSecretFile, "caller-secret-file", "", "secrets, one a line, of which callers have to show one in X-Keywright-Caller, read again when they change; anybody may ask when neither this nor --caller-ca-file is set")
	f.StringVar(&o.CallerCAFile, "caller-ca-file", "", "authorities in PEM, of one of which callers have to show a client certificate, read again when they change")
	f.StringVar(&o.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace that Keywright runs in")
	f.StringSliceVar(&o.WatchNamespaces, "watch-namespaces", nil, "namespaces whose SigningKeys and AccessPolicies count, separated by commas; all when empty")
	f.IntVar(&o.CacheSize, "cache-size", 100_000, "verified tokens to remember, of up to 1 KiB each, once they come a second time; longer ones, and those with many claims, count as several")
	f.DurationVar(&o.MaxStaleness, "max-staleness", 0, "how long the API server may be silent until everything is denied; 0 for ever")
	f.IntVar(&o.MaxConcurrent, "max-concurrent", 2048, "requests to answer at once; more are denied")
	f.IntVar(&o.MaxConnections, "max-connections", 8192, "connections of callers to have open; requests on more are denied, and on twice as many not heard")
	f.BoolVar(&o.AllowPrivateURLs, "allow-private-urls", false, "let oidc and jwks of AccessPolicies lead to addresses that are not public")
	f.StringVar(&o.FetchCAFile, "fetch-ca-file", "", "authorities in PEM for oidc and jwks of AccessPolicies, beside the system's, read again for each connection")
	f.Float64Var(&o.LogAllowedSample, "log-allowed-sample", 0, "part of allowed requests to log, such as 0.01, from 0 (none) to 1 (all)")
	f.DurationVar(&o.ShutdownDelay, "shutdown-delay", 5*time.Second, "how long to go on answering once not ready")
	f.StringVar(&o.PublicURL, "public-url", "", "URL at which verifiers reach this process, for discovery documents")
	f.StringToStringVar(&o.IssuerHosts, "issuer-hosts", nil, "hosts of issuers and their SigningKeys, such as auth.example.com=shop/shop,…: at each host the documents of that SigningKey, and of no other, are served under its issuer's URL")
	logs.bind(cmd)
	f.AddGoFlag(flag.CommandLine.Lookup(config.KubeconfigFlagName))
	return cmd
}

// logOptions say how a process logs.
type logOptions struct{ level, format string }

func (l *logOptions) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.level, "log-level", "info", "least level to log: debug, info, warn or error")
	cmd.Flags().StringVar(&l.format, "log-format", "json", "json or text")
}

// start makes the process's logger, and the libraries write to it too.
func (l *logOptions) start(to io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, fmt.Errorf("--log-level: must be debug, info, warn or error, is %q", l.level)
	}
	var handler slog.Handler
	switch options := (&slog.HandlerOptions{Level: level}); l.format {
	case "json":
		handler = slog.NewJSONHandler(to, options)
	case "text":
		handler = slog.NewTextHandler(to, options)
	default:
		return nil, fmt.Errorf("--log-format: must be json or text, is %q", l.format)
	}
	logger := logr.FromSlogHandler(handler)
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	return slog.New(handler), nil
}
