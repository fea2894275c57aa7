package grpcauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/envoy"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/grpcauth"
	"github.com/keywright/keywright/webhook/policy"
)

var (
	start  = time.Unix(1_800_000_000, 0)
	orders = authz.Ref{Namespace: "shop", Name: "orders"}
)

// world is a gate behind gRPC.
type world struct {
	store  *authz.Store
	gate   *authz.Gate
	server *grpcauth.Server
	client authv3.AuthorizationClient
	logged []authz.Decision
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{store: authz.NewStore()}
	clock := func() time.Time { return start }
	w.gate = authz.NewGate(w.store, authz.Options{CacheSize: 1000, Clock: clock})
	t.Cleanup(w.gate.Close)
	w.server = &grpcauth.Server{
		Gate: w.gate, Clock: clock,
		Admit: func(context.Context) *authz.Decision { return nil }, Release: func() {},
		Fault: w.gate.Fault,
		Took:  func(time.Duration) {},
		Log:   func(_ authz.Request, d authz.Decision) { w.logged = append(w.logged, d) },
	}
	return w
}

// dial serves the gate at a real connection.
func (w *world) dial(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, w.server)
	go func() { _ = s.Serve(l) }() // ends with Stop
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w.client = authv3.NewAuthorizationClient(conn)
}

type signer struct {
	private *ecdsa.PrivateKey
	key     *keyset.Key
}

func newSigner(t testing.TB, id string) *signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{private, &keyset.Key{ID: id, Algorithm: keyset.ES256, Public: &private.PublicKey, MaxTokenTTL: time.Hour, Leeway: time.Minute}}
}

func (s *signer) mint(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"sub": "u-17", "aud": "orders", "iat": start.Unix(), "exp": start.Add(10 * time.Minute).Unix(), "scope": "orders:read"}
	maps.Copy(all, claims)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"] = s.key.ID
	raw, err := token.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (w *world) keys(t testing.TB, revoked []string, signers ...*signer) {
	t.Helper()
	var all []*keyset.Key
	for _, s := range signers {
		all = append(all, s.key)
	}
	set, err := keyset.NewSet(all...)
	if err != nil {
		t.Fatal(err)
	}
	w.store.SetKeys(&authz.Keys{Ref: authz.Ref{Namespace: "shop", Name: "shop"}, Set: set, Revoked: revoked})
}

// shop is a policy of most features.
func shop() *v1alpha1.AccessPolicySpec {
	path := func(prefix string) []v1alpha1.PathMatch { return []v1alpha1.PathMatch{{Prefix: prefix}} }
	return &v1alpha1.AccessPolicySpec{
		Realm: "orders",
		Credentials: []v1alpha1.Credential{
			{Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"}},
			{Cookie: &v1alpha1.CookieCredential{Name: "session"}},
		},
		Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}, Audiences: []string{"orders"}}},
		Rules: []v1alpha1.Rule{
			{Name: "health", Access: v1alpha1.AccessAnonymous, Match: []v1alpha1.Match{{Paths: path("/healthz"), Methods: []string{"GET"}}}},
			{Name: "internal", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Paths: path("/internal")}}},
			{Name: "back", Match: []v1alpha1.Match{{Hosts: []string{"back.example.com"}}}, Require: &v1alpha1.Requirements{Scopes: []string{"back"}}},
			{Name: "write", Match: []v1alpha1.Match{{Methods: []string{"POST"}}}, Require: &v1alpha1.Requirements{Scopes: []string{"orders:write"}}},
			{Name: "read", Match: []v1alpha1.Match{{Paths: path("/orders")}}},
		},
		Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{
			{Name: "X-Auth-Subject", Claim: "sub"}, {Name: "X-Auth-Email", Claim: "email"}, {Name: "X-Auth-A-B-C-D", Claim: "sub"},
		}},
	}
}

func (w *world) policy(t testing.TB, ref authz.Ref, spec *v1alpha1.AccessPolicySpec) {
	t.Helper()
	p, err := policy.Compile(ref.Namespace, ref.Name, spec)
	if err != nil {
		t.Fatal(err)
	}
	w.store.SetPolicy(ref, p, nil)
}

func newShop(t testing.TB) (*world, *signer) {
	w, s := newWorld(t), newSigner(t, "k1")
	w.keys(t, nil, s)
	w.policy(t, orders, shop())
	return w, s
}

