//go:build linux

package gate

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// ask is a request about a sample, as nginx would ask, and the gate's answer.
type ask struct {
	// method is GET when empty, target / when empty; host is that of the
	// client.
	method, target, host string
	header               []string
	status               int
	// want are header fields of the answer.
	want map[string]string
}

// samples has, for each policy of config/samples, requests that pass and
// requests that do not. {name} in them stands for a token of sampleTokens.
var samples = map[string][]ask{
	"accesspolicy-cookie.yaml": {
		{header: []string{"Cookie: session={plain}"}, status: 200},
		{header: []string{"Cookie: session={plain}", "Authorization: Bearer {plain}"}, status: 401},
	},
	"accesspolicy-cel.yaml": {
		{target: "/users/u-17/orders", header: []string{"Authorization: Bearer {plain}"}, status: 200},
		{target: "/users/u-18/orders", header: []string{"Authorization: Bearer {plain}"}, status: 403},
		{target: "/", header: []string{"Authorization: Bearer {plain}"}, status: 403},
		{target: "/", header: []string{"Authorization: Bearer {mfa}"}, status: 200, want: map[string]string{"X-Auth-Groups": "a,b"}},
	},
	"accesspolicy-headers.yaml": {
		{header: []string{"Authorization: Bearer {tenant}", "X-Tenant: north"}, status: 200, want: map[string]string{"X-Auth-Client-Version": ""}},
		{header: []string{"Authorization: Bearer {tenant}", "X-Tenant: north", "X-Client-Version: 7"}, status: 200, want: map[string]string{"X-Auth-Client-Version": "7"}},
		{header: []string{"Authorization: Bearer {tenant}", "X-Tenant: south"}, status: 403},
		{header: []string{"Authorization: Bearer {tenant}"}, status: 403},
		{header: []string{"Authorization: Bearer {tenant}", "X-Tenant: north", "X-Tenant: north"}, status: 403},
		{header: []string{"Authorization: Bearer {tenant}", "X-Tenant: north", "X-Client-Version: 7", "X-Client-Version: 8"}, status: 403},
	},
	"accesspolicy-hosts.yaml": {
		{host: "www.shop.example", target: "/assets/a.css", status: 200},
		{host: "WWW.shop.example.:443", target: "/assets/a.css", status: 200},
		{host: "www.shop.example", target: "/v1/x", header: []string{"Authorization: Bearer {plain}"}, status: 403},
		{host: "admin.shop.example", target: "/", header: []string{"Authorization: Bearer {plain}"}, status: 403},
		{host: "other.example", target: "/", header: []string{"Authorization: Bearer {plain}"}, status: 403},
	},
	"accesspolicy-revoked-tokens.yaml": {
		{header: []string{"Authorization: Bearer {jti}"}, status: 200},
		{header: []string{"Authorization: Bearer {lost}"}, status: 401},
	},
	"accesspolicy-scopes.yaml": {
		{header: []string{"Authorization: Bearer {reads}"}, status: 200},
		{method: "POST", header: []string{"Authorization: Bearer {reads}"}, status: 403},
	},
	"accesspolicy-query.yaml": {
		{target: "/events?access_token={plain}", status: 200},
		{target: "/events", header: []string{"Authorization: Bearer {plain}"}, status: 200},
		{target: "/events?access_token={plain}", header: []string{"Authorization: Bearer {plain}"}, status: 401},
		{target: "/events?access_token={plain}&access_token={plain}", status: 401},
		{target: "/events", status: 401},
	},
	"accesspolicy-websocket.yaml": {
		{header: []string{"Sec-WebSocket-Protocol: chat, bearer.{plain}"}, status: 200},
		{header: []string{"Sec-WebSocket-Protocol: bearer.{plain}, bearer.{plain}"}, status: 401},
		{header: []string{"Sec-WebSocket-Protocol: chat"}, status: 401},
	},
	"accesspolicy-preflight.yaml": {
		{method: "OPTIONS", target: "/orders", header: []string{"Origin: https://a.example", "Access-Control-Request-Method: POST"}, status: 200},
		{method: "OPTIONS", target: "/internal", header: []string{"Origin: https://a.example", "Access-Control-Request-Method: POST"}, status: 403},
		{method: "OPTIONS", target: "/orders", header: []string{"Origin: https://a.example", "Access-Control-Request-Method: DELETE"}, status: 403},
		{method: "POST", target: "/orders", header: []string{"Origin: https://a.example", "Access-Control-Request-Method: POST"}, status: 401},
	},
	"accesspolicy-decision-cache.yaml": {
		{header: []string{"Authorization: Bearer {plain}"}, status: 200, want: map[string]string{"Cache-Control": "max-age=30", "Vary": "Authorization"}},
		{status: 401, want: map[string]string{"Cache-Control": "no-store", "Vary": ""}},
	},
	"accesspolicy-reason-header.yaml": {
		{status: 401, want: map[string]string{"X-Keywright-Reason": "no_credentials"}},
		{header: []string{"Authorization: Bearer {plain}"}, status: 200, want: map[string]string{"X-Keywright-Reason": ""}},
	},
	// Nobody is there: tokens of such an issuer may pass later, others never.
	// TestKeysOfOtherIssuers has issuers that are.
	"accesspolicy-oidc.yaml": {
		{header: []string{"Authorization: Bearer {plain}"}, status: 401},
		{header: []string{"Authorization: Bearer {other}"}, status: 403},
	},
	"accesspolicy-access-token.yaml": {
		{header: []string{"Authorization: Bearer {plain}"}, status: 401},
		{header: []string{"Authorization: Bearer {access}"}, status: 200},
	},
}

