//go:build linux

package gate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

const shopKeys = "/keys/shop/shop/"

// verifier is a client that believes the gate's certificate and no other.
func verifier(t *testing.T) *http.Client {
	t.Helper()
	return verifierOf(t, env.gate)
}

func verifierOf(t *testing.T, g *stack.Gate) *http.Client {
	t.Helper()
	raw, err := os.ReadFile(g.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(raw) {
		t.Fatal("the gate's certificate is not PEM")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetch asks the gate's auth listener for a raw target.
func fetch(t *testing.T, method, target string) (*http.Response, string) {
	t.Helper()
	resp, body, err := get(t.Context(), verifier(t), method, env.gate.URL+target)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

var maxAgePattern = regexp.MustCompile(`^public, max-age=([0-9]+)$`)

// jwks fetches and checks the JWKS of SigningKey shop, by discovery.
func jwks(t *testing.T) []map[string]string {
	t.Helper()
	resp, body := fetch(t, http.MethodGet, shopKeys+".well-known/openid-configuration")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("discovery: status %d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	var document struct {
		Issuer     string   `json:"issuer"`
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := json.Unmarshal([]byte(body), &document); err != nil {
		t.Fatal(err)
	}
	if document.Issuer != "https://auth.shop.example" || document.JWKSURI != env.gate.URL+shopKeys+"jwks.json" || !slices.Equal(document.Algorithms, []string{"ES256"}) {
		t.Errorf("the discovery document is %s", body)
	}
	resp, body, err := get(t.Context(), verifier(t), http.MethodGet, document.JWKSURI)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("JWKS: status %d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	m := maxAgePattern.FindStringSubmatch(resp.Header.Get("Cache-Control"))
	if m == nil {
		t.Fatalf("JWKS: Cache-Control %q", resp.Header.Get("Cache-Control"))
	}
	// The key's verifierLag is the default, 30m, so verifiers may keep it 5m.
	if age, err := strconv.Atoi(m[1]); err != nil || age < 1 || age > 300 {
		t.Errorf("JWKS: max-age %s, want 1 to 300", m[1])
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal([]byte(body), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) == 0 {
		t.Fatal("JWKS: it is empty")
	}
	for _, key := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, ok := key[private]; ok {
				t.Errorf("JWKS: a key has the private member %s", private)
			}
		}
	}
	return set.Keys
}

func TestOthersVerifyByDiscovery(t *testing.T) {
	keys := jwks(t)
	t.Run("golang-jwt", func(t *testing.T) {
		lookup := func(token *jwt.Token) (any, error) {
			for _, key := range keys {
				if key["kid"] == token.Header["kid"] {
					x, errX := base64.RawURLEncoding.DecodeString(key["x"])
					y, errY := base64.RawURLEncoding.DecodeString(key["y"])
					if err := errors.Join(errX, errY); err != nil {
						return nil, err
					}
					return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
				}
			}
			return nil, errors.New("no such key")
		}
		parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience("orders"), jwt.WithIssuer("https://auth.shop.example"), jwt.WithExpirationRequired())
		if _, err := parser.Parse(env.tokens["user"], lookup); err != nil {
			t.Error(err)
		}
		for _, bad := range []string{"forged", "expired", "unknown key", "wrong audience"} {
			if _, err := parser.Parse(env.tokens[bad], lookup); err == nil {
				t.Errorf("the token %q passes", bad)
			}
		}
	})
	t.Run("PyJWT", func(t *testing.T) {
		type task struct {
			Token string `json:"token"`
			JWKS  any    `json:"jwks"`
			Alg   string `json:"alg"`
			Aud   string `json:"aud"`
			Iss   string `json:"iss"`
		}
		tokens := []string{"user", "forged", "expired", "wrong audience"}
		var tasks []task
		for _, name := range tokens {
			tasks = append(tasks, task{env.tokens[name], map[string]any{"keys": keys}, "ES256", "orders", "https://auth.shop.example"})
		}
		job, err := json.Marshal(map[string]any{"verify": tasks})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", filepath.Join(stack.Root(), "hack", "e2e", "interop", "pyjwt.py"))
		var stderr bytes.Buffer
		cmd.Stdin, cmd.Stderr = bytes.NewReader(job), &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("asking PyJWT: %v\n%s\nIf it is not installed: make deps", err, stderr.String())
		}
		var answer struct{ Verify []*string }
		if err := json.Unmarshal(out, &answer); err != nil {
			t.Fatal(err)
		}
		for i, name := range tokens {
			if passed := answer.Verify[i] != nil; passed != (name == "user") {
				t.Errorf("the token %q: passed is %t", name, passed)
			}
		}
	})
}

func TestWhatTheAuthListenerServes(t *testing.T) {
	for name, tc := range map[string]struct {
		method, target string
		want           int
	}{
		"the JWKS":                           {"GET", shopKeys + "jwks.json", 200},
		"the JWKS to HEAD":                   {"HEAD", shopKeys + "jwks.json", 200},
		"the discovery document":             {"GET", shopKeys + ".well-known/openid-configuration", 200},
		"no POST":                            {"POST", shopKeys + "jwks.json", 405},
		"no SigningKey that is not there":    {"GET", "/keys/shop/nope/jwks.json", 404},
		"no SigningKey of another namespace": {"GET", "/keys/other/shop/jwks.json", 404},
		"no secret of an HS256 key":          {"GET", "/keys/shop/secret/jwks.json", 404},
		"no discovery of an HS256 key":       {"GET", "/keys/shop/secret/.well-known/openid-configuration", 404},
		"no discovery without an issuer":     {"GET", "/keys/shop/partner/.well-known/openid-configuration", 404},
		"no other document":                  {"GET", shopKeys + "keyring.json", 404},
		"no path that has to be cleaned":     {"GET", "/keys/shop/./shop/jwks.json", 404},
		"no metrics":                         {"GET", "/metrics", 404},
		"no readiness":                       {"GET", "/readyz", 404},
		"no health":                          {"GET", "/healthz", 404},
		"no profiles":                        {"GET", "/debug/pprof/", 404},
		"nothing else":                       {"GET", "/", 404},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := fetch(t, tc.method, tc.target)
			if resp.StatusCode != tc.want {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, tc.want, body)
			}
		})
	}
}

