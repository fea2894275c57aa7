package policy

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/v1alpha1"
)

var someIssuer = []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}}}

func mustCompile(t testing.TB, spec v1alpha1.AccessPolicySpec) *Policy {
	t.Helper()
	if spec.Issuers == nil {
		spec.Issuers = someIssuer
	}
	p, err := Compile("shop", "orders", &spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func requireCEL(text string) v1alpha1.AccessPolicySpec {
	return v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{{
		Name: "only", Require: &v1alpha1.Requirements{Expressions: []v1alpha1.Expression{{CEL: text, Message: "needs it"}}},
	}}}
}

func headerCEL(text string) v1alpha1.AccessPolicySpec {
	return v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{
		Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Test", CEL: text}},
	}}
}

func matchOf(m v1alpha1.Match) v1alpha1.AccessPolicySpec {
	return v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{{Name: "only", Match: []v1alpha1.Match{m}}}}
}

func TestCompileAppliesDefaults(t *testing.T) {
	p := mustCompile(t, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{
		{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "own"}, Audiences: []string{"orders"}},
		{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "other", Namespace: "elsewhere"}},
	}})
	if p.Realm() != "orders" {
		t.Errorf("realm %q, want the policy's name", p.Realm())
	}
	wantCredentials := []v1alpha1.Credential{{Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"}}}
	if diff := cmp.Diff(wantCredentials, p.Credentials()); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	wantIssuers := []v1alpha1.TokenIssuerRef{
		{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "own", Namespace: "shop"}, Audiences: []string{"orders"}},
		{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "other", Namespace: "elsewhere"}},
	}
	if diff := cmp.Diff(wantIssuers, p.Issuers()); diff != "" {
		t.Errorf("issuers (-want +got):\n%s", diff)
	}
	if p.Rules() != 0 {
		t.Errorf("%d rules, want 0", p.Rules())
	}
	rule, err := p.Select(&Request{})
	if err != nil {
		t.Fatal(err)
	}
	if rule.Name() != "default" || rule.Access() != v1alpha1.AccessAuthenticated || len(rule.Scopes()) != 0 {
		t.Errorf("the implicit rule is %q, %s, scopes %v", rule.Name(), rule.Access(), rule.Scopes())
	}
}

func TestCompileKeepsNothingOfTheSpec(t *testing.T) {
	spec := v1alpha1.AccessPolicySpec{
		Credentials: []v1alpha1.Credential{{Cookie: &v1alpha1.CookieCredential{Name: "session"}}},
		Issuers:     []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "own"}, Audiences: []string{"orders"}}},
		Rules: []v1alpha1.Rule{{
			Name: "r", Match: []v1alpha1.Match{{Methods: []string{"GET"}}},
			Require: &v1alpha1.Requirements{Scopes: []string{"read"}, Claims: []v1alpha1.ClaimRequirement{{Path: "role", AnyOf: []string{"admin"}}}},
		}},
	}
	p, err := Compile("shop", "orders", &spec)
	if err != nil {
		t.Fatal(err)
	}
	spec.Credentials[0].Cookie.Name = "changed"
	spec.Issuers[0].Audiences[0] = "changed"
	spec.Rules[0].Match[0].Methods[0] = "PUT"
	spec.Rules[0].Require.Scopes[0] = "changed"
	spec.Rules[0].Require.Claims[0].AnyOf[0] = "changed"

	rule, err := p.Select(&Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	if err := rule.Evaluate(claimsOf(object{"scope": "read", "role": "admin"}), &Request{Method: "GET"}); err != nil {
		t.Error(err)
	}
	if p.Credentials()[0].Cookie.Name != "session" || p.Issuers()[0].Audiences[0] != "orders" {
		t.Errorf("a change of the spec shows in %v, %v", p.Credentials(), p.Issuers())
	}
}

