//go:build linux

package gate

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// privateMember finds the private members of JWKs within JSON of any shape, also
// within texts of it.
var privateMember = regexp.MustCompile(`\\?"(?:d|p|q|dp|dq|qi|k)\\?"\s*:\s*\\?"([A-Za-z0-9_-]{16,})`)

// TestSecretsNeverLeak looks through all that the processes said while the tests
// before it ran, at debug level, and all that they wrote for others to read. It
// is the last in order, and asks a few things itself so that it shows something
// when it runs alone.
func TestSecretsNeverLeak(t *testing.T) {
	for _, name := range []string{"user", "expired", "forged", "unsigned", "confused", "spliced", "large", "wrong audience"} {
		for _, line := range []string{"Authorization", "Cookie"} {
			value := "Bearer " + env.tokens[name]
			if line == "Cookie" {
				value = "session=" + env.tokens[name]
			}
			for _, policy := range []string{"orders", "by-cookie", "nowhere"} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env.gate.URL+"/auth/nginx/shop/"+policy, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set(line, value)
				req.Header.Set("X-Original-Method", http.MethodGet)
				req.Header.Set("X-Original-URL", "http://shop.test/orders?access_token="+env.tokens[name])
				resp, err := verifier(t).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close() // it is empty
			}
		}
	}
	collectPrivateMembers(t)
	if _, found := leaks.find("a log line with " + env.tokens["user"][200:240] + " in it"); !found {
		t.Fatal("the search does not find what is there")
	}

	texts := map[string]string{}
	for _, log := range env.logs {
		raw, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		texts["the log "+filepath.Base(log)] = string(raw)
	}
	for _, log := range env.logs[:2] {
		if !strings.Contains(texts["the log "+filepath.Base(log)], "level=DEBUG") {
			t.Errorf("%s has no line of level debug: this shows nothing", filepath.Base(log))
		}
	}
	for _, resources := range []string{
		"events", "events.events.k8s.io", "configmaps", "signingkeys", "accesspolicies", "leases", "ingresses", "services", "namespaces",
	} {
		out, _, err := env.Plane.Kubectl(t.Context(), "get", resources, "--all-namespaces", "--output", "json", "--show-managed-fields")
		if err != nil {
			t.Fatal(err)
		}
		texts[resources] = out
	}
	for what, url := range map[string]string{"the gate's metrics": env.gate.Metrics, "the controller's metrics": env.controller.Metrics} {
		_, body, err := get(t.Context(), http.DefaultClient, http.MethodGet, url)
		if err != nil {
			t.Fatal(err)
		}
		texts[what] = body
	}
	_, texts["the JWKS"] = fetch(t, http.MethodGet, shopKeys+"jwks.json")
	if !strings.Contains(texts["configmaps"], `"shop-jwks"`) || !strings.Contains(texts["events"], "SigningKey") {
		t.Error("there is no ConfigMap with keys, or no event of a SigningKey: this shows nothing")
	}
	size := 0
	for what, text := range texts {
		size += len(text)
		if at, found := leaks.find(text); found {
			// What leaked is in the log of this test then, which is the point.
			t.Errorf("%s has a part of a secret: …%q…", what, text[max(0, at-200):min(len(text), at+100)])
		}
	}
	t.Logf("%d tokens and private members were looked for in %d texts of %d bytes", leaks.secrets, len(texts), size)
}

// collectPrivateMembers adds the private halves of all keys that there are, in
// whatever Secret.
func collectPrivateMembers(t *testing.T) {
	t.Helper()
	var secrets corev1.SecretList
	if err := env.Client.List(t.Context(), &secrets); err != nil {
		t.Fatal(err)
	}
	found := 0
	for i := range secrets.Items {
		for _, raw := range secrets.Items[i].Data {
			if !json.Valid(raw) {
				continue
			}
			for _, m := range privateMember.FindAllSubmatch(raw, -1) {
				leaks.add(string(m[1]))
				found++
			}
		}
	}
	// Three keys that are active, in a keyring and a signer Secret each.
	if found < 6 {
		t.Errorf("%d private members in %d Secrets: the search misses some", found, len(secrets.Items))
	}
}