var named = map[string]string{grpcauth.PolicyExtension: "shop/orders"}

// TestConformance asks through a stand-in for Envoy, over real connections.
func TestConformance(t *testing.T) {
	w, s := newShop(t)
	w.dial(t)
	good := s.mint(t, nil)
	bad := good[:len(good)-4] + "AAAA"
	type header = http.Header
	bearer := func(token string, more ...string) header {
		h := header{"Authorization": {"Bearer " + token}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = append(h[more[i]], more[i+1]) // as it is: no canonical form
		}
		return h
	}
	identity := header{"X-Auth-Subject": {"u-17"}, "X-Auth-Email": {""}, "X-Auth-A-B-C-D": {"u-17"}}
	nobody := header{"X-Auth-Subject": {""}, "X-Auth-Email": {""}, "X-Auth-A-B-C-D": {""}}
	tests := map[string]struct {
		method, path, host string // GET, /orders/1, shop.example.com when empty
		header             header
		extensions         map[string]string
		status             int
		challenge          string
		identity           header
		reason             string
	}{
		"allow":       {header: bearer(good), status: 200, identity: identity},
		"a cookie":    {header: header{"Cookie": {"a=b; session=" + good}}, status: 200, identity: identity},
		"no token":    {status: 401, challenge: `Bearer realm="orders"`, reason: "no_credentials"},
		"a bad token": {header: bearer(bad), status: 401, challenge: `Bearer realm="orders", error="invalid_token"`, reason: "bad_signature"},
		"a token for others": {header: bearer(s.mint(t, jwt.MapClaims{"aud": "other"})), status: 401,
			challenge: `Bearer realm="orders", error="invalid_token"`, reason: "wrong_audience"},
		"a token that is over": {header: bearer(s.mint(t, jwt.MapClaims{"iat": start.Add(-time.Hour).Unix(), "exp": start.Add(-2 * time.Minute).Unix()})), status: 401,
			challenge: `Bearer realm="orders", error="invalid_token"`, reason: "expired"},
		"a scope that lacks": {method: "POST", header: bearer(good), status: 403,
			challenge: `Bearer realm="orders", error="insufficient_scope", scope="orders:write"`, reason: "insufficient_scope"},
		"a scope that is there":                {method: "POST", header: bearer(s.mint(t, jwt.MapClaims{"scope": "orders:write"})), status: 200, identity: identity},
		"an anonymous rule":                    {path: "/healthz", status: 200, identity: nobody},
		"an anonymous rule of another method":  {method: "PUT", path: "/healthz", status: 403, reason: "no_rule"},
		"a rule that denies":                   {path: "/internal", header: bearer(good), status: 403, reason: "access_denied"},
		"no rule":                              {path: "/other", header: bearer(good), status: 403, reason: "no_rule"},
		"a query is no path":                   {path: "/other?x=/orders", header: bearer(good), status: 403, reason: "no_rule"},
		"a rule by host":                       {host: "BACK.example.com.:80", header: bearer(good), status: 403, challenge: `Bearer realm="orders", error="insufficient_scope", scope="back"`, reason: "insufficient_scope"},
		"dot segments":                         {path: "/healthz/../orders", header: bearer(good), status: 403, reason: "path_ambiguous"},
		"encoded dot segments":                 {path: "/healthz/%2e%2e/internal", header: bearer(good), status: 403, reason: "path_ambiguous"},
		"an encoded slash":                     {path: "/healthz/..%2forders", header: bearer(good), status: 403, reason: "path_invalid"},
		"two slashes":                          {path: "//orders", header: bearer(good), status: 403, reason: "path_ambiguous"},
		"HEAD":                                 {method: "HEAD", header: bearer(good), status: 200, identity: identity},
		"preflight":                            {method: "OPTIONS", header: header{"Origin": {"https://a.example"}, "Access-Control-Request-Method": {"POST"}}, status: 401, challenge: `Bearer realm="orders"`, reason: "no_credentials"},
		"two Authorization lines":              {header: header{"Authorization": {"Bearer " + good, "Bearer " + good}}, status: 401, challenge: `Bearer realm="orders", error="invalid_request"`, reason: "several_credentials"},
		"a token in two places":                {header: bearer(good, "Cookie", "session="+good), status: 401, challenge: `Bearer realm="orders", error="invalid_request"`, reason: "several_credentials"},
		"a second cookie in a line of its own": {header: header{"Cookie": {"a=b", "session=" + bad + "; session=" + good}}, status: 401, challenge: `Bearer realm="orders", error="invalid_request"`, reason: "several_credentials"},
		"a cookie behind another line":         {header: header{"Cookie": {"a=b", "session=" + good}}, status: 200, identity: identity},
		"a client's own identity": {header: bearer(good, "X-Auth-Subject", "root", "X-Auth-Subject", "admin", "x-AUTH-email", "root@x",
			"X_Auth_Subject", "root", "x_auth-subject", "root", "X.Auth.Subject", "root", "X-Auth.Subject", "root", "X_AUTH.EMAIL", "root",
			"x_auth_a_b_c_d", "root", "x.auth.a.b.c.d", "root", "X-Auth_a.b-c_D", "root"), status: 200, identity: identity},
		"a client's own identity where nobody is known": {path: "/healthz", header: header{"X-Auth-Subject": {"root"}, "X_auth_subject": {"root"}}, status: 200, identity: nobody},
		"the Connection trick":                          {header: bearer(good, "Connection", "x-auth-subject, x-auth-email"), status: 200, identity: identity},
		"what a client says of the policy":              {header: bearer(good, "Keywright.dev/policy", "shop/open", "X-Original-Url", "http://x/healthz", "X-Forwarded-Uri", "/healthz"), path: "/internal", status: 403, reason: "access_denied"},
		"no policy":                                     {header: bearer(good), extensions: map[string]string{}, status: 403, reason: "policy_not_found"},
		"a policy that does not exist":                  {header: bearer(good), extensions: map[string]string{grpcauth.PolicyExtension: "shop/none"}, status: 403, reason: "policy_not_found"},
		"a policy in a path":                            {header: bearer(good), extensions: map[string]string{grpcauth.PolicyExtension: "x/../shop/orders"}, status: 403, reason: "policy_not_found"},
		"a huge token":                                  {header: bearer(strings.Repeat(".", 100_000)), status: 401, challenge: `Bearer realm="orders", error="invalid_token"`, reason: "too_large"},
	}
	for _, raw := range []bool{false, true} {
		kind := map[bool]string{false: "headers", true: "header_map"}[raw]
		for name, tc := range tests {
			t.Run(kind+"/"+name, func(t *testing.T) {
				var got header
				app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
				defer app.Close()
				upstream, err := url.Parse(app.URL)
				if err != nil {
					t.Fatal(err)
				}
				proxy := &envoy.Proxy{Service: w.client, Extensions: named, RawHeaders: raw, FailureModeAllow: true, Upstream: upstream}
				if tc.extensions != nil {
					proxy.Extensions = tc.extensions
				}
				or := func(s, otherwise string) string {
					if s == "" {
						return otherwise
					}
					return s
				}
				r := httptest.NewRequest(or(tc.method, "GET"), "/", nil)
				r.RequestURI, r.Host = or(tc.path, "/orders/1"), or(tc.host, "shop.example.com")
				for name, values := range tc.header {
					if lower := strings.ToLower(name); lower != "connection" && http.CanonicalHeaderKey(name) != name {
						name = http.CanonicalHeaderKey(name) // as net/http reads it
					}
					r.Header[name] = append(r.Header[name], values...)
				}
				w.logged = nil
				answer := httptest.NewRecorder()
				proxy.ServeHTTP(answer, r)

				reason := ""
				if len(w.logged) == 1 {
					reason = w.logged[0].Reason
				}
				if answer.Code != tc.status || reason != tc.reason || len(w.logged) > 1 {
					t.Errorf("got %d, reason %q, want %d, %q", answer.Code, reason, tc.status, tc.reason)
				}
				if challenge := answer.Header().Get("WWW-Authenticate"); challenge != tc.challenge || answer.Body.Len() != 0 {
					t.Errorf("challenge %q, want %q; body %q", challenge, tc.challenge, answer.Body)
				}
				if tc.status != 200 && answer.Header().Get("Cache-Control") != "no-store" {
					t.Error("a denial may be kept")
				}
				if (got != nil) != (tc.status == 200) {
					t.Fatalf("the application was reached: %v", got != nil)
				}
				arrived := header{}
				for name, values := range got {
					if strings.HasPrefix(strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name)), "x-auth") {
						arrived[name] = values
					}
				}
				if diff := cmp.Diff(tc.identity, arrived); diff != "" && (tc.identity != nil || len(arrived) > 0) {
					t.Errorf("identity (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestRotationAndRevocation(t *testing.T) {
	w, old := newShop(t)
	w.dial(t)
	next := newSigner(t, "k2")
	want := func(when string, s *signer, reason string) {
		t.Helper()
		w.logged = nil
		response, err := w.client.Check(t.Context(), check("GET", "/orders", map[string]string{"authorization": "Bearer " + s.mint(t, nil)}))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(w.logged) > 0 {
			got = w.logged[0].Reason
		}
		if got != reason || (response.GetStatus().GetCode() == 0) != (reason == "") {
			t.Errorf("%s, key %s: got %q, want %q", when, s.key.ID, got, reason)
		}
	}
	want("before", old, "")
	want("before", next, "unknown_key")
	w.keys(t, nil, old, next)
	want("published", old, "")
	want("published", next, "")
	w.keys(t, []string{"k1"}, next)
	want("revoked", old, "key_revoked")
	want("revoked", next, "")
	w.store.DeletePolicy(orders)
	want("without a policy", next, "policy_not_found")
}

func check(method, path string, headers map[string]string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: named,
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, Host: "shop.example.com", Headers: headers,
		}},
	}}
}

