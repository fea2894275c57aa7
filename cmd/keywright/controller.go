package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/keywright/keywright/controllers"
)

func newControllerCommand() *cobra.Command {
	var o controllers.Options
	var logs logOptions
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Make, rotate and retire the keys of SigningKeys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			if _, err := logs.start(cmd.ErrOrStderr()); err != nil {
				return err
			}
			cluster, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("--%s: %w", config.KubeconfigFlagName, err)
			}
			cluster.UserAgent = "keywright-controller/" + versionText()
			return controllers.Run(cmd.Context(), cluster, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace that Keywright runs in")
	f.StringSliceVar(&o.WatchNamespaces, "watch-namespaces", nil, "namespaces whose SigningKeys and AccessPolicies count, separated by commas; all when empty")
	f.BoolVar(&o.LeaderElect, "leader-elect", true, "act only as the one leader among all replicas")
	f.DurationVar(&o.MinInterval, "min-interval", time.Minute, "least time between two rotations of a SigningKey, whatever it asks for")
	f.StringSliceVar(&o.Gates, "gates", nil, "addresses (host:port) at which gates are asked which keys they have loaded, separated by commas")
	f.StringVar(&o.GatesService, "gates-service", "", "Service in Keywright's namespace whose ready endpoints are asked as well, on their port keysets")
	f.BoolVar(&o.AllowPrivateURLs, "allow-private-urls", false, "let propagation.evidence.urls lead to addresses that are not public")
	f.StringVar(&o.FetchCAFile, "fetch-ca-file", "", "authorities in PEM for propagation.evidence.urls, beside the system's, read again for each connection")
	f.StringVar(&o.HealthListen, "health-listen", ":8081", "address of /healthz and /readyz")
	f.StringVar(&o.MetricsListen, "metrics-listen", ":8080", "address of /metrics; 0 for none")
	logs.bind(cmd)
	f.AddGoFlag(flag.CommandLine.Lookup(config.KubeconfigFlagName))
	return cmd
}
