package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/keywright/keywright/api/fetch"
	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// clockwork is a clock that is set by hand.
type clockwork struct{ now time.Time }

func (c *clockwork) Now() time.Time { return c.now }

func gatesSecret(t *testing.T, c client.Client) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "keywright-system", Name: keyset.GatesSecretName}, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestGateCertificateIsMadeKeptAndRenewed(t *testing.T) {
	clock := &clockwork{noon}
	c := fake.NewClientBuilder().WithScheme(scheme(t)).Build()
	certificate := &GateCertificate{Live: c, Namespace: "keywright-system", Now: clock.Now}
	if _, err := certificate.client(); !errors.Is(err, errNoCertificate) {
		t.Errorf("before there is one: %v", err)
	}
	refresh := func() string {
		t.Helper()
		if err := certificate.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return string(gatesSecret(t, c).Data[corev1.TLSCertKey])
	}
	first := refresh()
	clock.now = noon.Add(59 * 24 * time.Hour)
	if refresh() != first {
		t.Error("it is made anew while it is good for a month")
	}
	if err := (&GateCertificate{Live: c, Namespace: "keywright-system", Now: clock.Now}).refresh(t.Context()); err != nil || string(gatesSecret(t, c).Data[corev1.TLSCertKey]) != first {
		t.Errorf("another controller makes it anew (%v)", err)
	}
	clock.now = noon.Add(61 * 24 * time.Hour)
	second := refresh()
	if second == first {
		t.Error("it is not renewed when a third of its life is left")
	}
	config, err := certificate.client()
	if err != nil {
		t.Fatal(err)
	}
	for name, pemText := range map[string]string{"the new one": second, "the one before": first} {
		pair := mustParse(t, pemText)
		if _, err := pair.Verify(x509.VerifyOptions{Roots: config.RootCAs, DNSName: keyset.GateServerName, CurrentTime: clock.now}); err != nil {
			t.Errorf("%s is not trusted: %v", name, err)
		}
	}
	broken := gatesSecret(t, c)
	broken.Data[corev1.TLSPrivateKeyKey] = []byte("broken")
	if err := c.Update(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	if third := refresh(); third == second {
		t.Error("a broken one is kept")
	}
}

func mustParse(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// fakeGate answers like a gate, over TLS with the pinned certificate.
func fakeGate(t *testing.T, secret *corev1.Secret, answer http.HandlerFunc) (address string) {
	t.Helper()
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	server := httptest.NewUnstartedServer(answer)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestGatesAreAsked(t *testing.T) {
	clock := &clockwork{time.Now()} // httptest's TLS goes by the real clock
	c := fake.NewClientBuilder().WithScheme(scheme(t)).Build()
	certificate := &GateCertificate{Live: c, Namespace: "keywright-system", Now: clock.Now}
	if err := certificate.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	report := keyset.Report{UID: "uid-1", Sequence: 7, Keys: []keyset.KeyReport{{KeyID: "k1"}}}
	asked := 0
	good := fakeGate(t, gatesSecret(t, c), func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/keysets/shop/orders" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		_ = json.NewEncoder(w).Encode(report)
	})
	empty := fakeGate(t, gatesSecret(t, c), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	failing := 0
	broken := fakeGate(t, gatesSecret(t, c), func(w http.ResponseWriter, _ *http.Request) { failing++; w.WriteHeader(http.StatusInternalServerError) })
	lying := fakeGate(t, gatesSecret(t, c), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("not JSON")) })

	other := fake.NewClientBuilder().WithScheme(scheme(t)).Build()
	if err := (&GateCertificate{Live: other, Namespace: "keywright-system", Now: clock.Now}).refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	stranger := fakeGate(t, gatesSecret(t, other), func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(report) })

	gates := &GateClient{Addresses: []string{good, empty, broken, lying, stranger}, Certificate: certificate, Now: clock.Now}
	ask := func() map[string]string {
		out := map[string]string{}
		for _, a := range gates.Ask(t.Context(), types.NamespacedName{Namespace: "shop", Name: "orders"}) {
			out[a.Name] = ""
			if a.Err != nil {
				out[a.Name] = a.Err.Error()
			} else if diff := cmp.Diff(report, a.Report); diff != "" {
				t.Errorf("%s reports (-want +got):\n%s", a.Name, diff)
			}
		}
		return out
	}
	got := ask()
	for address, want := range map[string]string{
		good: "", empty: "has not loaded this SigningKey", broken: "answers with status 500", lying: "malformed report",
		stranger: "cannot be reached: tls: failed to verify certificate",
	} {
		if !strings.HasPrefix(got[address], want) || (want == "") != (got[address] == "") {
			t.Errorf("%s: %q, want %q", address, got[address], want)
		}
	}

	// Who fails is left alone for a while, who answers is not.
	ask()
	if asked != 2 || failing != 1 {
		t.Errorf("asked the good one %d times and the failing one %d times, want 2 and 1", asked, failing)
	}
	clock.now = clock.now.Add(firstPause)
	ask()
	if failing != 2 {
		t.Errorf("the failing one was asked %d times after the pause, want 2", failing)
	}
}

