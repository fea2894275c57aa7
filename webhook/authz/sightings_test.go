package authz_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

var shopKeys = authz.Ref{Namespace: "shop", Name: "shop"}

// told is what the store says of a key of shop/shop.
func (w *world) told(id string) keyset.KeyReport {
	w.t.Helper()
	keys, _ := w.store.Keys(shopKeys)
	for _, k := range keys.Report().Keys {
		if k.KeyID == id {
			k.Thumbprint = ""
			return k
		}
	}
	return keyset.KeyReport{}
}

func TestSightings(t *testing.T) {
	type step struct {
		what   string
		do     func(w *world, s *signer)
		seen   time.Duration // from start; -1: never
		newest time.Duration
	}
	const never = time.Duration(-1)
	token := func(at time.Duration, claims map[string]any, reason string) func(*world, *signer) {
		return func(w *world, s *signer) {
			w.now = start.Add(at)
			w.want(get("/orders", bearer(s.mint(w.t, claims))), reason)
		}
	}
	iat := func(d time.Duration) map[string]any { return map[string]any{"iat": start.Add(d).Unix()} }
	for name, steps := range map[string][]step{
		"a token that passes": {{"", token(1500*time.Millisecond, nil, ""), time.Second, 0}},
		"a token that does not is nothing": {
			{"expired", token(0, map[string]any{"exp": start.Add(-time.Hour).Unix()}, "expired"), never, never},
			{"of later", token(0, map[string]any{"nbf": start.Add(time.Hour).Unix()}, "not_yet_valid"), never, never},
			{"signed by another", func(w *world, _ *signer) {
				w.want(get("/orders", bearer(newSigner(w.t, "k1").mint(w.t, nil))), "bad_signature")
			}, never, never},
		},
		"a token for others was signed, and has not passed": {
			{"another audience", token(0, map[string]any{"aud": "other", "iat": start.Add(3 * time.Second).Unix()}, "wrong_audience"), never, 3 * time.Second},
		},
		"a token without iat has no newest": {{"", token(time.Second, map[string]any{"iat": nil}, ""), time.Second, never}},
		"the newest is the newest": {
			{"first", token(0, iat(-time.Minute), ""), 0, -time.Minute},
			{"older", token(time.Second, iat(-2*time.Minute), ""), time.Second, -time.Minute},
			{"newer", token(2*time.Second, iat(time.Second), ""), 2 * time.Second, time.Second},
		},
		"a token that the policy revokes has not passed": {
			{"", func(w *world, s *signer) {
				spec := shop()
				spec.RevokedTokens = &v1alpha1.RevokedTokens{JTIs: []string{"j"}}
				w.policy(orders, spec)
				w.want(get("/orders", bearer(s.mint(w.t, map[string]any{"jti": "j"}))), "token_revoked")
			}, never, 0},
		},
		"a token that a rule asks more of has passed": {
			{"", func(w *world, s *signer) {
				w.want(get("/admin", bearer(s.mint(w.t, nil))), "claim_mismatch")
			}, 0, 0},
		},
		"another set with the key": {
			{"before", token(time.Second, nil, ""), time.Second, 0},
			{"as another object", func(w *world, s *signer) {
				w.keys(shopKeys, nil, s.again(func(k *keyset.Key) { k.MaxTokenTTL++ }))
			}, time.Second, 0},
			{"of another UID", func(w *world, s *signer) {
				w.keys(shopKeys, func(k *authz.Keys) { k.UID = "other" }, s.again(func(*keyset.Key) {}))
			}, never, never},
		},
		"another SigningKey of the name that goes on with the very key": {
			{"before", token(time.Second, nil, ""), time.Second, 0},
			{"", func(w *world, s *signer) { w.keys(shopKeys, func(k *authz.Keys) { k.UID = "other" }, s) }, time.Second, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newShop(t)
			at := func(d time.Duration) time.Time {
				if d == never {
					return time.Time{}
				}
				return start.Add(d).UTC()
			}
			for _, step := range steps {
				step.do(w, s)
				want := keyset.KeyReport{KeyID: "k1", LastSeenAt: at(step.seen), NewestIssuedAt: at(step.newest)}
				if diff := cmp.Diff(want, w.told("k1")); diff != "" {
					t.Errorf("%s (-want +got):\n%s", step.what, diff)
				}
			}
		})
	}

	t.Run("a remembered token goes on being seen, for each policy", func(t *testing.T) {
		w, s := newShop(t)
		other := authz.Ref{Namespace: "shop", Name: "other"}
		w.policy(other, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop")}})
		req := get("/orders", bearer(s.mint(t, nil)))
		for i, policy := range []authz.Ref{orders, orders, orders, other, orders} {
			req.Policy, w.now = policy, start.Add(time.Duration(i)*time.Second)
			w.want(req, "")
			if got := w.told("k1").LastSeenAt; !got.Equal(w.now) {
				t.Errorf("at second %d: last seen %s", i, got)
			}
		}
		if s := w.gate.Stats(); s.Hits != 3 {
			t.Errorf("%d hits", s.Hits)
		}
	})
}

func TestLateTokens(t *testing.T) {
	w, s := newShop(t)
	set := func(after time.Time) {
		w.keys(shopKeys, func(k *authz.Keys) { k.Details = map[string]authz.Detail{"k1": {LateAfter: after}} }, s)
	}
	pass := func(claims map[string]any) {
		t.Helper()
		w.want(get("/orders", bearer(s.mint(t, claims))), "")
	}
	want := func(late int, issuer string) {
		t.Helper()
		if got := w.told("k1"); got.Late != late || got.LateIssuer != issuer {
			t.Errorf("got %d late of %q, want %d of %q", got.Late, got.LateIssuer, late, issuer)
		}
	}
	set(time.Time{})
	pass(map[string]any{"iss": "early"})
	want(0, "")
	set(start)
	pass(map[string]any{"iss": "just in time"})
	want(0, "")
	set(start.Add(-time.Second))
	pass(map[string]any{"iss": "a"})
	pass(map[string]any{"iss": "b"}) // of the same subject
	want(1, "b")
	pass(map[string]any{"iss": "c", "sub": "another"})
	pass(map[string]any{"iss": "d", "sub": "another", "iat": nil}) // nobody knows when
	want(2, "c")
	long := strings.Repeat("ü", keyset.MaxLateIssuer)
	pass(map[string]any{"iss": long, "sub": "another"})
	want(2, long[:keyset.MaxLateIssuer])
	pass(map[string]any{"iss": "x" + long, "sub": "another"})
	want(2, "x"+long[:keyset.MaxLateIssuer-2])

	set(start.Add(time.Minute)) // signerLag was raised
	want(0, "")
	w.now = start.Add(2 * time.Minute)
	pass(map[string]any{"iat": start.Add(2 * time.Minute).Unix()})
	want(1, "")
}

func TestReportOfRefusedKeys(t *testing.T) {
	w, s := newShop(t)
	w.want(get("/orders", bearer(s.mint(t, nil))), "")
	next := newSigner(t, "k2")
	w.keys(shopKeys, func(k *authz.Keys) {
		k.UID, k.Sequence = "", 7
		k.Retired, k.Revoked = []string{"r1", "both", "r2"}, []string{"k1", "v2", "both"}
		k.Asked.Cut = []string{"cut"}
	}, next)
	keys, _ := w.store.Keys(shopKeys)
	thumbprint, err := keyset.Thumbprint(next.key.Public)
	if err != nil {
		t.Fatal(err)
	}
	want := keyset.Report{Sequence: 7, Keys: []keyset.KeyReport{
		{KeyID: "k2", Thumbprint: thumbprint},
		{KeyID: "both", Refused: true}, {KeyID: "v2", Refused: true},
		{KeyID: "k1", Refused: true, LastSeenAt: start.UTC(), NewestIssuedAt: start.UTC()},
		{KeyID: "r2", Refused: true}, {KeyID: "r1", Refused: true},
	}}
	if diff := cmp.Diff(want, keys.Report()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}