func TestCompileSaysWhatToChange(t *testing.T) {
	text := func(s string) *string { return &s }
	with := func(r v1alpha1.Rule) v1alpha1.AccessPolicySpec {
		return v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{r}}
	}
	claim := func(c v1alpha1.ClaimRequirement) v1alpha1.AccessPolicySpec {
		return with(v1alpha1.Rule{Name: "r", Require: &v1alpha1.Requirements{Claims: []v1alpha1.ClaimRequirement{c}}})
	}
	path := func(exact, prefix string) v1alpha1.AccessPolicySpec {
		return matchOf(v1alpha1.Match{Paths: []v1alpha1.PathMatch{{Exact: exact, Prefix: prefix}}})
	}
	const celField = "spec.rules[0].require.expressions[0].cel: "
	const pathField = "spec.rules[0].match[0].paths[0]"
	for name, tc := range map[string]struct {
		spec      v1alpha1.AccessPolicySpec
		noIssuers bool
		want      []string
	}{
		"no issuer":                     {noIssuers: true, want: []string{"spec.issuers: Required value: name at least one issuer"}},
		"an issuer without a name":      {spec: v1alpha1.AccessPolicySpec{Issuers: make([]v1alpha1.TokenIssuerRef, 1)}, want: []string{"spec.issuers[0].signingKeyRef.name: Required value"}},
		"a realm with quotes":           {spec: v1alpha1.AccessPolicySpec{Realm: `a"b`}, want: []string{"spec.realm: ", "without quotes"}},
		"a realm with a line break":     {spec: v1alpha1.AccessPolicySpec{Realm: "a\r\nb"}, want: []string{"spec.realm: ", "printable ASCII"}},
		"an unknown way with ambiguity": {spec: v1alpha1.AccessPolicySpec{AmbiguousPaths: "Allow"}, want: []string{"spec.ambiguousPaths: ", `"Deny", "Normalize"`}},
		"a credential that is none":     {spec: v1alpha1.AccessPolicySpec{Credentials: make([]v1alpha1.Credential, 1)}, want: []string{"spec.credentials[0]: Required value: set exactly one of header, cookie, query and webSocketProtocol"}},
		"a credential named twice, whatever its case": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{
				{Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"}},
				{Header: &v1alpha1.HeaderCredential{Name: "authorization", Scheme: "bearer"}},
			}}, want: []string{"spec.credentials[1]: Duplicate value"}},
		"a credential with an impossible header": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{{Header: &v1alpha1.HeaderCredential{Name: "X_Token"}}}},
			want: []string{"spec.credentials[0].header.name: ", "use letters, digits and '-'"}},
		"a cookie without a name": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{{Cookie: &v1alpha1.CookieCredential{}}}},
			want: []string{"spec.credentials[0].cookie.name: Required value"}},
		"a query parameter without a name": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{{Query: &v1alpha1.QueryCredential{}}}},
			want: []string{"spec.credentials[0].query.name: ", "use letters, digits"}},
		"a query parameter that would be encoded": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{{Query: &v1alpha1.QueryCredential{Name: "a b"}}}},
			want: []string{"spec.credentials[0].query.name: ", "use letters, digits"}},
		"subprotocols without a prefix": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{{WebSocketProtocol: &v1alpha1.WebSocketProtocolCredential{}}}},
			want: []string{"spec.credentials[0].webSocketProtocol.prefix: ", "use letters, digits"}},
		"subprotocols with a comma in the prefix": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{{WebSocketProtocol: &v1alpha1.WebSocketProtocolCredential{Prefix: "a,"}}}},
			want: []string{"spec.credentials[0].webSocketProtocol.prefix: ", "use letters, digits"}},
		"a query parameter named twice": {
			spec: v1alpha1.AccessPolicySpec{Credentials: []v1alpha1.Credential{{Query: &v1alpha1.QueryCredential{Name: "t"}}, {Query: &v1alpha1.QueryCredential{Name: "t"}}}},
			want: []string{"spec.credentials[1]: Duplicate value"}},
		"an unknown way with preflights": {spec: v1alpha1.AccessPolicySpec{Preflight: "Pass"}, want: []string{"spec.preflight: ", `"Deny", "Allow"`}},
		"answers kept for long": {
			spec: v1alpha1.AccessPolicySpec{DecisionCache: v1alpha1.Duration{Duration: 2 * time.Hour}}, want: []string{"spec.decisionCache: ", "from 0s to 1h"}},
		"answers kept for less than nothing": {
			spec: v1alpha1.AccessPolicySpec{DecisionCache: v1alpha1.Duration{Duration: -time.Second}}, want: []string{"spec.decisionCache: ", "from 0s to 1h"}},
		"answers kept with rules": {
			spec: v1alpha1.AccessPolicySpec{DecisionCache: v1alpha1.Duration{Duration: time.Second}, Rules: []v1alpha1.Rule{{Name: "r"}}},
			want: []string{"spec.decisionCache: Forbidden: it goes with a policy without rules only"}},
		"answers kept for a token in the query": {
			spec: v1alpha1.AccessPolicySpec{DecisionCache: v1alpha1.Duration{Duration: time.Second}, Credentials: []v1alpha1.Credential{{Query: &v1alpha1.QueryCredential{Name: "t"}}}},
			want: []string{"spec.decisionCache: Forbidden: ", "looks at the request's method, host, path, query or headers"}},
		"answers kept with identity from the path": {
			spec: func() v1alpha1.AccessPolicySpec {
				spec := headerCEL("request.path")
				spec.DecisionCache.Duration = time.Second
				return spec
			}(),
			want: []string{"spec.decisionCache: Forbidden: ", "looks at the request's method, host, path, query or headers"}},
		"two kinds of issuer": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "a"}, OIDC: &v1alpha1.OIDCIssuer{URL: "https://a.example"}}}},
			want: []string{"spec.issuers[0]: Forbidden: set exactly one of signingKeyRef, oidc and jwks"}},
		"an issuer of others without audiences and algorithms": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{OIDC: &v1alpha1.OIDCIssuer{URL: "https://a.example"}}}},
			want: []string{"spec.issuers[0].audiences: Required value", "spec.issuers[0].algorithms: Required value"}},
		"an issuer of others with a secret's algorithm": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{OIDC: &v1alpha1.OIDCIssuer{URL: "https://a.example"}, Audiences: []string{"o"}, Algorithms: []string{"HS256", "none"}}}},
			want: []string{"spec.issuers[0].algorithms[0]: Unsupported value", "spec.issuers[0].algorithms[1]: Unsupported value"}},
		"an issuer of others without TLS": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{JWKS: &v1alpha1.JWKSIssuer{URL: "http://a.example/keys"}, Audiences: []string{"o"}, Algorithms: []string{"RS256"}}}},
			want: []string{"spec.issuers[0].jwks.url: ", "whole https URL", "spec.issuers[0].jwks.issuer: Required value"}},
		"the same keys with two RSA algorithms": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{
				remoteIssuer("https://a.example", "ES256", "RS256"), remoteIssuer("https://b.example", "PS256"), remoteIssuer("https://a.example", "PS256"),
			}},
			want: []string{`spec.issuers[2].algorithms: Invalid value: "PS256": another entry uses the same keys with RS256`}},
		"a SigningKey with algorithms": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "a"}, Algorithms: []string{"RS256"}}}},
			want: []string{"spec.issuers[0].algorithms: Forbidden: a SigningKey says its own"}},
		"an unknown profile": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}, Profile: "IDToken"}}},
			want: []string{"spec.issuers[0].profile: Unsupported value"}},
		"access tokens for nobody": {
			spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}, Profile: v1alpha1.ProfileAccessToken}}},
			want: []string{"spec.issuers[0].audiences: Required value: profile AccessToken needs at least one"}},
		"a rule without a name":          {spec: with(v1alpha1.Rule{}), want: []string{"spec.rules[0].name: Required value"}},
		"two rules of one name":          {spec: v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{{Name: "a"}, {Name: "a"}}}, want: []string{`spec.rules[1].name: Duplicate value: "a"`}},
		"an unknown access":              {spec: with(v1alpha1.Rule{Name: "r", Access: "Open"}), want: []string{"spec.rules[0].access: Unsupported value"}},
		"requirements of everyone":       {spec: with(v1alpha1.Rule{Name: "r", Access: v1alpha1.AccessAnonymous, Require: &v1alpha1.Requirements{}}), want: []string{"spec.rules[0].require: Forbidden: it goes with access: Authenticated only"}},
		"a scope with a space":           {spec: with(v1alpha1.Rule{Name: "r", Require: &v1alpha1.Requirements{Scopes: []string{"ok", "a b"}}}), want: []string{"spec.rules[0].require.scopes[1]: ", "without spaces"}},
		"a scope with a quote":           {spec: with(v1alpha1.Rule{Name: "r", Require: &v1alpha1.Requirements{Scopes: []string{`a"`}}}), want: []string{"spec.rules[0].require.scopes[0]: "}},
		"a claim without a path":         {spec: claim(v1alpha1.ClaimRequirement{Equals: text("x")}), want: []string{"spec.rules[0].require.claims[0].path: Required value"}},
		"a claim that asks for nothing":  {spec: claim(v1alpha1.ClaimRequirement{Path: "a"}), want: []string{"spec.rules[0].require.claims[0]: ", "exactly one of equals, anyOf and allOf"}},
		"a claim that asks twice":        {spec: claim(v1alpha1.ClaimRequirement{Path: "a", Equals: text("x"), AnyOf: []string{"x"}}), want: []string{"exactly one of equals, anyOf and allOf"}},
		"a claim that asks for all of 0": {spec: claim(v1alpha1.ClaimRequirement{Path: "a", AllOf: []string{}}), want: []string{"spec.rules[0].require.claims[0]: ", "at least one value"}},
		"a method in small letters":      {spec: matchOf(v1alpha1.Match{Methods: []string{"GET", "get"}}), want: []string{`spec.rules[0].match[0].methods[1]: Invalid value: "get": write methods in capitals`}},
		"a host with a wildcard":         {spec: matchOf(v1alpha1.Match{Hosts: []string{"*.example.com"}}), want: []string{"spec.rules[0].match[0].hosts[0]: ", "there are no wildcards"}},
		"a path that is none":            {spec: path("", ""), want: []string{pathField + ": ", "exactly one of exact and prefix"}},
		"a path that is both":            {spec: path("/a", "/b"), want: []string{pathField + ": ", "exactly one of exact and prefix"}},
		"a path without its slash":       {spec: path("a", ""), want: []string{pathField + ".exact: ", "begin with '/'"}},
		"a path with a dot segment":      {spec: path("", "/a/../b"), want: []string{pathField + ".prefix: ", "dot segments"}},
		"a path with a doubled slash":    {spec: path("", "/a//b"), want: []string{pathField + ".prefix: "}},
		"a path with a query":            {spec: path("/a?x=1", ""), want: []string{pathField + ".exact: ", "no request can fit it", "without their query"}},
		"a path that is encoded":         {spec: path("/a%20b", ""), want: []string{pathField + ".exact: ", "compared decoded"}},
		"a path with a parameter":        {spec: path("", "/a;v=1"), want: []string{pathField + ".prefix: ", "no request can fit it"}},
		"a path with a backslash":        {spec: path(`/a\b`, ""), want: []string{pathField + ".exact: "}},

		"an expression with an unknown variable": {spec: requireCEL("foo"), want: []string{celField, `"foo"`, "undeclared reference to 'foo'", "variables are claims", "(at 1:1)"}},
		"an expression with an unknown part":     {spec: requireCEL("request.pth == '/'"), want: []string{celField, "use request.method, request.host, request.path, request.query or request.headers"}},
		"an expression over the whole request":   {spec: requireCEL("request == request"), want: []string{celField, "use request.method"}},
		"an expression that does not parse":      {spec: requireCEL("claims.sub =="), want: []string{celField, "Syntax error", "(at 1:14)"}},
		"an expression that gives a text":        {spec: requireCEL("request.path"), want: []string{celField, "it gives string: write an expression that gives bool"}},
		"an expression of mixed types":           {spec: requireCEL("request.path == 1"), want: []string{celField, "no matching overload"}},
		"loops in loops in loops":                {spec: requireCEL(strings.Repeat("[1].all(i, ", 9) + "true" + strings.Repeat(")", 9)), want: []string{celField, "more than 8 loops, such as exists, are in one another"}},
		"an expression with a broken pattern":    {spec: requireCEL("request.path.matches('(')"), want: []string{celField, "missing closing )"}},
		"a pattern that becomes too large":       {spec: requireCEL("request.path.matches('((a?){40}){20}')"), want: []string{celField, "steps: the limit is 1000"}},
		"a text that takes a huge pattern":       {spec: requireCEL("'" + strings.Repeat("a", 300) + "'.matches('" + strings.Repeat("(a?){1000}", 100) + "')"), want: []string{celField, "has 1000 bytes: the limit is 256"}},
		"a short pattern, many times over":       {spec: requireCEL("request.path.matches('(a?){1000}(a?){1000}')"), want: []string{celField, "steps: the limit is 1000"}},
		"a pattern that a claim gives":           {spec: requireCEL("request.path.matches(claims.pattern)"), want: []string{celField, "write the pattern of matches as one text"}},
		"a pattern that the query gives":         {spec: requireCEL("claims.roles.exists(r, matches(r, request.query.p[0]))"), want: []string{celField, "write the pattern of matches as one text"}},
		"a pattern with a dotted function":       {spec: requireCEL(".matches(request.path, claims.pattern)"), want: []string{celField, "write the pattern of matches as one text"}},
		"a pattern that is put together":         {spec: requireCEL("request.path.matches('a' + 'b')"), want: []string{celField, "write the pattern of matches as one text"}},
		"a pattern that is very long":            {spec: headerCEL("request.path.matches('" + strings.Repeat("a", 4000) + "') ? 'a' : 'b'"), want: []string{"spec.identity.headers[0].cel: ", "has 4000 bytes: the limit is 256"}},
		"an empty expression":                    {spec: requireCEL(""), want: []string{celField, "write a CEL expression"}},
		"an expression that is too long":         {spec: requireCEL("'" + strings.Repeat("a", 5000) + "' == ''"), want: []string{celField, "…"}},
		"a header expression that gives a bool":  {spec: headerCEL("true"), want: []string{"spec.identity.headers[0].cel: ", "it gives bool: write an expression that gives string"}},
		"a header expression that is broken":     {spec: headerCEL("claims."), want: []string{"spec.identity.headers[0].cel: ", "Syntax error"}},

		"a header from nowhere": {
			spec: v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-A"}}}},
			want: []string{"spec.identity.headers[0]: ", "exactly one of claim and cel"}},
		"a header with a meaning of its own": {
			spec: v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "Content-Length", Claim: "sub"}}}},
			want: []string{"spec.identity.headers[0].name: ", "choose another"}},
		"a header named twice, whatever its case": {
			spec: v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-A", Claim: "sub"}, {Name: "x-a", Claim: "sub"}}}},
			want: []string{"spec.identity.headers[1].name: Duplicate value"}},
		"a header with an underscore": {
			spec: v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X_A", Claim: "sub"}}}},
			want: []string{"spec.identity.headers[0].name: ", "use letters, digits and '-'"}},
		"every fault is listed, not the first alone": {
			spec: v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{
				{Name: "fine"},
				{Name: "broken", Match: []v1alpha1.Match{{Methods: []string{"get"}}}, Require: &v1alpha1.Requirements{
					Expressions: []v1alpha1.Expression{{CEL: "true"}, {CEL: "bar"}},
				}},
			}},
			want: []string{"compiling AccessPolicy shop/orders: ", "spec.rules[1].match[0].methods[0]: ", "spec.rules[1].require.expressions[1].cel: "}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.spec.Issuers == nil && !tc.noIssuers {
				tc.spec.Issuers = someIssuer
			}
			deadline := time.AfterFunc(5*time.Second, func() { panic("it is not refused quickly") })
			defer deadline.Stop()
			p, err := Compile("shop", "orders", &tc.spec)
			if err == nil || p != nil {
				t.Fatalf("Compile = %v, %v, want an error", p, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error\n\t%v\ndoes not say\n\t%s", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
		})
	}
}

