package authz_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
)

var start = time.Unix(1_800_000_000, 0)

var orders = authz.Ref{Namespace: "shop", Name: "orders"}

// signer makes tokens of one key.
type signer struct {
	private *ecdsa.PrivateKey
	key     *keyset.Key
	// bare signers write no kid.
	bare bool
	// typ is the header of that name; JWT when empty.
	typ string
}

func newSigner(t testing.TB, id string) *signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{private: private, key: &keyset.Key{
		ID: id, Algorithm: keyset.ES256, Public: &private.PublicKey,
		MaxTokenTTL: time.Hour, Leeway: time.Minute,
	}}
}

// again is the same key as another object.
func (s *signer) again(change func(*keyset.Key)) *signer {
	key := *s.key
	change(&key)
	return &signer{private: s.private, key: &key, bare: s.bare}
}

func (s *signer) mint(t testing.TB, claims map[string]any) string {
	t.Helper()
	all := jwt.MapClaims{
		"sub": "u-17", "aud": "orders", "iat": start.Unix(), "exp": start.Add(10 * time.Minute).Unix(),
		"scope": "orders:read", "roles": []string{"clerk"},
	}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	if s.typ != "" {
		token.Header["typ"] = s.typ
	}
	if !s.bare {
		token.Header["kid"] = s.key.ID
	}
	raw, err := token.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// world is a gate with what it decides from.
type world struct {
	t     testing.TB
	store *authz.Store
	gate  *authz.Gate
	now   time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, store: authz.NewStore(), now: start}
	w.gate = authz.NewGate(w.store, authz.Options{CacheSize: 1000, Clock: func() time.Time { return w.now }})
	t.Cleanup(w.gate.Close)
	return w
}

func (w *world) keys(ref authz.Ref, change func(*authz.Keys), signers ...*signer) {
	w.t.Helper()
	keys := &authz.Keys{Ref: ref}
	var all []*keyset.Key
	for _, s := range signers {
		all = append(all, s.key)
	}
	var err error
	if keys.Set, err = keyset.NewSet(all...); err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(keys)
	}
	w.store.SetKeys(keys)
}

func (w *world) policy(ref authz.Ref, spec v1alpha1.AccessPolicySpec) {
	w.t.Helper()
	p, err := policy.Compile(ref.Namespace, ref.Name, &spec)
	w.store.SetPolicy(ref, p, err)
}

func issuer(namespace, name string, audiences ...string) v1alpha1.TokenIssuerRef {
	return v1alpha1.TokenIssuerRef{
		SigningKeyRef: v1alpha1.SigningKeyRef{Namespace: namespace, Name: name}, Audiences: audiences,
	}
}

// shop is a policy of most features for tokens of the SigningKey shop/shop.
func shop() v1alpha1.AccessPolicySpec {
	path := func(prefix string) []v1alpha1.PathMatch { return []v1alpha1.PathMatch{{Prefix: prefix}} }
	return v1alpha1.AccessPolicySpec{
		Realm: "orders",
		Credentials: []v1alpha1.Credential{
			{Header: &v1alpha1.HeaderCredential{Name: "authorization", Scheme: "Bearer"}},
			{Cookie: &v1alpha1.CookieCredential{Name: "session"}},
			{Header: &v1alpha1.HeaderCredential{Name: "X-Api-Token"}},
		},
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
		Rules: []v1alpha1.Rule{
			{Name: "health", Access: v1alpha1.AccessAnonymous, Match: []v1alpha1.Match{{Paths: path("/healthz")}}},
			{Name: "internal", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Paths: path("/internal")}}},
			{
				Name: "write", Match: []v1alpha1.Match{{Methods: []string{"POST"}, Paths: path("/orders")}},
				Require: &v1alpha1.Requirements{Scopes: []string{"orders:write", "orders:read"}},
			},
			{
				Name: "roles", Match: []v1alpha1.Match{{Paths: path("/admin")}},
				Require: &v1alpha1.Requirements{Claims: []v1alpha1.ClaimRequirement{{Path: "roles", AnyOf: []string{"admin"}}}},
			},
			{Name: "hosts", Match: []v1alpha1.Match{{Hosts: []string{"back.example.com"}, Paths: path("/back")}}},
			{Name: "read", Match: []v1alpha1.Match{{Paths: path("/orders")}}},
		},
		Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{
			{Name: "X-Auth-Subject", Claim: "sub"}, {Name: "X-Auth-Email", Claim: "email"},
		}},
	}
}

func bearer(raw string) map[string][]string {
	return map[string][]string{"Authorization": {"Bearer " + raw}}
}

func get(target string, header map[string][]string) authz.Request {
	return authz.Request{
		Policy: orders, Target: target, HasTarget: true, Method: "GET", HasMethod: true,
		Host: "shop.example.com", HasHost: true, Header: header,
	}
}

func (w *world) check(req authz.Request) authz.Decision {
	return w.gate.Check(context.Background(), req)
}

func (w *world) want(req authz.Request, reason string) authz.Decision {
	w.t.Helper()
	d := w.check(req)
	if d.Reason != reason || d.Allowed != (reason == "") || (d.Status == 200) != d.Allowed {
		w.t.Errorf("allowed %v, status %d, reason %q (%v), want reason %q", d.Allowed, d.Status, d.Reason, d.Err, reason)
	}
	return d
}

