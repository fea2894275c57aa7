package callers

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keywright/keywright/hack/e2e/envoy"
)

// StartEnvoyGRPC starts a stand-in for Envoy that asks over gRPC (package
// envoy): the route names the policy, header lines arrive apart
// (encode_raw_headers). Nothing else of the client's is taken off by the proxy:
// the gate's answer says what to replace and what to remove.
func StartEnvoyGRPC(_ context.Context, o Options) (*Proxy, error) {
	app := &url.URL{Scheme: "http", Host: o.App}
	toApp := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	return startEnvoy("Envoy gRPC", func(s Site, config *tls.Config) (http.Handler, func() error, error) {
		conn, err := grpc.NewClient("passthrough:///"+s.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			return nil, nil, fmt.Errorf("connecting to the gate: %w", err)
		}
		return &envoy.Proxy{
			Service: authv3.NewAuthorizationClient(conn), Extensions: map[string]string{"keywright.dev/policy": s.Namespace + "/" + s.Policy},
			RawHeaders: true, Upstream: app, Transport: toApp,
		}, conn.Close, nil
	})
}