func TestReadyGatesComeFromEndpointSlices(t *testing.T) {
	yes, no := true, false
	name, other, port := "keysets", "admin", int32(8082)
	slice := func(service string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "keywright-system", GenerateName: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}, Name: service},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &other, Port: &port}, {Name: &name, Port: &port}},
			Endpoints:   endpoints,
		}
	}
	at := func(address string, ready *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	c := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(
		slice("gates", at("10.0.0.2", &yes), at("10.0.0.1", nil), at("10.0.0.3", &no)),
		slice("elsewhere", at("10.0.0.9", &yes)),
	).Build()
	gates := &GateClient{Cache: c, Namespace: "keywright-system", Service: "gates", Addresses: []string{"edge:8082"}}
	got, err := gates.ready(t.Context())
	if diff := cmp.Diff([]string{"10.0.0.1:8082", "10.0.0.2:8082", "edge:8082"}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestDocumentsAreFetched(t *testing.T) {
	clock := &clockwork{time.Now()} // httptest's TLS goes by the real clock
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/jwks.json":
			_, _ = w.Write([]byte(`{"keys":[{"kid":"k1","kty":"EC","crv":"P-256","x":"1","y":"2","x5c":["…"]}]}`))
		case "/moved":
			http.Redirect(w, r, "/jwks.json", http.StatusFound)
		case "/big":
			_, _ = w.Write(make([]byte, fetch.MaxBytes+1))
		case "/text":
			_, _ = w.Write([]byte("hello"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for path, want := range map[string]string{
		"/jwks.json": "", "/moved": "answers with status 302", "/big": "answers with more than 1048576 bytes",
		"/text": "is not a JWK Set", "/nothing": "answers with status 404",
	} {
		doc, err := (&DocumentClient{Client: fetch.Client{AllowPrivate: true, Roots: roots}, Now: clock.Now}).Fetch(t.Context(), server.URL+path)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
		if want == "" && (len(doc.Keys) != 1 || doc.Keys[0].X != "1") {
			t.Errorf("%s: %+v", path, doc)
		}
	}
	if _, err := (&DocumentClient{Client: fetch.Client{Roots: roots}, Now: clock.Now}).Fetch(t.Context(), server.URL+"/jwks.json"); !errors.Is(err, fetch.ErrPrivate) {
		t.Errorf("a private address is dialled: %v", err)
	}
	if _, err := (&DocumentClient{Client: fetch.Client{AllowPrivate: true}, Now: clock.Now}).Fetch(t.Context(), server.URL+"/jwks.json"); err == nil {
		t.Error("a certificate of nobody is trusted")
	}
}

func TestWhatGatesSay(t *testing.T) {
	keys, pub := inEveryState(t, keyset.ES256), ""
	standby := keys.Standby()
	public, err := standby.Public.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if pub, err = keyset.Thumbprint(public); err != nil {
		t.Fatal(err)
	}
	gate := func(uid string, k ...keyset.KeyReport) GateAnswer {
		return GateAnswer{Name: "g", Report: keyset.Report{UID: uid, Sequence: 9, Keys: k}}
	}
	known := keyset.KeyReport{KeyID: standby.ID, Thumbprint: pub}
	refused := known
	refused.Refused = true
	tests := map[string]struct {
		answer GateAnswer
		want   []string
	}{
		"it knows the key":                  {gate("u", known), nil},
		"it does not answer":                {GateAnswer{Name: "g", Err: errors.New("cannot be reached")}, []string{"gate g (cannot be reached)"}},
		"it knows the SigningKey before":    {gate("before", known), []string{"gate g (has not loaded this SigningKey)"}},
		"it does not know the key":          {gate("u"), []string{"gate g (has not loaded it)"}},
		"it knows another key by that ID":   {gate("u", keyset.KeyReport{KeyID: standby.ID, Thumbprint: "x"}), []string{"gate g (has not loaded it)"}},
		"it refuses the key for ever":       {gate("u", refused), []string{"gate g (has not loaded it)"}},
		"the key of HS* without thumbprint": {gate("u", keyset.KeyReport{KeyID: standby.ID}), []string{"gate g (has not loaded it)"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, lateGates([]GateAnswer{tc.answer}, "u", standby)); diff != "" {
				t.Errorf("late (-want +got):\n%s", diff)
			}
		})
	}

	got := evidenceOf([]GateAnswer{
		gate("u", keyset.KeyReport{KeyID: "a", LastSeenAt: noon, Late: 2, LateIssuer: "i"}, keyset.KeyReport{KeyID: "r", Refused: true}),
		gate("u", keyset.KeyReport{KeyID: "a", LastSeenAt: noon.Add(time.Second), Late: 1, LateIssuer: "j"}),
		{Name: "other", Report: keyset.Report{UID: "before", Sequence: 99, Keys: []keyset.KeyReport{{KeyID: "a", Refused: true}}}},
		{Name: "silent", Err: errors.New("no"), Report: keyset.Report{UID: "u", Sequence: 99}},
	}, "u")
	want := lifecycle.Evidence{
		Sequence: 9, Refused: map[string]bool{"r": true},
		Seen: map[string]lifecycle.Sighting{"a": {LastAt: noon.Add(time.Second), Late: 2, Issuer: "i"}, "r": {}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("evidence (-want +got):\n%s", diff)
	}
}

func TestARotationWaitsForAGateThatIsLate(t *testing.T) {
	w := newShopWorld(t)
	loaded := true
	w.r.Gates = func(ctx context.Context, name types.NamespacedName) []GateAnswer {
		sk := &v1alpha1.SigningKey{}
		if err := w.c.Get(ctx, name, sk); err != nil {
			return []GateAnswer{{Name: "g", Err: err}}
		}
		report := keyset.Report{UID: string(sk.UID), Sequence: sk.Status.Sequence}
		for _, k := range sk.Status.Keys {
			if !loaded && k.KeyID == sk.Status.NextKeyID {
				continue
			}
			pub, err := keyset.Members(*k.PublicKey).PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			thumbprint, err := keyset.Thumbprint(pub)
			if err != nil {
				t.Fatal(err)
			}
			report.Keys = append(report.Keys, keyset.KeyReport{KeyID: k.KeyID, Thumbprint: thumbprint, LastSeenAt: w.now})
		}
		return []GateAnswer{{Name: "g", Report: report}}
	}
	start := w.now
	w.reconcile(t, start.Add(time.Hour))
	first := w.status(t).ActiveKeyID
	loaded = false
	w.reconcile(t, start.Add(30*time.Hour))
	status := w.status(t)
	if status.ActiveKeyID != first {
		t.Fatal("it rotated though a gate does not know the new key")
	}
	if got, want := status.NextTransition.WaitingFor, "the new key to be seen at gate g (has not loaded it)"; got != want {
		t.Errorf("waits for %q, want %q", got, want)
	}
	for kind, want := range map[string]string{v1alpha1.ConditionReady: "True", v1alpha1.ConditionRotated: "False", v1alpha1.ConditionPropagationConfirmed: "False"} {
		for _, c := range status.Conditions {
			if c.Type == kind && string(c.Status) != want {
				t.Errorf("%s is %s (%s), want %s", kind, c.Status, c.Message, want)
			}
		}
	}
	loaded = true
	w.writes = 0
	w.reconcile(t, w.now.Add(10*time.Hour))
	status = w.status(t)
	if status.ActiveKeyID == first {
		t.Error("it does not rotate once the gate knows the key")
	}
	if status.Keys[1].LastSeenAt == nil {
		t.Error("status does not say when the active key was last seen")
	}
	if w.writes > 8 {
		t.Errorf("the rotation took %d writes, want at most 8", w.writes)
	}
}
