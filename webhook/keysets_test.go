package webhook

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

// gatesSecret is what the Secret keywright-gates holds.
type gatesSecret struct {
	data map[string][]byte
	pair tls.Certificate
}

// newGatesSecret makes a certificate as the controller does, but for change;
// signer signs it, itself when nil.
func newGatesSecret(t *testing.T, signer *gatesSecret, change func(*x509.Certificate)) *gatesSecret {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: keyset.GateServerName}, DNSNames: []string{keyset.GateServerName}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	var by *authority
	if signer != nil {
		by = &authority{cert: signer.pair.Leaf, private: signer.pair.PrivateKey.(*ecdsa.PrivateKey)}
	}
	cert, private := certify(t, by, template)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s := &gatesSecret{data: map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}}
	if s.pair, err = tls.X509KeyPair(s.data["tls.crt"], s.data["tls.key"]); err != nil {
		t.Fatal(err)
	}
	return s
}

// asker is a client that shows a certificate, none when nil, and trusts those
// of gates.
func asker(shows *gatesSecret, trusts ...*gatesSecret) *http.Client {
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), ServerName: keyset.GateServerName}
	for _, s := range trusts {
		config.RootCAs.AddCert(s.pair.Leaf)
	}
	if shows != nil {
		config.Certificates = []tls.Certificate{shows.pair}
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}
}

// serveKeysets serves until the test ends and gives the address of keysets.
func serveKeysets(t *testing.T, s *server) (address string) {
	t.Helper()
	at := listeners{auth: listen(t), admin: listen(t), keysets: listen(t)}
	run(t, s, at)
	return at.keysets.Addr().String()
}

func TestKeysetsAreForThePinnedCertificateAlone(t *testing.T) {
	s, out := newTestServer(t, Options{InsecureHTTP: true}, time.Now)
	s.feed.setSigningKey(shopKey(t, 3, v1alpha1.KeyActive))
	address := serveKeysets(t, s)
	url := "https://" + address + keyset.KeysetsPath + "shop/shop"
	get := func(c *http.Client) (int, error) {
		response, err := c.Get(url)
		if err != nil {
			return 0, err
		}
		defer func() { _ = response.Body.Close() }()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode, nil
	}
	passes := func(what string, c *http.Client) {
		t.Helper()
		if got, err := get(c); err != nil || got != 200 {
			t.Errorf("%s: got %d, %v", what, got, err)
		}
	}
	refused := func(what string, c *http.Client) {
		t.Helper()
		if got, err := get(c); err == nil {
			t.Errorf("%s: got %d, want no handshake", what, got)
		}
	}
	first, second, third := newGatesSecret(t, nil, nil), newGatesSecret(t, nil, nil), newGatesSecret(t, nil, nil)

	// There is no certificate yet.
	for range 3 {
		refused("before there is a certificate", asker(first, first))
	}
	await(t, "it says so", func() bool { return strings.Contains(out.String(), "there is no certificate yet") })
	if n := strings.Count(out.String(), "there is no certificate yet"); n != 1 {
		t.Errorf("it says so %d times", n)
	}
	if w := ask(s.admin, "GET", "/readyz"); w.Code != 200 {
		t.Errorf("readiness waits for the certificate: %d", w.Code)
	}

	s.pin.set(first.data)
	kept := asker(first, first)
	passes("the certificate", kept)
	refused("no certificate", asker(nil, first))
	refused("another certificate", asker(second, first))
	refused("a certificate that the pinned one signed", asker(newGatesSecret(t, first, nil), first))
	refused("a certificate of the same names", asker(newGatesSecret(t, nil, nil), first))
	old := asker(first, first)
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	refused("TLS 1.2", old)
	if _, err := asker(first, second).Get(url); err == nil {
		t.Error("the gate shows another certificate than its own")
	}
	if response, err := http.Get("http://" + address + keyset.KeysetsPath + "shop/shop"); err == nil {
		_ = response.Body.Close()
		if response.StatusCode != 400 {
			t.Errorf("without TLS: %d", response.StatusCode)
		}
	}

	// What is no certificate, or is gone, changes nothing.
	s.pin.set(nil)
	s.pin.set(map[string][]byte{})
	s.pin.set(map[string][]byte{"tls.crt": first.data["tls.crt"], "tls.key": second.data["tls.key"]})
	passes("after a Secret that cannot be used", asker(first, first))
	if !strings.Contains(out.String(), "are not a certificate and its key") {
		t.Errorf("log: %s", out)
	}

	// A renewed one is taken while connections are open, and the one before
	// counts for a while.
	s.pin.set(second.data)
	s.pin.set(second.data) // told again
	passes("the renewed certificate", asker(second, second))
	passes("the one before", asker(first, second))
	passes("a connection of before", kept)
	refused("a third", asker(third, second))

	s.pin.set(third.data)
	passes("the certificate renewed again", asker(third, third))
	passes("the one before that", asker(second, third))
	refused("the first one", asker(first, third))
	if got, err := get(kept); err == nil && got != 403 {
		t.Errorf("a connection of the first one: got %d", got)
	}
	if log := out.String(); strings.Contains(log, "PRIVATE KEY") {
		t.Error("a key is logged")
	}
}

