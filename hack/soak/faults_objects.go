package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/controllers"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// tamperedEntry marks a signer Secret that the soak wrote: no application can
// be held to what is in there.
const tamperedEntry = "tampered"

// change does something to an object as an administrator. It may fail, when the
// API server is away.
func (w *world) change(ctx context.Context, what string, do func(context.Context) error) bool {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	w.event("%s", what)
	if err := do(limited); err != nil {
		w.event("that failed: %v", err)
		return false
	}
	return true
}

func (w *world) aSpec(rng *rand.Rand) spec { return w.specs[rng.IntN(len(w.specs))] }

// output is one that the controller keeps.
func (w *world) output(rng *rand.Rand) (obj client.Object, name string) {
	s := w.aSpec(rng)
	switch {
	case rng.IntN(2) == 0:
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name + signerSuffix}}, "signer Secret of " + s.name
	case s.alg.Symmetric():
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: stack.Namespace, Name: keyset.HMACSecretName}}, "Secret " + keyset.HMACSecretName
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name + "-jwks"}}, "JWKS ConfigMap of " + s.name
}

func (w *world) deleteOutput(ctx, _ context.Context, rng *rand.Rand) bool {
	obj, name := w.output(rng)
	return w.change(ctx, "delete "+name, func(ctx context.Context) error { return w.stack.Client.Delete(ctx, obj) })
}

func (w *world) overwriteOutput(ctx, _ context.Context, rng *rand.Rand) bool {
	obj, name := w.output(rng)
	how := rng.IntN(3)
	return w.change(ctx, fmt.Sprintf("overwrite %s (%s)", name, []string{"with nothing", "with nonsense", "with what was"}[how]), func(ctx context.Context) error {
		if err := w.stack.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err
		}
		switch o := obj.(type) {
		case *corev1.ConfigMap:
			o.Data = [...]map[string]string{nil, {controllers.JWKSEntry: "{"}, {controllers.JWKSEntry: `{"keys":[]}`}}[how]
		case *corev1.Secret:
			if o.Name == keyset.HMACSecretName {
				o.Data = [...]map[string][]byte{nil, {keyset.HMACEntryName(namespace, "hs256"): []byte("{")}, {}}[how]
				break
			}
			o.Data = map[string][]byte{tamperedEntry: []byte("yes")}
			if how > 0 {
				o.Data[controllers.SigningJWKEntry] = []byte("{")
			}
			if of := o.Name[:len(o.Name)-len(signerSuffix)]; how == 2 {
				if old := w.history.olderSigner(of); old != nil {
					o.Data[controllers.SigningJWKEntry] = old
				}
			}
		}
		return w.stack.Client.Update(ctx, obj)
	})
}

func (w *world) deleteKeyring(ctx, _ context.Context, rng *rand.Rand) bool {
	s := w.aSpec(rng)
	w.history.shakes(s.name)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name + keyringSuffix}}
	return w.change(ctx, "delete the keyring of "+s.name, func(ctx context.Context) error { return w.stack.Client.Delete(ctx, secret) })
}

func (w *world) rollBackKeyring(ctx, _ context.Context, rng *rand.Rand) bool {
	s := w.aSpec(rng)
	old := w.history.olderRing(s.name)
	if old == nil {
		return false
	}
	w.history.shakes(s.name)
	return w.change(ctx, "roll back the keyring of "+s.name, func(ctx context.Context) error {
		secret := &corev1.Secret{}
		if err := w.stack.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: s.name + keyringSuffix}, secret); err != nil {
			return err
		}
		secret.Data[controllers.KeyringEntry] = old
		return w.stack.Client.Update(ctx, secret)
	})
}

func (w *world) revokeActive(ctx, _ context.Context, rng *rand.Rand) bool {
	return w.revoke(ctx, w.aSpec(rng))
}

func (w *world) revoke(ctx context.Context, s spec) bool {
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	w.event("revoke the active key of %s", s.name)
	kid, err := w.crowd.revoke(limited, s)
	if err != nil {
		w.event("revoking key %s of %s failed: %v", kid, s.name, err)
		return false
	}
	return true
}
