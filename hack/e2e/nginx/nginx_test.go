package nginx

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gate stands in for the real one: it allows the bearer token "good", forbids
// "weak" and knows no other.
type gate struct {
	mu    sync.Mutex
	asked []*http.Request
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.asked = append(g.asked, r)
	g.mu.Unlock()
	switch r.Header.Get("Authorization") {
	case "Bearer good":
		w.Header().Set("X-Auth-Subject", "alice")
	case "Bearer weak":
		w.WriteHeader(http.StatusForbidden)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// last is the question asked last.
func (g *gate) last(t *testing.T) *http.Request {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.asked) == 0 {
		t.Fatal("the gate was never asked")
	}
	return g.asked[len(g.asked)-1]
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

// backend answers with what it got.
func backend(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintf(w, "%s %s\nsubject=%q groups=%q\n%s", r.Method, r.RequestURI,
			r.Header.Values("X-Auth-Subject"), r.Header.Values("X-Auth-Groups"), body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func start(t *testing.T, servers ...Server) *Nginx {
	t.Helper()
	n, err := Start(t.Context(), Options{Servers: servers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func serveGate(t *testing.T) (*gate, string) {
	t.Helper()
	g := &gate{}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return g, server.URL
}

func send(t *testing.T, n *Nginx, method, url, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := n.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestVerdictReachesClientAndBackend(t *testing.T) {
	g, gateURL := serveGate(t)
	n := start(t, Server{
		Host:            "shop.example.com",
		AuthURL:         gateURL + "/auth/nginx/shop/orders?host=$host",
		ResponseHeaders: []string{"X-Auth-Subject", "X-Auth-Groups"},
		Backend:         backend(t),
	})
	spoofed := func(token string) http.Header {
		h := http.Header{"X-Auth-Subject": {"mallory"}, "X-Auth-Groups": {"admins"}}
		if token != "" {
			h.Set("Authorization", "Bearer "+token)
		}
		return h
	}
	tests := map[string]struct {
		host, token      string
		wantStatus       int
		wantAuthenticate string
		wantBody         string
	}{
		"a good token passes, with the gate's identity in place of the client's": {
			host: "shop.example.com", token: "good", wantStatus: http.StatusOK,
			wantBody: "POST /orders/../a%2fb?x=1\nsubject=[\"alice\"] groups=[]\nparcel",
		},
		"no token is 401 with the gate's challenge": {
			host: "shop.example.com", wantStatus: http.StatusUnauthorized, wantAuthenticate: `Bearer realm="test"`,
		},
		"a token that may not is 403": {
			host: "shop.example.com", token: "weak", wantStatus: http.StatusForbidden,
		},
		"another host is not served": {
			host: "other.example.com", token: "good", wantStatus: http.StatusNotFound,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			resp, body := send(t, n, http.MethodPost, "http://"+tc.host+"/orders/../a%2fb?x=1", "parcel", spoofed(tc.token))
			if resp.StatusCode != tc.wantStatus {
				t.Fatalf("status %d, want %d; body %q", resp.StatusCode, tc.wantStatus, body)
			}
			if got := resp.Header.Get("WWW-Authenticate"); got != tc.wantAuthenticate {
				t.Errorf("WWW-Authenticate %q, want %q", got, tc.wantAuthenticate)
			}
			if tc.wantBody != "" {
				if diff := cmp.Diff(tc.wantBody, body); diff != "" {
					t.Errorf("what the backend got (-want +got):\n%s", diff)
				}
			}
		})
	}

	send(t, n, http.MethodPut, "http://shop.example.com/orders/../a%2fb?x=1", "parcel", http.Header{
		"Authorization":     {"Bearer good"},
		"X-Original-Url":    {"http://elsewhere/"},
		"X-Original-Method": {"GET"},
		"X-Forwarded-For":   {"192.0.2.1"},
		"X-Request-Id":      {"r-1"},
		"X-Tenant":          {"t-1"},
	})
	asked := g.last(t)
	got := map[string][]string{"method": {asked.Method}, "target": {asked.RequestURI}, "host": {asked.Host}}
	for _, name := range []string{"X-Original-Url", "X-Original-Method", "X-Sent-From", "X-Real-Ip", "X-Forwarded-For", "X-Auth-Request-Redirect", "X-Request-Id", "X-Tenant", "Content-Length"} {
		got[name] = asked.Header.Values(name)
	}
	want := map[string][]string{
		"method":                  {"GET"},
		"target":                  {"/auth/nginx/shop/orders?host=shop.example.com"},
		"host":                    {"127.0.0.1"},
		"X-Original-Url":          {"http://shop.example.com/orders/../a%2fb?x=1"},
		"X-Original-Method":       {"PUT"},
		"X-Sent-From":             {"nginx-ingress-controller"},
		"X-Real-Ip":               {"127.0.0.1"},
		"X-Forwarded-For":         {"127.0.0.1"},
		"X-Auth-Request-Redirect": {"/orders/../a%2fb?x=1"},
		"X-Request-Id":            {"r-1"},
		"X-Tenant":                {"t-1"},
		"Content-Length":          nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the question (-want +got):\n%s", diff)
	}
}

func TestCacheKeySharesAVerdict(t *testing.T) {
	g, gateURL := serveGate(t)
	n := start(t, Server{
		Host: "shop.example.com", AuthURL: gateURL, Backend: backend(t),
		CacheKey: "$http_authorization",
	})
	for _, target := range []string{"/a", "/b", "/c"} {
		resp, _ := send(t, n, http.MethodGet, "http://shop.example.com"+target, "", http.Header{"Authorization": {"Bearer good"}})
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, want 200", target, resp.StatusCode)
		}
	}
	if got := g.count(); got != 1 {
		t.Errorf("the gate was asked %d times, want once: the key is the same", got)
	}
	resp, _ := send(t, n, http.MethodGet, "http://shop.example.com/a", "", nil)
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: status %d, want 401", resp.StatusCode)
	}
}

func TestAuthCAFileIsWhatNginxTrusts(t *testing.T) {
	g := &gate{}
	server := httptest.NewTLSServer(g)
	t.Cleanup(server.Close)
	stranger := httptest.NewUnstartedServer(nil)
	stranger.TLS = &tls.Config{Certificates: []tls.Certificate{otherCertificate(t)}}
	stranger.Config.Handler = g
	stranger.StartTLS()
	t.Cleanup(stranger.Close)

	ca := filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	app := backend(t)
	n := start(t,
		Server{Host: "blind", AuthURL: stranger.URL, Backend: app},
		Server{Host: "right", AuthURL: server.URL, AuthCAFile: ca, AuthServerName: "example.com", Backend: app},
		Server{Host: "name", AuthURL: server.URL, AuthCAFile: ca, AuthServerName: "example.org", Backend: app},
		Server{Host: "stranger", AuthURL: stranger.URL, AuthCAFile: ca, AuthServerName: "example.com", Backend: app},
	)
	tests := map[string]struct {
		host       string
		wantStatus int
	}{
		"without it any certificate is believed, as by ingress-nginx": {host: "blind", wantStatus: http.StatusOK},
		"a certificate of it is believed":                             {host: "right", wantStatus: http.StatusOK},
		"a certificate for another name is not":                       {host: "name", wantStatus: http.StatusInternalServerError},
		"a certificate of somebody else is not":                       {host: "stranger", wantStatus: http.StatusInternalServerError},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			resp, _ := send(t, n, http.MethodGet, "http://"+tc.host+"/", "", http.Header{"Authorization": {"Bearer good"}})
			if resp.StatusCode != tc.wantStatus {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.wantStatus)
			}
		})
	}
}

func TestReloadRefusesNobody(t *testing.T) {
	_, gateURL := serveGate(t)
	server := Server{Host: "shop.example.com", AuthURL: gateURL, Backend: backend(t)}
	n := start(t, server)

	ctx, stop := context.WithCancel(t.Context())
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, _ := send(t, n, http.MethodGet, "http://shop.example.com/", "", http.Header{"Authorization": {"Bearer good"}})
				if resp.StatusCode != http.StatusOK {
					t.Errorf("status %d during a reload, want 200", resp.StatusCode)
				}
				sent.Add(1)
			}
		})
	}
	for i := range 3 {
		added := Server{Host: fmt.Sprintf("shop%d.example.com", i), AuthURL: gateURL, Backend: server.Backend}
		if err := n.Reload(t.Context(), []Server{server, added}); err != nil {
			t.Fatal(err)
		}
		resp, _ := send(t, n, http.MethodGet, "http://"+added.Host+"/", "", nil)
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("status %d of the server just added, want 401", resp.StatusCode)
		}
	}
	stop()
	wg.Wait()
	if sent.Load() == 0 {
		t.Error("nothing was sent meanwhile")
	}
}

