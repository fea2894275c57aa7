//go:build linux

package gate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
)

// runChanges is about what no single request shows.
func runChanges(t *testing.T, c *caller) {
	t.Run("no verdict is kept: each path, method and change is asked anew", func(t *testing.T) { noVerdictIsKept(t, c) })
	t.Run("requests on one connection get each its own answer", func(t *testing.T) { connectionIsReused(t, c) })
	t.Run("a policy counts from when it is made, as it is changed, until it is deleted", func(t *testing.T) { policyChanges(t, c) })
}

// send asks for a path of a host with a token and gives the status.
func send(ctx context.Context, c *caller, method, url, token string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// noVerdictIsKept uses the site whose auth-cache-key is the token alone.
func noVerdictIsKept(t *testing.T, c *caller) {
	before, err := decisions(t.Context(), "shop", "orders")
	if err != nil {
		t.Fatal(err)
	}
	user := env.tokens["user"]
	for i, ask := range []struct {
		method, path, token string
		want                int
	}{
		{"GET", "/orders", user, 200},
		{"GET", "/admin", user, 403},
		{"GET", "/orders", user, 200},
		{"DELETE", "/orders", user, 403},
		{"GET", "/closed", user, 403},
		{"HEAD", "/orders", user, 200},
		{"GET", "/orders", env.tokens["expired"], 401},
		{"GET", "/public/x", env.tokens["expired"], 200},
		{"GET", "/orders", env.tokens["expired"], 401},
		{"GET", "/public/x", "", 200},
		{"GET", "/orders", "", 401},
	} {
		got, err := send(t.Context(), c, ask.method, "http://cached.test"+ask.path, ask.token)
		if err != nil {
			t.Fatal(err)
		}
		if c.blind {
			ask.want = http.StatusForbidden
		}
		if got != ask.want {
			t.Errorf("question %d, %s %s: status %d, want %d", i, ask.method, ask.path, got, ask.want)
		}
	}
	after, err := decisions(t.Context(), "shop", "orders")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"": 5, "claim_mismatch": 2, "access_denied": 1, "expired": 2, "no_credentials": 1}
	if c.blind {
		want = map[string]int{"path_unknown": 11}
	}
	if diff := cmp.Diff(want, since(before, after)); diff != "" {
		t.Errorf("what the gate was asked, by verdict (-want +got):\n%s", diff)
	}
}

