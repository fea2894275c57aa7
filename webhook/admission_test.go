package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/grpcauth"
)

const (
	firstSecret  = "first-secret-0123456789"
	secondSecret = "second-secret-0123456789"
	open         = "/auth/nginx/shop/open"
)

// openPolicy lets everybody pass, so that a denial has another reason.
func openPolicy() *v1alpha1.AccessPolicy {
	ap := &v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "open"}}
	ap.Spec.Issuers = []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}}}
	ap.Spec.Rules = []v1alpha1.Rule{{Name: "all", Access: v1alpha1.AccessAnonymous}}
	return ap
}

func newOpenServer(t testing.TB, o Options, clock func() time.Time) (*server, *logs) {
	t.Helper()
	s, out := newTestServer(t, o, clock)
	s.feed.setSigningKey(shopKey(t, 1, v1alpha1.KeyActive))
	s.feed.setPolicy(openPolicy())
	return s, out
}

func dialGRPC(t testing.TB, l net.Listener, c credentials.TransportCredentials) authv3.AuthorizationClient {
	t.Helper()
	connection, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return authv3.NewAuthorizationClient(connection)
}

func question() *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{grpcauth.PolicyExtension: "shop/open"},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: "h"}},
	}}
}

// denied says how often a reason was given.
func denied(s *server, reason string) (n uint64) {
	s.gate.Stats().Unknown.Denied(func(r string, count uint64) bool {
		if r == reason {
			n = count
		}
		return true
	})
	return n
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCallersProveThemselvesBySecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, "\n"+firstSecret+"\n")
	s, out := newOpenServer(t, Options{InsecureHTTP: true, CallerSecretFile: file}, time.Now)
	at := listeners{auth: listen(t), grpc: listen(t), admin: listen(t)}
	run(t, s, at)
	client := dialGRPC(t, at.grpc, insecure.NewCredentials())
	want := func(when string, status int, secrets ...string) {
		t.Helper()
		r := httptest.NewRequest("GET", open, nil)
		r.RequestURI = open
		ctx := t.Context()
		for _, secret := range secrets {
			r.Header.Add("X-Keywright-Caller", secret)
			ctx = metadata.AppendToOutgoingContext(ctx, "X-Keywright-Caller", secret)
		}
		w := httptest.NewRecorder()
		s.auth.ServeHTTP(w, r)
		if w.Code != status || w.Body.Len() != 0 || w.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("%s: HTTP %d %v", when, w.Code, w.Header())
		}
		response, err := client.Check(ctx, question())
		if err != nil || (response.GetStatus().GetCode() == 0) != (status == 200) {
			t.Errorf("%s: gRPC %v, %v", when, response, err)
		}
		if d := response.GetDeniedResponse(); status != 200 && d.GetStatus().GetCode() != 403 {
			t.Errorf("%s: gRPC %v", when, response)
		}
	}
	want("the secret", 200, firstSecret)
	want("none", 403)
	want("another", 403, secondSecret)
	want("an empty one", 403, "")
	want("a part", 403, firstSecret[:len(firstSecret)-1])
	want("twice: one is the client's", 403, firstSecret, firstSecret)
	if n := denied(s, "caller_unknown"); n != 10 {
		t.Errorf("%d are counted", n)
	}
	if w := ask(s.auth, "GET", "/keys/shop/shop/jwks.json"); w.Code != 200 {
		t.Errorf("keys: %d", w.Code)
	}

	// Turned without refusing anybody: both count, then the new one alone.
	writeFile(t, file, firstSecret+"\n"+secondSecret+"\n")
	if err := s.admission.callers.read(); err != nil {
		t.Fatal(err)
	}
	want("both: first", 200, firstSecret)
	want("both: second", 200, secondSecret)
	writeFile(t, file, secondSecret)
	if err := s.admission.callers.read(); err != nil {
		t.Fatal(err)
	}
	want("the new one", 200, secondSecret)
	want("the old one", 403, firstSecret)

	for _, unusable := range []string{"", "\n", "short", "with a space in the middle", strings.Repeat("x", 20) + "\n" + "é-0123456789-0123456789"} {
		writeFile(t, file, unusable)
		if err := s.admission.callers.read(); err == nil || strings.Contains(err.Error(), "0123456789") {
			t.Errorf("%q: %v", unusable, err)
		}
		want("what was read before counts on", 200, secondSecret)
	}
	for _, secret := range []string{firstSecret, secondSecret} {
		if strings.Contains(out.String(), secret) {
			t.Error("the log has a secret")
		}
	}
	if !strings.Contains(out.String(), `"reason":"caller_unknown","error":"caller at 127.0.0.1`) {
		t.Errorf("log: %s", out)
	}
}

func TestCallerFilesAreFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, firstSecret)
	s, out := newTestServer(t, Options{CallerSecretFile: file}, time.Now)
	go s.admission.callers.follow(t.Context())
	known := func(secret string) bool { return s.admission.callers.known([]string{secret}, nil, start) }
	writeFile(t, file, secondSecret)
	await(t, "the new secret counts", func() bool { return known(secondSecret) && !known(firstSecret) })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	await(t, "it is logged that the file is gone", func() bool { return strings.Contains(out.String(), "counts on") })
	if !known(secondSecret) {
		t.Error("a file that is gone takes the secret with it")
	}
}

func TestNoCallerIsKnownFromFilesThatAreNotThere(t *testing.T) {
	if _, err := newCallers(filepath.Join(t.TempDir(), "none"), "", nil); err == nil || !strings.HasPrefix(err.Error(), "--caller-secret-file: ") {
		t.Errorf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	writeFile(t, file, "no PEM")
	if _, err := newCallers("", file, nil); err == nil || !strings.HasPrefix(err.Error(), "--caller-ca-file: ") {
		t.Errorf("got %v", err)
	}
}

// authority makes certificates.
type authority struct {
	cert    *x509.Certificate
	private *ecdsa.PrivateKey
	pem     string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.private = certify(t, nil, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	return a
}

// certify makes a key and a certificate of it, from an hour ago to in an hour
// where the template says nothing else; by signs it, itself when nil.
func certify(t testing.TB, by *authority, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	if template.Subject.CommonName == "" {
		template.Subject = pkix.Name{CommonName: "of a test"}
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, key := template, private
	if by != nil {
		parent, key = by.cert, by.private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, private
}

func (a *authority) client(t testing.TB, usage x509.ExtKeyUsage, notAfter time.Time) *tls.Config {
	t.Helper()
	cert, private := certify(t, a, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{usage}, NotAfter: notAfter})
	return &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the test's own
		Certificates:       []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: private}},
	}
}

func TestCallersProveThemselvesByCertificate(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, 1)
	ours, others := newAuthority(t), newAuthority(t)
	file := filepath.Join(dir, "ca.crt")
	writeFile(t, file, ours.pem)
	s, _ := newOpenServer(t, Options{
		TLSCertFile: filepath.Join(dir, "tls.crt"), TLSKeyFile: filepath.Join(dir, "tls.key"), TLSMinVersion: "1.3", CallerCAFile: file,
	}, time.Now)
	at := listeners{auth: listen(t), grpc: listen(t), admin: listen(t)}
	run(t, s, at)
	want := func(t *testing.T, config *tls.Config, status int) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone()}}
		for path, status := range map[string]int{open: status, "/keys/shop/shop/jwks.json": 200} {
			for range 2 { // the second finds the certificate remembered
				response, err := client.Get("https://" + at.auth.Addr().String() + path)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode != status {
					t.Errorf("%s: got %d, want %d", path, response.StatusCode, status)
				}
			}
		}
		client.CloseIdleConnections()
		response, err := dialGRPC(t, at.grpc, credentials.NewTLS(config.Clone())).Check(t.Context(), question())
		if err != nil || (response.GetStatus().GetCode() == 0) != (status == 200) {
			t.Errorf("gRPC: %v, %v", response, err)
		}
	}
	proxy := ours.client(t, x509.ExtKeyUsageClientAuth, time.Time{})
	t.Run("of the authority", func(t *testing.T) { want(t, proxy, 200) })
	t.Run("none", func(t *testing.T) { want(t, &tls.Config{InsecureSkipVerify: true}, 403) }) //nolint:gosec // the test's own
	t.Run("of another authority", func(t *testing.T) { want(t, others.client(t, x509.ExtKeyUsageClientAuth, time.Time{}), 403) })
	t.Run("of a server", func(t *testing.T) { want(t, ours.client(t, x509.ExtKeyUsageServerAuth, time.Time{}), 403) })
	t.Run("that is over", func(t *testing.T) {
		want(t, ours.client(t, x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute)), 403)
	})
	writeFile(t, file, others.pem)
	if err := s.admission.callers.read(); err != nil {
		t.Fatal(err)
	}
	t.Run("of an authority that is no longer", func(t *testing.T) { want(t, proxy, 403) })
}

