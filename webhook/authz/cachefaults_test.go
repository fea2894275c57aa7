package authz_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

// What was remembered for one question is not the answer to another: each case
// asks with one token until it is remembered, changes one thing, and asks again and again.
// See TestCachedTokenEndsWithItsKey for what ends with a key.
func TestRememberedTokenIsJudgedAnew(t *testing.T) {
	shopKeys := authz.Ref{Namespace: "shop", Name: "shop"}
	spec := func(change func(*v1alpha1.AccessPolicySpec)) v1alpha1.AccessPolicySpec {
		s := shop()
		if change != nil {
			change(&s)
		}
		return s
	}
	other := authz.Ref{Namespace: "shop", Name: "other"}
	asOther := func(w *world, change func(*v1alpha1.AccessPolicySpec)) func(*authz.Request) {
		w.policy(other, spec(change))
		return func(r *authz.Request) { r.Policy = other }
	}
	for name, tc := range map[string]struct {
		// change says how the next question differs, if it does.
		change func(w *world, s *signer) func(*authz.Request)
		want   string
	}{
		"by a stricter rule, for its scopes": {func(*world, *signer) func(*authz.Request) {
			return func(r *authz.Request) { r.Method = "POST" }
		}, "insufficient_scope"},
		"by a stricter rule, for its claims": {func(*world, *signer) func(*authz.Request) {
			return func(r *authz.Request) { r.Target = "/admin" }
		}, "claim_mismatch"},
		"by a rule for nobody": {func(*world, *signer) func(*authz.Request) {
			return func(r *authz.Request) { r.Target = "/internal" }
		}, "access_denied"},
		"for another policy's audience": {func(w *world, _ *signer) func(*authz.Request) {
			return asOther(w, func(s *v1alpha1.AccessPolicySpec) { s.Issuers[0].Audiences = []string{"invoices"} })
		}, "wrong_audience"},
		"for another policy's required claims": {func(w *world, _ *signer) func(*authz.Request) {
			return asOther(w, func(s *v1alpha1.AccessPolicySpec) { s.Issuers[0].RequiredClaims = []string{"email"} })
		}, "missing_claim"},
		"for another policy's profile": {func(w *world, s *signer) func(*authz.Request) {
			named := s.again(func(k *keyset.Key) { k.Issuer = "https://auth.example" })
			w.keys(shopKeys, func(k *authz.Keys) { k.Issuer = named.key.Issuer }, named)
			return asOther(w, func(s *v1alpha1.AccessPolicySpec) { s.Issuers[0].Profile = v1alpha1.ProfileAccessToken })
		}, "wrong_issuer"},
		"for another policy's revoked subjects": {func(w *world, _ *signer) func(*authz.Request) {
			return asOther(w, func(s *v1alpha1.AccessPolicySpec) {
				s.RevokedTokens = &v1alpha1.RevokedTokens{JTIs: []string{"j-1"}}
			})
		}, "token_revoked"},
		"for a policy that looks elsewhere": {func(w *world, _ *signer) func(*authz.Request) {
			return asOther(w, func(s *v1alpha1.AccessPolicySpec) {
				s.Credentials = []v1alpha1.Credential{{Cookie: &v1alpha1.CookieCredential{Name: "session"}}}
			})
		}, "no_credentials"},
		"by the policy's next version": {func(w *world, _ *signer) func(*authz.Request) {
			w.policy(orders, spec(func(s *v1alpha1.AccessPolicySpec) { s.Issuers[0].Audiences = []string{"invoices"} }))
			return nil
		}, "wrong_audience"},
		"by the next version, which is the same": {func(w *world, _ *signer) func(*authz.Request) {
			w.policy(orders, spec(nil))
			return nil
		}, ""},
		"beside a second token": {func(w *world, s *signer) func(*authz.Request) {
			return func(r *authz.Request) {
				r.Header = map[string][]string{"Authorization": r.Header["Authorization"], "Cookie": {"session=" + s.mint(w.t, nil)}}
			}
		}, "several_credentials"},
		"after it expired": {func(w *world, _ *signer) func(*authz.Request) {
			w.now = start.Add(11 * time.Minute)
			return nil
		}, "expired"},
		"after its key was revoked": {func(w *world, _ *signer) func(*authz.Request) {
			w.keys(shopKeys, func(k *authz.Keys) { k.Revoked = []string{"k1"} })
			return nil
		}, "key_revoked"},
		"after another key took the ID": {func(w *world, _ *signer) func(*authz.Request) {
			w.keys(shopKeys, nil, newSigner(w.t, "k1"))
			return nil
		}, "bad_signature"},
		"after the key came again as another object": {func(w *world, s *signer) func(*authz.Request) {
			w.keys(shopKeys, nil, s.again(func(*keyset.Key) {}))
			return nil
		}, ""},
		"after the key came again for tokens of less time": {func(w *world, s *signer) func(*authz.Request) {
			w.keys(shopKeys, nil, s.again(func(k *keyset.Key) { k.MaxTokenTTL = time.Minute }))
			return nil
		}, "lives_too_long"},
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newShop(t)
			raw := s.mint(t, map[string]any{"jti": "j-1"})
			w.remembered(get("/orders", bearer(raw)), "")
			differs := tc.change(w, s)
			for range 4 {
				req := get("/orders", bearer(raw))
				if differs != nil {
					differs(&req)
				}
				w.want(req, tc.want)
			}
		})
	}
}

