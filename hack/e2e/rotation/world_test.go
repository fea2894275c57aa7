package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/retry"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/controllers/lifecycle"
	"github.com/keywright/keywright/hack/e2e/stack"
	"github.com/keywright/keywright/webhook"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/token"
)

// The spans of the SigningKeys here, named as in the design: V, S, e, leeway,
// L and the interval. Up to a tenth of the interval is jitter.
const (
	verifierLag = 30 * time.Second
	signerLag   = 10 * time.Second
	clockSkew   = 2 * time.Second
	leeway      = 3 * time.Second
	tokenTTL    = time.Minute
	interval    = 10 * time.Minute
)

// afterDeactivation is how long a key verifies once it is deactivated.
const afterDeactivation = signerLag + tokenTTL + leeway + 2*clockSkew

const name = "shop"

// wanted says that a test has asked for the stack.
var wanted atomic.Bool

// started is the stack that all tests of this package share.
var started = sync.OnceValues(func() (*stack.Stack, error) {
	wanted.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	return stack.Start(ctx, os.Stderr)
})

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // what the reconciler does is read from the API server
	code := m.Run()
	if !wanted.Load() {
		os.Exit(code)
	}
	if s, err := started(); err == nil {
		if err := s.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func theStack(t *testing.T) *stack.Stack {
	t.Helper()
	s, err := started()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// crash is what a controller that dies panics with.
type crash struct{}

var (
	errAway    = errors.New("injected: the API server is away")
	namespaces atomic.Int64
	epoch      = time.Date(2031, 3, 1, 0, 0, 0, 0, time.UTC)
)

// world is one namespace with one SigningKey, a controller in this process and
// a clock that the test moves.
type world struct {
	t   *testing.T
	ctx context.Context
	ns  string
	// name of the SigningKey that is reconciled.
	name string
	// now is the true time.
	now time.Time
	// api acts as an administrator.
	api client.WithWatch
	// ctl runs as the chart's service account; its clock is off by offset and
	// believed to be off by bounds.
	ctl    *controllers.SigningKeyReconciler
	offset time.Duration
	bounds lifecycle.ClockBounds
	// before and after see each write of the controller, as keyring, signer,
	// jwks, hmac or status; read sees each read.
	before, after func(kind string, obj client.Object) error
	read          func(kind string, obj client.Object) error
	// each is called whenever time has passed or the controller has worked.
	each func()
	// wake is when the controller asked to be called; passes counts its work.
	wake   time.Time
	passes int
}

func newNamespace(t *testing.T, prefix string) string {
	t.Helper()
	ns := fmt.Sprintf("%s-%d", prefix, namespaces.Add(1))
	if err := theStack(t).Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil {
		t.Fatal(err)
	}
	return ns
}

func newClient(t *testing.T, config *rest.Config) client.WithWatch {
	t.Helper()
	config.QPS, config.Burst = 200, 400
	c, err := client.NewWithWatch(config, client.Options{Scheme: theStack(t).Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, ctx: t.Context(), ns: newNamespace(t, "row"), name: name, now: epoch,
		api: newClient(t, theStack(t).Plane.AdminConfig()),
	}
	w.ctl = w.controller()
	return w
}

// controller makes one more controller of this world.
func (w *world) controller() *controllers.SigningKeyReconciler {
	w.t.Helper()
	config, err := theStack(w.t).Plane.ConfigFor(w.ctx, stack.Namespace, stack.ControllerAccount)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.controllerOn(newClient(w.t, config))
}

func (w *world) controllerOn(c client.WithWatch) *controllers.SigningKeyReconciler {
	r := &controllers.SigningKeyReconciler{
		Namespace: stack.Namespace, MinInterval: time.Second,
		Now:    func() time.Time { return w.now.Add(w.offset) },
		Clock:  func() lifecycle.ClockBounds { return w.bounds },
		Events: &events.FakeRecorder{},
	}
	ours := func() bool { return r == w.ctl } // faults hit one controller
	guard := func(obj client.Object, kind string, do func() error) error {
		if ours() && w.before != nil {
			if err := w.before(kind, obj); err != nil {
				return err
			}
		}
		if err := do(); err != nil {
			return err
		}
		if ours() && w.after != nil {
			return w.after(kind, obj)
		}
		return nil
	}
	r.Live = interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, obj, opts...)
			if ours() && w.read != nil && (err == nil || apierrors.IsNotFound(err)) {
				obj.SetNamespace(key.Namespace)
				obj.SetName(key.Name)
				if fault := w.read(kindOf(obj), obj); fault != nil {
					return fault
				}
			}
			return err
		},
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return guard(obj, kindOf(obj), func() error { return c.Create(ctx, obj, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			return guard(obj, kindOf(obj), func() error { return c.Update(ctx, obj, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return guard(obj, sub, func() error { return c.SubResource(sub).Update(ctx, obj, opts...) })
		},
	})
	return r
}

// kindOf names an object by its part in a rotation.
func kindOf(obj client.Object) string {
	switch obj.(type) {
	case *v1alpha1.SigningKey:
		return "signingkey"
	case *corev1.ConfigMap:
		return "jwks"
	}
	switch {
	case obj.GetName() == keyset.HMACSecretName:
		return "hmac"
	case strings.HasSuffix(obj.GetName(), "-keyring"):
		return "keyring"
	}
	return "signer"
}

func notFound(obj client.Object) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: kindOf(obj)}, obj.GetName())
}

// spec is the one of most rows.
func spec(edits ...func(*v1alpha1.SigningKeySpec)) v1alpha1.SigningKeySpec {
	every := duration(interval)
	s := v1alpha1.SigningKeySpec{
		Algorithm:   "ES256",
		Issuer:      "https://auth.shop.example",
		MaxTokenTTL: duration(tokenTTL),
		Rotation:    v1alpha1.Rotation{Policy: v1alpha1.RotationAutomatic, Interval: &every},
		Propagation: v1alpha1.Propagation{
			VerifierLag: duration(verifierLag), SignerLag: duration(signerLag), ClockSkew: duration(clockSkew), Leeway: duration(leeway),
		},
		JWKS: &v1alpha1.JWKS{ConfigMapName: "shop-jwks"},
	}
	for _, edit := range edits {
		edit(&s)
	}
	return s
}

func duration(d time.Duration) v1alpha1.Duration { return v1alpha1.Duration{Duration: d} }

func (w *world) create(s v1alpha1.SigningKeySpec) {
	w.t.Helper()
	sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: w.name}, Spec: s}
	if err := w.api.Create(w.ctx, sk); err != nil {
		w.t.Fatal(err)
	}
	w.wake = w.now
}