// wantDenial says whether a response denies in every way there is to read it.
func wantDenial(t *testing.T, response *authv3.CheckResponse, err error) {
	t.Helper()
	if err != nil || response.GetStatus().GetCode() == 0 || response.GetDeniedResponse() == nil {
		t.Errorf("got %v, %v", response, err)
		return
	}
	d := response.GetDeniedResponse()
	if status := d.GetStatus().GetCode(); status != 401 && status != 403 {
		t.Errorf("status %d", status)
	}
	if d.GetBody() != "" {
		t.Errorf("body %q", d.GetBody())
	}
}

func TestWhatLacksIsDenied(t *testing.T) {
	w, _ := newShop(t)
	tests := map[string]*authv3.CheckRequest{
		"nothing":       nil,
		"no attributes": {},
		"no request":    {Attributes: &authv3.AttributeContext{ContextExtensions: named}},
		"no http":       {Attributes: &authv3.AttributeContext{ContextExtensions: named, Request: &authv3.AttributeContext_Request{}}},
		"no fields":     check("", "", nil),
		"no line":       {Attributes: &authv3.AttributeContext{ContextExtensions: named, Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/orders", HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{nil}}}}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			response, err := w.server.Check(t.Context(), tc)
			wantDenial(t, response, err)
		})
	}
}