// connectionIsReused sends good and bad tokens in turn over one connection:
// first each when the one before is answered, then all at once.
func connectionIsReused(t *testing.T, c *caller) {
	asks := []struct {
		token, subject string
		want           int
	}{
		{"user", "u-17", 200}, {"", "", 401}, {"admin", "root-1", 200}, {"expired", "", 401}, {"user", "u-17", 200}, {"forged", "", 401},
		{"admin", "root-1", 200}, {"wrong audience", "", 401}, {"", "", 401}, {"user", "u-17", 200},
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	conn, err := c.client.Transport.(*http.Transport).DialContext(ctx, "tcp", "ruleless.test:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // what is said on it is read
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	answers := bufio.NewReader(conn)
	id := func(round string, i int) string { return fmt.Sprintf("%s/%s/%d", c.name, round, i) }
	write := func(round string, i int) {
		t.Helper()
		request := "GET /orders HTTP/1.1\r\nHost: ruleless.test\r\n" + caseHeader + ": " + id(round, i) + "\r\n"
		if token := asks[i].token; token != "" {
			request += "Authorization: Bearer " + env.tokens[token] + "\r\n"
		}
		if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
			t.Fatalf("%s: %v", id(round, i), err)
		}
	}
	read := func(round string, i int) {
		t.Helper()
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("%s: %v", id(round, i), err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatalf("%s: %v", id(round, i), err)
		}
		if resp.StatusCode != asks[i].want {
			t.Errorf("%s: status %d, want %d", id(round, i), resp.StatusCode, asks[i].want)
		}
		var subjects []string
		for _, got := range env.app.take(id(round, i)) {
			subjects = append(subjects, got.header.Get("X-Auth-Subject"))
		}
		var want []string
		if asks[i].subject != "" {
			want = []string{asks[i].subject}
		}
		if diff := cmp.Diff(want, subjects); diff != "" {
			t.Errorf("%s: whom the app was told (-want +got):\n%s", id(round, i), diff)
		}
	}
	for i := range asks {
		write("one by one", i)
		read("one by one", i)
	}
	for i := range asks {
		write("all at once", i)
	}
	for i := range asks {
		read("all at once", i)
	}
}

func policyChanges(t *testing.T, c *caller) {
	const url = "http://changing.test/orders"
	becomes := func(what string, want int) {
		t.Helper()
		await(t, fmt.Sprintf("%s to give %d", what, want), func() error {
			got, err := send(t.Context(), c, http.MethodGet, url, env.tokens["user"])
			if err == nil && got != want {
				err = fmt.Errorf("status %d", got)
			}
			return err
		})
	}
	becomes("a policy that is not there", http.StatusForbidden)
	policy := &v1alpha1.AccessPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "changing"},
		Spec:       v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}}}},
	}
	if err := env.Client.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	becomes("a new policy", http.StatusOK)
	change := func(with func(*v1alpha1.AccessPolicySpec)) {
		t.Helper()
		// The controller writes its status meanwhile: change nothing else.
		before := client.MergeFrom(policy.DeepCopy())
		with(&policy.Spec)
		if err := env.Client.Patch(t.Context(), policy, before); err != nil {
			t.Fatal(err)
		}
	}
	change(func(spec *v1alpha1.AccessPolicySpec) {
		spec.Rules = []v1alpha1.Rule{{Name: "all", Access: v1alpha1.AccessAuthenticated, Require: &v1alpha1.Requirements{Scopes: []string{"more"}}}}
	})
	becomes("a stricter policy", http.StatusForbidden)
	change(func(spec *v1alpha1.AccessPolicySpec) { spec.Rules = nil })
	becomes("a milder policy", http.StatusOK)
	change(func(spec *v1alpha1.AccessPolicySpec) { spec.Issuers[0].Audiences = []string{"invoices"} })
	becomes("a policy for another audience", http.StatusUnauthorized)
	if err := env.Client.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	becomes("a policy that is gone", http.StatusForbidden)
}

// TestAPolicyThatIsNotInForceSaysWhy looks at the two that never are.
func TestAPolicyThatIsNotInForceSaysWhy(t *testing.T) {
	for key, want := range map[client.ObjectKey]map[string]string{
		{Namespace: "shop", Name: "broken"}: {
			v1alpha1.ConditionCompiled: "spec.rules[1].require.expressions[0].cel",
			v1alpha1.ConditionReady:    "spec.rules[1].require.expressions[0].cel",
		},
		{Namespace: "other", Name: "borrowed"}: {
			v1alpha1.ConditionKeysResolved: "spec.issuers[0].signingKeyRef",
			v1alpha1.ConditionReady:        "spec.issuers[0].signingKeyRef",
		},
	} {
		policy := &v1alpha1.AccessPolicy{}
		await(t, key.String()+" to say why it is not in force", func() error {
			if err := env.Client.Get(t.Context(), key, policy); err != nil {
				return err
			}
			if len(policy.Status.Conditions) == 0 {
				return errors.New("it has no conditions")
			}
			return nil
		})
		got := map[string]string{}
		for _, condition := range policy.Status.Conditions {
			if condition.Status == metav1.ConditionFalse {
				got[condition.Type] = condition.Message
			}
		}
		for kind, text := range want {
			if !strings.Contains(got[kind], text) {
				t.Errorf("%s: %s says %q, want it to name %s", key, kind, got[kind], text)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: what is False is %v, want %v", key, got, maps.Keys(want))
		}
		if meta.IsStatusConditionTrue(policy.Status.Conditions, v1alpha1.ConditionReady) || policy.Status.Rules != 0 {
			t.Errorf("%s is in force", key)
		}
		t.Logf("%s: %s", key, got[v1alpha1.ConditionReady])
	}
}