func remoteIssuer(url string, algorithms ...string) v1alpha1.TokenIssuerRef {
	return v1alpha1.TokenIssuerRef{OIDC: &v1alpha1.OIDCIssuer{URL: url}, Audiences: []string{"o"}, Algorithms: algorithms}
}

func TestCompileTakesTheSameKeysTwice(t *testing.T) {
	for name, issuers := range map[string][]v1alpha1.TokenIssuerRef{
		"with the same algorithm":          {remoteIssuer("https://a.example", "RS256"), remoteIssuer("https://a.example", "RS256", "ES256")},
		"with one for RSA and one for EC":  {remoteIssuer("https://a.example", "RS256"), remoteIssuer("https://a.example", "ES256")},
		"with several, for keys that name": {remoteIssuer("https://a.example", "RS256"), remoteIssuer("https://a.example", "RS256", "PS256")},
		"of other issuers":                 {remoteIssuer("https://a.example", "RS256"), remoteIssuer("https://b.example", "PS256")},
	} {
		if _, err := Compile("shop", "orders", &v1alpha1.AccessPolicySpec{Issuers: issuers}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The rule of the resource and the list here refuse the same.
func TestTheResourceReservesTheSameHeaders(t *testing.T) {
	raw, err := os.ReadFile("../../config/crd/bases/keywright.dev_accesspolicies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(raw)), " ") // as YAML breaks its lines
	_, rule, found := strings.Cut(text, "self.name.lowerAscii() in [")
	list, rule, closed := strings.Cut(rule, "]")
	if !found || !closed {
		t.Fatal("the resource has no such rule")
	}
	got := map[string]bool{}
	for _, name := range strings.Split(list, ",") {
		got[strings.Trim(name, "' ")] = true
	}
	if diff := cmp.Diff(reservedHeaders, got); diff != "" {
		t.Errorf("reserved by the resource (-here +there):\n%s", diff)
	}
	if want := ") && !self.name.lowerAscii().startsWith(''" + reservedPrefix + "'')'"; !strings.HasPrefix(rule, want) {
		t.Errorf("it goes on with %.100s, want %s", rule, want)
	}
}

func TestCompileRefusesReservedHeaders(t *testing.T) {
	for _, name := range []string{"X-Accel-Redirect", "x-accel-buffering", "Expires", "Vary", "Content-Encoding", "Proxy-Authenticate", "Set-Cookie"} {
		_, err := Compile("shop", "orders", &v1alpha1.AccessPolicySpec{Issuers: someIssuer, Identity: &v1alpha1.Identity{
			Headers: []v1alpha1.IdentityHeader{{Name: v1alpha1.HeaderName(name), Claim: "sub"}},
		}})
		if err == nil || !strings.Contains(err.Error(), "spec.identity.headers[0].name: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestCompileStopsAfterSomeFaults(t *testing.T) {
	spec := v1alpha1.AccessPolicySpec{Issuers: someIssuer}
	for range 20_000 {
		spec.Rules = append(spec.Rules, v1alpha1.Rule{Name: "r", Require: &v1alpha1.Requirements{
			Expressions: []v1alpha1.Expression{{CEL: "nope"}},
		}})
	}
	deadline := time.AfterFunc(5*time.Second, func() { panic("it looks at every rule") })
	defer deadline.Stop()
	_, err := Compile("shop", "orders", &spec)
	if err == nil || strings.Count(err.Error(), "spec.") != maxFaults || !strings.Contains(err.Error(), "there are more") {
		t.Errorf("got %v", err)
	}
}

func TestCompileAcceptsPatternsWithRepetitions(t *testing.T) {
	p := mustCompile(t, requireCEL("request.path.matches('^/v[0-9]{1,3}/[a-z]{2,40}$')"))
	rule, err := p.Select(&Request{})
	if err != nil {
		t.Fatal(err)
	}
	if err := rule.Evaluate(claimsOf(object{}), &Request{Path: "/v12/orders", HasPath: true}); err != nil {
		t.Error(err)
	}
}

func TestCompileAcceptsAmbiguousRulePathsWhereThePolicyNormalises(t *testing.T) {
	spec := matchOf(v1alpha1.Match{Paths: []v1alpha1.PathMatch{{Exact: "/a;v=1"}}})
	spec.AmbiguousPaths = v1alpha1.AmbiguousPathsNormalize
	p := mustCompile(t, spec)
	if _, err := p.Select(&Request{Path: "/a;v=1", HasPath: true, Ambiguous: true}); err != nil {
		t.Error(err)
	}
}

func TestNeedsSaysWhatIsLookedAt(t *testing.T) {
	paths := []v1alpha1.PathMatch{{Prefix: "/a"}}
	for name, tc := range map[string]struct {
		spec v1alpha1.AccessPolicySpec
		want string
	}{
		"a policy without rules looks at nothing":         {want: ""},
		"a rule for everything looks at nothing":          {spec: matchOf(v1alpha1.Match{}), want: ""},
		"a method rule":                                   {spec: matchOf(v1alpha1.Match{Methods: []string{"GET"}}), want: "method"},
		"a path rule":                                     {spec: matchOf(v1alpha1.Match{Paths: paths}), want: "path"},
		"a host rule":                                     {spec: matchOf(v1alpha1.Match{Hosts: []string{"a.example"}}), want: "host"},
		"a rule for all three":                            {spec: matchOf(v1alpha1.Match{Hosts: []string{"a.example"}, Methods: []string{"GET"}, Paths: paths}), want: "method path host"},
		"an expression over claims":                       {spec: requireCEL("claims.sub == 'request.path'"), want: ""},
		"an expression over the method":                   {spec: requireCEL("request.method == 'GET'"), want: "method"},
		"an expression over the path":                     {spec: requireCEL("request.path.startsWith('/' + string(claims.sub))"), want: "path"},
		"an expression over the query needs the target":   {spec: requireCEL("'x' in request.query"), want: "path"},
		"an expression over the host":                     {spec: requireCEL("claims.hosts.exists(h, h == request.host)"), want: "host"},
		"an expression with a branch that is never used":  {spec: requireCEL("true || request.host == ''"), want: "host"},
		"an expression whose own variable is request":     {spec: requireCEL("[{'path': 'x'}].all(request, request['path'] == 'x')"), want: ""},
		"an expression that means the root's variable":    {spec: requireCEL("[1].all(x, .request.path == '/')"), want: "path"},
		"an expression that reaches past its own request": {spec: requireCEL("[{'path': 'x'}].exists(request, .request.path == '/')"), want: "path"},
		"a header's expression":                           {spec: headerCEL("request.host"), want: "host"},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, tc.spec)
			var got []string
			if p.NeedsMethod() {
				got = append(got, "method")
			}
			if p.NeedsPath() {
				got = append(got, "path")
			}
			if p.NeedsHost() {
				got = append(got, "host")
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("looks at %v, want %s", got, tc.want)
			}
		})
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		"claims.amr.exists(m, m == 'mfa')", "request.path.startsWith('/a')", "'x' in request.query", "request.headers['x-a'] == 'a'", "request.headers[?'x-b'].hasValue() || 'x-a' in request.headers", "request.query['x'][0] == claims.sub",
		"claims.?groups.orValue([]).size() > 0", "sets.contains(claims.a, ['b'])", "lists.range(1000).all(x, x >= 0)", "'%s'.format([claims.sub]) == ''",
		"[{'path': '/a/b'}].exists(request, .request.path == '/a/b')", "[{'path': 'x'}].all(request, request.path == 'x')",
		"claims.a.b.c.d", "true", "(((", "request", "'a'.matches(claims.p)", "timestamp('2020-01-01T00:00:00Z') < timestamp(claims.exp)", "[1].all(request, true)", "\x00", "1/0 == 1",
	} {
		f.Add(seed)
	}
	claims := claimsOf(object{
		"sub": "u", "amr": []any{"mfa"}, "a": map[string]any{"b": int64(1)}, "n": 4.5, "t": true, "nil": nil, "p": "(", "groups": []any{"x", int64(1)},
	})
	req := &Request{Method: "GET", Path: "/a/b", HasPath: true, Query: "x=1&x=2", Host: "a.example", HasHost: true, Header: map[string][]string{"X-A": {"a"}, "Authorization": {"secret"}}}
	f.Fuzz(func(t *testing.T, text string) {
		spec := requireCEL(text)
		spec.Issuers = someIssuer
		p, err := Compile("shop", "orders", &spec)
		if err != nil {
			if !strings.Contains(err.Error(), "spec.rules[0].require.expressions[0].cel: ") {
				t.Fatalf("error %v does not name the field", err)
			}
			return
		}
		rule, err := p.Select(req)
		if err != nil {
			t.Fatal(err)
		}
		blind, seen := *req, *req
		err = rule.Evaluate(claims, &seen)
		if seen.cost.spent > CostLimit+1 {
			t.Fatalf("%q: costs %d", text, seen.cost.spent)
		}
		if reason := Reason(err); reason != "" && reason != "expression_false" && reason != "expression_error" {
			t.Fatalf("reason %q", reason)
		}
		// What does not look at a part of the request gives the same without it.
		if !p.NeedsPath() {
			blind.Path, blind.Query, blind.HasPath = "", "", false
		}
		if !p.NeedsHost() {
			blind.Host, blind.HasHost = "", false
		}
		if !p.NeedsMethod() {
			blind.Method = ""
		}
		if p.looksAt&aspectHeaders == 0 {
			blind.Header = nil
		}
		if got := rule.Evaluate(claims, &blind); Reason(got) != Reason(err) {
			t.Fatalf("%q: %v with the whole request, %v with what it looks at", text, err, got)
		}
	})
}