// The whole token is compared: no part, no other spelling and no neighbour of a
// remembered one is it.
func TestATextThatResemblesARememberedTokenIsAnother(t *testing.T) {
	w, s := newShop(t)
	raw, next := s.mint(t, map[string]any{"sub": "a"}), s.mint(t, map[string]any{"sub": "b"})
	w.remembered(get("/orders", bearer(raw)), "")
	w.remembered(get("/orders", bearer(next)), "")
	for i := range raw {
		for _, c := range []byte{'A', '-', '.', raw[i] ^ 0x20, raw[i] + 1} {
			if c == raw[i] {
				continue
			}
			if d := w.check(get("/orders", bearer(raw[:i]+string(rune(c))+raw[i+1:]))); d.Allowed {
				t.Errorf("character %d changed from %q to %q: it passes", i, raw[i], c)
			}
		}
		if d := w.check(get("/orders", bearer(raw[:i]+raw[i+1:]))); d.Allowed {
			t.Errorf("without character %d it passes", i)
		}
		// What ends the one and begins the other, as if they had been joined.
		if d := w.check(get("/orders", bearer(raw[i:]+next[:i]))); i > 0 && d.Allowed {
			t.Errorf("joined at character %d it passes", i)
		}
	}
	w.want(get("/orders", bearer(raw)), "")
}

// Names that read alike once they are joined are different names.
func TestPoliciesWhoseNamesJoinToOneTextAreApart(t *testing.T) {
	w, s := newShop(t)
	open, closed := authz.Ref{Namespace: "a", Name: "b.c"}, authz.Ref{Namespace: "a.b", Name: "c"}
	for _, ref := range []authz.Ref{open, closed} {
		keys := s
		if ref == closed {
			keys = newSigner(t, "k1")
		}
		w.keys(authz.Ref{Namespace: ref.Namespace, Name: "shop"}, nil, keys)
		w.policy(ref, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")}})
	}
	raw := s.mint(t, nil)
	for range 4 {
		req := get("/", bearer(raw))
		req.Policy = open
		w.want(req, "")
		req.Policy = closed
		w.want(req, "bad_signature")
	}
}

// Nothing is shared among those who ask at the same time but what is theirs.
func TestTokensThatAreAskedAboutAtOnceAreNotMixed(t *testing.T) {
	w, s := newShop(t)
	strict := authz.Ref{Namespace: "shop", Name: "strict"}
	w.policy(strict, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "invoices")}})
	var wait sync.WaitGroup
	for i := range 16 {
		sub := fmt.Sprintf("u-%d", i)
		raw := s.mint(t, map[string]any{"sub": sub})
		for range 2 {
			wait.Go(func() {
				for range 50 {
					d := w.check(get("/orders", bearer(raw)))
					if !d.Allowed || d.Identity[0].Value != sub {
						t.Errorf("asked about %s: %+v", sub, d)
					}
					req := get("/orders", bearer(raw))
					req.Policy = strict
					if d := w.check(req); d.Reason != "wrong_audience" {
						t.Errorf("the strict policy: %+v", d)
					}
				}
			})
		}
	}
	wait.Wait()
}
