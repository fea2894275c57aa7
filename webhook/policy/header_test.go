package policy

import (
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
)

func TestExpressionsOverHeaders(t *testing.T) {
	tenant := func(lines ...string) map[string][]string { return map[string][]string{"X-Tenant": lines} }
	for name, tc := range map[string]struct {
		cel    string // request.headers['x-tenant'] == claims.tenant when empty
		header map[string][]string
		want   string
	}{
		"the value that the claim has":            {header: tenant("a")},
		"another value":                           {header: tenant("b"), want: "expression_false"},
		"a header that is absent":                 {want: "expression_error"},
		"a header that is empty":                  {header: tenant(""), want: "expression_false"},
		"a header that came twice":                {header: tenant("a", "a"), want: "header_repeated"},
		"a header that came twice, once empty":    {header: tenant("", "a"), want: "header_repeated"},
		"a list in one line is one text":          {header: tenant("a, a"), want: "expression_false"},
		"a header that is not UTF-8":              {header: tenant("a\xff"), want: "expression_error"},
		"another header that came twice":          {header: map[string][]string{"X-Tenant": {"a"}, "X-Other": {"a", "b"}}},
		"another spelling beside it":              {header: map[string][]string{"X-Tenant": {"a"}, "X_tenant": {"b"}}, want: "header_repeated"},
		"another spelling with a dot":             {header: map[string][]string{"X-Tenant": {"a"}, "X.tenant": {"b"}}, want: "header_repeated"},
		"another spelling in another case":        {header: map[string][]string{"X-Tenant": {"a"}, "x_TENANT": {"a"}}, want: "header_repeated"},
		"another spelling alone":                  {cel: "!('x-tenant' in request.headers)", header: map[string][]string{"X_tenant": {"b"}}, want: "header_repeated"},
		"another spelling of another header":      {header: map[string][]string{"X-Tenant": {"a"}, "X_Tenants": {"b"}, "Xx-Tenan": {"b"}, "X~tenant": {"b"}}},
		"a header without a dash":                 {cel: "request.headers['accept'] == 'a'", header: map[string][]string{"Accept": {"a"}, "A_ccept": {"b"}}},
		"asked whether it is there, absent":       {cel: "!('x-tenant' in request.headers)"},
		"asked whether it is there, empty":        {cel: "'x-tenant' in request.headers", header: tenant("")},
		"asked whether it is there, twice":        {cel: "!('x-tenant' in request.headers)", header: tenant("a", "b"), want: "header_repeated"},
		"twice, in a branch that is not taken":    {cel: "true || request.headers['x-tenant'] == ''", header: tenant("a", "b"), want: "header_repeated"},
		"with a value for when it is absent":      {cel: "request.headers[?'x-tenant'].orValue('none') == 'none'"},
		"with a value for when it is, and it is":  {cel: "request.headers[?'x-tenant'].orValue('none') == 'a'", header: tenant("a")},
		"two headers, of which the second came":   {cel: "'x-a' in request.headers || request.headers['x-tenant'] == 'a'", header: tenant("a")},
		"within a macro":                          {cel: "['a', 'b'].exists(t, t == request.headers['x-tenant'])", header: tenant("b")},
		"the root's, where request is another":    {cel: "[{'headers': 1}].exists(request, .request.headers['x-tenant'] == 'a')", header: tenant("a")},
		"a variable of its own that is named so":  {cel: "[{'headers': {'authorization': 'x'}}].all(request, request['headers']['authorization'] == 'x')"},
		"the same header, asked for twice":        {cel: "request.headers['x-tenant'].startsWith('a') && request.headers['x-tenant'].endsWith('a')", header: tenant("a")},
		"a pattern that is constant":              {cel: "request.headers['x-tenant'].matches('^[a-z]$')", header: tenant("a")},
		"a number in place of the header's text":  {cel: "request.headers['x-tenant'] == '1'", header: tenant("1")},
		"a header that no one can tell by length": {cel: "request.headers['x-tenant'].size() == 1000", header: tenant(strings.Repeat("a", 1000))},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.cel == "" {
				tc.cel = "request.headers['x-tenant'] == claims.tenant"
			}
			req := &Request{Header: tc.header}
			rule, err := mustCompile(t, requireCEL(tc.cel)).Select(req)
			if err != nil {
				t.Fatal(err)
			}
			err = rule.Evaluate(claimsOf(object{"tenant": "a"}), req)
			if got := Reason(err); got != tc.want {
				t.Errorf("reason %q (%v), want %q", got, err, tc.want)
			}
		})
	}
}

func TestIdentityHeadersFromHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		header     map[string][]string
		claims     *token.Claims
		want       string
		wantReason string
	}{
		"a value":                    {header: map[string][]string{"X-Tenant": {"a"}}, claims: claimsOf(object{}), want: "a"},
		"an absent one is empty":     {claims: claimsOf(object{})},
		"a repeated one":             {header: map[string][]string{"X-Tenant": {"a", "a"}}, claims: claimsOf(object{}), wantReason: "header_repeated"},
		"a repeated one, with '_'":   {header: map[string][]string{"X-Tenant": {"a"}, "X_tenant": {"b"}}, claims: claimsOf(object{}), wantReason: "header_repeated"},
		"a repeated one, for nobody": {header: map[string][]string{"X-Tenant": {"a", "a"}}},
		"one that is not UTF-8":      {header: map[string][]string{"X-Tenant": {"\xff"}}, claims: claimsOf(object{}), wantReason: "identity_error"},
		"one with a control":         {header: map[string][]string{"X-Tenant": {"a\tb"}}, claims: claimsOf(object{}), wantReason: "identity_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			headers, err := mustCompile(t, headerCEL("request.headers['x-tenant']")).IdentityHeaders(tc.claims, &Request{Header: tc.header})
			if Reason(err) != tc.wantReason {
				t.Fatalf("reason %q (%v), want %q", Reason(err), err, tc.wantReason)
			}
			if err == nil && headers[0].Value != tc.want {
				t.Errorf("value %q, want %q", headers[0].Value, tc.want)
			}
		})
	}
}

