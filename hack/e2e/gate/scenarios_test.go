//go:build linux

package gate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/hack/e2e/stack"
)

// caller is a proxy that asks the gate.
type caller struct {
	// name is how scenarios say where it differs.
	name string
	// version of the program.
	version string
	// blind says that it asks with the credentials alone: policies that look at
	// path, method or host deny.
	blind bool
	// still says that it serves the sites of its start and no others.
	still bool
	// client reaches the proxy whatever the host of a URL is.
	client *http.Client
	// raw sends bytes as they are.
	raw func(ctx context.Context, raw []byte) (*http.Response, error)
	// serve adds sites and returns when they are served.
	serve func(ctx context.Context, gate endpoint, sites ...site) error
	// annotated makes Ingresses with other annotations, of ingress-nginx alone.
	annotated *ingresses
}

// endpoint is where a gate listens on this machine, for HTTP and for gRPC.
type endpoint struct{ http, grpc string }

func endpointOf(g *stack.Gate) endpoint { return endpoint{http: g.Address, grpc: g.GRPC} }

// site is a host with the policy that its requests are asked about.
type site struct {
	host, namespace, policy string
	// hostless leaves the host out of the auth-url.
	hostless bool
	// cacheKey is the annotation auth-cache-key.
	cacheKey string
}

// authURL is the annotation auth-url, for a gate at an address.
func (s site) authURL(gate string) string {
	u := "https://" + gate + "/auth/nginx/" + s.namespace + "/" + s.policy
	if s.hostless {
		return u
	}
	return u + "?host=$host"
}

// identity is the annotation auth-response-headers.
var identity = []string{"X-Auth-Subject", "X-Auth-Roles"}

// sites of all scenarios.
var sites = []site{
	{host: "shop.test", namespace: "shop", policy: "orders"},
	{host: "normalized.test", namespace: "shop", policy: "normalized"},
	{host: "any.test", namespace: "shop", policy: "any"},
	{host: "plain.test", namespace: "shop", policy: "by-host"},
	{host: "raw.test", namespace: "shop", policy: "by-host"},
	{host: "hostless.test", namespace: "shop", policy: "by-host", hostless: true},
	{host: "cookie.test", namespace: "shop", policy: "by-cookie"},
	{host: "query.test", namespace: "shop", policy: "by-query"},
	{host: "ws.test", namespace: "shop", policy: "by-subprotocol"},
	{host: "preflight.test", namespace: "shop", policy: "preflight"},
	{host: "secret.test", namespace: "shop", policy: "secret"},
	{host: "missing.test", namespace: "shop", policy: "nowhere"},
	{host: "broken.test", namespace: "shop", policy: "broken"},
	{host: "borrowed.test", namespace: "other", policy: "borrowed"},
	{host: "lent.test", namespace: "other", policy: "lent"},
	// The worst key that there is: one verdict for all paths and methods, if
	// the gate's answers could be kept.
	{host: "cached.test", namespace: "shop", policy: "orders", cacheKey: "$http_authorization"},
	{host: "changing.test", namespace: "shop", policy: "changing"},
	{host: "ruleless.test", namespace: "shop", policy: "ruleless"},
}

func siteOf(host string) site {
	if at := slices.IndexFunc(sites, func(s site) bool { return s.host == host }); at >= 0 {
		return sites[at]
	}
	return site{host: host, namespace: "shop", policy: "orders"}
}

// scenario is one request and what becomes of it.
type scenario struct {
	// on is the host that decides which site it is for; shop.test when empty.
	on string
	// method is GET when empty, target / when empty.
	method, target string
	// host is the Host header; on when empty.
	host string
	// token names one of environment.tokens, sent in the Authorization header.
	token string
	// header are lines as they are. "{user}" stands for that token.
	header []string
	body   []byte

	want answer
	// differs is what a caller gives in place of want; differences has more.
	differs map[string]answer
}

// answer is what becomes of a request.
type answer struct {
	status int
	// authenticate is WWW-Authenticate.
	authenticate string
	// reason is what the gate counted the denial as; notAsked for none.
	reason string
	// subject and roles are what the app is told by the gate.
	subject, roles string
	// location is where a redirect leads.
	location string
	// target is what the app is asked for, where that is not what was sent.
	target string
}

