package rotation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/hack/e2e/stack"
	"github.com/keywright/keywright/webhook"
	"github.com/keywright/keywright/webhook/authz"
	"github.com/keywright/keywright/webhook/policy"
	"github.com/keywright/keywright/webhook/token"
)

// Row 5: live reads; no second key. Every kind of object is read in a version
// from before another controller's work, once, alone and all together.
func staleReads(t *testing.T) {
	for _, kinds := range [][]string{
		{"signingkey"}, {"keyring"}, {"signer"}, {"jwks"}, {"signingkey", "keyring", "signer", "jwks"},
	} {
		w := newWorld(t)
		other := w.controller()
		old := map[string]client.Object{} // nil: was not there
		remember := func() {
			clear(old)
			w.read = func(kind string, obj client.Object) error {
				if obj.GetResourceVersion() != "" {
					old[kind] = obj.DeepCopyObject().(client.Object)
				}
				return errAway // look only
			}
			for _, obj := range []client.Object{&v1alpha1.SigningKey{}, &corev1.ConfigMap{}, &corev1.Secret{}} {
				for _, n := range []string{name, "shop-jwks", "shop-keyring", "shop-signing"} {
					_ = w.ctl.Live.Get(w.ctx, client.ObjectKey{Namespace: w.ns, Name: n}, obj) // errAway, always
					clearObject(obj)
				}
			}
			left := map[string]bool{}
			for _, kind := range kinds {
				left[kind] = true
			}
			w.read = func(kind string, obj client.Object) error {
				if !left[kind] {
					return nil
				}
				delete(left, kind)
				was := old[kind]
				if was == nil {
					clearObject(obj)
					return notFound(obj)
				}
				copyObject(obj, was)
				return nil
			}
		}
		work := func(what string) {
			remember()
			if crashed, err := w.pass(other); crashed || err != nil {
				t.Fatal(what, crashed, err)
			}
			want := w.ring()
			if _, err := w.pass(w.ctl); err != nil {
				t.Errorf("stale %v, %s: %v", kinds, what, err)
			}
			w.read = nil
			w.settle()
			got := w.ring()
			if !slices.Equal(keyIDs(got.Keys), keyIDs(want.Keys)) {
				t.Errorf("stale %v, %s: the keys are %v, want those of the other controller, %v", kinds, what, keyIDs(got.Keys), keyIDs(want.Keys))
			}
			if active := got.Active(); active != nil && (w.active() != active.ID || w.app().kid != active.ID) {
				t.Errorf("stale %v, %s: status and signer Secret are not at the active key", kinds, what)
			}
		}
		w.create(spec())
		work("first key")
		w.advance(2 * time.Second)
		before := w.active()
		w.now = w.nextActivation()
		work("rotation")
		if w.active() == before || len(w.ring().Keys) != 3 {
			t.Errorf("stale %v: there was not exactly one rotation", kinds)
		}
		secrets := &corev1.SecretList{}
		if err := w.api.List(w.ctx, secrets, client.InNamespace(w.ns)); err != nil {
			t.Fatal(err)
		}
		if len(secrets.Items) != 2 {
			t.Errorf("stale %v: there are %d Secrets, want keyring and signer Secret", kinds, len(secrets.Items))
		}
	}
}

func clearObject(obj client.Object) {
	switch obj := obj.(type) {
	case *v1alpha1.SigningKey:
		*obj = v1alpha1.SigningKey{}
	case *corev1.ConfigMap:
		*obj = corev1.ConfigMap{}
	case *corev1.Secret:
		*obj = corev1.Secret{}
	}
}

func copyObject(into, from client.Object) {
	switch into := into.(type) {
	case *v1alpha1.SigningKey:
		from.(*v1alpha1.SigningKey).DeepCopyInto(into)
	case *corev1.ConfigMap:
		from.(*corev1.ConfigMap).DeepCopyInto(into)
	case *corev1.Secret:
		from.(*corev1.Secret).DeepCopyInto(into)
	}
}