// Which headers an expression may read is known before any request.
func TestCompileRefusesHeadersThatItCannotName(t *testing.T) {
	const byOneText = "name each header by one text: request.headers['x-tenant']"
	const token = "may have a token or a secret"
	for cel, want := range map[string]string{
		"request.headers[claims.sub] == ''":                              byOneText,
		"claims.sub in request.headers":                                  byOneText,
		"request.headers['x-' + 'tenant'] == ''":                         byOneText,
		"request.headers[true ? 'x-a' : 'x-b'] == ''":                    byOneText,
		"request.headers.tenant == ''":                                   byOneText,
		"has(request.headers.tenant)":                                    byOneText,
		"request.headers.?tenant.hasValue()":                             byOneText,
		"request.headers == {}":                                          byOneText,
		"request.headers.size() == 0":                                    byOneText,
		"request.headers.exists(h, h == 'x')":                            byOneText,
		"request.headers.all(h, request.headers[h] != claims.sub)":       byOneText,
		"dyn(request.headers)['authorization'] == ''":                    byOneText,
		"[request.headers][0]['authorization'] == ''":                    byOneText,
		"{'h': request.headers}.h['authorization'] == ''":                byOneText,
		"(true ? request.headers : request.headers)['x-tenant'] == ''":   byOneText,
		"request.headers['x-a'] == '' && request.headers[claims.b]=='x'": byOneText,
		"[1].exists(x, .request.headers.size() == x)":                    byOneText,
		"request.headers['X-Tenant'] == ''":                              `write the header's name in lower case: "x-tenant"`,
		"request.headers['x_tenant'] == ''":                              `"x_tenant" is no header's name: use letters`,
		"request.headers[''] == ''":                                      `"" is no header's name`,
		"':path' in request.headers":                                     `":path" is no header's name`,
		"request.headers['host'] == ''":                                  "use request.host",
		"request.headers['authorization'] == ''":                         token,
		"request.headers['Authorization'] == ''":                         "in lower case",
		"request.headers[?'authorization'].hasValue()":                   token,
		"'authorization' in request.headers":                             token,
		".request.headers['authorization'] == ''":                        token,
		"[1].exists(x, request.headers['cookie'] == '')":                 token,
		"request.headers['x-a'] == '' && 'cookie' in request.headers":    token,
		"request.headers['proxy-authorization'] == ''":                   token,
		"request.headers['sec-websocket-protocol'] == ''":                token,
		"request.headers['x-keywright-caller'] == ''":                    token,
		"request.headers['x-api-token'] == ''":                           token,
		"request.headers[1] == ''":                                       "no matching overload",
	} {
		t.Run(cel, func(t *testing.T) {
			rules, identity := requireCEL(cel), headerCEL("("+cel+") ? 'a' : 'b'")
			for _, spec := range []v1alpha1.AccessPolicySpec{rules, identity} {
				spec.Issuers = someIssuer
				spec.Credentials = []v1alpha1.Credential{{Header: &v1alpha1.HeaderCredential{Name: "X-API-Token"}}}
				p, err := Compile("shop", "orders", &spec)
				if err == nil || p != nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ".cel: ") {
					t.Errorf("Compile = %v, want an error that says %q", err, want)
				}
			}
		})
	}
	spec := requireCEL("request.headers['x-api-token'] == ''")
	mustCompile(t, spec) // where no token is there

	spec = headerCEL("request.headers['x-tenant']")
	spec.Issuers, spec.DecisionCache.Duration = someIssuer, 1e9
	if _, err := Compile("shop", "orders", &spec); err == nil || !strings.Contains(err.Error(), "spec.decisionCache: Forbidden: ") {
		t.Errorf("answers that depend on a header are kept: %v", err)
	}
}

func TestWhoAppendsToSpellingsCopiesThem(t *testing.T) {
	spellings := NewField("X-A-B-C").Spellings                     // 26, for which a slice grows to 32
	one, two := append(spellings, "one"), append(spellings, "two") //nolint:gocritic // as answers do
	if one[len(spellings)] != "one" || two[len(spellings)] != "two" {
		t.Errorf("answers with %q and %q share them", one[len(spellings)], two[len(spellings)])
	}
}

func TestSpellingsOfAField(t *testing.T) {
	for name, tc := range map[string]struct {
		spellings []string
		partly    bool
	}{
		"Tenant":    {nil, false},
		"x-tenant":  {[]string{"x_tenant", "x.tenant"}, false},
		"X-A-B":     {[]string{"x_a-b", "x.a-b", "x-a_b", "x_a_b", "x.a_b", "x-a.b", "x_a.b", "x.a.b"}, false},
		"X-A-B-C-D": {[]string{"x_a_b_c_d", "x.a.b.c.d"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			want := &Field{Name: textproto.CanonicalMIMEHeaderKey(name), Lower: strings.ToLower(name), Spellings: tc.spellings, Partly: tc.partly}
			got := NewField(name)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