// notAsked is the reason of a request that the proxy itself refused.
const notAsked = "(not asked)"

func refused(reason string) answer {
	return answer{status: http.StatusUnauthorized, authenticate: `Bearer realm="orders", error="invalid_token"`, reason: reason}
}

func forbidden(reason string) answer { return answer{status: http.StatusForbidden, reason: reason} }

var (
	anonymous   = answer{status: http.StatusOK}
	asUser      = answer{status: http.StatusOK, subject: "u-17", roles: "customer"}
	asAdmin     = answer{status: http.StatusOK, subject: "root-1", roles: "admin,ops"}
	asPlain     = answer{status: http.StatusOK, subject: "u-17"}
	noToken     = answer{status: http.StatusUnauthorized, authenticate: `Bearer realm="orders"`, reason: "no_credentials"}
	severalSent = answer{status: http.StatusUnauthorized, authenticate: `Bearer realm="orders", error="invalid_request"`, reason: "several_credentials"}
	// proxyRefuses is the proxy's own answer to what it does not understand.
	proxyRefuses = answer{status: http.StatusBadRequest, reason: notAsked}
)

var tenMegabytes = bytes.Repeat([]byte("0123456789abcdef"), 10<<16)

// upgrade asks for a WebSocket.
var upgrade = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}

func switched(subject, roles string) answer {
	return answer{status: http.StatusSwitchingProtocols, subject: subject, roles: roles}
}

// offering asks for a WebSocket with lines of subprotocols.
func offering(lines ...string) []string {
	out := slices.Clone(upgrade)
	for _, line := range lines {
		out = append(out, "Sec-WebSocket-Protocol: "+line)
	}
	return out
}

// announcing is what makes OPTIONS a preflight.
func announcing(method string) []string {
	return []string{"Origin: https://a.example", "Access-Control-Request-Method: " + method}
}

// challenged is a 401 of a policy, with the error that goes with the reason.
func challenged(policy, reason string) answer {
	challenge := `Bearer realm="` + policy + `"`
	switch reason {
	case "no_credentials":
	case "several_credentials":
		challenge += `, error="invalid_request"`
	default:
		challenge += `, error="invalid_token"`
	}
	return answer{status: http.StatusUnauthorized, authenticate: challenge, reason: reason}
}