func TestKeysetsCertificateMustBeOfTheDay(t *testing.T) {
	for name, change := range map[string]func(*x509.Certificate){
		"expired":               func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"not valid yet":         func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
		"not for clients":       func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"for a name of another": func(c *x509.Certificate) { c.DNSNames = []string{"gate.example"} }, // the asking side's to see
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newTestServer(t, Options{InsecureHTTP: true}, time.Now)
			secret := newGatesSecret(t, nil, change)
			s.pin.set(secret.data)
			address := serveKeysets(t, s)
			if response, err := asker(secret, secret).Get("https://" + address + keyset.KeysetsPath + "shop/shop"); err == nil {
				_ = response.Body.Close()
				t.Errorf("got %d", response.StatusCode)
			}
		})
	}
}

func TestKeysetsAnswers(t *testing.T) {
	s, _ := newTestServer(t, Options{}, at(start))
	sk := shopKey(t, 3, v1alpha1.KeyPublished, v1alpha1.KeyActive)
	s.feed.setSigningKey(sk)
	pinned, other := newGatesSecret(t, nil, nil), newGatesSecret(t, nil, nil)
	s.pin.set(pinned.data)
	request := func(method, target string, shows *gatesSecret) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/", nil)
		r.RequestURI = target
		r.TLS = &tls.ConnectionState{}
		if shows != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{shows.pair.Leaf}
		}
		w := httptest.NewRecorder()
		s.keysets.ServeHTTP(w, r)
		return w
	}
	const shop = "/keysets/shop/shop"
	for name, tc := range map[string]struct {
		method, target string
		shows          *gatesSecret
		want           int
	}{
		"a SigningKey":                     {"GET", shop, pinned, 200},
		"with a query":                     {"GET", shop + "?x=1", pinned, 200},
		"another certificate":              {"GET", shop, other, 403},
		"no certificate":                   {"GET", shop, nil, 403},
		"HEAD":                             {"HEAD", shop, pinned, 405},
		"POST":                             {"POST", shop, pinned, 405},
		"a SigningKey that is not there":   {"GET", "/keysets/shop/nope", pinned, 404},
		"one of another namespace":         {"GET", "/keysets/other/shop", pinned, 404},
		"no name":                          {"GET", "/keysets/shop", pinned, 404},
		"more than a name":                 {"GET", shop + "/x", pinned, 404},
		"a path that had to be cleaned":    {"GET", "/keysets/shop/../shop/shop", pinned, 404},
		"a path that had to be decoded":    {"GET", "/keysets/shop/sho%70", pinned, 404},
		"all of them":                      {"GET", "/keysets/", pinned, 404},
		"public keys":                      {"GET", "/keys/shop/shop/jwks.json", pinned, 404},
		"a decision":                       {"GET", "/auth/nginx/shop/orders", pinned, 404},
		"metrics":                          {"GET", "/metrics", pinned, 404},
		"a target of another kind":         {"OPTIONS", "*", pinned, 405},
		"a target of another kind, to GET": {"GET", "https://x/keysets/shop/shop", pinned, 404},
	} {
		t.Run(name, func(t *testing.T) {
			w := request(tc.method, tc.target, tc.shows)
			if w.Code != tc.want || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("got %d, Cache-Control %q", w.Code, w.Header().Get("Cache-Control"))
			}
			if (w.Body.Len() > 0) != (tc.want == 200) {
				t.Errorf("body %s", w.Body)
			}
		})
	}
	for _, handler := range []http.Handler{s.auth, s.admin} {
		if w := ask(handler, "GET", shop); w.Code != 404 {
			t.Errorf("on another listener: %d", w.Code)
		}
	}

	w := request("GET", shop, pinned)
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	got, err := keyset.DecodeReport(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := keyset.Report{UID: "u", Sequence: 3}
	for i := range sk.Status.Keys {
		public, err := keyset.Members(*sk.Status.Keys[i].PublicKey).PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		thumbprint, err := keyset.Thumbprint(public)
		if err != nil {
			t.Fatal(err)
		}
		want.Keys = append(want.Keys, keyset.KeyReport{KeyID: sk.Status.Keys[i].KeyID, Thumbprint: thumbprint})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}

	s.feed.synced = []func() bool{func() bool { return false }}
	if w := request("GET", "/keysets/shop/nope", pinned); w.Code != 503 {
		t.Errorf("a SigningKey that is not loaded yet: %d", w.Code)
	}
	s.draining.Store(true)
	if w := request("GET", shop, pinned); w.Code != 200 || w.Header().Get("Connection") != "close" {
		t.Errorf("while draining: %d, Connection %q", w.Code, w.Header().Get("Connection"))
	}
}

