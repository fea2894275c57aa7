package authz_test

import (
	"strings"
	"testing"

	"github.com/keywright/keywright/api/v1alpha1"
)

func TestTokensInQueryAndSubprotocols(t *testing.T) {
	w, s := newShop(t)
	spec := v1alpha1.AccessPolicySpec{
		Realm: "orders",
		Credentials: []v1alpha1.Credential{
			{Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"}},
			{Query: &v1alpha1.QueryCredential{Name: "access_token"}},
			{WebSocketProtocol: &v1alpha1.WebSocketProtocolCredential{Prefix: "bearer."}},
		},
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
	}
	w.policy(orders, spec)
	good := s.mint(t, nil)
	offers := func(lines ...string) map[string][]string { return map[string][]string{"Sec-Websocket-Protocol": lines} }
	const several, malformed, none = "several_credentials", "malformed_credentials", "no_credentials"
	for name, tc := range map[string]struct {
		target string
		header map[string][]string
		want   string
	}{
		"a token in the query":                         {target: "/ws?access_token=" + good},
		"a token among other parameters":               {target: "/ws?a=1&access_token=" + good + "&b=2"},
		"a name in other case":                         {target: "/ws?Access_Token=" + good, want: none},
		"a second one in other case":                   {target: "/ws?ACCESS_TOKEN=x&access_token=" + good, want: several},
		"a second one that PHP reads so":               {target: "/ws?access.token=x&access_token=" + good, want: several},
		"a second one as a list":                       {target: "/ws?access_token=" + good + "&access_token[]=x", want: several},
		"a second one behind a blank":                  {target: "/ws?access_token=" + good + "&+access_token=x", want: several},
		"a second one cut off by NUL":                  {target: "/ws?access_token=" + good + "&access_token%00x=x", want: several},
		"a name that ends like it":                     {target: "/ws?xaccess_token=" + good, want: none},
		"an empty parameter":                           {target: "/ws?access_token=", want: none},
		"a parameter without a value":                  {target: "/ws?access_token", want: none},
		"a token in the path":                          {target: "/access_token=" + good, want: none},
		"the parameter twice":                          {target: "/ws?access_token=" + good + "&access_token=" + good, want: several},
		"the parameter twice, once empty":              {target: "/ws?access_token=&access_token=" + good, want: several},
		"the parameter twice, once encoded":            {target: "/ws?access_token=" + good + "&acc%65ss_token=x", want: several},
		"the parameter, encoded":                       {target: "/ws?access%5Ftoken=" + good},
		"a name with a broken escape is another":       {target: "/ws?access%5token=" + good, want: none},
		"the parameter twice, once behind a semicolon": {target: "/ws?access_token=" + good + ";access_token=x", want: several},
		"a token that is encoded":                      {target: "/ws?access_token=" + strings.Replace(good, ".", "%2E", 1), want: malformed},
		"a token with a comma":                         {target: "/ws?access_token=" + good + ",x", want: malformed},
		"a query with a fragment":                      {target: "/ws?access_token=" + good + "#x", want: "path_invalid"},
		"a path that is not valid":                     {target: "/a%2fb?access_token=" + good, want: "path_invalid"},
		"an ambiguous path, which nothing looks at":    {target: "/a/../b?access_token=" + good},
		"a token in query and header":                  {target: "/ws?access_token=" + good, header: bearer(good), want: several},
		"a token in query and subprotocol":             {target: "/ws?access_token=" + good, header: offers("bearer." + good), want: several},
		"a token over 8 KiB in the query":              {target: "/ws?access_token=" + strings.Repeat("a", 8193), want: "too_large"},

		"a token in the subprotocols":             {target: "/ws", header: offers("chat, bearer." + good)},
		"a token alone":                           {target: "/ws", header: offers("bearer." + good)},
		"a token in the second line":              {target: "/ws", header: offers("chat", "bearer."+good)},
		"two tokens in one line":                  {target: "/ws", header: offers("bearer." + good + ",bearer." + good), want: several},
		"two tokens in two lines":                 {target: "/ws", header: offers("bearer."+good, "bearer.x"), want: several},
		"the prefix without a token":              {target: "/ws", header: offers("chat, bearer."), want: malformed},
		"the prefix in other case":                {target: "/ws", header: offers("Bearer." + good), want: none},
		"a token without the prefix":              {target: "/ws", header: offers(good), want: none},
		"a subprotocol that is no b64token":       {target: "/ws", header: offers(`bearer."x"`), want: malformed},
		"a token in subprotocol and header":       {target: "/ws", header: map[string][]string{"Sec-Websocket-Protocol": {"bearer." + good}, "Authorization": {"Bearer " + good}}, want: several},
		"subprotocols beside one in the header":   {target: "/ws", header: map[string][]string{"Sec-Websocket-Protocol": {"chat"}, "Authorization": {"Bearer " + good}}},
		"a header that only looks like the field": {target: "/ws", header: map[string][]string{"Sec_websocket_protocol": {"bearer." + good}}, want: none},
	} {
		t.Run(name, func(t *testing.T) {
			d := w.check(get(tc.target, tc.header))
			if d.Reason != tc.want || d.Allowed != (tc.want == "") {
				t.Errorf("reason %q (%v), want %q", d.Reason, d.Err, tc.want)
			}
			if d.Err != nil && strings.Contains(d.Err.Error(), good[len(good)-20:]) {
				t.Errorf("error shows a token: %v", d.Err)
			}
		})
	}

	t.Run("a target that is not known denies, as it may have another token", func(t *testing.T) {
		req := get("", bearer(good))
		req.HasTarget = false
		if d := w.want(req, "path_unknown"); d.Status != 403 {
			t.Errorf("status %d, want 403", d.Status)
		}
	})
}

func TestPreflight(t *testing.T) {
	w, s := newShop(t)
	path := func(prefix string) []v1alpha1.PathMatch { return []v1alpha1.PathMatch{{Prefix: prefix}} }
	spec := v1alpha1.AccessPolicySpec{
		Realm:     "orders",
		Preflight: v1alpha1.PreflightAllow,
		Issuers:   []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
		Rules: []v1alpha1.Rule{
			{Name: "closed", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Paths: path("/closed")}}},
			{Name: "read", Match: []v1alpha1.Match{{Methods: []string{"GET"}, Paths: path("/orders")}}},
			{Name: "options", Match: []v1alpha1.Match{{Methods: []string{"OPTIONS"}, Paths: path("/own")}}},
		},
		Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Subject", Claim: "sub"}}},
	}
	allow := orders
	w.policy(allow, spec)
	deny := orders
	deny.Name = "strict"
	spec.Preflight = ""
	w.policy(deny, spec)
	header := func(lines ...string) map[string][]string {
		out := map[string][]string{}
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			out[name] = append(out[name], value)
		}
		return out
	}
	const origin, asks = "Origin: https://a.example", "Access-Control-Request-Method: GET"
	for name, tc := range map[string]struct {
		method   string // OPTIONS when empty
		unknown  bool
		target   string // /orders when empty
		header   map[string][]string
		want     string
		wantRule string
	}{
		"a preflight passes":                        {header: header(origin, asks), wantRule: "read"},
		"one for a method without a rule":           {header: header(origin, "Access-Control-Request-Method: DELETE"), want: "no_rule"},
		"one for a method in small letters":         {header: header(origin, "Access-Control-Request-Method: get"), want: "method_unknown"},
		"one for what is denied":                    {target: "/closed", header: header(origin, asks), want: "access_denied", wantRule: "closed"},
		"one for a path without a rule":             {target: "/else", header: header(origin, asks), want: "no_rule"},
		"one for an ambiguous path":                 {target: "/closed/../orders", header: header(origin, asks), want: "path_ambiguous"},
		"one without Origin":                        {header: header(asks), want: "no_rule"},
		"one with two Origins":                      {header: header(origin, origin, asks), want: "no_rule"},
		"one with an empty Origin":                  {header: header("Origin: ", asks), want: "no_rule"},
		"one without the announced method":          {header: header(origin), want: "no_rule"},
		"one with two announced methods":            {header: header(origin, asks, asks), want: "no_rule"},
		"another method with the fields of one":     {method: "GET", header: header(origin, asks), want: "no_credentials", wantRule: "read"},
		"another with a token":                      {method: "GET", header: bearer(s.mint(t, nil)), wantRule: "read"},
		"the method in small letters":               {method: "options", header: header(origin, asks), want: "method_unknown"},
		"a method that the caller does not tell":    {unknown: true, header: header(origin, asks), want: "method_unknown"},
		"OPTIONS that is none, by its own rule":     {target: "/own", header: header(origin), want: "no_credentials", wantRule: "options"},
		"a preflight for OPTIONS, by that rule too": {target: "/own", header: header(origin, "Access-Control-Request-Method: OPTIONS"), wantRule: "options"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.method == "" {
				tc.method = "OPTIONS"
			}
			if tc.target == "" {
				tc.target = "/orders"
			}
			req := get(tc.target, tc.header)
			req.Policy, req.Method, req.HasMethod = allow, tc.method, !tc.unknown
			d := w.want(req, tc.want)
			if d.Rule != tc.wantRule {
				t.Errorf("rule %q, want %q", d.Rule, tc.wantRule)
			}
			if d.Allowed && tc.method == "OPTIONS" && (len(d.Identity) != 1 || d.Identity[0].Value != "") {
				t.Errorf("identity %v, want the one header, empty", d.Identity)
			}
			req.Policy = deny
			if d := w.check(req); d.Allowed && tc.method == "OPTIONS" {
				t.Error("it passes a policy that does not allow it")
			}
		})
	}
}