// Row 24: restored, without a rotation, and tokens pass all along.
func outputsTamperedWith(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	w.rotated() // so that an old key verifies meanwhile
	g := w.gate()
	signer, jwks, active, keys := w.signer(), w.jwks(), w.active(), keyIDs(w.ring().Keys)
	raw := w.app().token(t, w.now)
	update := func(obj client.Object) {
		if err := w.api.Update(w.ctx, obj); err != nil {
			t.Fatal(err)
		}
	}
	for _, tamper := range []struct {
		what string
		do   func()
	}{
		{"signer Secret deleted", func() { w.delete(w.signer()) }},
		{"signer Secret emptied", func() { s := w.signer(); s.Data = nil; update(s) }},
		{"signer Secret edited", func() {
			s := w.signer()
			s.Data[controllers.SigningJWKEntry] = []byte("{}")
			s.Data["mine"] = []byte("x")
			update(s)
		}},
		{"kid of the signer Secret edited", func() { s := w.signer(); s.Data[controllers.KeyIDEntry] = []byte("other"); update(s) }},
		{"labels of the signer Secret removed", func() { s := w.signer(); s.Labels = nil; update(s) }},
		{"JWKS ConfigMap deleted", func() { w.delete(w.jwks()) }},
		{"JWKS ConfigMap emptied", func() { cm := w.jwks(); cm.Data = nil; update(cm) }},
		{"JWKS ConfigMap edited", func() { cm := w.jwks(); cm.Data[controllers.JWKSEntry] = `{"keys":[]}`; update(cm) }},
	} {
		w.now = w.now.Add(time.Second)
		tamper.do()
		g.accepts(raw, w.now, tamper.what+": a token before it is restored")
		w.settle()
		if got := w.signer(); !equality.Semantic.DeepEqual(got.Data, signer.Data) || !maps.Equal(got.Labels, signer.Labels) || !maps.Equal(got.Annotations, signer.Annotations) {
			t.Errorf("%s: the signer Secret was not restored", tamper.what)
		}
		if got := w.jwks(); !maps.Equal(got.Data, jwks.Data) {
			t.Errorf("%s: the JWKS ConfigMap was not restored: %v", tamper.what, got.Data)
		}
		if w.active() != active || !slices.Equal(keyIDs(w.ring().Keys), keys) {
			t.Errorf("%s: the keys are others than before", tamper.what)
		}
		if strings.HasPrefix(tamper.what, "JWKS") {
			// Whoever looked meanwhile has to look again: V counts anew.
			if got := w.ring().Standby().PublishedAt; !got.Equal(w.now) {
				t.Errorf("%s: the standby's publishedAt is %s, want %s", tamper.what, got, w.now)
			}
		}
		g.load()
		g.accepts(raw, w.now, tamper.what+": a token once it is restored")
		if got := w.condition(v1alpha1.ConditionReady); got != "True KeyActive" {
			t.Errorf("%s: Ready is %s afterwards", tamper.what, got)
		}
	}
}

func (w *world) delete(obj client.Object) {
	w.t.Helper()
	if err := w.api.Delete(w.ctx, obj); err != nil {
		w.t.Fatal(err)
	}
}