// remembered asks with a token until the answer comes from what is known of it,
// which takes a second time.
func (w *world) remembered(req authz.Request, reason string) {
	w.t.Helper()
	found := func() uint64 { return w.gate.Stats().Hits + w.gate.Stats().BadHits }
	for before, n := found(), 0; found() == before; n++ {
		if n == 3 {
			w.t.Fatal("a token that came three times is not remembered")
		}
		w.want(req, reason)
	}
}

func newShop(t testing.TB) (*world, *signer) {
	w, s := newWorld(t), newSigner(t, "k1")
	w.keys(authz.Ref{Namespace: "shop", Name: "shop"}, nil, s)
	w.policy(orders, shop())
	return w, s
}

func TestEveryReason(t *testing.T) {
	w, s := newShop(t)
	w.policy(authz.Ref{Namespace: "shop", Name: "broken"}, v1alpha1.AccessPolicySpec{})
	w.policy(authz.Ref{Namespace: "shop", Name: "dangling"}, v1alpha1.AccessPolicySpec{
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "nowhere")},
	})
	good := s.mint(t, nil)
	forged := newSigner(t, "k1").mint(t, nil)
	unknown := newSigner(t, "k2").mint(t, nil)
	invalid := `Bearer realm="orders", error="invalid_token"`
	request := `Bearer realm="orders", error="invalid_request"`
	const bare = `Bearer realm="orders"`

	with := func(change func(*authz.Request)) authz.Request {
		req := get("/orders/1", bearer(good))
		change(&req)
		return req
	}
	header := func(lines ...string) authz.Request {
		return get("/orders/1", map[string][]string{"Authorization": lines})
	}
	tests := map[string]struct {
		req       authz.Request
		status    int
		reason    string
		challenge string
		rule      string
	}{
		"a policy that does not exist": {
			with(func(r *authz.Request) { r.Policy.Name = "nope" }), 403, "policy_not_found", "", "",
		},
		"a policy that does not compile": {
			with(func(r *authz.Request) { r.Policy.Name = "broken" }), 403, "policy_not_ready", "", "",
		},
		"a policy whose SigningKey is not there": {
			with(func(r *authz.Request) { r.Policy.Name = "dangling" }), 403, "policy_not_ready", "", "",
		},
		"a good token":                 {with(func(*authz.Request) {}), 200, "", "", "read"},
		"a path that is not known":     {with(func(r *authz.Request) { r.HasTarget = false }), 403, "path_unknown", "", ""},
		"a path that is not valid":     {with(func(r *authz.Request) { r.Target = "/orders%2f1" }), 403, "path_invalid", "", ""},
		"a path that is ambiguous":     {with(func(r *authz.Request) { r.Target = "/healthz/../orders" }), 403, "path_ambiguous", "", ""},
		"a method that is not known":   {with(func(r *authz.Request) { r.HasMethod = false }), 403, "method_unknown", "", ""},
		"a host that is not known":     {with(func(r *authz.Request) { r.HasHost = false; r.Target = "/back" }), 403, "host_unknown", "", ""},
		"a host that is not valid":     {with(func(r *authz.Request) { r.Host = "a,b"; r.Target = "/back" }), 403, "host_invalid", "", ""},
		"no rule that matches":         {with(func(r *authz.Request) { r.Target = "/else" }), 403, "no_rule", "", ""},
		"a rule that lets nobody pass": {with(func(r *authz.Request) { r.Target = "/internal/x" }), 403, "access_denied", "", "internal"},
		"an anonymous rule":            {get("/healthz", nil), 200, "", "", "health"},
		"an anonymous rule with a bad token": {
			get("/healthz", bearer(forged)), 200, "", "", "health",
		},
		"a scope that is missing": {
			with(func(r *authz.Request) { r.Method = "POST" }), 403, "insufficient_scope",
			`Bearer realm="orders", error="insufficient_scope", scope="orders:write orders:read"`, "write",
		},
		"a claim that does not fit": {
			with(func(r *authz.Request) { r.Target = "/admin" }), 403, "claim_mismatch",
			`Bearer realm="orders", error="insufficient_scope"`, "roles",
		},

		"no credentials":                   {get("/orders", nil), 401, "no_credentials", bare, "read"},
		"an empty Authorization":           {header(""), 401, "no_credentials", bare, "read"},
		"another scheme":                   {header("Basic dTpw"), 401, "no_credentials", bare, "read"},
		"a scheme that begins like ours":   {header("Bearerx " + good), 401, "no_credentials", bare, "read"},
		"the scheme in other case":         {header("bEARER " + good), 200, "", "", "read"},
		"the scheme alone":                 {header("Bearer"), 401, "malformed_credentials", request, "read"},
		"the scheme and a space":           {header("Bearer "), 401, "malformed_credentials", request, "read"},
		"two spaces":                       {header("Bearer  " + good), 401, "malformed_credentials", request, "read"},
		"a tab":                            {header("Bearer\t" + good), 401, "malformed_credentials", request, "read"},
		"a space and a tab":                {header("Bearer \t" + good), 401, "malformed_credentials", request, "read"},
		"two tokens":                       {header("Bearer " + good + " " + good), 401, "malformed_credentials", request, "read"},
		"a quoted token":                   {header(`Bearer "` + good + `"`), 401, "malformed_credentials", request, "read"},
		"two Authorization lines":          {header("Bearer "+good, "Bearer "+good), 401, "several_credentials", request, "read"},
		"two lines, one of another scheme": {header("Basic dTpw", "Bearer "+good), 401, "several_credentials", request, "read"},
		"lines joined by a comma":          {header("Bearer " + good + ", Bearer " + good), 401, "several_credentials", request, "read"},
		"another scheme joined by a comma": {header("Basic dTpw, Bearer " + good), 401, "several_credentials", request, "read"},
		"a token over 8 KiB":               {header("Bearer " + strings.Repeat("a", 8193)), 401, "too_large", invalid, "read"},
		"a million dots":                   {header("Bearer " + strings.Repeat(".", 1_000_000)), 401, "too_large", invalid, "read"},
		"a token in the cookie":            {get("/orders", map[string][]string{"Cookie": {"a=b; session=" + good + "; c=d"}}), 200, "", "", "read"},
		"an empty cookie":                  {get("/orders", map[string][]string{"Cookie": {"session="}}), 401, "no_credentials", bare, "read"},
		"another cookie":                   {get("/orders", map[string][]string{"Cookie": {"xsession=" + good}}), 401, "no_credentials", bare, "read"},
		"a cookie twice in a line":         {get("/orders", map[string][]string{"Cookie": {"session=" + good + ";session=x"}}), 401, "several_credentials", request, "read"},
		"a cookie twice in two lines":      {get("/orders", map[string][]string{"Cookie": {"session=", "session=" + good}}), 401, "several_credentials", request, "read"},
		"a token in a header of its own":   {get("/orders", map[string][]string{"X-Api-Token": {good}}), 200, "", "", "read"},
		"the same token in header and field": {
			get("/orders", map[string][]string{"X-Api-Token": {good}, "Authorization": {"Bearer " + good}}), 401, "several_credentials", request, "read",
		},
		"the same token in header and cookie": {
			get("/orders", map[string][]string{"Cookie": {"session=" + good}, "Authorization": {"Bearer " + good}}), 401, "several_credentials", request, "read",
		},

		"a text that is no token": {header("Bearer abc"), 401, "malformed", invalid, "read"},
		"a forged token":          {header("Bearer " + forged), 401, "bad_signature", invalid, "read"},
		"a key that is not known": {header("Bearer " + unknown), 401, "unknown_key", invalid, "read"},
		"an expired token": {
			header("Bearer " + s.mint(t, map[string]any{"exp": start.Add(-2 * time.Minute).Unix()})), 401, "expired", invalid, "read",
		},
		"a token of later": {
			header("Bearer " + s.mint(t, map[string]any{"nbf": start.Add(2 * time.Minute).Unix()})), 401, "not_yet_valid", invalid, "read",
		},
		"a token that lives too long": {
			header("Bearer " + s.mint(t, map[string]any{"exp": start.Add(2 * time.Hour).Unix()})), 401, "lives_too_long", invalid, "read",
		},
		"another audience": {header("Bearer " + s.mint(t, map[string]any{"aud": "other"})), 401, "wrong_audience", invalid, "read"},
		"identity that is too large": {
			header("Bearer " + s.mint(t, map[string]any{"email": strings.Repeat("e", 3072)})), 403, "identity_too_large", "", "read",
		},
		"identity that cannot be sent": {
			header("Bearer " + s.mint(t, map[string]any{"email": "a\r\nX-Evil: 1"})), 403, "identity_invalid", "", "read",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for _, pass := range []string{"first", "remembered"} {
				d := w.check(tc.req)
				got := fmt.Sprintf("%d %s %q %s", d.Status, d.Reason, d.WWWAuthenticate(), d.Rule)
				want := fmt.Sprintf("%d %s %q %s", tc.status, tc.reason, tc.challenge, tc.rule)
				if got != want || d.Allowed != (tc.status == 200) {
					t.Errorf("%s: allowed %v, got %s, want %s (%v)", pass, d.Allowed, got, want, d.Err)
				}
				if d.Err != nil && strings.Contains(d.Err.Error(), good[len(good)-20:]) {
					t.Errorf("error shows a token: %v", d.Err)
				}
			}
		})
	}
}

