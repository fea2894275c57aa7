package httpauth_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/httpauth"
)

var orders = authz.Ref{Namespace: "shop", Name: "orders"}

// asks compares what a caller is understood to ask.
func asks(t *testing.T, got, want authz.Request) {
	t.Helper()
	if (got.Header == nil) != (got.Policy == authz.Ref{}) {
		t.Errorf("header %v of policy %s", got.Header, got.Policy)
	}
	got.Header = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

// A header under another spelling denies where a rule asks for it, so each
// caller's request has to show it.
func TestSpellingsOfAHeaderAreSeen(t *testing.T) {
	for prefix, ask := range map[string]func(*http.Request) authz.Request{
		httpauth.NginxPrefix: httpauth.Nginx, httpauth.ForwardPrefix: httpauth.Forward,
		httpauth.EnvoyPrefix: httpauth.Envoy, httpauth.TokenPrefix: httpauth.Token,
	} {
		target := prefix + "shop/orders"
		if prefix == httpauth.EnvoyPrefix {
			target += "/"
		}
		got := ask(read(t, target, "X-Tenant: north", "X_Tenant: south", "x.tenant: west")).Header
		for name, want := range map[string]string{"X-Tenant": "north", "X_tenant": "south", "X.tenant": "west"} {
			if len(got[name]) != 1 || got[name][0] != want {
				t.Errorf("%s: %s is %v, want %s alone", prefix, name, got[name], want)
			}
		}
	}
}

func TestForward(t *testing.T) {
	const (
		here   = "/auth/forward/shop/orders"
		method = "X-Forwarded-Method: POST"
		host   = "X-Forwarded-Host: shop.example.com"
		uri    = "X-Forwarded-Uri: /orders/1?x=1"
	)
	with := func(change func(*authz.Request)) authz.Request {
		r := authz.Request{
			Policy: orders, Method: "POST", HasMethod: true, Target: "/orders/1?x=1", HasTarget: true, Host: "shop.example.com", HasHost: true,
		}
		if change != nil {
			change(&r)
		}
		return r
	}
	whole := with(nil)
	noMethod := with(func(r *authz.Request) { r.Method, r.HasMethod = "", false })
	noTarget := with(func(r *authz.Request) { r.Target, r.HasTarget = "", false })
	noHost := with(func(r *authz.Request) { r.Host, r.HasHost = "", false })
	tests := map[string]struct {
		target string
		header []string
		want   authz.Request
	}{
		"what Traefik and Caddy send": {here, []string{method, host, uri, "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1"}, whole},
		"other fields of the client count for nothing": {here, []string{method, host, uri,
			"X-Original-URL: http://evil/public", "X-Original-Method: GET", "X-Original-URI: /public", "X_Forwarded_Uri: /public", "X-Forwarded-Prefix: /a", "Forwarded: host=evil"}, whole},
		"a query of its own counts for nothing": {here + "?host=evil&policy=x", []string{method, host, uri}, whole},
		"only the fields of nginx":              {here, []string{"X-Original-URL: http://shop.example.com/orders/1", "X-Original-Method: GET"}, authz.Request{Policy: orders}},
		"no method":                             {here, []string{host, uri}, noMethod},
		"two methods":                           {here, []string{method, method, host, uri}, noMethod},
		"a method in small letters stays":       {here, []string{"X-Forwarded-Method: post", host, uri}, with(func(r *authz.Request) { r.Method = "post" })},
		"no target":                             {here, []string{method, host}, noTarget},
		"two targets":                           {here, []string{method, host, uri, uri}, noTarget},
		"an empty target":                       {here, []string{method, host, "X-Forwarded-Uri:"}, noTarget},
		"a whole URL":                           {here, []string{method, host, "X-Forwarded-Uri: http://shop.example.com/orders/1"}, noTarget},
		"the target of OPTIONS *":               {here, []string{method, host, "X-Forwarded-Uri: *"}, noTarget},
		"a raw path stays raw":                  {here, []string{method, host, "X-Forwarded-Uri: //a/../b%2e?c=/#e"}, with(func(r *authz.Request) { r.Target = "//a/../b%2e?c=/#e" })},
		"no host":                               {here, []string{method, uri}, noHost},
		"two hosts":                             {here, []string{method, host, host, uri}, noHost},
		"a list of hosts, as trusted proxies make": {here, []string{method, "X-Forwarded-Host: evil, shop.example.com", uri}, noHost},
		"a host with a user":                       {here, []string{method, "X-Forwarded-Host: a@shop.example.com", uri}, noHost},
		"a host with a port":                       {here, []string{method, "X-Forwarded-Host: shop.example.com:8443", uri}, with(func(r *authz.Request) { r.Host = "shop.example.com:8443" })},
		"no policy":                                {"/auth/forward/shop", []string{method, host, uri}, authz.Request{}},
		"something behind the name":                {here + "/x", []string{method, host, uri}, authz.Request{}},
		"dot segments":                             {"/auth/forward/x/../shop/orders", []string{method, host, uri}, authz.Request{}},
		"an encoded name":                          {"/auth/forward/shop/order%73", []string{method, host, uri}, authz.Request{}},
		"absolute form":                            {"http://gate" + here, []string{method, host, uri}, authz.Request{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			asks(t, httpauth.Forward(read(t, tc.target, tc.header...)), tc.want)
		})
	}
}

func TestEnvoy(t *testing.T) {
	const here = "/auth/envoy/shop/orders"
	whole := func(method, target string) authz.Request {
		return authz.Request{Policy: orders, Method: method, HasMethod: true, Target: target, HasTarget: target != "", Host: "shop.example.com", HasHost: true}
	}
	noHost := whole("GET", "/")
	noHost.Host, noHost.HasHost = "", false
	tests := map[string]struct {
		method, target, host string
		header               http.Header
		want                 authz.Request
	}{
		"a path and a query":               {"POST", here + "/orders/1?x=1", "shop.example.com", nil, whole("POST", "/orders/1?x=1")},
		"the root":                         {"GET", here + "/", "shop.example.com", nil, whole("GET", "/")},
		"a path with another policy in it": {"GET", here + "/../public/x", "shop.example.com", nil, whole("GET", "/../public/x")},
		"a path that looks like a host":    {"GET", here + "//evil/x", "shop.example.com", nil, whole("GET", "//evil/x")},
		"a raw path stays raw":             {"GET", here + "/a%2e%2e//b;c?d=/%2F", "shop.example.com", nil, whole("GET", "/a%2e%2e//b;c?d=/%2F")},
		"an odd method":                    {"PROPFIND", here + "/x", "shop.example.com", nil, whole("PROPFIND", "/x")},
		"a HEAD request":                   {"HEAD", here + "/x", "shop.example.com", nil, whole("HEAD", "/x")},
		"headers count for nothing": {"GET", here + "/x", "shop.example.com", http.Header{
			"X-Forwarded-Host": {"evil"}, "X-Forwarded-Uri": {"/public"}, "X-Forwarded-Method": {"HEAD"}, "X-Original-Url": {"http://evil/public"},
			"X-Original-Method": {"HEAD"}, "X-Envoy-Original-Path": {"/public"}, "X-Http-Method-Override": {"HEAD"},
		}, whole("GET", "/x")},
		"no path":                         {"GET", here, "shop.example.com", nil, whole("GET", "")},
		"a query and no path":             {"GET", here + "?x=/public", "shop.example.com", nil, whole("GET", "")},
		"no host":                         {"GET", here + "/", "", nil, noHost},
		"a host that is none":             {"GET", here + "/", "a,b", nil, noHost},
		"no policy":                       {"GET", "/auth/envoy/shop", "shop.example.com", nil, authz.Request{}},
		"an empty policy":                 {"GET", "/auth/envoy/shop//orders", "shop.example.com", nil, authz.Request{}},
		"an empty namespace":              {"GET", "/auth/envoy//shop/orders", "shop.example.com", nil, authz.Request{}},
		"dot segments instead of a name":  {"GET", "/auth/envoy/shop/../orders", "shop.example.com", nil, authz.Request{Policy: authz.Ref{Namespace: "shop", Name: ".."}, Method: "GET", HasMethod: true, Target: "/orders", HasTarget: true, Host: "shop.example.com", HasHost: true}},
		"something that joins the name":   {"OPTIONS", here + "*", "shop.example.com", nil, authz.Request{}},
		"an encoded slash joins the name": {"GET", here + "%2Fx", "shop.example.com", nil, authz.Request{}},
		"absolute form":                   {"GET", "http://gate" + here + "/x", "shop.example.com", nil, authz.Request{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.header == nil {
				tc.header = http.Header{}
			}
			asks(t, httpauth.Envoy(&http.Request{Method: tc.method, RequestURI: tc.target, Host: tc.host, Header: tc.header}), tc.want)
		})
	}
}

func TestToken(t *testing.T) {
	const here = "/auth/token/shop/orders"
	tests := map[string]struct {
		target string
		header []string
		want   authz.Request
	}{
		"what HAProxy sends": {here, []string{"Authorization: Bearer x"}, authz.Request{Policy: orders}},
		"nothing that is said of the request is believed": {here + "?host=shop.example.com", []string{
			"X-Original-URL: http://shop.example.com/public", "X-Original-Method: GET",
			"X-Forwarded-Uri: /public", "X-Forwarded-Method: GET", "X-Forwarded-Host: shop.example.com",
		}, authz.Request{Policy: orders}},
		"no policy":                 {"/auth/token/shop", nil, authz.Request{}},
		"something behind the name": {here + "/x", nil, authz.Request{}},
		"dot segments":              {"/auth/token/x/../shop/orders", nil, authz.Request{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			asks(t, httpauth.Token(read(t, tc.target, tc.header...)), tc.want)
		})
	}
}

// TestHeadersOfAnswers looks at what goes over the wire: HAProxy puts every
// header of an answer on the request, and so does what configures Envoy with an
// empty list of them.
func TestHeadersOfAnswers(t *testing.T) {
	gate := authz.NewGate(authz.NewStore(), authz.Options{CacheSize: 1, Clock: time.Now})
	defer gate.Close()
	server := httptest.NewServer(&httpauth.Handler{
		Gate: gate, Clock: time.Now, Took: func(time.Duration) {}, Log: func(authz.Request, authz.Decision) {},
	})
	defer server.Close()
	tests := map[string]struct {
		target string
		want   []string
	}{
		"to nginx":        {"/auth/nginx/shop/orders", []string{"Cache-Control", "Content-Length", "Date"}},
		"to Traefik":      {"/auth/forward/shop/orders", []string{"Cache-Control", "Content-Length", "Date"}},
		"to Envoy":        {"/auth/envoy/shop/orders/x", []string{"Cache-Control", "Content-Length"}},
		"to HAProxy":      {"/auth/token/shop/orders", []string{"Cache-Control", "Content-Length"}},
		"to nobody known": {"/auth/other/shop/orders", []string{"Cache-Control", "Content-Length", "Date"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+tc.target, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close() //nolint:errcheck // it is empty
			for _, name := range tc.want {
				if resp.Header.Get(name) == "" {
					t.Errorf("no %s", name)
				}
			}
			if len(resp.Header) != len(tc.want) || resp.StatusCode != http.StatusForbidden {
				t.Errorf("status %d, header %v, want %v", resp.StatusCode, resp.Header, tc.want)
			}
		})
	}
}

func FuzzForward(f *testing.F) {
	f.Add("/auth/forward/shop/orders", "GET", "shop.example.com", "/orders/1?x=1")
	f.Add("/auth/forward/a/b?c", "get", "a,b", "http://x/y")
	f.Fuzz(func(t *testing.T, target, method, host, uri string) {
		r := httpauth.Forward(&http.Request{RequestURI: target, Header: http.Header{
			"X-Forwarded-Method": {method}, "X-Forwarded-Host": {host}, "X-Forwarded-Uri": {uri},
		}})
		if r.HasTarget && (r.Target != uri || uri[0] != '/') || r.HasHost && (r.Host != host || !httpauth.IsAuthority(host)) || r.HasMethod && r.Method != method {
			t.Errorf("%+v of %q %q %q", r, method, host, uri)
		}
		if (r.Policy != authz.Ref{}) && !strings.HasPrefix(target, httpauth.ForwardPrefix+r.Policy.Namespace+"/"+r.Policy.Name) {
			t.Errorf("policy %s of %q", r.Policy, target)
		}
	})
}

func FuzzEnvoy(f *testing.F) {
	f.Add("/auth/envoy/shop/orders", "/orders/1?x=1", "shop.example.com")
	f.Add("/auth/envoy/a/b", "/../c/d/", "a:b")
	f.Fuzz(func(t *testing.T, prefix, path, host string) {
		r := httpauth.Envoy(&http.Request{Method: "GET", RequestURI: prefix + path, Host: host, Header: http.Header{}})
		if r.HasTarget && (r.Target[0] != '/' || httpauth.EnvoyPrefix+r.Policy.Namespace+"/"+r.Policy.Name+r.Target != prefix+path) {
			t.Errorf("%+v of %q", r, prefix+path)
		}
		// A path of a proxy begins with a slash: whatever a client asks for, behind a whole prefix it is the target.
		of := httpauth.Envoy(&http.Request{Method: "GET", RequestURI: "/auth/envoy/shop/orders/" + path, Host: host, Header: http.Header{}})
		if of.Policy != orders || of.Target != "/"+path {
			t.Errorf("%q is understood as %+v", path, of)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add("/auth/token/shop/orders", "/public")
	f.Fuzz(func(t *testing.T, target, uri string) {
		r := httpauth.Token(&http.Request{RequestURI: target, Method: "GET", Host: "x", Header: http.Header{
			"X-Original-Url": {uri}, "X-Forwarded-Uri": {uri}, "X-Original-Method": {"GET"},
		}})
		if r.HasTarget || r.HasHost || r.HasMethod {
			t.Errorf("%+v of %q", r, target)
		}
	})
}
