package authz_test

import (
	"testing"

	"github.com/keywright/keywright/api/v1alpha1"
)

// What some server reads by a credential's name is a second one.
func TestNoSecondCredentialHidesBehindASpelling(t *testing.T) {
	w, s := newShop(t)
	w.policy(orders, v1alpha1.AccessPolicySpec{
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
		Credentials: []v1alpha1.Credential{
			{Cookie: &v1alpha1.CookieCredential{Name: "my.session"}},
			{Header: &v1alpha1.HeaderCredential{Name: "X-Api-Token"}},
		},
	})
	good := s.mint(t, nil)
	const several = "several_credentials"
	for name, tc := range map[string]struct {
		header map[string][]string
		want   string
	}{
		"the cookie":                     {header: map[string][]string{"Cookie": {"my.session=" + good + "; other=x"}}},
		"a cookie that PHP reads so":     {header: map[string][]string{"Cookie": {"my.session=" + good + "; my_session=x"}}, want: several},
		"a cookie in another line":       {header: map[string][]string{"Cookie": {"my_session=x", "my.session=" + good}}, want: several},
		"a cookie in another case":       {header: map[string][]string{"Cookie": {"my.session=" + good + "; My.Session=x"}}, want: several},
		"a cookie as a list":             {header: map[string][]string{"Cookie": {"my.session=" + good + "; my.session[]=x"}}, want: several},
		"a cookie that is encoded":       {header: map[string][]string{"Cookie": {"my.session=" + good + "; my%2esession=x"}}, want: several},
		"a cookie whose name is longer":  {header: map[string][]string{"Cookie": {"my.session=" + good + "; my.session2=x"}}},
		"the cookie, spelled in its way": {header: map[string][]string{"Cookie": {"my_session=" + good}}, want: "no_credentials"},
		"the header":                     {header: map[string][]string{"X-Api-Token": {good}}},
		"a header with '_' beside it":    {header: map[string][]string{"X-Api-Token": {good}, "X_api_token": {"x"}}, want: several},
		"a header with '.' beside it":    {header: map[string][]string{"X-Api-Token": {good}, "X-Api.token": {"x"}}, want: several},
		"a header with '_' alone":        {header: map[string][]string{"X_api_token": {good}}, want: several},
		"a header of another name":       {header: map[string][]string{"X-Api-Token": {good}, "X_api_tokens": {"x"}}},
	} {
		t.Run(name, func(*testing.T) { w.want(get("/", tc.header), tc.want) })
	}
}