// scenarios by what they are about.
var scenarios = map[string]map[string]scenario{
	"tokens": {
		"a valid token passes":                                     {target: "/orders?x=1", token: "user", want: asUser},
		"no token is challenged without an error":                  {target: "/orders", want: noToken},
		"another scheme is no token":                               {target: "/orders", header: []string{"Authorization: Basic dTpw"}, want: noToken},
		"the scheme's letters do not matter":                       {target: "/orders", header: []string{"Authorization: bEARER {user}"}, want: asUser},
		"an expired token is refused":                              {target: "/orders", token: "expired", want: refused("expired")},
		"a token that is not valid yet is refused":                 {target: "/orders", token: "early", want: refused("not_yet_valid")},
		"a token that lives longer than the key allows is refused": {target: "/orders", token: "long-lived", want: refused("lives_too_long")},
		"a forged token is refused":                                {target: "/orders", token: "forged", want: refused("bad_signature")},
		"the claims of one under the signature of another":         {target: "/orders", token: "spliced", want: refused("bad_signature")},
		"a token of an unknown key is refused":                     {target: "/orders", token: "unknown key", want: refused("unknown_key")},
		"the public key taken for a secret is refused":             {target: "/orders", token: "confused", want: refused("algorithm_mismatch")},
		"alg none is refused":                                      {target: "/orders", token: "unsigned", want: refused("algorithm_mismatch")},
		"garbage is refused":                                       {target: "/orders", token: "garbage", want: refused("malformed")},
		"a token for another audience is refused":                  {target: "/orders", token: "wrong audience", want: refused("wrong_audience")},
		"a token of another issuer is refused":                     {target: "/orders", token: "wrong issuer", want: refused("wrong_issuer")},
		"a token without a required claim is refused":              {target: "/orders", token: "no subject", want: refused("missing_claim")},
		"a token of another SigningKey is refused":                 {target: "/orders", token: "partner", want: refused("unknown_key")},
		"a token over 8 KiB is refused": {
			target: "/orders", token: "large", want: refused("too_large"),
			// Its header buffers are nginx's default, 8k.
			differs: map[string]answer{"plain nginx": proxyRefuses},
		},
		"two Authorization headers are refused": {
			target: "/orders", header: []string{"Authorization: Bearer {user}", "Authorization: Bearer {admin}"}, want: proxyRefuses,
		},
		"two tokens in one Authorization header are refused": {target: "/orders", header: []string{"Authorization: Bearer {user}, Bearer {admin}"}, want: severalSent},
		"a token in the query is none":                       {target: "/orders?access_token={user}", want: noToken},
		"a token in another header is none":                  {target: "/orders", header: []string{"X-Authorization: Bearer {user}", "Proxy-Authorization: Bearer {user}"}, want: noToken},
		"an HS256 token passes where the key is one": {
			on: "secret.test", target: "/x", token: "secret", want: answer{status: http.StatusOK},
		},
	},
	"cookies": {
		"a token in the cookie passes": {on: "cookie.test", target: "/", header: []string{"Cookie: a=1; session={user}; b=2"}, want: asPlain},
		"no cookie is challenged": {
			on: "cookie.test", target: "/",
			want: challenged("by-cookie", "no_credentials"),
		},
		"a token in the Authorization header is none": {
			on: "cookie.test", target: "/", token: "user",
			want: challenged("by-cookie", "no_credentials"),
		},
		"the cookie twice is refused": {
			on: "cookie.test", target: "/", header: []string{"Cookie: session={user}", "Cookie: session={admin}"},
			want: challenged("by-cookie", "several_credentials"),
		},
	},
	"tokens in the query": {
		"one passes":                                 {on: "query.test", target: "/x?a=1&access_token={user}&b=2", want: asPlain},
		"none is challenged":                         {on: "query.test", target: "/x?a=1", want: challenged("by-query", "no_credentials")},
		"a forged one is refused":                    {on: "query.test", target: "/x?access_token={forged}", want: challenged("by-query", "bad_signature")},
		"one in the Authorization header is none":    {on: "query.test", target: "/x", token: "user", want: challenged("by-query", "no_credentials")},
		"one in a cookie is none":                    {on: "query.test", target: "/x", header: []string{"Cookie: access_token={user}"}, want: challenged("by-query", "no_credentials")},
		"two are refused":                            {on: "query.test", target: "/x?access_token={user}&access_token={admin}", want: challenged("by-query", "several_credentials")},
		"two are refused, one under an encoded name": {on: "query.test", target: "/x?access_token={user}&access%5ftoken={admin}", want: challenged("by-query", "several_credentials")},
		"two are refused, one behind a semicolon":    {on: "query.test", target: "/x?access_token={user};access_token={admin}", want: challenged("by-query", "several_credentials")},
		"what another field says of the URL is not read": {
			on: "query.test", target: "/x", want: challenged("by-query", "no_credentials"),
			header: []string{"X-Original-URL: http://query.test/x?access_token={user}", "X-Forwarded-Uri: /x?access_token={user}", "Referer: http://query.test/x?access_token={user}"},
		},
	},
	"tokens among the subprotocols": {
		"a WebSocket with one passes":                {on: "ws.test", target: "/", header: offering("chat, bearer.{user}"), want: switched("u-17", "")},
		"in a line of its own it passes too":         {on: "ws.test", target: "/", header: offering("chat", "bearer.{user}"), want: switched("u-17", "")},
		"a WebSocket without one is challenged":      {on: "ws.test", target: "/", header: offering("chat"), want: challenged("by-subprotocol", "no_credentials")},
		"a WebSocket without any is challenged":      {on: "ws.test", target: "/", header: upgrade, want: challenged("by-subprotocol", "no_credentials")},
		"a forged one is refused":                    {on: "ws.test", target: "/", header: offering("bearer.{forged}, chat"), want: challenged("by-subprotocol", "bad_signature")},
		"an expired one is refused":                  {on: "ws.test", target: "/", header: offering("chat, bearer.{expired}"), want: challenged("by-subprotocol", "expired")},
		"two are refused":                            {on: "ws.test", target: "/", header: offering("bearer.{user}, bearer.{admin}"), want: challenged("by-subprotocol", "several_credentials")},
		"two are refused, in lines of their own too": {on: "ws.test", target: "/", header: offering("bearer.{user}", "bearer.{admin}"), want: challenged("by-subprotocol", "several_credentials")},
		"a prefix in other letters is another":       {on: "ws.test", target: "/", header: offering("Bearer.{user}"), want: challenged("by-subprotocol", "no_credentials")},
		"one in the Authorization header is none":    {on: "ws.test", target: "/", token: "user", header: offering("chat"), want: challenged("by-subprotocol", "no_credentials")},
	},
	"preflights": {
		"one passes without a token":                     {on: "preflight.test", method: "OPTIONS", target: "/x", header: announcing("PUT"), want: anonymous},
		"one tells nothing of a token":                   {on: "preflight.test", method: "OPTIONS", target: "/x", token: "user", header: announcing("PUT"), want: anonymous},
		"one for a method that is denied is denied":      {on: "preflight.test", method: "OPTIONS", target: "/x", header: announcing("DELETE"), want: forbidden("access_denied")},
		"what it announced needs a token":                {on: "preflight.test", method: "PUT", target: "/x", header: announcing("PUT"), want: challenged("preflight", "no_credentials")},
		"what it announced passes with one":              {on: "preflight.test", method: "PUT", target: "/x", token: "user", header: announcing("PUT"), want: asPlain},
		"what it announced has a method of its own":      {on: "preflight.test", method: "DELETE", target: "/x", token: "user", header: announcing("PUT"), want: forbidden("access_denied")},
		"OPTIONS without Origin is none":                 {on: "preflight.test", method: "OPTIONS", target: "/x", header: announcing("PUT")[1:], want: challenged("preflight", "no_credentials")},
		"OPTIONS that announces no method is none":       {on: "preflight.test", method: "OPTIONS", target: "/x", header: announcing("PUT")[:1], want: challenged("preflight", "no_credentials")},
		"a method that another field names is none":      {on: "preflight.test", method: "PUT", target: "/x", header: append(announcing("PUT"), "X-Original-Method: OPTIONS", "X-Forwarded-Method: OPTIONS", "X-HTTP-Method-Override: OPTIONS"), want: challenged("preflight", "no_credentials")},
		"where a policy says nothing of it it is denied": {method: "OPTIONS", target: "/orders", header: announcing("PUT"), want: noToken},
	},
	"rules": {
		"an anonymous rule needs no token":               {target: "/healthz", want: anonymous},
		"an anonymous rule looks at no token":            {target: "/healthz", token: "forged", want: anonymous},
		"an exact path is that path alone":               {target: "/healthz/x", want: noToken},
		"a denied rule lets nobody pass":                 {target: "/closed/x", token: "admin", want: forbidden("access_denied")},
		"a role that is asked for passes":                {target: "/admin", token: "admin", want: asAdmin},
		"a wrong role is forbidden":                      {target: "/admin", token: "user", want: forbidden("claim_mismatch")},
		"a prefix is of whole segments":                  {target: "/administrator", token: "user", want: asUser},
		"all scopes that are asked for pass":             {target: "/reports/1", token: "reporter", want: asPlain},
		"a scope that lacks is forbidden":                {target: "/reports/1", token: "reader", want: forbidden("insufficient_scope")},
		"a true expression passes":                       {target: "/transfers", token: "two factors", want: asPlain},
		"an expression that is not true is forbidden":    {target: "/transfers", token: "user", want: forbidden("expression_false")},
		"a rule for a method is for that method":         {method: "DELETE", target: "/orders/1", token: "user", want: forbidden("claim_mismatch")},
		"a rule for a method passes who may":             {method: "DELETE", target: "/orders/1", token: "admin", want: asAdmin},
		"an anonymous rule for a method is for no other": {method: "PUT", target: "/healthz", want: noToken},
		"a policy that is not there denies":              {on: "missing.test", target: "/healthz", token: "admin", want: forbidden("policy_not_found")},
		"a policy that does not compile denies all":      {on: "broken.test", target: "/public/x", token: "admin", want: forbidden("policy_not_ready")},
		"a reference that is not allowed denies":         {on: "borrowed.test", target: "/", token: "user", want: forbidden("policy_not_ready")},
		"a reference that is allowed passes":             {on: "lent.test", target: "/", token: "partner", want: answer{status: http.StatusOK}},
	},
	"methods and bodies": {
		"HEAD passes like GET":               {method: "HEAD", target: "/orders", token: "user", want: asUser},
		"HEAD is challenged like GET":        {method: "HEAD", target: "/orders", want: noToken},
		"HEAD is forbidden like GET":         {method: "HEAD", target: "/admin", token: "user", want: forbidden("claim_mismatch")},
		"a body of 10 MiB arrives untouched": {method: "POST", target: "/orders", token: "user", body: tenMegabytes, want: asUser},
		"a body of an anonymous request too": {method: "POST", target: "/public/x", body: tenMegabytes[:70_001], want: anonymous},
		"a WebSocket with a token passes":    {target: "/orders", token: "user", header: upgrade, want: switched("u-17", "customer")},
		"a WebSocket without one is refused": {target: "/orders", header: upgrade, want: noToken},
		"a WebSocket with a token in the cookie passes": {
			on: "cookie.test", target: "/", header: append([]string{"Cookie: session={user}"}, upgrade...), want: switched("u-17", ""),
		},
	},
	"identity": {
		"the client's own is replaced": {
			target: "/orders", token: "user", header: []string{"X-Auth-Subject: mallory", "X-Auth-Roles: admin"}, want: asUser,
		},
		"the client's own in other letters is replaced": {
			target: "/orders", token: "user", header: []string{"x-aUTH-subject: mallory", "X-AUTH-ROLES: admin"}, want: asUser,
		},
		"the client's own, sent twice, is replaced": {
			target: "/orders", token: "user", header: []string{"X-Auth-Subject: mallory", "X-Auth-Subject: eve"}, want: asUser,
		},
		"the client's own goes where the token says nothing": {
			target: "/orders", token: "reader", header: []string{"X-Auth-Roles: admin"}, want: asPlain,
		},
		"the client's own goes on an anonymous request": {
			target: "/public/x", header: []string{"X-Auth-Subject: mallory", "x-auth-roles: admin"}, want: anonymous,
		},
		"a token on an anonymous request tells nothing": {target: "/public/x", token: "admin", want: anonymous},
		"variants of the names do not arrive": {
			target: "/orders", token: "user", want: asUser,
			header: []string{"X_Auth_Subject: mallory", "x-auth_subject: mallory", "X_AUTH-ROLES: admin", "X.Auth.Subject: mallory"},
		},
		"Connection does not take it off": {
			target: "/orders", token: "user", header: []string{"Connection: close, X-Auth-Subject, X-Auth-Roles"}, want: asUser,
		},
		"a claim with a line break never becomes a header": {target: "/orders", token: "CRLF", want: forbidden("identity_invalid")},
	},
	"what the client claims": {
		"X-Original-URL is not the client's": {
			target: "/admin", token: "user", header: []string{"X-Original-URL: http://shop.test/public/x"}, want: forbidden("claim_mismatch"),
		},
		"X-Original-Method is not the client's": {
			method: "DELETE", target: "/orders/1", token: "user", header: []string{"X-Original-Method: GET"}, want: forbidden("claim_mismatch"),
		},
		"nor are their variants": {
			target: "/admin", token: "user", want: forbidden("claim_mismatch"),
			header: []string{"X_Original_URL: http://shop.test/public/x", "X-Original-URI: /public/x", "X-Forwarded-Uri: /public/x", "X-Rewrite-URL: /public/x", "X-HTTP-Method-Override: GET"},
		},
		"X-Forwarded-Host does not route": {on: "raw.test", target: "/", header: []string{"X-Forwarded-Host: plain.test"}, want: forbidden("access_denied")},
		"the query is not the path":       {target: "/admin?/public/x", token: "user", want: forbidden("claim_mismatch")},
		"a probe's User-Agent opens nothing": {
			target: "/orders", header: []string{"User-Agent: kube-probe/1.37"}, want: noToken,
		},
	},
	"hosts": {
		"a rule for a host passes that host":         {on: "plain.test", target: "/", want: anonymous},
		"in any letters, with a dot and a port":      {on: "plain.test", host: "PLAIN.test.:80", target: "/", want: anonymous},
		"and no other":                               {on: "raw.test", target: "/", want: forbidden("access_denied")},
		"an absolute-form target with another Host":  {on: "raw.test", host: "plain.test", target: "http://raw.test/x", want: forbidden("host_unknown")},
		"the same the other way round":               {on: "plain.test", host: "raw.test", target: "http://plain.test/x", want: forbidden("host_unknown")},
		"an auth-url without the host denies":        {on: "hostless.test", target: "/", want: forbidden("host_unknown")},
		"without host rules the host does not count": {host: "plain.test", target: "http://shop.test/orders", token: "user", want: asUser},
		"and a token is still asked for":             {host: "plain.test", target: "http://shop.test/orders", want: noToken},
	},
	"paths": {
		"an admin's ambiguous path is denied too":    {target: "/public/../admin", token: "admin", want: forbidden("path_ambiguous")},
		"without a rule for paths none is ambiguous": {on: "any.test", target: "/public/../admin", token: "user", want: answer{status: http.StatusOK}},
		"an encoded character that needs it is not":  {target: "/public/a%20b%40c", want: anonymous},
		"above the root is refused":                  {target: "/../admin", token: "user", want: proxyRefuses},
		"NUL is refused":                             {target: "/public/%00/../admin", token: "user", want: proxyRefuses},
		"a bad escape is refused":                    {target: "/public/%zz", token: "user", want: proxyRefuses},
	},
	"normalized paths": {
		"up out of an open path needs a token":     {on: "normalized.test", target: "/public/../admin", want: challenged("normalized", "no_credentials")},
		"up out of an open path needs the role":    {on: "normalized.test", target: "/public/../admin", token: "user", want: forbidden("claim_mismatch")},
		"up out of an open path with the role":     {on: "normalized.test", target: "/public/../admin", token: "admin", want: answer{status: http.StatusOK}},
		"encoded dots are dots":                    {on: "normalized.test", target: "/public/%2e%2e/admin", token: "user", want: forbidden("claim_mismatch")},
		"two slashes are one":                      {on: "normalized.test", target: "//admin", token: "user", want: forbidden("claim_mismatch")},
		"an encoded letter is a letter":            {on: "normalized.test", target: "/%61dmin", token: "user", want: forbidden("claim_mismatch")},
		"up into an open path is open":             {on: "normalized.test", target: "/admin/../public/x", want: anonymous},
		"an encoded slash is still refused":        {on: "normalized.test", target: "/public/..%2fadmin", token: "admin", want: forbidden("path_invalid")},
		"a backslash is still refused":             {on: "normalized.test", target: `/public/..\admin`, token: "admin", want: forbidden("path_invalid")},
		"a dot segment with parameters is refused": {on: "normalized.test", target: "/public/..;x/admin", token: "admin", want: forbidden("path_invalid")},
	},
}

