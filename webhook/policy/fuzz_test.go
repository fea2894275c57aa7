package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
	"github.com/keywright/keywright/webhook/trace"
)

// FuzzPolicy: no spec panics, whatever it says and whatever is asked of it; one
// that compiles decides about each request, the same with a trace as without;
// and what it denies has a reason.
func FuzzPolicy(f *testing.F) {
	samples, err := filepath.Glob("../../config/samples/accesspolicy-*.yaml")
	if err != nil || len(samples) == 0 {
		f.Fatalf("finding samples: %v, %v", samples, err)
	}
	for _, file := range samples {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var ap struct{ Spec json.RawMessage }
		if err := yaml.Unmarshal(raw, &ap); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(ap.Spec), "GET", "www.shop.example", "/users/u-17/orders?access_token=x")
		f.Add([]byte(ap.Spec), "OPTIONS", "admin.shop.example:443", "/assets/../v1")
	}
	f.Add([]byte(`{"issuers":[{"signingKeyRef":{"name":"a"}}],"rules":[{"name":"","match":[{}]},{"name":"b","require":{"claims":[{"path":"a.b","allOf":["x"]}]}}]}`), "", "", "/")
	claims := claimsOf(object{"sub": "u-17", "scope": "orders:read", "roles": []any{"admin"}, "org": map[string]any{"id": int64(42)}})
	f.Fuzz(func(t *testing.T, raw []byte, method, host, target string) {
		var spec v1alpha1.AccessPolicySpec
		if json.Unmarshal(raw, &spec) != nil {
			return
		}
		p, err := Compile("shop", "orders", &spec)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "compiling AccessPolicy shop/orders: ") {
				t.Fatalf("error %q does not say what was done", err)
			}
			return
		}
		if len(p.Credentials()) == 0 || len(p.Issuers()) == 0 || p.CacheFor() > 0 && p.Rules() > 0 {
			t.Fatalf("credentials %v, issuers %v, kept for %s with %d rules", p.Credentials(), p.Issuers(), p.CacheFor(), p.Rules())
		}
		req := &Request{Method: method}
		if path, query, ambiguous, err := ParseTarget(target); err == nil {
			req.Path, req.Query, req.Ambiguous, req.HasPath = path, query, ambiguous, true
		}
		if name, err := NormalizeHost(host); err == nil {
			req.Host, req.HasHost = name, true
		}
		decide := func(asked *Request, claims *token.Claims) string {
			one := *asked // what a decision costs is its own
			req := &one
			rule, err := p.Select(req)
			if err == nil {
				if err = rule.Evaluate(claims, req); err == nil {
					_, err = p.IdentityHeaders(claims, req)
				}
			}
			if req.cost.spent > CostLimit+1 {
				t.Fatalf("costs %d", req.cost.spent)
			}
			reason := Reason(err)
			if reason == "internal" {
				t.Fatalf("a denial without a reason: %v", err)
			}
			return reason
		}
		traced := *req
		traced.Trace = &trace.Trace{}
		for _, claims := range []*token.Claims{nil, {}, claims} {
			if got, want := decide(&traced, claims), decide(req, claims); got != want {
				t.Fatalf("%q with a trace, %q without", got, want)
			}
		}
	})
}