func TestAVerifiedCertificateEndsInTime(t *testing.T) {
	ours := newAuthority(t)
	cert, _ := certify(t, ours, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotAfter: time.Now().Add(time.Minute)})
	c := &callers{caFile: "x"}
	if err := c.setRoots([]byte(ours.pem)); err != nil {
		t.Fatal(err)
	}
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	for range 2 { // the second time it is remembered
		if !c.known(nil, state, time.Now()) {
			t.Error("it does not count")
		}
	}
	if c.known(nil, state, cert.NotAfter.Add(time.Second)) {
		t.Error("it outlives itself")
	}
}

func TestThePolicyDoesNotSeeTheSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, firstSecret)
	s, _ := newOpenServer(t, Options{CallerSecretFile: file}, time.Now)
	seen := false
	h := s.admission.http(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, seen = r.Header[callerHeader] }))
	r := httptest.NewRequest("GET", open, nil)
	r.Header.Set(callerHeader, firstSecret)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if seen {
		t.Error("it reaches decisions, and through expressions applications")
	}
}

// both asks over HTTP and gRPC, without connections.
func both(t *testing.T, s *server) (status int, allowed bool) {
	t.Helper()
	w := ask(s.auth, "GET", open)
	response, err := s.grpc.Check(t.Context(), question())
	if err != nil {
		t.Fatal(err)
	}
	if response.GetStatus().GetCode() != 0 && response.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("gRPC: %v", response)
	}
	return w.Code, response.GetStatus().GetCode() == 0
}

func wantBoth(t *testing.T, when string, s *server, status int) {
	t.Helper()
	if got, allowed := both(t, s); got != status || allowed != (status == 200) {
		t.Errorf("%s: HTTP %d, gRPC allows %v, want %d", when, got, allowed, status)
	}
}

func TestNothingIsDecidedBeforeAllIsLoaded(t *testing.T) {
	s, _ := newOpenServer(t, Options{}, at(start))
	synced := false
	s.feed.synced = []func() bool{func() bool { return synced }}
	wantBoth(t, "a policy that allows is loaded, others may not be", s, 403)
	if n := denied(s, "not_synced"); n != 2 {
		t.Errorf("%d are counted", n)
	}
	synced = true
	wantBoth(t, "synced", s, 200)
}

func TestStaleGateDenies(t *testing.T) {
	now := start
	s, _ := newOpenServer(t, Options{MaxStaleness: 5 * time.Minute}, func() time.Time { return now })
	ready := func() int { return ask(s.admin, "GET", "/readyz").Code }
	wantBoth(t, "never heard", s, 403)
	s.contact.heard()
	wantBoth(t, "just heard", s, 200)
	now = now.Add(5 * time.Minute)
	wantBoth(t, "at the limit", s, 200)
	if got := ready(); got != 200 {
		t.Errorf("readyz: %d", got)
	}
	now = now.Add(time.Nanosecond)
	wantBoth(t, "beyond it", s, 403)
	if got := ready(); got != 503 {
		t.Errorf("readyz: %d", got)
	}
	if n := denied(s, "stale"); n != 4 {
		t.Errorf("%d are counted", n)
	}
	s.contact.heard()
	wantBoth(t, "heard again", s, 200)
	s.options.MaxStaleness = 0
	now = now.Add(24 * time.Hour)
	wantBoth(t, "without a bound", s, 200)
}