func init() {
	ruleless := map[string]scenario{
		"a valid token passes":                   {token: "user", want: asUser},
		"whatever the path":                      {target: "/admin/x?y=/z", token: "reader", want: asPlain},
		"no token is challenged":                 {want: challenged("ruleless", "no_credentials")},
		"an expired token is refused":            {token: "expired", want: challenged("ruleless", "expired")},
		"a forged token is refused":              {token: "forged", want: challenged("ruleless", "bad_signature")},
		"a token for another audience":           {token: "wrong audience", want: challenged("ruleless", "wrong_audience")},
		"two tokens in one header":               {header: []string{"Authorization: Bearer {user}, Bearer {admin}"}, want: challenged("ruleless", "several_credentials")},
		"HEAD passes like GET":                   {method: "HEAD", token: "user", want: asUser},
		"HEAD is challenged like GET":            {method: "HEAD", want: challenged("ruleless", "no_credentials")},
		"a preflight is like any other":          {method: "OPTIONS", header: announcing("PUT"), want: challenged("ruleless", "no_credentials")},
		"a body of 10 MiB arrives untouched":     {method: "PUT", token: "user", body: tenMegabytes, want: asUser},
		"a WebSocket with a token passes":        {token: "user", header: upgrade, want: switched("u-17", "customer")},
		"a WebSocket without one is refused":     {header: upgrade, want: challenged("ruleless", "no_credentials")},
		"the client's own identity is replaced":  {token: "user", header: []string{"x-aUTH-subject: mallory", "X-Auth-Subject: eve", "X-AUTH-ROLES: admin"}, want: asUser},
		"and goes where the token says nothing":  {token: "reader", header: []string{"X-Auth-Roles: admin"}, want: asPlain},
		"variants of the names do not arrive":    {token: "user", header: []string{"X_Auth_Subject: mallory", "x-auth_subject: mallory", "X_AUTH-ROLES: admin", "X.Auth.Subject: mallory"}, want: asUser},
		"Connection does not take it off":        {token: "user", header: []string{"Connection: close, X-Auth-Subject, X-Auth-Roles"}, want: asUser},
		"what describes the request is not read": {header: []string{"X-Original-URL: http://shop.test/healthz", "X-Forwarded-Uri: /healthz", "X-Original-Method: GET", "X-Forwarded-Method: GET"}, want: challenged("ruleless", "no_credentials")},
	}
	for name, s := range ruleless {
		s.on = "ruleless.test"
		if s.target == "" {
			s.target = "/orders"
		}
		ruleless[name] = s
	}
	scenarios["a policy without rules"] = ruleless
}

