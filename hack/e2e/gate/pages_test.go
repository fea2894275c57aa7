//go:build linux

package gate

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/hack/e2e/callers"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// TestWhatThePageShows runs what docs/callers.md shows, as it is shown, against
// a gate as the chart sets it up, which asks for a proof too.
func TestWhatThePageShows(t *testing.T) {
	dir := t.TempDir()
	const secret = "a-secret-of-the-page-0123456789abcdef"
	secretFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(secretFile, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := callers.Shown{
		App: env.appAddress, Policy: "shop/ruleless", Secret: secret,
		CertFile: filepath.Join(dir, "client.crt"), KeyFile: filepath.Join(dir, "client.key"),
	}
	if err := stack.WriteCertificate(shown.CertFile, shown.KeyFile); err != nil {
		t.Fatal(err)
	}
	g, err := env.StartGate(t.Context(), "shown", append([]string{
		"--tls-min-version", "1.3", "--caller-secret-file", secretFile, "--caller-ca-file", shown.CertFile,
	}, debug...)...)
	if err != nil {
		t.Fatal(err)
	}
	env.logs = append(env.logs, g.Log)
	t.Cleanup(func() {
		if err := g.Terminate(); err != nil {
			t.Error(err)
		}
	})
	shown.Gate, shown.CAFile = g.Address, g.CAFile

	stranger := shown
	stranger.CAFile = filepath.Join(dir, "other.crt")
	if err := stack.WriteCertificate(stranger.CAFile, filepath.Join(dir, "other.key")); err != nil {
		t.Fatal(err)
	}
	for _, section := range []string{"Plain nginx", "Traefik", "Caddy", "HAProxy"} {
		t.Run(section, func(t *testing.T) {
			client := startShown(t, section, shown)
			for name, tc := range shownRequests {
				if tc.ruled && section == "HAProxy" {
					continue // it asks about a policy without rules
				}
				t.Run(name, func(t *testing.T) {
					got, arrived := askShown(t, client, section+": "+name, tc)
					if got != tc.want {
						t.Errorf("status %d, want %d", got, tc.want)
					}
					if diff := cmp.Diff(tc.told, arrived); diff != "" {
						t.Errorf("what the app was told (-want +got):\n%s", diff)
					}
				})
			}
			t.Run("a gate with another certificate is not believed", func(t *testing.T) {
				got, arrived := askShown(t, startShown(t, section, stranger), section+": stranger", shownRequests["a valid token passes"])
				if got < 400 || arrived != nil {
					t.Errorf("status %d, and the app was told %q", got, arrived)
				}
			})
		})
	}
}

// shownRequest is a request through what the page shows.
type shownRequest struct {
	target, token string
	header        []string
	// ruled says that a rule decides.
	ruled bool
	want  int
	// told are all headers that an application may take for identity, and the
	// caller's secret; nil when the request must not arrive.
	told []string
}

var shownRequests = map[string]shownRequest{
	"a valid token passes": {token: "user", want: http.StatusOK, told: []string{"X-Auth-Roles: customer", "X-Auth-Subject: u-17"}},
	"the client's own identity is replaced": {
		token: "user", header: []string{"X-Auth-Subject: mallory", "X-Auth-Roles: admin", "X_Auth_Roles: admin", "X.Auth.Roles: admin", "x-auth_subject: mallory"},
		want: http.StatusOK, told: []string{"X-Auth-Roles: customer", "X-Auth-Subject: u-17"},
	},
	"and goes where the token says nothing": {
		token: "reader", header: []string{"X-Auth-Roles: admin"}, want: http.StatusOK, told: []string{"X-Auth-Subject: u-17"},
	},
	"no token is refused":     {want: http.StatusUnauthorized},
	"a forged one is refused": {token: "forged", want: http.StatusUnauthorized},
	"what describes the request is not the client's": {
		header: []string{"X-Original-URL: http://" + callers.ShownHost + "/healthz", "X-Forwarded-Uri: /healthz", "X-Original-Method: GET"},
		want:   http.StatusUnauthorized,
	},
	"a path for everybody needs no token": {target: "/healthz", header: []string{"X-Auth-Roles: admin"}, ruled: true, want: http.StatusOK, told: []string{}},
	"a path for admins is for admins":     {target: "/admin", token: "user", ruled: true, want: http.StatusForbidden},
}

func startShown(t *testing.T, section string, s callers.Shown) *http.Client {
	t.Helper()
	p, err := callers.StartShown(t.Context(), section, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p.Client
}

// askShown gives the status, and what the app was told if it was asked.
func askShown(t *testing.T, client *http.Client, id string, r shownRequest) (status int, told []string) {
	t.Helper()
	target := r.target
	if target == "" {
		target = "/orders"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+callers.ShownHost+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(caseHeader, id)
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+env.tokens[r.token])
	}
	for _, line := range r.header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header[name] = []string{value} // as it is written
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // it is nobody's
	for _, got := range env.app.take(id) {
		told = []string{}
		for name, values := range got.header {
			spelt := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
			if !strings.HasPrefix(spelt, "x-auth-") && spelt != "x-keywright-caller" {
				continue
			}
			for _, value := range values {
				if value != "" {
					told = append(told, name+": "+value)
				}
			}
		}
	}
	slices.Sort(told)
	return resp.StatusCode, told
}
