//go:build linux

package gate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/ingressnginx"
)

// annotations of ingress-nginx beside those of all sites, by host. All hosts are
// about policy orders, but for kept.test.
var annotations = map[string]map[string]string{
	"signin.test":    {ingressnginx.AuthSignin: "http://login.test/start"},
	"post.test":      {ingressnginx.AuthMethod: "POST"},
	"head.test":      {ingressnginx.AuthMethod: "HEAD"},
	"keepalive.test": {ingressnginx.AuthKeepalive: "4", ingressnginx.AuthKeepaliveReqs: "5"},
	"cors.test":      {ingressnginx.EnableCORS: "true"},
	// The worst key: it is the same for everybody.
	"kept.test": {ingressnginx.AuthCacheKey: "$remote_addr", ingressnginx.AuthCacheDuration: "200 202 401 5m"},
}

// byAnnotation are scenarios for the hosts of annotations, and for global.test
// and open.test, which have none that protects them.
var byAnnotation = map[string]map[string]scenario{
	"signin.test": {
		"no token leads to the sign-in":            {target: "/orders?x=1", want: signIn("no_credentials", "%2Forders%3Fx%3D1")},
		"a bad token leads there too":              {target: "/orders", token: "expired", want: signIn("expired", "%2Forders")},
		"with another method too":                  {method: "POST", target: "/orders", body: []byte("x"), want: signIn("no_credentials", "%2Forders")},
		"who may not is not sent to sign in":       {target: "/admin", token: "user", want: forbidden("claim_mismatch")},
		"a valid token passes":                     {target: "/orders", token: "user", want: asUser},
		"an anonymous rule needs no sign-in":       {target: "/public/x", want: anonymous},
		"the client's own identity is replaced":    {target: "/orders", token: "user", header: []string{"X-Auth-Subject: mallory", "X-Auth-Roles: admin"}, want: asUser},
		"an ambiguous path is not sent to sign in": {target: "/public/../admin", want: forbidden("path_ambiguous")},
	},
	"post.test": methodIsTheClients,
	"head.test": methodIsTheClients,
	"keepalive.test": {
		// Only its status goes to the client.
		"no token is refused, without a challenge":    {target: "/orders", want: answer{status: http.StatusUnauthorized, reason: "no_credentials"}},
		"a bad token is refused, without a challenge": {target: "/orders", token: "forged", want: answer{status: http.StatusUnauthorized, reason: "bad_signature"}},
		"who may not is forbidden":                    {target: "/admin", token: "user", want: forbidden("claim_mismatch")},
		"a valid token passes":                        {target: "/orders", token: "user", want: asUser},
		"the client's own identity is replaced":       {target: "/orders", token: "reader", header: []string{"X-Auth-Subject: mallory", "X-Auth-Roles: admin"}, want: asPlain},
		"the client's own goes on an anonymous one":   {target: "/public/x", header: []string{"X-Auth-Subject: mallory", "X-Auth-Roles: admin"}, want: anonymous},
		"Connection does not take it off":             {target: "/orders", token: "user", header: []string{"Connection: close, X-Auth-Subject"}, want: asUser},
		"the method is the client's":                  {method: "DELETE", target: "/orders/1", token: "user", want: forbidden("claim_mismatch")},
		"the path is what the client asked for":       {target: "/public/../admin", token: "user", want: forbidden("path_ambiguous")},
		"a body arrives untouched":                    {method: "POST", target: "/orders", token: "user", body: tenMegabytes, want: asUser},
		"a WebSocket with a token passes":             {target: "/orders", token: "user", header: upgrade, want: switched("u-17", "customer")},
	},
	"cors.test": {
		"a preflight is answered by nginx":  {method: "OPTIONS", target: "/orders", header: announcing("PUT"), want: answer{status: http.StatusNoContent, reason: notAsked}},
		"and so is any other OPTIONS":       {method: "OPTIONS", target: "/closed", want: answer{status: http.StatusNoContent, reason: notAsked}},
		"what it announced needs a token":   {method: "PUT", target: "/orders", header: announcing("PUT"), want: noToken},
		"what it announced passes with one": {method: "PUT", target: "/orders", token: "user", header: announcing("PUT"), want: asUser},
		"another method is no preflight":    {target: "/closed", header: append(announcing("GET"), "X-HTTP-Method-Override: OPTIONS"), want: forbidden("access_denied")},
	},
	"global.test": {
		"no token is challenged":                {target: "/orders", want: noToken},
		"a bad token is refused":                {target: "/orders", token: "forged", want: refused("bad_signature")},
		"who may not is forbidden":              {target: "/admin", token: "user", want: forbidden("claim_mismatch")},
		"a valid token passes":                  {target: "/orders", token: "user", want: asUser},
		"the client's own identity is replaced": {target: "/public/x", header: []string{"X-Auth-Subject: mallory", "X-Auth-Roles: admin"}, want: anonymous},
	},
	"open.test": {
		"nobody asks": {target: "/admin", want: answer{status: http.StatusOK, reason: notAsked}},
	},
}