// trickyPaths lead to /admin for some server or other. Where a rule looks at
// the path they are denied, with and without a token.
var trickyPaths = map[string]string{
	"/public/../admin":            "path_ambiguous",
	"/public/./../admin":          "path_ambiguous",
	"/public/%2e%2e/admin":        "path_ambiguous",
	"/public/%2E./admin":          "path_ambiguous",
	"/public/..%2fadmin":          "path_invalid",
	"/public/..%2Fadmin":          "path_invalid",
	"/public%2f..%2fadmin":        "path_invalid",
	"/public/%252e%252e/admin":    "path_ambiguous",
	`/public\..\admin`:            "path_invalid",
	"/public/..%5cadmin":          "path_invalid",
	"/public/..;/admin":           "path_invalid",
	"/public;x/../admin":          "path_ambiguous",
	"/public#/../admin":           "path_invalid",
	"/public/%23/../../admin":     "path_ambiguous",
	"/public/%3f/../../admin":     "path_ambiguous",
	"/public/%c0%ae%c0%ae/admin":  "path_invalid",
	"/public/%ef%bc%8e./../admin": "path_ambiguous",
	"//admin":                     "path_ambiguous",
	"/public//../admin":           "path_ambiguous",
	"/./admin":                    "path_ambiguous",
	"/%61dmin":                    "path_ambiguous",
	"/adm%69n/x":                  "path_ambiguous",
	"/admin;x":                    "path_ambiguous",
	"/admin%3bx":                  "path_ambiguous",
	`/admin\`:                     "path_invalid",
	"/admin/..":                   "path_ambiguous",
}

func init() {
	for path, reason := range trickyPaths {
		for _, token := range []string{"", "user"} {
			name := "no token asks for "
			if token != "" {
				name = "a token without the role asks for "
			}
			scenarios["paths"][name+path] = scenario{target: path, token: token, want: forbidden(reason)}
		}
	}
}

// runScenarios runs the table through a caller, each scenario a subtest.
func runScenarios(t *testing.T, c *caller) {
	for _, about := range slices.Sorted(maps.Keys(scenarios)) {
		t.Run(about, func(t *testing.T) {
			for _, name := range slices.Sorted(maps.Keys(scenarios[about])) {
				t.Run(name, func(t *testing.T) {
					s := scenarios[about][name]
					full := about + ": " + name
					want := s.expected(c, full)
					s.run(t, c, want)
					outcomes.add(full, c, want, !t.Failed())
				})
			}
		})
	}
}

// expand puts tokens in the place of their names.
func expand(text string) string {
	for _, name := range []string{"user", "admin", "forged", "expired"} {
		text = strings.ReplaceAll(text, "{"+name+"}", env.tokens[name])
	}
	return text
}

// bytes are the request.
func (s scenario) bytes(id string) []byte {
	method, target, host := s.method, s.target, s.host
	if method == "" {
		method = http.MethodGet
	}
	if host == "" {
		host = s.on
	}
	lines := []string{method + " " + expand(target) + " HTTP/1.1", "Host: " + host, caseHeader + ": " + id}
	if s.token != "" {
		lines = append(lines, "Authorization: Bearer "+env.tokens[s.token])
	}
	closes := false
	for _, line := range s.header {
		lines = append(lines, expand(line))
		closes = closes || strings.HasPrefix(line, "Connection:")
	}
	if !closes {
		lines = append(lines, "Connection: close")
	}
	if s.body != nil {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(s.body)))
	}
	return append([]byte(strings.Join(lines, "\r\n")+"\r\n\r\n"), s.body...)
}

// expected is what becomes of it through a caller.
func (s scenario) expected(c *caller, name string) answer {
	if other, ok := differences[c.name][name]; ok {
		return other
	}
	if other, ok := s.differs[c.name]; ok {
		return other
	}
	if c.blind && s.want.reason != notAsked {
		switch s.on {
		case "", "shop.test", "normalized.test":
			return forbidden("path_unknown")
		case "plain.test", "raw.test", "hostless.test":
			return forbidden("host_unknown")
		case "query.test":
			return forbidden("path_unknown")
		case "preflight.test":
			return forbidden("method_unknown")
		}
	}
	return s.want
}

func (s scenario) run(t *testing.T, c *caller, want answer) {
	if s.on == "" {
		s.on = "shop.test"
	}
	if want.status == http.StatusForbidden {
		// It is refused before it is read, and the answer could be lost.
		s.body = s.body[:min(len(s.body), 1000)]
		want.authenticate = c.challenge403(want.reason, siteOf(s.on).policy)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	asked := siteOf(s.on)
	if asked.policy == "nowhere" { // the gate counts those as nobody's
		asked.namespace, asked.policy = "", ""
	}
	before, err := decisions(ctx, asked.namespace, asked.policy)
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, t.Name())
	resp, err := c.raw(ctx, s.bytes(id))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // it is read already
	after, err := decisions(ctx, asked.namespace, asked.policy)
	if err != nil {
		t.Fatal(err)
	}

	if resp.StatusCode != want.status {
		t.Errorf("status %d, want %d", resp.StatusCode, want.status)
	}
	if got := resp.Header.Get("WWW-Authenticate"); got != want.authenticate {
		t.Errorf("WWW-Authenticate %q, want %q", got, want.authenticate)
	}
	if got := resp.Header.Get("Location"); got != want.location {
		t.Errorf("Location %q, want %q", got, want.location)
	}
	wantCounted := map[string]int{}
	if want.reason != notAsked {
		wantCounted[want.reason] = 1
	}
	if diff := cmp.Diff(wantCounted, since(before, after)); diff != "" {
		t.Errorf("what the gate counted, by reason (-want +got):\n%s", diff)
	}
	got := env.app.take(id)
	if want.status != http.StatusOK && want.status != http.StatusSwitchingProtocols {
		if len(got) != 0 {
			t.Errorf("the app got it: %v", got)
		}
		return
	}
	if len(got) != 1 {
		t.Fatalf("the app got it %d times, want once", len(got))
	}
	s.checkArrived(t, got[0], want)
}

// since is what was counted between two readings.
func since(before, after map[string]int) map[string]int {
	out := map[string]int{}
	for reason, n := range after {
		if d := n - before[reason]; d != 0 {
			out[reason] = d
		}
	}
	return out
}

// checkArrived compares what the app got with what was sent and decided.
func (s scenario) checkArrived(t *testing.T, got received, want answer) {
	t.Helper()
	method, target := s.method, expand(s.target)
	if method == "" {
		method = http.MethodGet
	}
	// nginx passes the raw target on, without scheme and host.
	target = strings.TrimPrefix(target, "http://"+s.on)
	if want.target != "" {
		target = want.target
	}
	if got.method != method || got.target != target {
		t.Errorf("the app got %s %s, want %s %s", got.method, got.target, method, target)
	}
	if got.length != len(s.body) || got.sum != sha256.Sum256(s.body) {
		t.Errorf("the app got a body of %d bytes, want the %d that were sent", got.length, len(s.body))
	}
	told := map[string]string{}
	for name, values := range got.header {
		// As a server would that knows no difference between - and _.
		if plain := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name)); strings.HasPrefix(plain, "x-auth-") && strings.Join(values, "") != "" {
			told[name] = strings.Join(values, "|")
		}
	}
	wantTold := map[string]string{"X-Auth-Subject": want.subject, "X-Auth-Roles": want.roles}
	maps.DeleteFunc(wantTold, func(_, v string) bool { return v == "" })
	if diff := cmp.Diff(wantTold, told); diff != "" {
		t.Errorf("what the app is told (-want +got):\n%s", diff)
	}
}
