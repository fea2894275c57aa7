package authz_test

import (
	"testing"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

func TestAnswersThatProxiesMayKeep(t *testing.T) {
	spec := v1alpha1.AccessPolicySpec{
		DecisionCache: v1alpha1.Duration{Duration: 5 * time.Minute},
		Preflight:     v1alpha1.PreflightAllow,
		Credentials: []v1alpha1.Credential{
			{Header: &v1alpha1.HeaderCredential{Name: "authorization", Scheme: "Bearer"}},
			{Cookie: &v1alpha1.CookieCredential{Name: "a"}}, {Cookie: &v1alpha1.CookieCredential{Name: "b"}},
			{WebSocketProtocol: &v1alpha1.WebSocketProtocolCredential{Prefix: "bearer."}},
		},
		Issuers:  []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
		Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Email", Claim: "email"}}},
	}
	preflight := map[string][]string{"Origin": {"https://a.example"}, "Access-Control-Request-Method": {"GET"}}
	for name, tc := range map[string]struct {
		exp    time.Duration
		end    time.Duration // of the key; 0: none
		cache  time.Duration // decisionCache; 0: five minutes
		email  string
		method string
		header map[string][]string
		want   time.Duration
		reason string
	}{
		"as long as the policy says":                    {exp: 10 * time.Minute, want: 5 * time.Minute},
		"until the token expires":                       {exp: 90 * time.Second, want: 90 * time.Second},
		"until the key ends":                            {exp: 10 * time.Minute, end: 42 * time.Second, want: 42 * time.Second},
		"in whole seconds":                              {exp: 10 * time.Minute, end: 41*time.Second + 900*time.Millisecond, want: 41 * time.Second},
		"not for less than a second":                    {exp: 10 * time.Minute, end: 900 * time.Millisecond},
		"not for a token that lives on leeway":          {exp: -10 * time.Second},
		"not where the policy does not say so":          {exp: 10 * time.Minute, cache: -1},
		"not a denial":                                  {exp: -2 * time.Minute, reason: "expired"},
		"not a denial for what the token says":          {exp: 10 * time.Minute, email: "a\nb", reason: "identity_invalid"},
		"not a preflight, which nobody's token is with": {exp: 10 * time.Minute, method: "OPTIONS", header: preflight},
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newWorld(t), newSigner(t, "k1")
			if tc.end != 0 {
				s = s.again(func(k *keyset.Key) { k.VerifyUntil = start.Add(tc.end) })
			}
			w.keys(authz.Ref{Namespace: "shop", Name: "shop"}, nil, s)
			spec := spec
			if tc.cache < 0 {
				spec.DecisionCache.Duration = 0
			}
			w.policy(orders, spec)
			claims := map[string]any{"iat": start.Add(-20 * time.Minute).Unix(), "exp": start.Add(tc.exp).Unix()}
			if tc.email != "" {
				claims["email"] = tc.email
			}
			req := get("/", bearer(s.mint(t, claims)))
			if tc.method != "" {
				req.Method, req.Header = tc.method, tc.header
			}
			for _, pass := range []string{"first", "remembered"} {
				d := w.want(req, tc.reason)
				if d.CacheFor != tc.want {
					t.Errorf("%s: %s, want %s", pass, d.CacheFor, tc.want)
				}
				wantVary := ""
				if tc.want > 0 {
					wantVary = "Authorization, Cookie, Sec-Websocket-Protocol"
				}
				if d.Vary != wantVary {
					t.Errorf("%s: Vary %q, want %q", pass, d.Vary, wantVary)
				}
			}
		})
	}
}

func TestReasonIsShownWhereThePolicySaysSo(t *testing.T) {
	w, s := newShop(t)
	w.policy(orders, v1alpha1.AccessPolicySpec{
		Denials: &v1alpha1.Denials{ReasonHeader: true},
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
	})
	quiet := authz.Ref{Namespace: "shop", Name: "quiet"}
	w.policy(quiet, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")}})
	for name, tc := range map[string]struct {
		policy authz.Ref
		header map[string][]string
		reason string
		want   bool
	}{
		"a denial":                          {policy: orders, reason: "no_credentials", want: true},
		"no denial":                         {policy: orders, header: bearer(s.mint(t, nil))},
		"a denial of another policy":        {policy: quiet, reason: "no_credentials"},
		"a denial of one that is not there": {policy: authz.Ref{Namespace: "shop", Name: "nope"}, reason: "policy_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			req := get("/", tc.header)
			req.Policy = tc.policy
			if d := w.want(req, tc.reason); d.ShowReason != tc.want {
				t.Errorf("shown: %v, want %v", d.ShowReason, tc.want)
			}
		})
	}
	t.Run("a policy whose keys are gone", func(t *testing.T) {
		w.store.DeleteKeys(authz.Ref{Namespace: "shop", Name: "shop"})
		if d := w.want(get("/", nil), "policy_not_ready"); !d.ShowReason {
			t.Error("not shown")
		}
	})
}

func TestProfileNeedsAnIssuer(t *testing.T) {
	w, s := newWorld(t), newSigner(t, "k1")
	named := s.again(func(k *keyset.Key) { k.Issuer = "https://auth.example" })
	spec := v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")}}
	spec.Issuers[0].Profile = v1alpha1.ProfileAccessToken
	w.policy(orders, spec)
	ref := authz.Ref{Namespace: "shop", Name: "shop"}
	w.keys(ref, nil, s)
	w.want(get("/", bearer(s.mint(t, nil))), "policy_not_ready")
	w.keys(ref, func(k *authz.Keys) { k.Issuer = named.key.Issuer }, named)
	w.want(get("/", bearer(named.mint(t, nil))), "wrong_issuer")
	w.want(get("/", bearer(named.mint(t, map[string]any{"iss": named.key.Issuer}))), "wrong_type")
	access := map[string]any{"iss": named.key.Issuer, "client_id": "web", "jti": "1"}
	named.typ = "at+jwt"
	w.want(get("/", bearer(named.mint(t, access))), "")
	delete(access, "client_id")
	w.want(get("/", bearer(named.mint(t, access))), "missing_claim")
}
