package authz_test

import (
	"strings"
	"testing"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
)

// An issuer of others that does not answer denies its own tokens, and nothing
// beside them.
func TestAnIssuerThatIsNotLoadedDeniesItsOwnTokensAlone(t *testing.T) {
	w, s := newShop(t)
	away := policy.Origin{Discovery: true, URL: "https://away.example", Issuer: "https://away.example"}
	spec := shop()
	spec.Issuers = append(spec.Issuers, v1alpha1.TokenIssuerRef{
		OIDC: &v1alpha1.OIDCIssuer{URL: away.URL}, Audiences: []string{"orders"}, Algorithms: []string{"ES256"},
	})
	w.policy(orders, spec)
	theirs, sameID := newSigner(t, "theirs"), newSigner(t, s.key.ID)
	bare := newSigner(t, "theirs")
	bare.bare = true
	iss := map[string]any{"iss": away.Issuer}
	tests := map[string]struct {
		header map[string][]string
		target string // /orders/1 when empty
		// reasons while it is not loaded, and with its keys.
		before, loaded string
	}{
		"a token of the SigningKey": {header: bearer(s.mint(t, nil))},
		// Its key names no issuer, and the other issuer has its key ID: while that
		// one's keys are away nothing says which of them is meant.
		"a token of the SigningKey with that iss": {header: bearer(s.mint(t, iss)), loaded: "bad_signature"},
		"an anonymous rule":                       {target: "/healthz"},
		"no token":                                {before: "no_credentials", loaded: "no_credentials"},
		"a token of the issuer":                   {header: bearer(theirs.mint(t, iss)), before: "issuer_not_loaded"},
		"one with a kid that the SigningKey has":  {header: bearer(sameID.mint(t, iss)), before: "issuer_not_loaded"},
		"one whose iss is another":                {header: bearer(theirs.mint(t, nil)), before: "unknown_key", loaded: "wrong_issuer"},
		"one without a kid":                       {header: bearer(bare.mint(t, iss)), before: "missing_key_id", loaded: "missing_key_id"},
		"one that is malformed":                   {header: bearer("a.b.c"), before: "malformed", loaded: "malformed"},
	}
	each := func(when string, reason func(before, loaded string) string) {
		t.Helper()
		for name, tc := range tests {
			target := tc.target
			if target == "" {
				target = "/orders/1"
			}
			want := reason(tc.before, tc.loaded)
			for _, pass := range []string{"first", "again"} {
				d := w.check(get(target, tc.header))
				if d.Reason != want || d.Allowed != (want == "") {
					t.Errorf("%s, %s, %s: reason %q (%v), want %q", when, name, pass, d.Reason, d.Err, want)
				}
				// It is not the token's fault: no client gives it up.
				if want == "issuer_not_loaded" && (d.Status != 403 || d.WWWAuthenticate() != "" || !strings.Contains(d.Err.Error(), away.URL)) {
					t.Errorf("%s, %s, %s: status %d, challenge %q, %v", when, name, pass, d.Status, d.WWWAuthenticate(), d.Err)
				}
			}
		}
	}
	before := func(before, _ string) string { return before }
	each("before it answers", before)
	for _, state := range w.store.Policies() {
		if state.NotReady != nil {
			t.Errorf("the policy is not ready: %v", state.NotReady)
		}
	}
	w.store.SetOrigin(away, true, []authz.RemoteKey{
		{ID: theirs.key.ID, Algorithm: keyset.ES256, Public: theirs.key.Public},
		{ID: sameID.key.ID, Algorithm: keyset.ES256, Public: sameID.key.Public},
	})
	each("with its keys", func(_, loaded string) string { return loaded })
	w.store.SetOrigin(away, false, nil)
	each("once its keys count no longer", before)

	w.store.DeleteKeys(authz.Ref{Namespace: "shop", Name: "shop"})
	w.want(get("/healthz", nil), "policy_not_ready")
}

// To explain says the same, and that it is for want of that issuer's keys.
func TestExplainNamesTheIssuerThatIsNotLoaded(t *testing.T) {
	w := newWorld(t)
	w.policy(orders, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{
		JWKS:      &v1alpha1.JWKSIssuer{URL: "https://away.example/keys", Issuer: "https://away.example"},
		Audiences: []string{"orders"}, Algorithms: []string{"ES256"},
	}}})
	raw := newSigner(t, "theirs").mint(t, map[string]any{"iss": "https://away.example"})
	e := w.gate.Explain(t.Context(), get("/", bearer(raw)))
	const want = "no   issuer https://away.example: the keys of the token's issuer are not loaded: https://away.example/keys"
	if text := e.String(); !strings.Contains(text, want) || e.Decision.Reason != "issuer_not_loaded" {
		t.Errorf("got\n%s\nwant a line\n%s", text, want)
	}
}