// edit changes the spec; the controller hears of it at once.
func (w *world) edit(change func(*v1alpha1.SigningKeySpec)) {
	w.t.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error { // a real controller may write meanwhile
		sk := w.sk()
		change(&sk.Spec)
		return w.api.Update(w.ctx, sk)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.wake = w.now
}

func (w *world) get(obj client.Object, name string) {
	w.t.Helper()
	if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: w.ns, Name: name}, obj); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sk() *v1alpha1.SigningKey {
	w.t.Helper()
	sk := &v1alpha1.SigningKey{}
	w.get(sk, w.name)
	return sk
}

// key is a key in status.
func (w *world) key(id string) v1alpha1.KeyStatus {
	w.t.Helper()
	for _, k := range w.sk().Status.Keys {
		if k.KeyID == id {
			return k
		}
	}
	w.t.Fatalf("status does not have key %s", id)
	return v1alpha1.KeyStatus{}
}

func (w *world) active() string { w.t.Helper(); return w.sk().Status.ActiveKeyID }

func (w *world) secret(name string) *corev1.Secret {
	w.t.Helper()
	s := &corev1.Secret{}
	w.get(s, name)
	return s
}

func (w *world) signer() *corev1.Secret { w.t.Helper(); return w.secret(w.name + "-signing") }