// methodIsTheClients is for questions that nginx asks with a method of its own.
var methodIsTheClients = map[string]scenario{
	"no token is challenged":                  {target: "/orders", want: noToken},
	"a valid token passes":                    {target: "/orders", token: "user", want: asUser},
	"a rule for a method is for the client's": {method: "DELETE", target: "/orders/1", token: "user", want: forbidden("claim_mismatch")},
	"and not for that of the question":        {target: "/healthz", want: anonymous},
	"nor for what the client claims":          {method: "PUT", target: "/healthz", header: []string{"X-Original-Method: GET"}, want: noToken},
	"a body arrives untouched":                {method: "POST", target: "/orders", token: "user", body: tenMegabytes, want: asUser},
}

// signIn is the way to the sign-in, and from there back. The challenge stays.
func signIn(reason, back string) answer {
	a := challenged("orders", reason)
	a.status, a.location = http.StatusFound, "http://login.test/start?rd=http://signin.test"+back
	return a
}

// runAnnotations is about annotations that change how ingress-nginx asks.
func runAnnotations(t *testing.T, c *caller) {
	in, ctx := c.annotated, t.Context()
	counted := startBalancer(t)
	counted.target.Store(&env.gate.Address)
	var served []*networkingv1.Ingress
	for _, host := range slices.Sorted(maps.Keys(annotations)) {
		s, gate := siteOf(host), env.gate.Address
		switch host {
		case "keepalive.test":
			gate = counted.listener.Addr().String()
		case "kept.test":
			s.policy = "kept"
		}
		ingress, err := in.protected(ctx, gate, s, annotations[host])
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, ingress)
	}
	served = append(served, secretHeader(t, in)...)
	served = append(served, in.plain("global.test", nil), in.plain("open.test", map[string]string{ingressnginx.EnableGlobalAuth: "false"}))
	config := maps.Clone(nginxConfig)
	config["global-auth-url"] = siteOf("global.test").authURL(in.exposed[env.gate.Address])
	config["global-auth-response-headers"] = strings.Join(identity, ",")
	if err := ingressnginx.Configure(ctx, env.Client, config); err != nil {
		t.Fatal(err)
	}
	if err := in.serve(ctx, served...); err != nil {
		t.Fatal(err)
	}
	await(t, "global-auth-url to count", func() error {
		got, err := send(ctx, c, http.MethodGet, "http://global.test/orders", "")
		if err == nil && got == http.StatusOK {
			err = errors.New("it does not yet")
		}
		return err
	})
	for _, host := range slices.Sorted(maps.Keys(byAnnotation)) {
		t.Run(host, func(t *testing.T) {
			for name, s := range byAnnotation[host] {
				t.Run(name, func(t *testing.T) {
					s.on = host
					s.run(t, c, s.want)
				})
			}
		})
	}
	t.Run("auth-keepalive asks many questions over a connection", func(t *testing.T) { questionsShareConnections(t, c, counted) })
	t.Run("auth-proxy-set-headers shows the gate who asks", func(t *testing.T) { callerIsProven(t, c) })
	t.Run("what nginx keeps is kept apart by token, and for max-age at most", func(t *testing.T) { answersAreKept(t, c) })
}

func questionsShareConnections(t *testing.T, c *caller, to *balancer) {
	const n = 20
	before := to.accepted.Load()
	for i := range n {
		name, want := "user", http.StatusOK
		if i%2 == 1 {
			name, want = "forged", http.StatusUnauthorized
		}
		got, err := send(t.Context(), c, http.MethodGet, "http://keepalive.test/orders", env.tokens[name])
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("question %d, a token that is %s: status %d, want %d", i, name, got, want)
		}
	}
	// auth-keepalive-requests is 5, and one may be open from before.
	if made := to.accepted.Load() - before; made < n/5-1 || made > n/2 {
		t.Errorf("%d questions went over %d new connections, want about %d", n, made, n/5)
	}
}

