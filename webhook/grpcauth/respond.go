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
	answer := &struct {
		response authv3.CheckResponse
		outcome  authv3.CheckResponse_OkResponse
		ok       authv3.OkHttpResponse
	}{}
	answer.response.Status = statusOK
	answer.response.HttpResponse = &answer.outcome
	answer.outcome.OkResponse = &answer.ok
	answer.ok.Headers = make([]*corev3.HeaderValueOption, len(d.Identity))
	partly := false
	for i := range d.Identity {
		h := &d.Identity[i]
		answer.ok.Headers[i] = set(h.Field.Lower, h.Value)
		if i == 0 {
			answer.ok.HeadersToRemove = h.Field.Spellings
		} else {
			answer.ok.HeadersToRemove = append(answer.ok.HeadersToRemove, h.Field.Spellings...)
		}
		partly = partly || h.Field.Partly
	}
	if partly {
		answer.ok.HeadersToRemove = appendSeen(answer.ok.HeadersToRemove, check, d)
	}
	return &answer.response
}

// statusOK is a part of all answers that allow, none of which is changed.
var statusOK = &status.Status{Code: int32(codes.OK)}

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
	one := &struct {
		option corev3.HeaderValueOption
		header corev3.HeaderValue
	}{}
	one.header.Key, one.header.Value = name, value
	one.option.Header = &one.header
	one.option.AppendAction = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	// Envoy does so here in any case; others who speak this may not.
	one.option.KeepEmptyValue = true
	return &one.option
}

// appendSeen gives the spellings that the client sent of names that have more
// than are removed in any case.
func appendSeen(out []string, check *authv3.CheckRequest, d *authz.Decision) []string {
	see := func(name string) {
		for i := range d.Identity {
			if f := d.Identity[i].Field; f.Partly && f.HasSpelling(name) {
				out = append(out, strings.ToLower(name))
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