func TestIdentityIsAlwaysWhole(t *testing.T) {
	w, s := newShop(t)
	tests := map[string]struct {
		req  authz.Request
		want []policy.Header
	}{
		"a token": {
			get("/orders", bearer(s.mint(t, nil))),
			[]policy.Header{{Field: policy.NewField("X-Auth-Subject"), Value: "u-17"}, {Field: policy.NewField("X-Auth-Email")}},
		},
		"anonymous, even with a token": {
			get("/healthz", bearer(s.mint(t, nil))),
			[]policy.Header{{Field: policy.NewField("X-Auth-Subject")}, {Field: policy.NewField("X-Auth-Email")}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, w.check(tc.req).Identity); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPanicDenies(t *testing.T) {
	w, s := newShop(t)
	var told any
	gate := authz.NewGate(w.store, authz.Options{
		CacheSize: 1,
		Clock:     func() time.Time { panic("clock is broken") },
		OnPanic:   func(value any, _ []byte) { told = value },
	})
	defer gate.Close()
	d := gate.Check(context.Background(), get("/orders", bearer(s.mint(t, nil))))
	if d.Allowed || d.Status != 403 || d.Reason != "internal_error" {
		t.Errorf("got %+v", d)
	}
	if told != "clock is broken" || gate.Stats().Panics != 1 {
		t.Errorf("told %v, counted %d", told, gate.Stats().Panics)
	}
	for _, state := range w.store.Policies() {
		for reason, n := range state.Counters.Denied {
			if reason != "internal_error" || n != 1 {
				t.Errorf("counted %s %d times", reason, n)
			}
		}
	}
}

func TestZeroDecisionDenies(t *testing.T) {
	if (&authz.Decision{}).Allowed {
		t.Error("allowed")
	}
	if d := newWorld(t).check(authz.Request{}); d.Allowed || d.Reason != "policy_not_found" {
		t.Errorf("got %+v", d)
	}
}

func TestCachedTokenCountsForThePolicyThatAsks(t *testing.T) {
	w, s := newShop(t)
	raw := s.mint(t, nil)
	other := authz.Ref{Namespace: "shop", Name: "strict"}
	w.policy(other, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "payments")}})
	w.want(get("/orders", bearer(raw)), "")
	w.want(get("/orders", bearer(raw)), "") // it came again: from now on it is remembered
	req := get("/orders", bearer(raw))
	req.Policy = other
	w.want(req, "wrong_audience")
	w.want(get("/orders", bearer(raw)), "")
	if s := w.gate.Stats(); s.Hits != 2 || s.Misses != 2 {
		t.Errorf("got %+v", s)
	}
	// The policy's next version is stricter.
	spec := shop()
	spec.Issuers[0].RequiredClaims = []string{"email"}
	w.policy(orders, spec)
	w.want(get("/orders", bearer(raw)), "missing_claim")
}