func TestFaultsAndRefusalsAreDenials(t *testing.T) {
	w, s := newShop(t)
	question := check("GET", "/orders", map[string]string{"authorization": "Bearer " + s.mint(t, nil)})
	log := w.server.Log
	tests := map[string]func(){
		"the log fails":   func() { w.server.LogAllowed, w.server.Log = true, func(authz.Request, authz.Decision) { panic("log") } },
		"the clock fails": func() { w.server.Clock = func() time.Time { panic("clock") } },
		"admission fails": func() {
			w.server.Admit = func(context.Context) *authz.Decision { panic(errors.New("admission")) }
		},
		"admission refuses": func() {
			w.server.Admit = func(context.Context) *authz.Decision {
				d := w.gate.Refuse(authz.ReasonOverloaded, nil)
				return &d
			}
		},
	}
	for name, breakIt := range tests {
		t.Run(name, func(t *testing.T) {
			whole := *w.server
			defer func() { *w.server = whole; w.server.Log = log }()
			breakIt()
			response, err := w.server.Check(t.Context(), question)
			wantDenial(t, response, err)
		})
	}
	if n := w.gate.Stats().Panics; n != 3 {
		t.Errorf("%d faults are counted, want 3", n)
	}
}

func TestRequestKeepsLinesApart(t *testing.T) {
	question := check("GET", "/orders", map[string]string{"Authorization": "a", "authorization": "b", ":path": "/x"})
	question.Attributes.Request.Http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "authorization", RawValue: []byte("c")}, {Key: "x", Value: "d", RawValue: []byte("e")}, {Key: "X", Value: "f"}, {Key: ":method", RawValue: []byte("GET")},
		{Key: "x-tenant", Value: "north"}, {Key: "x_tenant", Value: "south"}, {Key: "X.Tenant", Value: "west"},
	}}
	got := grpcauth.Request(question).Header
	for _, lines := range got {
		slices.Sort(lines)
	}
	want := map[string][]string{"Authorization": {"a", "b", "c"}, "X": {"d", "e", "f"},
		"X-Tenant": {"north"}, "X_tenant": {"south"}, "X.tenant": {"west"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

func FuzzCheck(f *testing.F) {
	w, s := newShop(f)
	good := s.mint(f, nil)
	seed := func(question *authv3.CheckRequest) {
		raw, err := proto.Marshal(question)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	seed(&authv3.CheckRequest{})
	seed(check("GET", "/orders", map[string]string{"authorization": "Bearer " + good}))
	seed(check("GET", "/orders", map[string]string{"authorization": "Bearer a,Bearer b", "cookie": "session=a,session=b", "x_auth_subject": "root"}))
	seed(check("OPTIONS", "/healthz/../%2e%2e//?x=%zz", map[string]string{"origin": "a"}))
	// RFC 7515 appendix A.1 and A.5.
	seed(check("GET", "/orders", map[string]string{"authorization": "Bearer eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}))
	seed(check("GET", "/orders", map[string]string{"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."}))
	raw := check("GET", "/orders", nil)
	raw.Attributes.Request.Http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "authorization", RawValue: []byte("Bearer " + good)}, {Key: "authorization", RawValue: []byte("\xff")}, {Key: "X.Auth_Subject", Value: "root"},
	}}
	seed(raw)
	f.Fuzz(func(t *testing.T, message []byte) {
		question := &authv3.CheckRequest{}
		if proto.Unmarshal(message, question) != nil {
			return
		}
		w.logged = nil
		response, err := w.server.Check(t.Context(), question)
		if len(w.logged) > 0 {
			wantDenial(t, response, err)
			if w.logged[0].Reason == authz.ReasonInternalError {
				t.Error("a fault")
			}
			return
		}
		ok := response.GetOkResponse()
		if err != nil || response.GetStatus() == nil || response.GetStatus().GetCode() != 0 || ok == nil {
			t.Fatalf("got %v, %v", response, err)
		}
		// Only these pass, and nothing that is set is removed again.
		names := map[string]bool{}
		for _, h := range ok.GetHeaders() {
			names[h.GetHeader().GetKey()] = true
		}
		if len(names) != 3 {
			t.Errorf("set are %v", names)
		}
		for _, name := range ok.GetHeadersToRemove() {
			if names[name] {
				t.Errorf("%s is set and removed", name)
			}
		}
		http := question.GetAttributes().GetRequest().GetHttp()
		if question.GetAttributes().GetContextExtensions()[grpcauth.PolicyExtension] != "shop/orders" {
			t.Errorf("allowed without its policy: %v", question)
		}
		all := http.String()
		if !strings.Contains(all, good) && (http.GetMethod() != "GET" && http.GetMethod() != "HEAD" || !strings.Contains(http.GetPath(), "healthz")) {
			t.Errorf("allowed without a token: %v", question)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	w, s := newShop(b)
	spec := shop()
	spec.Rules, spec.Identity.Headers = spec.Rules[4:], spec.Identity.Headers[:1]
	w.policy(b, orders, spec)
	question := check("GET", "/orders/1?x=1", map[string]string{
		"authorization": "Bearer " + s.mint(b, nil), ":authority": "shop.example.com", ":method": "GET", ":path": "/orders/1?x=1", ":scheme": "https",
		"accept": "*/*", "user-agent": "curl/8", "x-request-id": "4f6b", "x-forwarded-proto": "https", "x-forwarded-for": "10.0.0.1",
	})
	b.ReportAllocs()
	for b.Loop() {
		response, err := w.server.Check(context.Background(), question)
		if err != nil || response.GetStatus().GetCode() != 0 {
			b.Fatal(response, err)
		}
	}
}

func TestAReasonIsShownWhereThePolicyAsks(t *testing.T) {
	for shown, want := range map[bool]string{true: "no_credentials", false: ""} {
		out := grpcauth.Respond(nil, &authz.Decision{Status: 401, Reason: "no_credentials", ShowReason: shown})
		got := ""
		for _, h := range out.GetDeniedResponse().GetHeaders() {
			if h.GetHeader().GetKey() == "x-keywright-reason" {
				got = h.GetHeader().GetValue()
			}
		}
		if got != want {
			t.Errorf("shown %t: X-Keywright-Reason is %q, want %q", shown, got, want)
		}
	}
}