// Row 28: same keys, no token refused after; in between, policies deny.
func createdAgain(t *testing.T) {
	for _, algorithm := range []v1alpha1.Algorithm{"ES256", "HS256"} {
		w := newWorld(t)
		s := spec(func(s *v1alpha1.SigningKeySpec) {
			if s.Algorithm = algorithm; algorithm == "HS256" {
				s.JWKS = nil
			}
		})
		w.ready(s)
		previous := w.app()
		w.rotated()
		app := w.app()
		ring, sequence := w.ring(), w.sk().Status.Sequence

		store := authz.NewStore()
		gate := authz.NewGate(store, authz.Options{CacheSize: 1000, Clock: func() time.Time { return w.now }})
		defer gate.Close()
		ref := authz.Ref{Namespace: w.ns, Name: name}
		compiled, err := policy.Compile(w.ns, name, &v1alpha1.AccessPolicySpec{
			Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: name}, Audiences: []string{"orders"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		store.SetPolicy(ref, compiled, nil)
		store.SetKeys(w.gate().keys)
		tokens := map[string]string{"active": app.token(t, w.now), "previous": previous.token(t, w.now)}
		allowed := func(when string, want bool) {
			for what, raw := range tokens {
				d := gate.Check(w.ctx, authz.Request{Policy: ref, Header: map[string][]string{"Authorization": {"Bearer " + raw}}})
				if d.Allowed != want {
					t.Errorf("%s, %s: the %s key's token is allowed: %t (%s %v), want %t", algorithm, when, what, d.Allowed, d.Reason, d.Err, want)
				}
			}
		}
		allowed("before", true)

		sk := w.sk()
		w.delete(sk)
		await(t, 10*time.Second, "the SigningKey to be gone", func() bool {
			return client.IgnoreNotFound(w.api.Get(w.ctx, client.ObjectKeyFromObject(sk), sk)) == nil && sk.UID != "" && notThere(w, sk)
		})
		if _, err := w.pass(w.ctl); err != nil {
			t.Fatal(err)
		}
		store.DeleteKeys(ref)
		allowed("in between", false)

		w.now = w.now.Add(3 * time.Second)
		w.create(s)
		w.settle()
		again := w.ring()
		if !slices.Equal(keyIDs(again.Keys), keyIDs(ring.Keys)) || w.active() != app.kid || w.app().kid != app.kid {
			t.Errorf("%s: the keys are others than before: %v, want %v", algorithm, keyIDs(again.Keys), keyIDs(ring.Keys))
		}
		if got := w.sk().Status.Sequence; got < sequence {
			t.Errorf("%s: the sequence fell from %d to %d", algorithm, sequence, got)
		}
		store.SetKeys(w.gate().keys)
		allowed("after", true)
		w.rotated()
		if got := len(w.ring().Keys); got != len(ring.Keys)+1 {
			t.Errorf("%s: rotation does not go on: %d keys, want %d", algorithm, got, len(ring.Keys)+1)
		}
	}
}

func notThere(w *world, obj client.Object) bool {
	return client.IgnoreNotFound(w.api.Get(w.ctx, client.ObjectKeyFromObject(obj), obj)) == nil &&
		w.api.Get(w.ctx, client.ObjectKeyFromObject(obj), obj) != nil
}

// Row 32: never a private member, in any ConfigMap, in status or in the JWKS
// that a real gate serves, after any write of a whole rotation.
func neverAPrivateMember(t *testing.T) {
	s := theStack(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	g, err := s.StartGate(ctx, "gate-row-32")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Kill()
	https := httpsClient(t, g)

	for _, algorithm := range []v1alpha1.Algorithm{"ES256", "EdDSA", "RS256", "PS512", "HS256"} {
		w := newWorld(t)
		secrets := map[string]bool{} // private members that were ever made
		looks, served := 0, 0
		look := func(kind string, obj client.Object) error {
			if kind == "keyring" {
				for _, k := range ringOf(t, obj).Keys {
					if k.Private != nil {
						secrets[privateMember(t, k.Private)] = true
					}
				}
			}
			looks++
			documents := map[string][]byte{}
			list := &corev1.ConfigMapList{}
			if err := w.api.List(w.ctx, list, client.InNamespace(w.ns)); err != nil {
				return err
			}
			for i := range list.Items {
				for entry, text := range list.Items[i].Data {
					documents["ConfigMap "+list.Items[i].Name+" "+entry] = []byte(text)
				}
			}
			sk := &unstructured.Unstructured{}
			sk.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SigningKey"))
			if err := w.api.Get(w.ctx, client.ObjectKey{Namespace: w.ns, Name: name}, sk); err != nil {
				return err
			}
			status, err := json.Marshal(sk.Object["status"])
			if err != nil {
				return err
			}
			documents["status"] = status
			resp, err := https.Get(g.URL + "/keys/" + w.ns + "/" + name + "/jwks.json") //nolint:noctx // bound by the client's timeout
			if err != nil {
				return err
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close() // it was read
			if err != nil {
				return err
			}
			if resp.StatusCode == http.StatusOK {
				served++
			}
			documents["served JWKS"] = body
			for what, raw := range documents {
				for _, member := range privateMembers(raw) {
					t.Errorf("%s: %s has the private member %s", algorithm, what, member)
				}
				for secret := range secrets {
					if strings.Contains(string(raw), secret) {
						t.Errorf("%s: %s holds private material", algorithm, what)
					}
				}
			}
			return nil
		}
		w.before, w.after = look, look
		w.ready(spec(func(s *v1alpha1.SigningKeySpec) {
			s.Algorithm = algorithm
			switch keyset.Algorithm(algorithm).Family() {
			case keyset.FamilyRSA:
				s.RSAKeySize = 2048
			case keyset.FamilyHMAC:
				s.JWKS = nil
			}
		}))
		await(t, 30*time.Second, "the gate to know the SigningKey", func() bool {
			resp, err := https.Get(g.URL + "/keys/" + w.ns + "/" + name + "/jwks.json") //nolint:noctx // bound by the client's timeout
			if err != nil {
				return false
			}
			_ = resp.Body.Close() // not looked at
			return (resp.StatusCode == http.StatusOK) != (algorithm == "HS256")
		})
		w.rotated()
		w.advance(afterDeactivation + time.Second)
		want := 3
		if len(secrets) != want || looks < 10 || (served == 0) != (algorithm == "HS256") {
			t.Errorf("%s: looked %d times (%d with a served JWKS) for %d secrets, which shows too little", algorithm, looks, served, len(secrets))
		}
	}
}

// privateMembers lists members of a JSON document that only a private JWK has.
func privateMembers(raw []byte) (found []string) {
	var document any
	if json.Unmarshal(raw, &document) != nil {
		return nil // not JSON: a certificate
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for member, e := range v {
				if slices.Contains([]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}, member) {
					found = append(found, member)
				}
				walk(e)
			}
		}
	}
	walk(document)
	return found
}

// Row 33: refused, and put right in status and in every output.
func sameKeyIDOtherKey(t *testing.T) {
	w := newWorld(t)
	w.ready(spec())
	g := w.gate()
	app := w.app()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forger := app
	forger.priv = priv
	members, err := keyset.MembersOf(priv.Public())
	if err != nil {
		t.Fatal(err)
	}

	// Someone who got hold of the right to write status puts another key under
	// the active key's ID.
	config, err := theStack(t).Plane.ConfigFor(w.ctx, stack.Namespace, stack.ControllerAccount)
	if err != nil {
		t.Fatal(err)
	}
	sk := w.sk()
	genuine := *sk.DeepCopy()
	for i := range sk.Status.Keys {
		if sk.Status.Keys[i].KeyID == app.kid {
			public := v1alpha1.PublicJWK(members)
			sk.Status.Keys[i].PublicKey = &public
		}
	}
	if err := newClient(t, config).Status().Update(w.ctx, sk); err != nil {
		t.Fatal(err)
	}
	g.load()
	g.refuses(forger.token(t, w.now), w.now, "a token of the other key", token.ErrBadSignature)
	g.accepts(app.token(t, w.now), w.now, "a token of the known key")
	if !slices.ContainsFunc(g.keys.Problems, func(p string) bool { return strings.Contains(p, app.kid) && strings.Contains(p, "refused") }) {
		t.Errorf("the gate does not say what is wrong: %q", g.keys.Problems)
	}
	// An HS* key that is the public key's text is as foreign as any other.
	confused := sk.DeepCopy()
	for i := range confused.Status.Keys {
		confused.Status.Keys[i].Algorithm = "HS256"
	}
	entry, err := keyset.HMACEntry{Namespace: w.ns, Name: name, Secrets: map[string][]byte{app.kid: []byte(strings.Repeat("x", 64))}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	after := webhook.LoadKeys(g.keys, confused, entry, w.now)
	if k, ok := after.Set.Lookup(app.kid); !ok || k.Algorithm != "ES256" {
		t.Errorf("another algorithm under a known key ID was taken: %+v", k)
	}

	w.settle()
	for _, k := range genuine.Status.Keys {
		if got := w.key(k.KeyID).PublicKey; *got != *k.PublicKey {
			t.Errorf("status still shows another key as %s", k.KeyID)
		}
	}
	g.load()
	if len(g.keys.Problems) != 0 {
		t.Errorf("problems remain: %q", g.keys.Problems)
	}

	// The same in the outputs.
	raw, err := keyset.EncodePrivate(priv, app.kid, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	signer, jwks := w.signer(), w.jwks()
	tampered := signer.DeepCopy()
	tampered.Data[controllers.SigningJWKEntry] = raw
	shown := jwks.DeepCopy()
	var doc keyset.Document
	if err := json.Unmarshal([]byte(jwks.Data[controllers.JWKSEntry]), &doc); err != nil {
		t.Fatal(err)
	}
	for i := range doc.Keys {
		doc.Keys[i].Members = members
	}
	forged, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	shown.Data[controllers.JWKSEntry] = string(forged)
	for _, obj := range []client.Object{tampered, shown} {
		if err := w.api.Update(w.ctx, obj); err != nil {
			t.Fatal(err)
		}
	}
	w.now = w.now.Add(time.Second)
	w.settle()
	if !equality.Semantic.DeepEqual(w.signer().Data, signer.Data) || !maps.Equal(w.jwks().Data, jwks.Data) {
		t.Error("another key under the same ID stayed in an output")
	}
	if got := w.ring().Standby().PublishedAt; !got.Equal(w.now) {
		t.Errorf("the standby's publishedAt is %s, want %s: others saw another key until then", got, w.now)
	}
}

// Row 34: second refused, first untouched.
func oneOutputForTwo(t *testing.T) {
	for _, tc := range []struct {
		output string
		edit   func(*v1alpha1.SigningKeySpec)
		get    func(w *world) client.Object
		ready  string // of the second
	}{
		{"Secret shared", func(s *v1alpha1.SigningKeySpec) { s.Signer = &v1alpha1.Signer{SecretName: "shared"} },
			func(w *world) client.Object { return w.secret("shared") }, "False SignerSecretNotWritten"},
		{"ConfigMap shop-jwks", func(*v1alpha1.SigningKeySpec) {},
			func(w *world) client.Object { return w.jwks() }, "False OutputNotOurs"},
	} {
		w := newWorld(t)
		w.name = "first"
		w.ready(spec(tc.edit))
		before, status, ring := tc.get(w), w.sk().Status, w.secret("first-keyring")
		g := w.gate()
		signer := "first-signing"
		if tc.output == "Secret shared" {
			signer = "shared"
		}
		app := signerOf(t, w.secret(signer).Data[controllers.SigningJWKEntry])

		w.name = "second"
		s := spec(tc.edit)
		if signer == "shared" {
			s.JWKS = &v1alpha1.JWKS{ConfigMapName: "second-jwks"}
		}
		w.create(s)
		w.settle()
		w.advance(time.Minute)
		c := meta.FindStatusCondition(w.sk().Status.Conditions, v1alpha1.ConditionDegraded)
		if c == nil || c.Status != "True" || c.Reason != "OutputNotOurs" || !strings.Contains(c.Message, tc.output+" ") {
			t.Errorf("%s: the second's Degraded is %+v, want True, OutputNotOurs, and a message that names it", tc.output, c)
		}
		if got := w.condition(v1alpha1.ConditionReady); got != tc.ready {
			t.Errorf("%s: the second's Ready is %s, want %s", tc.output, got, tc.ready)
		}
		if w.wake.IsZero() {
			t.Errorf("%s: nobody will look whether the output became free", tc.output)
		}

		w.name = "first"
		w.settle()
		if got := tc.get(w); got.GetResourceVersion() != before.GetResourceVersion() {
			t.Errorf("%s: the first's output was written", tc.output)
		}
		if !equality.Semantic.DeepEqual(w.sk().Status, status) || w.secret("first-keyring").ResourceVersion != ring.ResourceVersion {
			t.Errorf("%s: the first changed", tc.output)
		}
		g.load()
		g.accepts(app.token(t, w.now), w.now, tc.output+": the first's token")

		// Once the first is gone and its output deleted, the second takes over.
		w.delete(w.sk())
		w.delete(before)
		w.name = "second"
		w.now = w.now.Add(10 * time.Second)
		w.settle()
		w.advance(time.Minute)
		if got := w.condition(v1alpha1.ConditionDegraded); got != "False AsWanted" {
			t.Errorf("%s: with the output free the second's Degraded is %s, want False AsWanted", tc.output, got)
		}
	}
}