func TestCachedTokenOfAnotherKeyWithTheSameID(t *testing.T) {
	w, s := newShop(t)
	twin := newSigner(t, "k1") // another namespace's key that has the same ID
	w.keys(authz.Ref{Namespace: "other", Name: "shop"}, nil, twin)
	theirs := authz.Ref{Namespace: "other", Name: "orders"}
	w.policy(theirs, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")}})
	raw := s.mint(t, nil)
	for range 4 {
		w.want(get("/orders", bearer(raw)), "")
		req := get("/orders", bearer(raw))
		req.Policy = theirs
		w.want(req, "bad_signature")
	}
}

func TestCachedTokenEndsInTime(t *testing.T) {
	w, s := newShop(t)
	raw := s.mint(t, nil) // exp in 10 minutes, a minute of leeway
	w.remembered(get("/orders", bearer(raw)), "")
	for _, step := range []struct {
		at     time.Duration
		reason string
	}{{0, ""}, {11*time.Minute - time.Nanosecond, ""}, {11 * time.Minute, "expired"}, {time.Hour, "expired"}, {time.Minute, ""}} {
		w.now = start.Add(step.at)
		w.want(get("/orders", bearer(raw)), step.reason)
	}
}

func TestExpiredTokenIsRememberedApart(t *testing.T) {
	w, s := newShop(t)
	raw := s.mint(t, map[string]any{"exp": start.Add(-time.Hour).Unix(), "iat": start.Add(-2 * time.Hour).Unix()})
	for range 4 {
		w.want(get("/orders", bearer(raw)), "expired")
	}
	if s := w.gate.Stats(); s.BadHits != 2 || s.Misses != 2 || s.Tokens != 0 {
		t.Errorf("got %+v", s)
	}
	w.now = start.Add(-time.Hour) // a clock that was set back
	w.want(get("/orders", bearer(raw)), "")
}

func TestCachedTokenEndsWithItsKey(t *testing.T) {
	shopKeys := authz.Ref{Namespace: "shop", Name: "shop"}
	tests := map[string]struct {
		change func(w *world, s *signer)
		reason string
	}{
		"the key leaves the set": {func(w *world, _ *signer) { w.keys(shopKeys, nil) }, "unknown_key"},
		"the key is revoked": {func(w *world, _ *signer) {
			w.keys(shopKeys, func(k *authz.Keys) { k.Revoked = []string{"k0", "k1"} })
		}, "key_revoked"},
		"the key is cut off": {func(w *world, _ *signer) {
			w.keys(shopKeys, func(k *authz.Keys) { k.Asked.Cut = []string{"k1"} })
		}, "key_revoked"},
		"the SigningKey goes":    {func(w *world, _ *signer) { w.store.DeleteKeys(shopKeys) }, "policy_not_ready"},
		"another key has the ID": {func(w *world, _ *signer) { w.keys(shopKeys, nil, newSigner(w.t, "k1")) }, "bad_signature"},
		"the key's time is over": {func(w *world, s *signer) {
			w.keys(shopKeys, nil, s.again(func(k *keyset.Key) { k.VerifyUntil = start }))
		}, "key_retired"},
		"the key's issuer changes": {func(w *world, s *signer) {
			w.keys(shopKeys, nil, s.again(func(k *keyset.Key) { k.Issuer = "https://x" }))
		}, "wrong_issuer"},
		"the key's tokens may live shorter": {func(w *world, s *signer) {
			w.keys(shopKeys, nil, s.again(func(k *keyset.Key) { k.MaxTokenTTL = time.Minute }))
		}, "lives_too_long"},
		"the same key as another object": {func(w *world, s *signer) { w.keys(shopKeys, nil, s.again(func(*keyset.Key) {})) }, ""},
		"the policy goes":                {func(w *world, _ *signer) { w.store.DeletePolicy(orders) }, "policy_not_found"},
		"the policy ceases to compile":   {func(w *world, _ *signer) { w.policy(orders, v1alpha1.AccessPolicySpec{}) }, "policy_not_ready"},
		"the policy trusts another SigningKey": {func(w *world, _ *signer) {
			spec := shop()
			spec.Issuers[0].SigningKeyRef.Name = "x"
			w.keys(authz.Ref{Namespace: "shop", Name: "x"}, nil, newSigner(w.t, "k9"))
			w.policy(orders, spec)
		}, "unknown_key"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w, s := newShop(t)
			raw := s.mint(t, nil)
			w.remembered(get("/orders", bearer(raw)), "")
			tc.change(w, s)
			for range 4 {
				w.want(get("/orders", bearer(raw)), tc.reason)
			}
		})
	}
}

