package policy

import (
	"testing"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
)

// decided is what the benchmarks and the allocation test decide: one path
// rule, two scopes, as for most requests.
func decided(t testing.TB) (*Policy, *Request, *token.Claims) {
	p := mustCompile(t, v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{{
		Name:  "orders",
		Match: []v1alpha1.Match{{Methods: []string{"GET"}, Hosts: []string{"shop.example.com"}, Paths: []v1alpha1.PathMatch{{Prefix: "/orders"}}}},
		Require: &v1alpha1.Requirements{
			Scopes: []string{"orders:read", "orders:list"},
			Claims: []v1alpha1.ClaimRequirement{{Path: "org.id", AnyOf: []string{"41", "42"}}},
		},
	}}})
	req := targetRequest(t, "GET", "/orders/1234?full=true")
	req.Host, req.HasHost = "shop.example.com", true
	return p, req, claimsOf(object{"sub": "u1", "scope": "openid orders:list orders:read", "org": map[string]any{"id": int64(42)}})
}

func decide(p *Policy, req *Request, claims *token.Claims) error {
	rule, err := p.Select(req)
	if err != nil {
		return err
	}
	return rule.Evaluate(claims, req)
}

func TestADecisionWithoutExpressionsDoesNotAllocate(t *testing.T) {
	p, req, claims := decided(t)
	got := testing.AllocsPerRun(100, func() {
		if err := decide(p, req, claims); err != nil {
			t.Error(err)
		}
		if _, _, _, err := ParseTarget("/orders/1234?full=true"); err != nil {
			t.Error(err)
		}
		if _, err := NormalizeHost("shop.example.com:443"); err != nil {
			t.Error(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	p, req, claims := decided(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := decide(p, req, claims); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecideWithExpression(b *testing.B) {
	p := mustCompile(b, requireCEL("claims.amr.exists(m, m == 'mfa') && request.path.startsWith('/orders')"))
	_, req, _ := decided(b)
	claims := claimsOf(object{"sub": "u1", "amr": []any{"pwd", "mfa"}})
	b.ReportAllocs()
	for b.Loop() {
		req.cost = meter{} // one request is for one decision
		if err := decide(p, req, claims); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIdentityHeaders(b *testing.B) {
	p := mustCompile(b, v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{
		Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Subject", Claim: "sub"}},
	}})
	_, req, claims := decided(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.IdentityHeaders(claims, req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseTarget(b *testing.B) {
	for name, target := range map[string]string{"plain": "/orders/1234?full=true", "encoded": "/orders/caf%C3%A9/me%40example.com?full=true"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, _, err := ParseTarget(target); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
