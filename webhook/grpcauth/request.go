package grpcauth

import (
	"net/textproto"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/keywright/keywright/webhook/authz"
)

// PolicyExtension is the key of the context extension that names the policy,
// as namespace/name.
const PolicyExtension = "keywright.dev/policy"

// Request reads what Envoy asks about. Where it names no policy, the request
// does not either.
//
// Method, target and host are those of the attributes, which Envoy takes from
// what it routes by. An empty one is not known. The header has all lines that
// Envoy shows: header_map keeps them apart (encode_raw_headers), headers has
// those of one name joined by commas, which denies for a credential as it does
// over HTTP. Cookies are taken apart at commas, since two Cookie lines arrive
// so: a second cookie of the name must be seen.
func Request(check *authv3.CheckRequest) authz.Request {
	attributes := check.GetAttributes()
	ref, ok := authz.ParseRef(attributes.GetContextExtensions()[PolicyExtension])
	if !ok {
		return authz.Request{}
	}
	http := attributes.GetRequest().GetHttp()
	req := authz.Request{
		Policy: ref,
		Target: http.GetPath(), HasTarget: http.GetPath() != "",
		Method: http.GetMethod(), HasMethod: http.GetMethod() != "",
		Host: http.GetHost(), HasHost: http.GetHost() != "",
	}
	joined, lines := http.GetHeaders(), http.GetHeaderMap().GetHeaders()
	req.Header = make(map[string][]string, len(joined)+len(lines))
	values := make([]string, 0, len(joined)+len(lines)) // one array for what has one line
	add := func(name, value string) {
		if strings.HasPrefix(name, ":") {
			return // a pseudo-header: nothing can be asked of it by name
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if had, ok := req.Header[name]; ok {
			req.Header[name] = append(had, value)
			return
		}
		values = append(values, value)
		req.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	for _, line := range lines {
		if raw := line.GetRawValue(); len(raw) > 0 {
			add(line.GetKey(), string(raw))
			if line.GetValue() == "" {
				continue
			}
		}
		add(line.GetKey(), line.GetValue())
	}
	for name, value := range joined {
		if !strings.EqualFold(name, "Cookie") {
			add(name, value)
			continue
		}
		for line := range strings.SplitSeq(value, ",") {
			add(name, line)
		}
	}
	return req
}