func (w *world) jwks() *corev1.ConfigMap {
	w.t.Helper()
	cm := &corev1.ConfigMap{}
	w.get(cm, "shop-jwks")
	return cm
}

func (w *world) ring() lifecycle.Keyring {
	w.t.Helper()
	return ringOf(w.t, w.secret(w.name+"-keyring"))
}

func ringOf(t *testing.T, obj client.Object) lifecycle.Keyring {
	t.Helper()
	ring, err := lifecycle.DecodeKeyring(obj.(*corev1.Secret).Data[controllers.KeyringEntry])
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// condition gives status and reason of a condition as one text.
func (w *world) condition(kind string) string {
	w.t.Helper()
	c := meta.FindStatusCondition(w.sk().Status.Conditions, kind)
	if c == nil {
		return "absent"
	}
	return string(c.Status) + " " + c.Reason
}

// pass lets a controller work; crashed says that it died.
func (w *world) pass(r *controllers.SigningKeyReconciler) (crashed bool, err error) {
	w.t.Helper()
	defer func() {
		if fault := recover(); fault != nil {
			if _, ok := fault.(crash); !ok {
				panic(fault)
			}
			crashed = true
		}
	}()
	w.passes++
	w.wake = time.Time{}
	result, err := r.Reconcile(w.ctx, ctrl.Request{NamespacedName: client.ObjectKey{Namespace: w.ns, Name: w.name}})
	if result.RequeueAfter > 0 {
		w.wake = w.now.Add(result.RequeueAfter)
	}
	return false, err
}

// settle lets the controller work, which must succeed.
func (w *world) settle() {
	w.t.Helper()
	switch crashed, err := w.pass(w.ctl); {
	case crashed:
		w.t.Fatal("the controller crashed")
	case err != nil:
		w.t.Fatal(err)
	}
	if w.each != nil {
		w.each()
	}
}

// dies lets the controller work until it crashes, at once or at one of its
// next wake-ups.
func (w *world) dies() {
	w.t.Helper()
	for range 20 {
		crashed, err := w.pass(w.ctl)
		if crashed {
			w.before, w.after = nil, nil
			return
		}
		if err != nil || w.wake.IsZero() {
			break
		}
		w.now = w.wake
	}
	w.t.Fatal("the controller did not crash")
}

// advance lets time pass; the controller works when it asked to.
func (w *world) advance(d time.Duration) {
	w.t.Helper()
	to := w.now.Add(d)
	for !w.wake.IsZero() && !w.wake.After(to) {
		w.now = maxTime(w.now, w.wake)
		w.settle()
	}
	w.now = to
	if w.each != nil {
		w.each()
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// until lets time pass from one wake-up to the next until something holds.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	for range 60 {
		if holds() {
			return
		}
		if w.wake.IsZero() {
			w.t.Fatalf("waiting for %s: the controller did not ask to be called again", what)
		}
		w.now = maxTime(w.now, w.wake)
		w.settle()
	}
	w.t.Fatalf("waiting for %s: it did not come in 60 wake-ups", what)
}

// ready creates the SigningKey and waits for its first key and a standby.
func (w *world) ready(s v1alpha1.SigningKeySpec) {
	w.t.Helper()
	w.create(s)
	w.until("the first key and its standby", func() bool {
		ring := w.ring
		sk := &v1alpha1.SigningKey{}
		w.get(sk, w.name)
		if sk.Status.ActiveKeyID == "" {
			return false
		}
		standby := ring().Standby()
		return standby != nil && !standby.PublishedAt.IsZero()
	})
}

// rotated waits until another key is active, and gives the old and the new.
func (w *world) rotated() (old, active string) {
	w.t.Helper()
	old = w.active()
	w.until("a rotation", func() bool { active = w.active(); return active != old })
	return old, active
}

// signer is what an application has read from a signer Secret. Without a kid
// its tokens have none.
type signer struct {
	kid, alg, iss string
	ttl           time.Duration
	priv          any
}

func signerOf(t *testing.T, jwk []byte) signer {
	t.Helper()
	s, err := parseSigner(jwk)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parseSigner(jwk []byte) (signer, error) {
	var file struct {
		Kid, Alg, Iss string
		MaxTokenTTL   int64
	}
	if err := json.Unmarshal(jwk, &file); err != nil {
		return signer{}, fmt.Errorf("reading a signer's key: %w", err)
	}
	priv, _, err := keyset.DecodePrivate(jwk)
	if err != nil {
		return signer{}, fmt.Errorf("reading a signer's key: %w", err)
	}
	return signer{kid: file.Kid, alg: file.Alg, iss: file.Iss, ttl: time.Duration(file.MaxTokenTTL) * time.Second, priv: priv}, nil
}

// app is a signer with the signer Secret as it is now.
func (w *world) app() signer {
	w.t.Helper()
	return signerOf(w.t, w.signer().Data[controllers.SigningJWKEntry])
}

// token signs at a time by the signer's clock, for the longest life.
func (s signer) token(t *testing.T, iat time.Time) string {
	t.Helper()
	raw, err := s.sign(iat, s.ttl)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (s signer) sign(iat time.Time, life time.Duration) (string, error) {
	claims := jwt.MapClaims{"sub": "ada", "aud": "orders", "iat": iat.Unix(), "exp": iat.Unix() + int64(life/time.Second)}
	if s.iss != "" {
		claims["iss"] = s.iss
	}
	t := jwt.NewWithClaims(jwt.GetSigningMethod(s.alg), claims)
	if s.kid != "" {
		t.Header["kid"] = s.kid
	}
	raw, err := t.SignedString(s.priv)
	if err != nil {
		return "", fmt.Errorf("signing with key %s: %w", s.kid, err)
	}
	return raw, nil
}

// gate is a verifier of ours with a clock of its own.
type gate struct {
	w      *world
	offset time.Duration
	keys   *authz.Keys
}

// gate makes one that knows what the API server holds now.
func (w *world) gate() *gate {
	w.t.Helper()
	g := &gate{w: w}
	g.load()
	return g
}

// load is what a gate does when its watch brings something new.
func (g *gate) load() {
	g.w.t.Helper()
	var entry []byte
	hmac := &corev1.Secret{}
	err := g.w.api.Get(g.w.ctx, client.ObjectKey{Namespace: stack.Namespace, Name: keyset.HMACSecretName}, hmac)
	switch {
	case err == nil:
		entry = hmac.Data[keyset.HMACEntryName(g.w.ns, g.w.name)]
	case !apierrors.IsNotFound(err):
		g.w.t.Fatal(err)
	}
	g.keys = webhook.LoadKeys(g.keys, g.w.sk(), entry, g.w.now.Add(g.offset))
}

// verify is what a gate says of a token at a true time.
func (g *gate) verify(raw string, at time.Time) error {
	_, err := token.Verify(raw, g.keys.Set, token.Expected{}, at.Add(g.offset))
	return err
}

// accepts demands that a token passes at a true time.
func (g *gate) accepts(raw string, at time.Time, what string) {
	g.w.t.Helper()
	if err := g.verify(raw, at); err != nil {
		g.w.t.Errorf("%s: refused at %s: %v", what, at.Sub(epoch), err)
	}
}

// refuses demands that a token does not pass, for one of some reasons.
func (g *gate) refuses(raw string, at time.Time, what string, reasons ...error) {
	g.w.t.Helper()
	err := g.verify(raw, at)
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			return
		}
	}
	g.w.t.Errorf("%s: at %s the gate said %v, want one of %v", what, at.Sub(epoch), err, reasons)
}

func (w *world) sameTime(what string, got *metav1.Time, want time.Time) {
	w.t.Helper()
	if got == nil || !got.Time.Equal(want) {
		w.t.Errorf("%s is %v, want %s", what, got, want)
	}
}