func TestOverloadDenies(t *testing.T) {
	s, out := newOpenServer(t, Options{MaxConcurrent: 2, MaxConnections: 100}, at(start))
	wantBoth(t, "idle", s, 200)
	s.admission.busy.Store(1) // one is being answered
	wantBoth(t, "the last one that there is room for", s, 200)
	s.admission.busy.Store(2)
	wantBoth(t, "one too many", s, 403)
	if n := s.admission.busy.Load(); n != 2 {
		t.Errorf("%d are being answered", n)
	}
	if n := denied(s, "overloaded"); n != 2 {
		t.Errorf("%d are counted", n)
	}
	if !strings.Contains(out.String(), `"reason":"overloaded"`) {
		t.Errorf("log: %s", out)
	}
	s.admission.busy.Store(0)
	wantBoth(t, "idle again", s, 200)
	if w := ask(s.admin, "GET", "/metrics"); !strings.Contains(w.Body.String(), "keywright_gate_requests_in_progress 0\n") {
		t.Error("no gauge")
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	s, _ := newOpenServer(t, Options{InsecureHTTP: true, MaxConcurrent: 10, MaxConnections: 2}, time.Now)
	at := listeners{auth: listen(t), admin: listen(t)}
	run(t, s, at)
	var connections []net.Conn
	status := func(c net.Conn) string {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, "GET "+open+" HTTP/1.1\r\nHost: g\r\n\r\n"); err != nil {
			return "closed"
		}
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return "closed"
		}
		_ = response.Body.Close()
		return fmt.Sprint(response.StatusCode, response.Close)
	}
	dial := func() net.Conn {
		n := s.connections.open.Load() + int64(s.connections.closed.Load())
		c, err := net.Dial("tcp", at.auth.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		await(t, "it is taken", func() bool { return s.connections.open.Load()+int64(s.connections.closed.Load()) == n+1 })
		return c
	}
	for range 5 {
		connections = append(connections, dial())
	}
	for i, want := range []string{"200false", "200false", "403true", "403true", "closed"} {
		if got := strings.ReplaceAll(status(connections[i]), " ", ""); got != want {
			t.Errorf("connection %d: %s, want %s", i, got, want)
		}
	}
	if n := denied(s, "overloaded"); n != 2 {
		t.Errorf("%d are counted", n)
	}
	for _, c := range connections {
		_ = c.Close()
	}
	await(t, "they are counted out", func() bool { return s.connections.open.Load() == 0 })
	if got := strings.ReplaceAll(status(dial()), " ", ""); got != "200false" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestStrangersHoldNoConnection(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a-secret-of-more-than-thirty-two-bytes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := newOpenServer(t, Options{InsecureHTTP: true, MaxConcurrent: 10, MaxConnections: 10, CallerSecretFile: secret}, time.Now)
	for target, want := range map[string]string{
		open:            "close",
		"/keys/a/b/x":   "close",
		"/nothing/here": "close",
	} {
		if got := ask(s.auth, "GET", target).Header().Get("Connection"); got != want {
			t.Errorf("%s: Connection: %q, want %q", target, got, want)
		}
	}
	r := httptest.NewRequest("GET", open, nil)
	r.RequestURI = open
	r.Header.Set("X-Keywright-Caller", "a-secret-of-more-than-thirty-two-bytes")
	w := httptest.NewRecorder()
	s.auth.ServeHTTP(w, r)
	if got := w.Header().Get("Connection"); got != "" || w.Code != 200 {
		t.Errorf("with the secret: status %d, Connection: %q", w.Code, got)
	}
}

func TestFaultInAHandlerDenies(t *testing.T) {
	s, out := newOpenServer(t, Options{InsecureHTTP: true}, time.Now)
	faults := map[string]http.HandlerFunc{
		"before the answer": func(http.ResponseWriter, *http.Request) { panic("secret text") },
		"with an answer that was begun": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Auth-Subject", "root")
			panic("secret text")
		},
		"an aborted one": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			front := httptest.NewServer(s.authHandler(s.admission.http(fault), http.NotFoundHandler()))
			defer front.Close()
			response, err := http.Get(front.URL + open)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != 403 || response.Header.Get("X-Auth-Subject") != "" {
				t.Errorf("got %d %v", response.StatusCode, response.Header)
			}
		})
	}
	if n := s.admission.busy.Load(); n != 0 {
		t.Errorf("%d are still being answered", n)
	}
	if n := denied(s, "internal_error"); n != 3 || s.gate.Stats().Panics != 3 {
		t.Errorf("%d are counted", n)
	}
	if strings.Contains(out.String(), "secret text") || !strings.Contains(out.String(), "admission_test.go") {
		t.Error("the log lacks where, or has the text")
	}
}

// TestPolicyThatIsReplacedNeverLetsPass replaces a policy that needs a token
// again and again, by ones that need it too, that are broken, or by none.
func TestPolicyThatIsReplacedNeverLetsPass(t *testing.T) {
	s, _ := newOpenServer(t, Options{}, time.Now)
	ap := openPolicy()
	ap.Name, ap.Spec.Rules = "orders", nil
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := ap.DeepCopy()
			next.Spec.Realm = fmt.Sprint("r", i)
			switch i % 3 {
			case 1:
				next.Spec.Issuers = nil // does not compile
			case 2:
				s.feed.deletePolicy(authz.Ref{Namespace: "shop", Name: "orders"})
				continue
			}
			s.feed.setPolicy(next)
		}
	}()
	for range 5000 {
		if w := ask(s.auth, "GET", "/auth/nginx/shop/orders"); w.Code != 401 && w.Code != 403 {
			t.Fatalf("got %d", w.Code)
		}
	}
	close(stop)
	<-done
}