func TestRefusedTokenIsTriedAgainWithAnotherKeyObject(t *testing.T) {
	w, s := newShop(t)
	next := newSigner(t, "k1")
	raw := next.mint(t, nil)
	for range 4 {
		w.want(get("/orders", bearer(raw)), "bad_signature")
	}
	if s := w.gate.Stats(); s.BadHits != 2 || s.Misses != 2 {
		t.Errorf("a bad token was checked more than twice: %+v", s)
	}
	w.keys(authz.Ref{Namespace: "shop", Name: "shop"}, nil, next)
	w.want(get("/orders", bearer(raw)), "")
	w.want(get("/orders", bearer(s.mint(t, nil))), "bad_signature")
}

func TestUnknownKeyIsNotRemembered(t *testing.T) {
	w, s := newShop(t)
	next := newSigner(t, "k2")
	raw := next.mint(t, nil)
	for range 4 {
		w.want(get("/orders", bearer(raw)), "unknown_key")
	}
	w.keys(authz.Ref{Namespace: "shop", Name: "shop"}, nil, s, next)
	w.want(get("/orders", bearer(raw)), "")
}

func TestFloodOfBadTokensLeavesGoodOnes(t *testing.T) {
	w, s := newShop(t)
	var good []string
	for i := range 200 {
		good = append(good, s.mint(t, map[string]any{"jti": fmt.Sprint(i)}))
		w.remembered(get("/orders", bearer(good[i])), "")
	}
	for i := range 20_000 {
		for range 2 {
			w.check(get("/orders", bearer(fmt.Sprintf("%s.x%d", good[0], i))))
		}
	}
	misses := w.gate.Stats().Misses
	for _, raw := range good {
		w.want(get("/orders", bearer(raw)), "")
	}
	if got := w.gate.Stats().Misses; got != misses {
		t.Errorf("%d of 200 good tokens were pushed out", got-misses)
	}
}

// What costs nothing to make takes no good token's place before it comes again
// either.
func TestFloodOfBadTokensLeavesThoseThatCameOnce(t *testing.T) {
	w, s := newShop(t)
	unknown := newSigner(t, "other")
	var good []string
	for i := range 50 {
		good = append(good, s.mint(t, map[string]any{"jti": fmt.Sprint(i)}))
		w.want(get("/orders", bearer(good[i])), "")
	}
	for i := range 20_000 {
		w.check(get("/orders", bearer(fmt.Sprintf("x%d", i))))
		w.check(get("/orders", bearer(fmt.Sprintf("%s.x%d", good[0], i))))
	}
	for i := range 500 {
		w.want(get("/orders", bearer(unknown.mint(t, map[string]any{"jti": fmt.Sprint(i)}))), "unknown_key")
	}
	for _, raw := range good {
		w.want(get("/orders", bearer(raw)), "")
	}
	before := w.gate.Stats().Hits
	for _, raw := range good {
		w.want(get("/orders", bearer(raw)), "")
	}
	// Of those that came once, few are one for another.
	if n := w.gate.Stats().Hits - before; n < 40 {
		t.Errorf("%d of 50 are remembered", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	for name, more := range map[string]map[string]any{
		"long tokens":           {"more": strings.Repeat("x", 3000)},
		"tokens of many claims": {"more": make([]any, 250)}, // a table of 4 KiB and more
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newShop(t)
			ask := func(i int) {
				more["jti"] = fmt.Sprint(i)
				raw := s.mint(t, more)
				for range 2 {
					w.want(get("/orders", bearer(raw)), "")
				}
			}
			for i := range 2000 {
				ask(i)
			}
			// 1000 KiB of tokens of 4 KiB each; eviction runs beside.
			deadline := time.Now().Add(10 * time.Second)
			for i := 2000; w.gate.Stats().Tokens > 400; i++ {
				if time.Now().After(deadline) {
					t.Fatalf("%d tokens of 4 KiB are remembered, want about 250", w.gate.Stats().Tokens)
				}
				ask(i)
			}
		})
	}
}

