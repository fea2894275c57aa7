package grpcauth

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/webhook/authz"
)

// Respond writes a decision about a request: allowed with its identity
// headers, or denied with status 401 or 403 and without a body.
//
// Envoy first sets and adds headers, then removes (ext_authz.cc, onComplete:
// request_header_mutations before headers_to_remove). A header that is set
// must therefore not be removed too; setting it replaces all lines of the
// client's. Removed are the names that applications read as the same: those
// with '_' or '.' in place of '-', which CGI and its heirs fold into one.
func Respond(check *authv3.CheckRequest, d *authz.Decision) *authv3.CheckResponse {
	if !d.Allowed {
		return denied(d)
	}
	ok := &authv3.OkHttpResponse{}
	for i := range d.Identity {
		name := strings.ToLower(d.Identity[i].Name)
		ok.Headers = append(ok.Headers, set(name, d.Identity[i].Value))
		ok.HeadersToRemove = appendAliases(ok.HeadersToRemove, name)
	}
	if len(d.Identity) > 0 {
		ok.HeadersToRemove = appendSeen(ok.HeadersToRemove, check, ok.Headers)
	}
	return &authv3.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}
}

func denied(d *authz.Decision) *authv3.CheckResponse {
	code, http := codes.PermissionDenied, typev3.StatusCode_Forbidden
	if d.Status == authz.StatusUnauthorized {
		code, http = codes.Unauthenticated, typev3.StatusCode_Unauthorized
	}
	// What caches a 401 must not: the next token may be good.
	headers := []*corev3.HeaderValueOption{set("cache-control", "no-store")}
	if d.ShowReason {
		headers = append(headers, set("x-keywright-reason", d.Reason))
	}
	if challenge := d.WWWAuthenticate(); challenge != "" {
		headers = append(headers, set("www-authenticate", challenge))
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code)}, //nolint:gosec // at most 16
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: http}, Headers: headers,
		}},
	}
}

// set replaces all lines of a header. An old Envoy that does not know the
// action looks at the deprecated append alone, whose absence means the same
// here.
func set(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		// Envoy does so here in any case; others who speak this may not.
		KeepEmptyValue: true,
	}
}

// maxDashes is up to how many dashes all spellings of a name are removed,
// whether Envoy shows them or not (allowed_headers): 3^n - 1 of them.
const maxDashes = 3

// appendAliases gives the spellings of a name that do not depend on what the
// client sent: all of them, or of a name with many dashes those of one kind.
func appendAliases(out []string, name string) []string {
	dashes := strings.Count(name, "-")
	if dashes == 0 {
		return out
	}
	if dashes > maxDashes {
		return append(out, strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."))
	}
	all := 1
	for range dashes {
		all *= 3
	}
	for n := 1; n < all; n++ { // 0 is the name itself
		spelling, rest := []byte(name), n
		for i := range spelling {
			if spelling[i] == '-' {
				spelling[i] = "-_."[rest%3]
				rest /= 3
			}
		}
		out = append(out, string(spelling))
	}
	return out
}

// appendSeen gives the spellings that the client sent and that are not in out
// by then.
func appendSeen(out []string, check *authv3.CheckRequest, set []*corev3.HeaderValueOption) []string {
	see := func(name string) {
		if strings.IndexByte(name, '_') < 0 && strings.IndexByte(name, '.') < 0 {
			return
		}
		name = strings.ToLower(name)
		folded := fold.Replace(name)
		for _, h := range set {
			if key := h.GetHeader().GetKey(); key == folded && strings.Count(key, "-") > maxDashes {
				out = append(out, name)
			}
		}
	}
	http := check.GetAttributes().GetRequest().GetHttp()
	for name := range http.GetHeaders() {
		see(name)
	}
	for _, line := range http.GetHeaderMap().GetHeaders() {
		see(line.GetKey())
	}
	return out
}

var fold = strings.NewReplacer("_", "-", ".", "-")