// TestWhatNetHTTPRefusesIsDenied sends what net/http answers by itself.
func TestWhatNetHTTPRefusesIsDenied(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, 1)
	many := strings.Repeat("X-A: "+strings.Repeat("a", 4000)+"\r\n", 100)
	requests := map[string]string{
		"a control character in a field":  "GET " + open + " HTTP/1.1\r\nHost: g\r\nX-A: a\x01b\r\n\r\n",
		"a field that is no name":         "GET " + open + " HTTP/1.1\r\nHost: g\r\nX(A): b\r\n\r\n",
		"a huge header":                   "GET " + open + " HTTP/1.1\r\nHost: g\r\n" + many + "\r\n",
		"a huge field":                    "GET " + open + " HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer " + strings.Repeat(".", 1_000_000) + "\r\n\r\n",
		"a huge target":                   "GET " + open + "?" + strings.Repeat("a", 400_000) + " HTTP/1.1\r\nHost: g\r\n\r\n",
		"an expectation":                  "GET " + open + " HTTP/1.1\r\nHost: g\r\nExpect: the-unexpected\r\n\r\n",
		"another coding":                  "GET " + open + " HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: gzip\r\n\r\n",
		"no host":                         "GET " + open + " HTTP/1.1\r\n\r\n",
		"two hosts":                       "GET " + open + " HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"another version":                 "GET " + open + " HTTP/3.0\r\nHost: g\r\n\r\n",
		"a control character in a target": "GET " + open + "?\x01 HTTP/1.1\r\nHost: g\r\n\r\n",
	}
	for _, insecure := range []bool{true, false} {
		s, out := newOpenServer(t, Options{
			InsecureHTTP: insecure, TLSCertFile: filepath.Join(dir, "tls.crt"), TLSKeyFile: filepath.Join(dir, "tls.key"), TLSMinVersion: "1.3",
		}, time.Now)
		at := listeners{auth: listen(t), admin: listen(t)}
		run(t, s, at)
		for name, raw := range requests {
			t.Run(fmt.Sprintf("TLS %v/%s", !insecure, name), func(t *testing.T) {
				c, err := net.Dial("tcp", at.auth.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				if !insecure {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own
				}
				go func() { _, _ = io.WriteString(c, raw) }() // may be cut short
				response, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				if err != nil || response.StatusCode != 403 || len(body) != 0 || !response.Close {
					t.Errorf("got %d %q, %v", response.StatusCode, body, err)
				}
			})
		}
		if n := denied(s, "unreadable_request"); n != uint64(len(requests)) {
			t.Errorf("%d are counted, want %d", n, len(requests))
		}
		if !strings.Contains(out.String(), `"reason":"unreadable_request"`) {
			t.Error("none is logged")
		}
	}
}

// TestSlowClientsAreClosed moves the time at which deadlines are looked at.
func TestSlowClientsAreClosed(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, 1)
	const request = "GET /auth/nginx/shop/orders HTTP/1.1\r\nHost: gate\r\n"
	for name, tc := range map[string]struct {
		sends    string
		answered bool
		limit    time.Duration
	}{
		"nothing is sent":    {"", false, readTimeout},
		"half a header":      {request, false, readTimeout},
		"half a body":        {request + "Content-Length: 300000\r\n\r\nhalf", true, readTimeout},
		"idle after answers": {request + "\r\n", true, idleTimeout},
	} {
		for _, insecure := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, TLS %t", name, !insecure), func(t *testing.T) {
				s, _ := newTestServer(t, Options{
					InsecureHTTP: insecure, TLSCertFile: filepath.Join(dir, "tls.crt"), TLSKeyFile: filepath.Join(dir, "tls.key"), TLSMinVersion: "1.3",
				}, time.Now)
				at := listeners{auth: listen(t), admin: listen(t)}
				run(t, s, at)
				c, err := net.Dial("tcp", at.auth.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				if !insecure && tc.sends != "" {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own
				}
				if _, err := io.WriteString(c, tc.sends); err != nil {
					t.Fatal(err)
				}
				answers := bufio.NewReader(c)
				if tc.answered {
					if _, err := http.ReadResponse(answers, nil); err != nil {
						t.Fatal(err)
					}
				}
				all := s.connections
				var deadline time.Duration
				await(t, "its deadline", func() bool {
					all.mu.Lock()
					defer all.mu.Unlock()
					for one := range all.all {
						deadline = time.Duration(one.readBy.Load())
					}
					now := time.Since(all.start)
					return deadline > now+tc.limit-5*time.Second && deadline <= now+tc.limit
				})
				all.closeSlow(deadline)
				if all.open.Load() != 1 {
					t.Error("closed too early")
				}
				all.closeSlow(deadline + 1)
				if _, err := answers.ReadByte(); err == nil {
					t.Error("not closed")
				}
				await(t, "it to be forgotten", func() bool { return all.open.Load() == 0 })
			})
		}
	}
}