// secretHeader starts a gate that wants a secret of its callers. The Ingress
// proven.test shows it, unproven.test does not.
func secretHeader(t *testing.T, in *ingresses) []*networkingv1.Ingress {
	t.Helper()
	const secret = "a-secret-of-the-tests-0123456789abcdef"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gate, err := env.StartGate(t.Context(), "wants-proof", append([]string{"--caller-secret-file", file}, debug...)...)
	if err != nil {
		t.Fatal(err)
	}
	env.logs = append(env.logs, gate.Log)
	t.Cleanup(func() {
		if err := gate.Terminate(); err != nil {
			t.Error(err)
		}
	})
	headers := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "gate-headers"},
		Data:       map[string]string{"X-Keywright-Caller": secret},
	}
	if err := env.Client.Create(t.Context(), headers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Client.Delete(context.Background(), headers); err != nil {
			t.Error(err)
		}
	})
	var out []*networkingv1.Ingress
	for host, more := range map[string]map[string]string{"proven.test": {ingressnginx.AuthProxySetHeaders: "shop/gate-headers"}, "unproven.test": nil} {
		ingress, err := in.protected(t.Context(), gate.Address, site{host: host, namespace: "shop", policy: "ruleless"}, more)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ingress)
	}
	return out
}

func callerIsProven(t *testing.T, c *caller) {
	for name, tc := range map[string]struct {
		host, token, claim string
		want               int
	}{
		"a valid token passes":                         {"proven.test", "user", "", http.StatusOK},
		"also when the client claims to be a caller":   {"proven.test", "user", "guessed", http.StatusOK},
		"no token is refused":                          {"proven.test", "", "", http.StatusUnauthorized},
		"without the secret nobody passes":             {"unproven.test", "user", "", http.StatusForbidden},
		"nor does a client that claims to be a caller": {"unproven.test", "user", "guessed", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tc.host+"/orders", nil)
			if err != nil {
				t.Fatal(err)
			}
			if tc.token != "" {
				req.Header.Set("Authorization", "Bearer "+env.tokens[tc.token])
			}
			if tc.claim != "" {
				req.Header.Set("X-Keywright-Caller", tc.claim)
			}
			resp, err := c.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close() // it is nobody's
			if resp.StatusCode != tc.want {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.want)
			}
		})
	}
}

// answersAreKept uses the site whose auth-cache-key is the same for everybody.
func answersAreKept(t *testing.T, c *caller) {
	const url, maxAge = "http://kept.test/orders", 2 * time.Second
	shop, err := readSigner(t.Context(), "shop", "shop-signing")
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := shop.sign(shop.claims(time.Now(), 50*time.Minute, jwt.MapClaims{"jti": "kept", "sub": "u-18"}))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	ask := func(what, token, subject string, want int) {
		t.Helper()
		asked++
		id := fmt.Sprintf("kept/%d", asked)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(caseHeader, id)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // it is empty
		told := ""
		for _, got := range env.app.take(id) {
			told = got.header.Get("X-Auth-Subject")
		}
		if resp.StatusCode != want || told != subject {
			t.Errorf("%s: status %d, and the app was told %q; want %d and %q", what, resp.StatusCode, told, want, subject)
		}
	}
	before, err := decisions(t.Context(), "shop", "kept")
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 20
	for range rounds {
		ask("a user", env.tokens["user"], "u-17", http.StatusOK)
		ask("another user", env.tokens["admin"], "root-1", http.StatusOK)
		ask("nobody", "", "", http.StatusUnauthorized)
		ask("a forger", env.tokens["forged"], "", http.StatusUnauthorized)
		ask("a token for others", env.tokens["wrong audience"], "", http.StatusUnauthorized)
		ask("a thief", stolen, "u-18", http.StatusOK)
	}
	after, err := decisions(t.Context(), "shop", "kept")
	if err != nil {
		t.Fatal(err)
	}
	counted := since(before, after)
	t.Logf("of %d questions each by three users and three others the gate was asked: %v", rounds, counted)
	if counted[""] == 0 || counted[""] >= 3*rounds {
		t.Errorf("nginx asked %d times about %d good ones: it keeps nothing", counted[""], 3*rounds)
	}
	for _, reason := range []string{"no_credentials", "bad_signature", "wrong_audience"} {
		if counted[reason] != rounds {
			t.Errorf("nginx asked %d times about %s, want each of %d times: denials are not kept", counted[reason], reason, rounds)
		}
	}

	accessPolicy := &v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "kept"}}
	patch := `{"spec":{"revokedTokens":{"jtis":["kept"]}}}`
	if err := env.Client.Patch(t.Context(), accessPolicy, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		t.Fatal(err)
	}
	await(t, "the gate to refuse the token", func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.gate.URL+"/auth/nginx/shop/kept", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+stolen)
		resp, err := verifier(t).Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close() // it is empty
		if resp.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
	// nginx counts whole seconds, and keeps an answer during the last one too.
	end := time.Now().Add(maxAge + 2*time.Second)
	await(t, "the end of what nginx keeps", func() error {
		if left := time.Until(end); left > 0 {
			return fmt.Errorf("%s left", left)
		}
		return nil
	})
	ask("a thief, after max-age", stolen, "", http.StatusUnauthorized)
	ask("the user, after max-age", env.tokens["user"], "u-17", http.StatusOK)
}
