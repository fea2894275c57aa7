package authz_test

import (
	"testing"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

// No spelling of a protected host or method comes to the rule behind it, which
// lets everyone pass.
func TestNoSpellingOfAHostOrAMethodSlipsPastItsRule(t *testing.T) {
	w, _ := newShop(t)
	w.policy(orders, v1alpha1.AccessPolicySpec{
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
		Rules: []v1alpha1.Rule{
			{Name: "admin", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Hosts: []string{"A.b.Example.com.:8443", "[2001:DB8::1]"}}}},
			{Name: "write", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Methods: []string{"DELETE", "GET"}, Hosts: []string{"ro.example.com"}}}},
			{Name: "public", Access: v1alpha1.AccessAnonymous},
		},
	})
	const denied = "access_denied"
	for name, tc := range map[string]struct {
		host, method     string // GET when empty
		noHost, noMethod bool
		want, wantRule   string
	}{
		"the host as it is":                    {host: "a.b.example.com", want: denied, wantRule: "admin"},
		"the host in capitals":                 {host: "a.B.example.com", want: denied, wantRule: "admin"},
		"the host with a trailing dot":         {host: "a.b.example.com.", want: denied, wantRule: "admin"},
		"the host with a port":                 {host: "a.b.example.com:443", want: denied, wantRule: "admin"},
		"the host with an empty port":          {host: "a.b.example.com:", want: denied, wantRule: "admin"},
		"the host with all of it":              {host: "A.B.EXAMPLE.COM.:443", want: denied, wantRule: "admin"},
		"the host with two trailing dots":      {host: "a.b.example.com..", want: "host_invalid"},
		"the host with a space":                {host: "a.b.example.com ", want: "host_invalid"},
		"the host with a tab before it":        {host: "\ta.b.example.com", want: "host_invalid"},
		"the host behind a user":               {host: "x@a.b.example.com", want: "host_invalid"},
		"the host in a list":                   {host: "a.b.example.com,www.example.com", want: "host_invalid"},
		"the host with a port that is none":    {host: "a.b.example.com:x", want: "host_invalid"},
		"the host with a NUL":                  {host: "a.b.example.com\x00", want: "host_invalid"},
		"the host with an encoded letter":      {host: "%61.b.example.com", want: "host_invalid"},
		"the host in fullwidth letters":        {host: "ａ.b.example.com", want: "host_invalid"},
		"the host with the Kelvin sign":        {host: "\u212a.example.com", want: "host_invalid"},
		"the host with an ideographic stop":    {host: "a。b.example.com", want: "host_invalid"},
		"an IPv6 address, written out":         {host: "[2001:0db8:0:0::1]:443", want: denied, wantRule: "admin"},
		"an IPv6 address without brackets":     {host: "2001:db8::1", want: "host_invalid"},
		"an empty host":                        {host: "", want: "host_invalid"},
		"no host":                              {noHost: true, want: "host_unknown"},
		"another host":                         {host: "www.example.com", wantRule: "public"},
		"a host that ends so":                  {host: "x.a.b.example.com", wantRule: "public"},
		"the method as it is":                  {host: "ro.example.com", method: "DELETE", want: denied, wantRule: "write"},
		"the method GET, as HEAD":              {host: "ro.example.com", method: "HEAD", want: denied, wantRule: "write"},
		"the method in small letters":          {host: "ro.example.com", method: "delete", want: "method_unknown"},
		"the method get":                       {host: "ro.example.com", method: "get", want: "method_unknown"},
		"the method in mixed case":             {host: "ro.example.com", method: "Delete", want: "method_unknown"},
		"the method with a space behind it":    {host: "ro.example.com", method: "GET ", want: "method_unknown"},
		"the method with a space before it":    {host: "ro.example.com", method: " GET", want: "method_unknown"},
		"the method with a tab":                {host: "ro.example.com", method: "GET\t", want: "method_unknown"},
		"the method with a line break":         {host: "ro.example.com", method: "GET\r\n", want: "method_unknown"},
		"the method in a list":                 {host: "ro.example.com", method: "GET,POST", want: "method_unknown"},
		"no method":                            {host: "ro.example.com", noMethod: true, want: "method_unknown"},
		"another method":                       {host: "ro.example.com", method: "POST", wantRule: "public"},
		"a method that only begins like one":   {host: "ro.example.com", method: "GETX", wantRule: "public"},
		"an odd method where the host decides": {host: "a.b.example.com", method: "get", want: denied, wantRule: "admin"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.method == "" && !tc.noMethod {
				tc.method = "GET"
			}
			d := w.want(authz.Request{
				Policy: orders, Host: tc.host, HasHost: !tc.noHost, Method: tc.method, HasMethod: !tc.noMethod,
			}, tc.want)
			if d.Rule != tc.wantRule {
				t.Errorf("rule %q, want %q", d.Rule, tc.wantRule)
			}
		})
	}
}

// The reason is that of what the rule looks at, whatever else is wrong.
func TestReasonIsAboutWhatTheRuleLooksAt(t *testing.T) {
	w, s := newShop(t)
	path := []v1alpha1.Match{{Paths: []v1alpha1.PathMatch{{Prefix: "/a"}}}}
	host := []v1alpha1.Match{{Hosts: []string{"a.example"}}}
	for name, tc := range map[string]struct {
		rules   []v1alpha1.Rule
		target  string // none when empty
		host    string // none when empty
		want    string
		by      string // expression of a rule for everything
		toldCEL string // identity header's
	}{
		"no path, and a host that cannot be read":              {rules: []v1alpha1.Rule{{Name: "p", Match: path}, {Name: "h", Match: host}}, host: "a,b", want: "path_unknown"},
		"a path that cannot be read, and no host":              {rules: []v1alpha1.Rule{{Name: "h", Match: host}, {Name: "p", Match: path}}, target: "/%2f", want: "host_unknown"},
		"neither can be read, the path is asked for":           {rules: []v1alpha1.Rule{{Name: "p", Match: path}, {Name: "h", Match: host}}, target: "/%2f", host: "a,b", want: "path_invalid"},
		"neither can be read, the host is asked for":           {rules: []v1alpha1.Rule{{Name: "h", Match: host}, {Name: "p", Match: path}}, target: "/%2f", host: "a,b", want: "host_invalid"},
		"an expression over a path that cannot be read":        {by: "request.path != '/x' || request.host == 'x'", target: "/%2f", host: "a.example", want: "path_invalid"},
		"an expression over no path and an odd host":           {by: "request.path != '/x' || request.host == 'x'", host: "a,b", want: "path_unknown"},
		"an identity header from a host that cannot be read":   {toldCEL: "request.host", host: "a,b", want: "host_invalid"},
		"an identity header from no path beside an odd host":   {toldCEL: "request.path + request.host", host: "a,b", want: "path_unknown"},
		"an identity header from a path, and the host unknown": {toldCEL: "request.path + request.host", target: "/", want: "host_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")}, Rules: tc.rules}
			if tc.by != "" {
				spec.Rules = []v1alpha1.Rule{{Name: "all", Require: &v1alpha1.Requirements{Expressions: []v1alpha1.Expression{{CEL: tc.by}}}}}
			}
			if tc.toldCEL != "" {
				spec.Identity = &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Test", CEL: tc.toldCEL}}}
			}
			w.policy(orders, spec)
			req := get(tc.target, bearer(s.mint(t, nil)))
			req.HasTarget, req.Host, req.HasHost = tc.target != "", tc.host, tc.host != ""
			w.want(req, tc.want)
		})
	}
}