func TestStopLeavesNothing(t *testing.T) {
	n := start(t, Server{Host: "shop.example.com", Backend: backend(t)})
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nginx's folder after Stop: %v, want it gone", err)
	}
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", n.address); err == nil {
		t.Errorf("the port is still open: %v", conn.Close())
	}
	if err := n.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestStartRefusesWhatCannotBeWritten(t *testing.T) {
	good := Server{Host: "shop.example.com", AuthURL: "http://127.0.0.1:1/", Backend: "http://127.0.0.1:2"}
	with := func(change func(*Server)) []Server {
		s := good
		change(&s)
		return []Server{s}
	}
	tests := map[string]struct {
		servers []Server
		want    string
	}{
		"no server":                    {nil, "Servers is empty"},
		"a host that ends a directive": {with(func(s *Server) { s.Host = "a; deny all" }), "Servers[0].Host"},
		"a host twice":                 {append(with(func(*Server) {}), good), "Servers[1].Host"},
		"an auth URL by name":          {with(func(s *Server) { s.AuthURL = "http://gate/" }), "Servers[0].AuthURL"},
		"a key with a quote":           {with(func(s *Server) { s.CacheKey = `"` }), "Servers[0].CacheKey"},
		"a header with a space":        {with(func(s *Server) { s.ResponseHeaders = []string{"X Y"} }), "Servers[0].ResponseHeaders"},
		"a backend with a path":        {with(func(s *Server) { s.Backend += "/x" }), "Servers[0].Backend"},
		"a trust without a name":       {with(func(s *Server) { s.AuthCAFile = "/ca" }), "Servers[0].AuthServerName"},
		"a duration that nginx refuses": {
			with(func(s *Server) { s.CacheKey, s.CacheDuration = "k", "forever" }), "forever",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			n, err := Start(t.Context(), Options{Servers: tc.servers})
			if err == nil {
				t.Fatal(errors.Join(errors.New("it started"), n.Stop()))
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not name %q", err, tc.want)
			}
		})
	}
}

func TestFindNamesWhatInstallsNginx(t *testing.T) {
	if !strings.Contains(ErrNotInstalled.Error(), "make deps") {
		t.Errorf("%q does not say how to install it", ErrNotInstalled)
	}
	if slices.Contains([]string{"", "."}, filepath.Dir(mustFind(t))) {
		t.Error("nginx was found in the working directory")
	}
}

func mustFind(t *testing.T) string {
	t.Helper()
	path, err := find()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// otherCertificate is one that no CA of the test has signed.
func otherCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotAfter: neverInATest}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// neverInATest is what RFC 5280 gives a certificate without an end.
var neverInATest = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