func TestTokensThatComeOnceAreNotRemembered(t *testing.T) {
	w, s := newShop(t)
	for i := range 2000 {
		w.want(get("/orders", bearer(s.mint(t, map[string]any{"jti": fmt.Sprint(i)}))), "")
		w.want(get("/orders", bearer(fmt.Sprintf("x%d", i))), "malformed")
	}
	if s := w.gate.Stats(); s.Tokens+s.BadTokens != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestSeveralIssuers(t *testing.T) {
	a, b := newSigner(t, "a"), newSigner(t, "b")
	twin := newSigner(t, "a")
	w := newWorld(t)
	w.keys(authz.Ref{Namespace: "shop", Name: "one"}, nil, a)
	w.keys(authz.Ref{Namespace: "shop", Name: "two"}, nil, b)
	w.keys(authz.Ref{Namespace: "shop", Name: "three"}, nil, twin)
	aud := func(s *signer, aud string) string { return s.mint(t, map[string]any{"aud": aud}) }
	tests := map[string]struct {
		issuers []v1alpha1.TokenIssuerRef
		token   string
		reason  string
	}{
		"the first issuer's key":  {[]v1alpha1.TokenIssuerRef{issuer("", "one"), issuer("", "two")}, aud(a, "x"), ""},
		"the second issuer's key": {[]v1alpha1.TokenIssuerRef{issuer("", "one"), issuer("", "two")}, aud(b, "x"), ""},
		"each issuer has its own audience": {
			[]v1alpha1.TokenIssuerRef{issuer("", "one", "x"), issuer("", "two", "y")}, aud(b, "x"), "wrong_audience",
		},
		"one SigningKey twice, the first entry passes":  {[]v1alpha1.TokenIssuerRef{issuer("", "one", "x"), issuer("", "one", "y")}, aud(a, "x"), ""},
		"one SigningKey twice, the second entry passes": {[]v1alpha1.TokenIssuerRef{issuer("", "one", "x"), issuer("", "one", "y")}, aud(a, "y"), ""},
		"one SigningKey twice, no entry passes":         {[]v1alpha1.TokenIssuerRef{issuer("", "one", "x"), issuer("", "one", "y")}, aud(a, "z"), "wrong_audience"},
		"two keys with one ID":                          {[]v1alpha1.TokenIssuerRef{issuer("", "one"), issuer("", "three")}, aud(a, "x"), "ambiguous_key"},
		"two keys with one ID, a token of another":      {[]v1alpha1.TokenIssuerRef{issuer("", "one"), issuer("", "two"), issuer("", "three")}, aud(b, "x"), ""},
		"one issuer that is not there":                  {[]v1alpha1.TokenIssuerRef{issuer("", "one"), issuer("", "four")}, aud(a, "x"), "policy_not_ready"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.policy(orders, v1alpha1.AccessPolicySpec{Issuers: tc.issuers})
			w.want(get("/", bearer(tc.token)), tc.reason)
			w.want(get("/", bearer(tc.token)), tc.reason)
		})
	}
}

func TestTokensWithoutAKeyID(t *testing.T) {
	imported := func(id string) *signer {
		s := newSigner(t, id).again(func(k *keyset.Key) { k.WithoutKeyID = true })
		s.bare = true
		return s
	}
	a, b, plain := imported("a"), imported("b"), newSigner(t, "c")
	w := newWorld(t)
	ref := func(name string) authz.Ref { return authz.Ref{Namespace: "shop", Name: name} }
	w.keys(ref("one"), nil, a, newSigner(t, "next"))
	w.keys(ref("two"), nil, b)
	w.keys(ref("none"), nil, plain)
	w.keys(ref("both"), nil, a.again(func(*keyset.Key) {}), b.again(func(*keyset.Key) {}))
	w.keys(ref("twin"), nil, newSigner(t, "a")) // the ID of a, and not for such tokens
	plain.bare = true

	tests := map[string]struct {
		issuers []string
		token   string
		reason  string
	}{
		"the one key of the one issuer":              {[]string{"one"}, a.mint(t, nil), ""},
		"the one key of several issuers":             {[]string{"none", "one"}, a.mint(t, nil), ""},
		"one SigningKey that is named twice":         {[]string{"one", "one"}, a.mint(t, nil), ""},
		"beside another key that has the key's ID":   {[]string{"twin", "one"}, a.mint(t, nil), ""},
		"a key that is not for such tokens":          {[]string{"none"}, plain.mint(t, nil), "missing_key_id"},
		"a key that is not, beside one that is":      {[]string{"none", "one"}, plain.mint(t, nil), "bad_signature"},
		"two such keys among the issuers":            {[]string{"one", "two"}, a.mint(t, nil), "unknown_key"},
		"two such keys of one issuer":                {[]string{"both"}, a.mint(t, nil), "unknown_key"},
		"an expired token":                           {[]string{"one"}, a.mint(t, map[string]any{"exp": start.Add(-time.Hour).Unix()}), "expired"},
		"a token that lives too long":                {[]string{"one"}, a.mint(t, map[string]any{"exp": start.Add(3 * time.Hour).Unix()}), "lives_too_long"},
		"a token that another key has signed":        {[]string{"one"}, b.mint(t, nil), "bad_signature"},
		"another policy's token, remembered as good": {[]string{"two"}, a.mint(t, nil), "bad_signature"},
	}
	for _, first := range []string{"one", "two"} { // remembers every token
		w.policy(authz.Ref{Namespace: "shop", Name: first}, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", first)}})
		for _, tc := range tests {
			req := get("/", bearer(tc.token))
			req.Policy.Name = first
			w.check(req)
		}
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w.t = t
			var issuers []v1alpha1.TokenIssuerRef
			for _, name := range tc.issuers {
				issuers = append(issuers, issuer("", name))
			}
			w.policy(orders, v1alpha1.AccessPolicySpec{Issuers: issuers})
			for range 4 {
				w.want(get("/", bearer(tc.token)), tc.reason)
			}
		})
	}

	t.Run("once another key is for such tokens too, neither is", func(t *testing.T) {
		w.t = t
		raw := a.mint(t, nil)
		w.policy(orders, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", "one"), issuer("", "grows")}})
		w.keys(ref("grows"), nil)
		w.want(get("/", bearer(raw)), "")
		w.keys(ref("grows"), nil, imported("new"))
		w.want(get("/", bearer(raw)), "unknown_key")
		w.keys(ref("grows"), nil)
		w.want(get("/", bearer(raw)), "")
		w.keys(ref("one"), func(k *authz.Keys) { k.Revoked = []string{"a"} })
		w.want(get("/", bearer(raw)), "missing_key_id")
	})
}

