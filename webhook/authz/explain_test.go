package authz_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

// To explain is to decide: whatever is asked, the outcome is Check's, the last
// step of a denial says why, and nothing secret is told.
func TestExplainSaysWhatCheckDoes(t *testing.T) {
	w, s := newShop(t)
	named := newSigner(t, "k2").again(func(k *keyset.Key) { k.Issuer = "https://auth.example" })
	ended := newSigner(t, "k3").again(func(k *keyset.Key) { k.VerifyUntil = start.Add(-time.Second) })
	w.keys(authz.Ref{Namespace: "shop", Name: "named"}, func(k *authz.Keys) { k.Issuer = named.key.Issuer }, named, ended)
	access := issuer("", "named", "orders")
	access.Profile = v1alpha1.ProfileAccessToken
	text := func(s string) *string { return &s }
	specs := map[string]v1alpha1.AccessPolicySpec{
		"orders": shop(),
		"broken": {},
		"lost":   {Issuers: []v1alpha1.TokenIssuerRef{issuer("", "nowhere")}},
		"cached": {DecisionCache: v1alpha1.Duration{Duration: time.Minute}, Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop"), issuer("", "shop", "invoices")}},
		"access": {Issuers: []v1alpha1.TokenIssuerRef{access}, Denials: &v1alpha1.Denials{ReasonHeader: true}},
		"wide": {
			Preflight: v1alpha1.PreflightAllow,
			Credentials: []v1alpha1.Credential{
				{Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"}},
				{Query: &v1alpha1.QueryCredential{Name: "t"}},
				{WebSocketProtocol: &v1alpha1.WebSocketProtocolCredential{Prefix: "bearer."}},
			},
			Issuers:       []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders"), issuer("", "named", "invoices")},
			RevokedTokens: &v1alpha1.RevokedTokens{JTIs: []string{"lost"}},
			Rules: []v1alpha1.Rule{
				{Name: "closed", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Hosts: []string{"closed.example"}}}},
				{Name: "own", Match: []v1alpha1.Match{{Methods: []string{"GET"}}, {Paths: []v1alpha1.PathMatch{{Exact: "/own"}}}},
					Require: &v1alpha1.Requirements{
						Claims:      []v1alpha1.ClaimRequirement{{Path: "sub", Equals: text("u-17")}},
						Expressions: []v1alpha1.Expression{{CEL: "claims.scope.startsWith('orders')", Message: "needs orders"}},
					}},
			},
			Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Email", Claim: "email"}}},
		},
	}
	for name, spec := range specs {
		w.policy(authz.Ref{Namespace: "shop", Name: name}, spec)
	}
	const secret = "secret-value-of-a-claim"
	tokens := []string{"", "abc", "a.b.c", `"quoted"`, strings.Repeat("a", 9000)}
	for _, by := range []*signer{s, named, ended, newSigner(t, "k1"), newSigner(t, "k9")} {
		for _, claims := range []map[string]any{
			nil, {"jti": "lost"}, {"sub": secret}, {"scope": secret}, {"scope": 1}, {"aud": "invoices"}, {"roles": []string{"admin"}},
			{"exp": start.Add(-time.Hour).Unix()}, {"nbf": start.Add(time.Hour).Unix()}, {"iat": start.Add(time.Hour).Unix()},
			{"exp": start.Add(9 * time.Hour).Unix()}, {"exp": "x"}, {"email": secret + "\n"}, {"email": secret}, {"email": strings.Repeat("e", 3500)},
			{"iss": named.key.Issuer}, {"iss": named.key.Issuer, "client_id": "web", "jti": "1"},
		} {
			for _, typ := range []string{"", "at+jwt", "logout+jwt"} {
				as := *by
				as.typ = typ
				tokens = append(tokens, as.mint(t, claims))
			}
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	pick := func(from ...string) string { return from[dice.IntN(len(from))] }
	outcomes := map[string]int{}
	for range 20_000 {
		raw := tokens[dice.IntN(len(tokens))]
		req := get(pick("/orders", "/orders/1", "/own", "/admin", "/healthz", "/internal", "/back", "/a/../orders", "/a%2fb", "/orders?t="+raw, "/?t="+raw+"&t=x"), bearer(raw))
		req.Policy.Name = pick("orders", "orders", "wide", "wide", "wide", "broken", "lost", "cached", "access", "missing")
		req.Method = pick("GET", "GET", "POST", "OPTIONS", "get")
		req.Host = pick("shop.example.com", "CLOSED.example.:443", "a,b")
		req.HasTarget, req.HasMethod, req.HasHost = dice.IntN(20) > 0, dice.IntN(20) > 0, dice.IntN(20) > 0
		switch dice.IntN(10) {
		case 0:
			req.Header = nil
		case 1:
			req.Header = map[string][]string{"Sec-Websocket-Protocol": {"chat, bearer." + raw}}
		case 2:
			req.Header = map[string][]string{"Cookie": {"session=" + raw}}
		case 3:
			req.Header["X-Api-Token"] = []string{raw}
		case 4:
			req.Header = map[string][]string{"Origin": {"https://a.example"}, "Access-Control-Request-Method": {"GET"}}
		}
		explained := w.gate.Explain(context.Background(), req)
		d := w.check(req)
		flat := func(d authz.Decision) string {
			err := d.Err
			d.Err = nil
			return fmt.Sprintf("%+v %v %s", d, err, d.WWWAuthenticate())
		}
		if diff := cmp.Diff(flat(d), flat(explained.Decision)); diff != "" {
			t.Fatalf("Check and Explain differ (-Check +Explain):\n%s\n%s", diff, explained.String())
		}
		if n := len(explained.Steps); n == 0 || explained.Steps[n-1].OK != d.Allowed {
			t.Fatalf("the last step does not say why:\n%s", explained.String())
		}
		told := explained.String()
		if strings.Contains(told, secret) || len(raw) > 20 && strings.Contains(told, raw[len(raw)-20:]) {
			t.Fatalf("a secret is told:\n%s", told)
		}
		outcomes[d.Reason]++
	}
	if len(outcomes) < 25 || outcomes[""] == 0 {
		t.Errorf("too few kinds of outcomes: %v", outcomes)
	}
}

func TestExplainTellsEachStep(t *testing.T) {
	w, s := newShop(t)
	req := get("/admin/x?q=1", bearer(s.mint(t, nil)))
	req.Method = "DELETE"
	got := w.gate.Explain(context.Background(), req)
	const want = `ok   policy orders: is in force
ok   method: "DELETE"
ok   path: "/admin/x"
ok   host: "shop.example.com"
no   rule health: does not match: another path
no   rule internal: does not match: another path
no   rule write: does not match: another method
ok   rule roles: is the first that matches
ok   access Authenticated
ok   credential header Authorization with scheme Bearer: a token of 277 bytes
no   credential cookie session: nothing is there
no   credential header X-Api-Token: nothing is there
ok   form: three segments of strict base64url
ok   header: alg "ES256", kid "k1"
ok   key k1: found
ok   algorithm ES256: is the key's own
ok   signature: the key signed this
ok   claims: registered ones have the right types
ok   issuer shop/shop: has the key
ok   key k1: verifies now
ok   exp: is still to come, leeway included
ok   iat: has come
ok   life: is no longer than the key's tokens may live
ok   aud: names one that is expected
no   claim roles: a claim is not what the rule asks for
denied with 403: claim_mismatch, by rule roles
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("explanation (-want +got):\n%s", diff)
	}
	if n := w.gate.Stats().Misses; n != 0 {
		t.Errorf("%d tokens were looked up: to explain leaves no trace in the figures", n)
	}
	for ref, state := range w.store.Policies() {
		state.Counters.Denied(func(reason string, n uint64) bool {
			t.Errorf("%s counts %d of %s", ref, n, reason)
			return true
		})
	}
}
