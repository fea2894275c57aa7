package authz_test

import (
	"maps"
	"testing"

	"github.com/keywright/keywright/api/v1alpha1"
)

func TestHeadersThatExpressionsAskFor(t *testing.T) {
	w, s := newShop(t)
	w.policy(orders, v1alpha1.AccessPolicySpec{
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
		Rules: []v1alpha1.Rule{{Name: "own", Require: &v1alpha1.Requirements{Expressions: []v1alpha1.Expression{
			{CEL: "request.headers['x-tenant'] == claims.tenant"},
		}}}},
	})
	good := s.mint(t, map[string]any{"tenant": "north"})
	for name, tc := range map[string]struct {
		tenant []string
		more   map[string][]string
		want   string
	}{
		"the token's tenant":       {tenant: []string{"north"}},
		"another tenant":           {tenant: []string{"south"}, want: "expression_false"},
		"no tenant":                {want: "expression_error"},
		"the token's tenant twice": {tenant: []string{"north", "north"}, want: "header_repeated"},
		"a tenant with '_' beside": {tenant: []string{"north"}, more: map[string][]string{"X_tenant": {"south"}}, want: "header_repeated"},
		"a tenant with '.' beside": {tenant: []string{"north"}, more: map[string][]string{"X.tenant": {"south"}}, want: "header_repeated"},
		"a tenant with '_' alone":  {more: map[string][]string{"X_tenant": {"north"}}, want: "header_repeated"},
	} {
		t.Run(name, func(t *testing.T) {
			header := bearer(good)
			if tc.tenant != nil {
				header["X-Tenant"] = tc.tenant
			}
			maps.Copy(header, tc.more)
			for range 4 {
				d := w.want(get("/", header), tc.want)
				if tc.want != "" && (d.Status != 403 || d.Rule != "own") {
					t.Errorf("status %d, rule %q", d.Status, d.Rule)
				}
			}
		})
	}
}