func TestTokensThatThePolicyRevokes(t *testing.T) {
	w, s := newShop(t)
	revoke := func(tokens *v1alpha1.RevokedTokens) {
		spec := shop()
		spec.RevokedTokens = tokens
		w.policy(orders, spec)
	}
	before := func(at time.Time) *v1alpha1.RevokedTokens {
		return &v1alpha1.RevokedTokens{SubjectsBefore: []v1alpha1.SubjectBefore{{Sub: "u-17", Time: metav1.NewTime(at)}}}
	}
	raw := s.mint(t, map[string]any{"jti": "j-1"})
	undated := s.mint(t, map[string]any{"iat": nil})
	for _, step := range []struct {
		what    string
		revoked *v1alpha1.RevokedTokens
		raw     string
		reason  string
	}{
		{"nothing", nil, raw, ""},
		{"its jti", &v1alpha1.RevokedTokens{JTIs: []string{"j-1"}}, raw, "token_revoked"},
		{"another jti", &v1alpha1.RevokedTokens{JTIs: []string{"j-2"}}, raw, ""},
		{"its subject's before it", before(start), raw, ""},
		{"its subject's before now", before(start.Add(time.Second)), raw, "token_revoked"},
		{"a jti, for a token without one", &v1alpha1.RevokedTokens{JTIs: []string{"j-1"}}, undated, ""},
		{"its subject's, for a token without iat", before(start), undated, "token_revoked"},
		{"nothing any more", nil, raw, ""},
	} {
		revoke(step.revoked)
		for _, pass := range []string{"first", "remembered"} {
			d := w.want(get("/orders", bearer(step.raw)), step.reason)
			if step.reason == "" {
				continue
			}
			if d.Status != 401 || d.WWWAuthenticate() != `Bearer realm="orders", error="invalid_token"` || d.KeyID != "k1" || d.Rule != "read" {
				t.Errorf("%s, %s: got %+v, %s", step.what, pass, d, d.WWWAuthenticate())
			}
			if strings.Contains(d.Err.Error(), "u-17") || strings.Contains(d.Err.Error(), "j-1") {
				t.Errorf("error shows a claim: %v", d.Err)
			}
		}
	}
	revoke(&v1alpha1.RevokedTokens{JTIs: []string{"j-1"}})
	w.want(get("/healthz", bearer(raw)), "") // an anonymous rule looks at no token
}

func TestReferencesAcrossNamespaces(t *testing.T) {
	s := newSigner(t, "k1")
	auth := authz.Ref{Namespace: "auth", Name: "shop"}
	selector := labels.SelectorFromSet(labels.Set{"team": "shop"})
	tests := map[string]struct {
		allowed authz.Allowed
		labels  map[string]string
		reason  string
	}{
		"not allowed":                             {authz.Allowed{}, map[string]string{"team": "shop"}, "policy_not_ready"},
		"all":                                     {authz.Allowed{All: true}, nil, ""},
		"a namespace that the selector fits":      {authz.Allowed{Selector: selector}, map[string]string{"team": "shop"}, ""},
		"a namespace that it does not":            {authz.Allowed{Selector: selector}, map[string]string{"team": "x"}, "policy_not_ready"},
		"a namespace that is not known":           {authz.Allowed{Selector: labels.Everything()}, nil, "policy_not_ready"},
		"a namespace without labels, any selects": {authz.Allowed{Selector: labels.Everything()}, map[string]string{}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store.SetNamespace("shop", tc.labels)
			w.keys(auth, func(k *authz.Keys) { k.Allowed = tc.allowed }, s)
			w.policy(orders, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("auth", "shop")}})
			w.want(get("/", bearer(s.mint(t, nil))), tc.reason)
		})
	}

	t.Run("a change of any of them counts at once", func(t *testing.T) {
		w := newWorld(t)
		raw := s.mint(t, nil)
		w.policy(orders, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("auth", "shop")}})
		missing := w.want(get("/", bearer(raw)), "policy_not_ready")
		w.keys(auth, func(k *authz.Keys) { k.Allowed.Selector = selector }, s)
		forbidden := w.want(get("/", bearer(raw)), "policy_not_ready")
		if missing.Err.Error() != forbidden.Err.Error() {
			t.Errorf("it is told whether the key exists: %q, %q", missing.Err, forbidden.Err)
		}
		w.store.SetNamespace("shop", map[string]string{"team": "shop"})
		w.want(get("/", bearer(raw)), "")
		w.store.SetNamespace("shop", map[string]string{})
		w.want(get("/", bearer(raw)), "policy_not_ready")
		w.keys(auth, func(k *authz.Keys) { k.Allowed.All = true }, s)
		w.want(get("/", bearer(raw)), "")
		w.store.SetNamespace("shop", nil)
		w.want(get("/", bearer(raw)), "")
		w.store.DeleteKeys(auth)
		w.want(get("/", bearer(raw)), "policy_not_ready")
	})
}

