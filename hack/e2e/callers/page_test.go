package callers

import (
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// TestThePageConfiguresEnvoyAsTheStandInIs reads the page's blocks as Envoy
// would, and holds the stand-in against them.
func TestThePageConfiguresEnvoyAsTheStandInIs(t *testing.T) {
	blocks, err := ShownBlocks("Envoy")
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 {
		t.Fatalf("%d blocks, want those of the filter and of the cluster", len(blocks))
	}
	read := func(block string, into proto.Message) {
		t.Helper()
		raw, err := yaml.ToJSON([]byte(block))
		if err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	exact := func(list *matcherv3.ListStringMatcher) []string {
		var out []string
		for _, m := range list.GetPatterns() {
			out = append(out, m.GetExact())
		}
		return out
	}

	filter := &authzv3.ExtAuthz{}
	read(blocks[0], filter)
	service := filter.GetHttpService()
	if service.GetPathPrefix() != "/auth/envoy/shop/orders" || filter.GetFailureModeAllow() {
		t.Errorf("path_prefix is %q, failure_mode_allow %v", service.GetPathPrefix(), filter.GetFailureModeAllow())
	}
	var allowed []string
	for _, name := range envoyAllowed {
		if name != "Authorization" { // which comes by itself
			allowed = append(allowed, strings.ToLower(name))
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(allowed)), slices.Sorted(slices.Values(exact(filter.GetAllowedHeaders())))); diff != "" {
		t.Errorf("allowed_headers (-stand-in +page):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"x-auth-subject", "x-auth-roles"}, exact(service.GetAuthorizationResponse().GetAllowedUpstreamHeaders())); diff != "" {
		t.Errorf("allowed_upstream_headers (-want +page):\n%s", diff)
	}
	if add := service.GetAuthorizationRequest().GetHeadersToAdd(); len(add) != 1 || add[0].GetKey() != "X-Keywright-Caller" || add[0].GetValue() != "SECRET" {
		t.Errorf("headers_to_add is %v, want the caller's secret", add)
	}

	cluster, socket := &clusterv3.Cluster{}, &tlsv3.UpstreamTlsContext{}
	read(blocks[1], cluster)
	if err := cluster.GetTransportSocket().GetTypedConfig().UnmarshalTo(socket); err != nil {
		t.Fatal(err)
	}
	common := socket.GetCommonTlsContext()
	verified := common.GetValidationContext()
	if names := verified.GetMatchTypedSubjectAltNames(); verified.GetTrustedCa().GetFilename() != "/etc/gate/ca.crt" ||
		len(names) != 1 || names[0].GetMatcher().GetExact() != socket.GetSni() || socket.GetSni() == "" {
		t.Errorf("the gate's certificate is verified by %v, for the name %q", verified, socket.GetSni())
	}
	if got := common.GetTlsParams().GetTlsMaximumProtocolVersion(); got != tlsv3.TlsParameters_TLSv1_3 {
		t.Errorf("the newest TLS version is %v", got)
	}
}
