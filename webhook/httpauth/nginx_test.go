package httpauth_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/httpauth"
	"github.com/keywright/keywright/webhook/policy"
)

// read takes a request as it comes over the wire.
func read(t *testing.T, target string, header ...string) *http.Request {
	t.Helper()
	raw := "GET " + target + " HTTP/1.1\r\nHost: gate\r\n" + strings.Join(append(header, "\r\n"), "\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	here   = "/auth/nginx/shop/orders?host=shop.example.com"
	url    = "X-Original-URL: https://shop.example.com/orders/1?x=1"
	method = "X-Original-Method: POST"
)

func TestNginx(t *testing.T) {
	orders := authz.Ref{Namespace: "shop", Name: "orders"}
	whole := authz.Request{
		Policy: orders, Target: "/orders/1?x=1", HasTarget: true, Method: "POST", HasMethod: true,
		Host: "shop.example.com", HasHost: true,
	}
	with := func(change func(*authz.Request)) authz.Request {
		r := whole
		change(&r)
		return r
	}
	noHost := with(func(r *authz.Request) { r.Host, r.HasHost = "", false })
	noTarget := with(func(r *authz.Request) { r.Host, r.HasHost, r.Target, r.HasTarget = "", false, "", false })
	target := func(target string) authz.Request { return with(func(r *authz.Request) { r.Target = target }) }
	host := func(host string) authz.Request { return with(func(r *authz.Request) { r.Host = host }) }

	tests := map[string]struct {
		target string
		header []string
		want   authz.Request
	}{
		"what ingress-nginx sends": {here, []string{url, method}, whole},
		"other fields of the client count for nothing": {here, []string{url, method,
			"X-Original-URI: /public", "X-Forwarded-Uri: /public", "X-Forwarded-Method: GET", "X-Forwarded-Host: evil", "X_Original_URL: http://x/public", "X-HTTP-Method-Override: GET"}, whole},
		"no method":                          {here, []string{url}, with(func(r *authz.Request) { r.Method, r.HasMethod = "", false })},
		"two methods":                        {here, []string{url, method, method}, with(func(r *authz.Request) { r.Method, r.HasMethod = "", false })},
		"a method in small letters stays":    {here, []string{url, "X-Original-Method: post"}, with(func(r *authz.Request) { r.Method = "post" })},
		"no URL":                             {here, []string{method}, noTarget},
		"two URLs":                           {here, []string{url, url, method}, noTarget},
		"another scheme":                     {here, []string{"X-Original-URL: ftp://shop.example.com/", method}, noTarget},
		"a path alone":                       {here, []string{"X-Original-URL: /orders/1", method}, noTarget},
		"no path":                            {here, []string{"X-Original-URL: http://shop.example.com", method}, noTarget},
		"a query that holds the first slash": {here, []string{"X-Original-URL: http://shop.example.com?x=/public", method}, noTarget},
		"a fragment in the authority":        {here, []string{"X-Original-URL: http://shop.example.com#/public", method}, noTarget},
		"a user in the authority":            {here, []string{"X-Original-URL: http://a@shop.example.com/x", method}, noTarget},
		"a list in the authority":            {here, []string{"X-Original-URL: http://shop.example.com,evil/x", method}, noTarget},
		"an empty authority (HTTP/1.0)":      {here, []string{"X-Original-URL: http:///x", method}, with(func(r *authz.Request) { r.Target, r.Host, r.HasHost = "/x", "", false })},
		"a raw path stays raw":               {here, []string{"X-Original-URL: http://shop.example.com/a/../b%2e//c?d=%2F#e", method}, target("/a/../b%2e//c?d=%2F#e")},
		"a path that looks like a URL":       {here, []string{"X-Original-URL: http://shop.example.com//evil.example/x", method}, target("//evil.example/x")},
		"a path with another URL in it":      {here, []string{"X-Original-URL: http://shop.example.com/http://x/public", method}, target("/http://x/public")},
		"no host in the query":               {"/auth/nginx/shop/orders", []string{url, method}, noHost},
		"an empty host in the query":         {"/auth/nginx/shop/orders?host=", []string{url, method}, noHost},
		"two hosts in the query":             {here + "&host=shop.example.com", []string{url, method}, noHost},
		"other parameters":                   {"/auth/nginx/shop/orders?a=b&host=shop.example.com&Host=x", []string{url, method}, whole},
		"another host than the URL's":        {"/auth/nginx/shop/orders?host=raw.example.com", []string{url, method}, noHost},
		"an encoded host":                    {"/auth/nginx/shop/orders?host=shop%2eexample.com", []string{url, method}, noHost},
		"a port, a dot and capitals differ": {"/auth/nginx/shop/orders?host=shop.example.com",
			[]string{"X-Original-URL: https://SHOP.example.com.:8443/orders/1?x=1", method}, host("shop.example.com")},
		"an absolute-form request that is routed by another host": {"/auth/nginx/shop/orders?host=raw.test",
			[]string{"X-Original-URL: http://plain.test/orders/1?x=1", method}, noHost},
		"an IPv6 host": {"/auth/nginx/shop/orders?host=[::1]",
			[]string{"X-Original-URL: http://[::1]:80/orders/1?x=1", method}, host("[::1]")},

		"no policy":                 {"/auth/nginx/shop", []string{url, method}, authz.Request{}},
		"an empty policy":           {"/auth/nginx/shop/", []string{url, method}, authz.Request{}},
		"an empty namespace":        {"/auth/nginx//orders", []string{url, method}, authz.Request{}},
		"something behind the name": {"/auth/nginx/shop/orders/x", []string{url, method}, authz.Request{}},
		"dot segments":              {"/auth/nginx/x/../shop/orders", []string{url, method}, authz.Request{}},
		"an encoded name":           {"/auth/nginx/shop/order%73", []string{url, method}, authz.Request{}},
		"capitals":                  {"/auth/nginx/Shop/orders", []string{url, method}, authz.Request{}},
		"two slashes":               {"//auth/nginx/shop/orders", []string{url, method}, authz.Request{}},
		"absolute form":             {"http://gate/auth/nginx/shop/orders", []string{url, method}, authz.Request{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := httpauth.Nginx(read(t, tc.target, tc.header...))
			if (got.Header == nil) != (got.Policy == authz.Ref{}) {
				t.Errorf("header %v of policy %s", got.Header, got.Policy)
			}
			got.Header = nil
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRespond(t *testing.T) {
	type header = map[string][]string
	tests := map[string]struct {
		d      authz.Decision
		status int
		header header
	}{
		"allow": {
			authz.Decision{Allowed: true, Status: 200, Identity: []policy.Header{{Field: policy.NewField("X-Auth-Subject"), Value: "u-17"}, {Field: policy.NewField("X-Auth-Email")}}},
			200, header{"X-Auth-Subject": {"u-17"}, "X-Auth-Email": {""}},
		},
		"allow without identity": {authz.Decision{Allowed: true, Status: 200}, 200, header{}},
		"no credentials": {
			authz.Decision{Status: 401, Challenge: authz.ChallengeBare, Realm: "orders"}, 401,
			header{"Www-Authenticate": {`Bearer realm="orders"`}},
		},
		"insufficient scope": {
			authz.Decision{Status: 403, Challenge: authz.ChallengeInsufficientScope, Realm: "a", Scopes: []string{"b", "c"}}, 403,
			header{"Www-Authenticate": {`Bearer realm="a", error="insufficient_scope", scope="b c"`}},
		},
		"a denial tells no identity": {authz.Decision{Status: 403, Identity: []policy.Header{{Field: policy.NewField("X-Auth-Subject"), Value: "u"}}}, 403, header{}},
		"a denial is never 200":      {authz.Decision{Status: 200}, 403, header{}},
		"a realm that is not clean":  {authz.Decision{Status: 401, Challenge: authz.ChallengeBare, Realm: "a\"\r\nX: y\\é"}, 401, header{"Www-Authenticate": {`Bearer realm="aX: y"`}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			httpauth.Respond(w, &tc.d)
			tc.header["Cache-Control"] = []string{"no-store"}
			if diff := cmp.Diff(tc.header, header(w.Header())); diff != "" || w.Code != tc.status || w.Body.Len() != 0 {
				t.Errorf("status %d, %d bytes, header (-want +got):\n%s", w.Code, w.Body.Len(), diff)
			}
		})
	}
}

func TestHandlerDeniesWhatNamesNoPolicy(t *testing.T) {
	gate := authz.NewGate(authz.NewStore(), authz.Options{CacheSize: 1, Clock: time.Now})
	defer gate.Close()
	logged := 0
	h := &httpauth.Handler{
		Gate: gate, Clock: time.Now, Took: func(time.Duration) {},
		Log: func(_ authz.Request, d authz.Decision) {
			if logged++; d.Reason != "policy_not_found" {
				t.Errorf("got reason %s", d.Reason)
			}
		},
	}
	targets := []string{"/auth/", "/auth/nginx/", "/auth/nginx/a/b/c", "/auth/forward/a/b", "/auth/nginx/a/b", "/auth/nginx/%zz/b?host=%zz", "/auth/../keys"}
	for _, target := range targets {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, &http.Request{Method: "GET", RequestURI: target, Header: http.Header{}})
		if w.Code != 403 {
			t.Errorf("%s: got %d", target, w.Code)
		}
	}
	if logged != len(targets) {
		t.Errorf("%d decisions were logged, want %d", logged, len(targets))
	}
}

func FuzzNginx(f *testing.F) {
	f.Add(here, "https://shop.example.com/orders/1?x=1")
	f.Add("/auth/nginx/a/b?host=a&host=b", "http://a?b=/c")
	f.Fuzz(func(t *testing.T, target, original string) {
		r := httpauth.Nginx(&http.Request{RequestURI: target, Header: http.Header{"X-Original-Url": {original}}})
		if r.HasTarget && (!strings.HasSuffix(original, r.Target) || r.Target[0] != '/') {
			t.Errorf("target %q of %q", r.Target, original)
		}
		if r.HasHost && !strings.Contains(target, "host="+r.Host) {
			t.Errorf("host %q of %q", r.Host, target)
		}
	})
}