func TestKeysetsTellWhatWasSeen(t *testing.T) {
	now := start
	s, _ := newTestServer(t, Options{}, func() time.Time { return now })
	shop := authz.Ref{Namespace: "shop", Name: "shop"}
	load := func(sequence int64, signers ...*signer) {
		sk := shopOf(t, sequence, signers...)
		sk.Spec.Propagation.SignerLag.Duration = 5 * time.Minute
		sk.Spec.Propagation.ClockSkew.Duration = time.Minute
		s.feed.setSigningKey(sk)
	}
	old, next := newSigner(t, "old", v1alpha1.KeyActive), newSigner(t, "next", v1alpha1.KeyPublished)
	s.feed.setPolicy(ordersOf())
	load(1, next, old)
	report := func() map[string]keyset.KeyReport {
		t.Helper()
		keys, _ := s.store.Keys(shop)
		raw, err := keys.Report().Encode()
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := keyset.DecodeReport(raw)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]keyset.KeyReport{}
		for _, k := range decoded.Keys {
			k.Thumbprint = ""
			all[k.KeyID] = k
		}
		return all
	}
	pass := func(raw string) {
		t.Helper()
		if got := asks(s, raw); got != 200 {
			t.Fatalf("got %d", got)
		}
	}
	want := func(what string, wants ...keyset.KeyReport) {
		t.Helper()
		all := map[string]keyset.KeyReport{}
		for _, k := range wants {
			all[k.KeyID] = k
		}
		if diff := cmp.Diff(all, report()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	want("at the beginning", keyset.KeyReport{KeyID: "old"}, keyset.KeyReport{KeyID: "next"})

	raw := old.mint(t, "u-1", start.Add(-time.Minute))
	pass(raw)
	now = start.Add(1500 * time.Millisecond)
	pass(raw)
	seen := keyset.KeyReport{KeyID: "old", NewestIssuedAt: start.Add(-time.Minute).UTC(), LastSeenAt: start.Add(time.Second).UTC()}
	want("after a token that passed twice", seen, keyset.KeyReport{KeyID: "next"})
	if asks(s, old.mint(t, "u-1", start.Add(-time.Hour))) != 401 || asks(s, newSigner(t, "old", v1alpha1.KeyActive).mint(t, "u-1", start)) != 401 {
		t.Error("a bad token passes")
	}
	want("after tokens that did not pass", seen, keyset.KeyReport{KeyID: "next"})
	pass(old.mint(t, "u-1", start.Add(-2*time.Minute)))
	want("after an older token", seen, keyset.KeyReport{KeyID: "next"})

	// The key is replaced: signers have 5 minutes, and clocks twice a minute.
	deactivated := metav1.NewTime(start.Add(time.Minute))
	until := metav1.NewTime(start.Add(3 * time.Hour))
	old.status.State, old.status.DeactivatedAt, old.status.VerifyUntil = v1alpha1.KeyVerifying, &deactivated, &until
	next.status.State = v1alpha1.KeyActive
	load(2, next, old)
	want("what was seen survives a reload", seen, keyset.KeyReport{KeyID: "next"})

	late := start.Add(time.Minute + 7*time.Minute)
	now = late.Add(10 * time.Second)
	pass(old.mint(t, "u-1", late))
	seen.NewestIssuedAt, seen.LastSeenAt = late.UTC(), now.UTC()
	want("a token that was signed at the last moment is not late", seen, keyset.KeyReport{KeyID: "next"})
	for _, sub := range []string{"u-1", "u-2", "u-2", "u-3"} {
		pass(old.mint(t, sub, late.Add(time.Second)))
	}
	seen.NewestIssuedAt, seen.Late = late.Add(time.Second).UTC(), 3
	want("those of three subjects are", seen, keyset.KeyReport{KeyID: "next"})
	for i := range 2 * keyset.MaxLate {
		pass(old.mint(t, fmt.Sprint("many-", i), late.Add(time.Second)))
	}
	seen.Late = keyset.MaxLate
	want("not all are counted", seen, keyset.KeyReport{KeyID: "next"})

	old.status.State = v1alpha1.KeyRetired
	load(3, next, old)
	seen.Late, seen.Refused = 0, true
	want("a key that has retired", seen, keyset.KeyReport{KeyID: "next"})

	sk := shopOf(t, 3, next, old)
	sk.Spec.RevokedKeys = []v1alpha1.RevokedKey{{KeyID: "next"}, {KeyID: "stranger"}}
	s.feed.setSigningKey(sk)
	want("keys that spec revokes", seen, keyset.KeyReport{KeyID: "next", Refused: true}, keyset.KeyReport{KeyID: "stranger", Refused: true})

	again := shopOf(t, 1, next)
	again.UID = "u2"
	s.feed.setSigningKey(again)
	want("another SigningKey of the name begins anew", keyset.KeyReport{KeyID: "next"})
}
