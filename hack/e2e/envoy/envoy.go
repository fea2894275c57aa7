package envoy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"
)

// Proxy asks Service about each request and sends to Upstream what it allows.
type Proxy struct {
	Service authv3.AuthorizationClient
	// Extensions are the route's context_extensions.
	Extensions map[string]string
	// RawHeaders is encode_raw_headers: headers go into header_map, line by
	// line, and not into headers, joined.
	RawHeaders bool
	// FailureModeAllow is failure_mode_allow: an error of the service lets
	// the request pass.
	FailureModeAllow bool
	// Metadata is initial_metadata of the gRPC service, in pairs.
	Metadata []string
	Upstream *url.URL
	// Transport to Upstream; nil means that of net/http.
	Transport http.RoundTripper
}

// ServeHTTP is the filter and the router behind it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := metadata.AppendToOutgoingContext(r.Context(), p.Metadata...)
	response, err := p.Service.Check(ctx, p.question(r))
	if response.GetErrorResponse() != nil && err == nil {
		err = errNoVerdict
	}
	switch {
	case err != nil && !p.FailureModeAllow:
		w.WriteHeader(http.StatusForbidden) // status_on_error
	case err != nil:
		p.forward(w, r, &authv3.OkHttpResponse{})
	case response.GetStatus().GetCode() == 0: // and so without any status
		p.forward(w, r, response.GetOkResponse())
	default:
		deny(w, response.GetDeniedResponse())
	}
}

var errNoVerdict = errors.New("error_response: neither allowed nor denied")

// question is the CheckRequest about r.
func (p *Proxy) question(r *http.Request) *authv3.CheckRequest {
	about := &authv3.AttributeContext_HttpRequest{
		Id: "1", Method: r.Method, Path: r.RequestURI, Host: r.Host, Scheme: "http", Size: r.ContentLength, Protocol: r.Proto,
	}
	type line struct{ name, value string }
	lines := []line{{":authority", r.Host}, {":method", r.Method}, {":path", r.RequestURI}, {":scheme", "http"}}
	for name, values := range r.Header {
		if name == "Connection" {
			continue // the codec's own
		}
		for _, value := range values {
			lines = append(lines, line{strings.ToLower(name), value})
		}
	}
	if p.RawHeaders {
		about.HeaderMap = &corev3.HeaderMap{}
		for _, l := range lines {
			about.HeaderMap.Headers = append(about.HeaderMap.Headers, &corev3.HeaderValue{Key: l.name, RawValue: []byte(l.value)})
		}
	} else {
		about.Headers = map[string]string{}
		for _, l := range lines {
			value := strings.ToValidUTF8(l.value, "!")
			if had, ok := about.Headers[l.name]; ok {
				value = had + "," + value
			}
			about.Headers[l.name] = value
		}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:            &authv3.AttributeContext_Peer{},
		Destination:       &authv3.AttributeContext_Peer{},
		Request:           &authv3.AttributeContext_Request{Http: about},
		ContextExtensions: p.Extensions,
	}}
}

// forward sends the request on: headers are set first, and removed then.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, ok *authv3.OkHttpResponse) {
	router := &httputil.ReverseProxy{Transport: p.Transport, Rewrite: func(out *httputil.ProxyRequest) {
		// The path goes on as it came.
		out.Out.URL = &url.URL{Scheme: p.Upstream.Scheme, Host: p.Upstream.Host, Opaque: r.RequestURI}
		out.Out.Host = r.Host
		for _, option := range ok.GetHeaders() {
			mutate(out.Out.Header, option)
		}
		for _, name := range ok.GetHeadersToRemove() {
			if !strings.HasPrefix(name, ":") && !strings.EqualFold(name, "host") {
				out.Out.Header.Del(name)
			}
		}
	}}
	router.ServeHTTP(w, r)
}

func deny(w http.ResponseWriter, denied *authv3.DeniedHttpResponse) {
	for _, option := range denied.GetHeaders() {
		mutate(w.Header(), option)
	}
	status := int(denied.GetStatus().GetCode())
	if status == 0 {
		status = http.StatusForbidden
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, denied.GetBody()) // whoever asked is gone
}

// mutate does what an option says; the deprecated append goes first.
func mutate(h http.Header, option *corev3.HeaderValueOption) {
	name, value := textproto.CanonicalMIMEHeaderKey(option.GetHeader().GetKey()), option.GetHeader().GetValue()
	action := option.GetAppendAction()
	if option.GetAppend() != nil { //nolint:staticcheck // Envoy looks at it
		action = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		if option.GetAppend().GetValue() { //nolint:staticcheck // Envoy looks at it
			action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
	}
	_, exists := h[name]
	switch action {
	case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
		h[name] = append(h[name], value)
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		if !exists {
			h[name] = []string{value}
		}
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		h[name] = []string{value}
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		if exists {
			h[name] = []string{value}
		}
	}
}