func TestWhatTheAdminListenerServes(t *testing.T) {
	for target, want := range map[string]int{
		"/healthz":                      200,
		"/readyz":                       200,
		"/metrics":                      200,
		shopKeys + "jwks.json":          404,
		"/auth/nginx/shop/orders":       404,
		"/debug/pprof/":                 404,
		"/keysets/shop/shop/../../nope": 404,
	} {
		t.Run(target, func(t *testing.T) {
			resp, body, err := get(t.Context(), http.DefaultClient, http.MethodGet, env.gate.Admin+target)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != want {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, want, body)
			}
		})
	}
	t.Run("the metrics count decisions by policy, result and reason", func(t *testing.T) {
		before, err := decisions(t.Context(), "shop", "orders")
		if err != nil {
			t.Fatal(err)
		}
		if resp, _ := fetch(t, http.MethodGet, "/auth/nginx/shop/orders"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("a question without X-Original-URL: status %d, want 403", resp.StatusCode)
		}
		after, err := decisions(t.Context(), "shop", "orders")
		if err != nil {
			t.Fatal(err)
		}
		if got := since(before, after); got["path_unknown"] != 1 || len(got) != 1 {
			t.Errorf("counted %v, want one path_unknown", got)
		}
	})
}

// TestKeysThatAreNotThereYet stops the controller for a moment, so that a
// SigningKey has no keys.
func TestKeysThatAreNotThereYet(t *testing.T) {
	if err := env.controller.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := func() {
		if err := env.controller.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	defer resume()
	// As in a manifest that says nothing: the Go type would say 0s.
	sk := &unstructured.Unstructured{}
	sk.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SigningKey"))
	sk.SetNamespace("shop")
	sk.SetName("late")
	if err := env.Client.Create(t.Context(), sk); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := env.Client.Delete(context.Background(), sk); err != nil {
			t.Error(err)
		}
	}()
	becomes := func(want int) (header http.Header) {
		t.Helper()
		await(t, fmt.Sprintf("status %d", want), func() error {
			resp, body := fetch(t, http.MethodGet, "/keys/shop/late/jwks.json")
			header = resp.Header
			if resp.StatusCode != want {
				return fmt.Errorf("status %d: %s", resp.StatusCode, body)
			}
			return nil
		})
		return header
	}
	header := becomes(http.StatusServiceUnavailable)
	if header.Get("Retry-After") == "" || !strings.Contains(header.Get("Cache-Control"), "no-store") {
		t.Errorf("503 with Retry-After %q and Cache-Control %q", header.Get("Retry-After"), header.Get("Cache-Control"))
	}
	resume()
	becomes(http.StatusOK)
}