func TestCountersOfPolicies(t *testing.T) {
	w, s := newShop(t)
	w.want(get("/orders", bearer(s.mint(t, nil))), "")
	w.want(get("/orders", nil), "no_credentials")
	w.policy(orders, shop()) // goes on counting
	w.want(get("/orders", nil), "no_credentials")
	w.want(authz.Request{Policy: authz.Ref{Namespace: "x", Name: "y"}}, "policy_not_found")
	for ref, state := range w.store.Policies() {
		got := map[string]uint64{}
		for reason, n := range state.Counters.Denied {
			got[reason] = n
		}
		if ref != orders || state.Counters.Allowed() != 1 || !cmp.Equal(got, map[string]uint64{"no_credentials": 2}) {
			t.Errorf("%s: %d allowed, denied %v", ref, state.Counters.Allowed(), got)
		}
	}
	for reason, n := range w.gate.Stats().Unknown.Denied {
		if reason != "policy_not_found" || n != 1 {
			t.Errorf("unknown: %s %d", reason, n)
		}
	}
}

// TestStoreUnderLoad is for the race detector: decisions while all changes.
func TestStoreUnderLoad(t *testing.T) {
	w, s := newShop(t)
	raw := s.mint(t, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 500 {
			w.store.SetNamespace("shop", map[string]string{"n": fmt.Sprint(i)})
			w.keys(authz.Ref{Namespace: "shop", Name: "shop"}, nil, s, newSigner(t, "next"))
			w.policy(orders, shop())
			w.policy(authz.Ref{Namespace: "shop", Name: fmt.Sprint(i)}, shop())
			w.store.DeletePolicy(authz.Ref{Namespace: "shop", Name: fmt.Sprint(i - 3)})
		}
	}()
	for {
		select {
		case <-done:
			if keys, policies := w.store.Size(); keys != 1 || policies != 4 {
				t.Errorf("%d SigningKeys, %d policies", keys, policies)
			}
			return
		default:
			w.want(get("/orders", bearer(raw)), "")
		}
	}
}

func BenchmarkCheckHit(b *testing.B) {
	w, s := newWorld(b), newSigner(b, "k1")
	w.keys(authz.Ref{Namespace: "shop", Name: "shop"}, nil, s)
	w.policy(orders, v1alpha1.AccessPolicySpec{
		Issuers: []v1alpha1.TokenIssuerRef{issuer("", "shop", "orders")},
		Rules: []v1alpha1.Rule{{
			Name: "read", Match: []v1alpha1.Match{{Methods: []string{"GET"}, Paths: []v1alpha1.PathMatch{{Prefix: "/orders"}}}},
			Require: &v1alpha1.Requirements{Scopes: []string{"orders:read"}},
		}},
		Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Subject", Claim: "sub"}}},
	})
	req := get("/orders/17", bearer(s.mint(b, nil)))
	w.want(req, "")
	b.ReportAllocs()
	for b.Loop() {
		if d := w.check(req); !d.Allowed {
			b.Fatal(d.Reason)
		}
	}
}

// BenchmarkChange is one SigningKey among 10,000 changing.
func BenchmarkChange(b *testing.B) {
	w, s := newWorld(b), newSigner(b, "k1")
	for i := range 10_000 {
		name := fmt.Sprintf("shop-%d", i)
		w.keys(authz.Ref{Namespace: "shop", Name: name}, nil, s)
		w.policy(authz.Ref{Namespace: "shop", Name: name}, v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{issuer("", name)}})
	}
	b.ReportAllocs()
	for b.Loop() {
		w.keys(authz.Ref{Namespace: "shop", Name: "shop-77"}, nil, s)
	}
}

func TestParseRef(t *testing.T) {
	for text, want := range map[string]authz.Ref{
		"shop/orders":        {Namespace: "shop", Name: "orders"},
		"shop/orders.v2":     {Namespace: "shop", Name: "orders.v2"},
		"shop":               {},
		"shop/":              {},
		"/orders":            {},
		"shop/orders/x":      {},
		"Shop/orders":        {},
		"shop/order%73":      {},
		"shop/" + longName(): {},
	} {
		if got, ok := authz.ParseRef(text); got != want || ok != (want != authz.Ref{}) {
			t.Errorf("%.40q: got %v, %t, want %v", text, got, ok, want)
		}
	}
}

func longName() string { return strings.Repeat("a", 254) }