// sampleTokens are of the SigningKey shop.
func sampleTokens(ctx context.Context) (map[string]string, error) {
	shop, err := readSigner(ctx, "shop", "shop-signing")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, extra := range map[string]jwt.MapClaims{
		"plain":  nil,
		"mfa":    {"amr": []string{"mfa"}, "groups": []string{"a", "b"}},
		"reads":  {"scope": "orders:read"},
		"tenant": {"tenant": "north"},
		"jti":    {"sub": "u-18", "jti": "other"},
		"lost":   {"sub": "u-18", "jti": "5b1c8a52-4b0e-4a43-9d0a-3f1de0c3a7ab"},
		"access": {"client_id": "web", "jti": "1"},
		"other":  {"iss": "https://accounts.example.com"},
	} {
		by := *shop
		if name == "access" {
			by.typ = "at+jwt"
		}
		if out[name], err = by.sign(shop.claims(time.Now(), 50*time.Minute, extra)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// TestSamples applies each sample of an AccessPolicy and asks the gate about
// requests that it is for.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(stack.Root(), "config", "samples", "accesspolicy-*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("finding samples: %v, %v", files, err)
	}
	tokens, err := sampleTokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expand := func(text string) string {
		for name, token := range tokens {
			text = strings.ReplaceAll(text, "{"+name+"}", token)
		}
		return text
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			asks := samples[name]
			if len(asks) == 0 {
				t.Fatal("no request exercises this sample")
			}
			if _, _, err := env.Plane.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "-f", file); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if _, _, err := env.Plane.Kubectl(context.WithoutCancel(t.Context()), "delete", "-f", file); err != nil {
					t.Error(err)
				}
			})
			out, _, err := env.Plane.Kubectl(t.Context(), "get", "-f", file, "-o", "jsonpath={.metadata.name}")
			if err != nil {
				t.Fatal(err)
			}
			policy := string(out)
			if err := awaitReady(t.Context(), &v1alpha1.AccessPolicy{}, "shop", policy); err != nil {
				t.Fatal(err)
			}
			for i, a := range asks {
				if a.method == "" {
					a.method = http.MethodGet
				}
				if a.target == "" {
					a.target = "/"
				}
				if a.host == "" {
					a.host = "shop.test"
				}
				check := func() error {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.gate.URL+"/auth/nginx/shop/"+policy+"?host="+a.host, nil)
					if err != nil {
						return err
					}
					req.Header.Set("X-Original-URL", "https://"+a.host+expand(a.target))
					req.Header.Set("X-Original-Method", a.method)
					for _, line := range a.header {
						key, value, _ := strings.Cut(expand(line), ": ")
						req.Header.Add(key, value)
					}
					resp, err := verifier(t).Do(req)
					if err != nil {
						return err
					}
					_ = resp.Body.Close() // there is none
					if resp.StatusCode != a.status {
						return fmt.Errorf("request %d: status %d (%s), want %d", i, resp.StatusCode, resp.Header.Get("WWW-Authenticate"), a.status)
					}
					for key, want := range a.want {
						if got := resp.Header.Get(key); got != want {
							return fmt.Errorf("request %d: %s is %q, want %q", i, key, got, want)
						}
					}
					return nil
				}
				if i == 0 { // the gate may hear of the policy later than the controller
					await(t, "the gate to answer by the sample", check)
				} else if err := check(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