// TestWhoTakesNoAnswerIsCutOff writes to one who does not read.
func TestWhoTakesNoAnswerIsCutOff(t *testing.T) {
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	all := newConnections(1)
	c := &conn{Conn: ours, raw: ours, all: all}
	all.add(c)
	ended := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, "x")
		ended <- err
	}()
	await(t, "it writes", func() bool { return c.writing.Load() != 0 })
	all.closeSlow(writeTimeout)
	select {
	case err := <-ended:
		t.Fatalf("ended in time with %v", err)
	default:
	}
	all.closeSlow(writeTimeout + time.Second)
	if err := <-ended; err == nil {
		t.Error("written")
	}
	all.closeSlow(3 * writeTimeout) // and nothing is written any more
	_ = c.Close()
	if len(all.all) != 0 {
		t.Error("still there")
	}
}

func TestGRPCDrains(t *testing.T) {
	s, _ := newOpenServer(t, Options{InsecureHTTP: true, ShutdownDelay: 300 * time.Millisecond}, time.Now)
	at := listeners{auth: listen(t), grpc: listen(t), admin: listen(t)}
	stop, ended := serve(s, at)
	client := dialGRPC(t, at.grpc, insecure.NewCredentials())
	allowed := func() bool {
		response, err := client.Check(t.Context(), question())
		return err == nil && response.GetStatus().GetCode() == 0
	}
	await(t, "it answers", allowed)
	stop()
	await(t, "it is not ready", func() bool { return s.draining.Load() })
	if !allowed() {
		t.Error("refused while draining")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", at.grpc.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}

func TestAHungGRPCCallDoesNotHoldTheProcess(t *testing.T) {
	s, _ := newOpenServer(t, Options{InsecureHTTP: true}, time.Now)
	s.drain = 200 * time.Millisecond
	entered, release := make(chan struct{}), make(chan struct{})
	s.grpc.Took = func(time.Duration) { close(entered); <-release }
	at := listeners{auth: listen(t), grpc: listen(t), admin: listen(t)}
	stop, ended := serve(s, at)
	client := dialGRPC(t, at.grpc, insecure.NewCredentials())
	failed := make(chan error, 1)
	go func() {
		_, err := client.Check(context.Background(), question(), grpc.WaitForReady(true))
		failed <- err
	}()
	<-entered
	stop()
	if err := <-failed; err == nil {
		t.Error("a call that was cut off is answered")
	}
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWhatIsNoQuestionIsDenied sends over gRPC what cannot be read, which
// grpc-go would answer with an error.
func TestWhatIsNoQuestionIsDenied(t *testing.T) {
	s, out := newOpenServer(t, Options{InsecureHTTP: true}, time.Now)
	at := listeners{auth: listen(t), grpc: listen(t), admin: listen(t)}
	run(t, s, at)
	connection, err := grpc.NewClient(at.grpc.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	good, err := proto.Marshal(question())
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"nothing":                 {},
		"no message":              []byte("\xff\xff\xff"),
		"a path that is no UTF-8": bytes.Replace(good, []byte("\x01/"), []byte("\x01\xff"), 1),
	} {
		t.Run(name, func(t *testing.T) {
			response := &authv3.CheckResponse{}
			err := connection.Invoke(t.Context(), "/envoy.service.auth.v3.Authorization/Check", raw, response, grpc.ForceCodecV2(rawRequests{encoding.GetCodecV2("proto")}))
			if err != nil || response.GetDeniedResponse().GetStatus().GetCode() != 403 {
				t.Errorf("got %v, %v", response, err)
			}
		})
	}
	if n := denied(s, "unreadable_request"); n != 3 {
		t.Errorf("%d are counted, want 3", n)
	}
	if !strings.Contains(out.String(), `"reason":"unreadable_request"`) {
		t.Error("none is logged")
	}
}

// rawRequests sends bytes as they are.
type rawRequests struct{ encoding.CodecV2 }

func (rawRequests) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
