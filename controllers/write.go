package controllers

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// writeKeyring stores the planned keyring when it changed and gives the one
// that is stored afterwards. Nothing is derived from one that is not.
func (r *SigningKeyReconciler) writeKeyring(ctx context.Context, w *world, plan lifecycle.Result) (lifecycle.Keyring, bool, error) {
	if w.ringFault || plan.Hold != lifecycle.HoldNone {
		return w.ring, false, nil
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.sk.Namespace, Name: w.sk.KeyringSecretName()}, Type: v1alpha1.SecretTypeKeyring}
	if w.keyring != nil {
		secret = w.keyring.DeepCopy()
	}
	mark(secret, w.sk, nil)
	if w.keyring != nil && !plan.Changed && sameContent(secret, w.keyring) {
		return w.ring, false, nil
	}
	for i := range plan.Keyring.Keys {
		if k := &plan.Keyring.Keys[i]; k.ID == "" {
			if err := generate(k); err != nil {
				return w.ring, false, err
			}
		}
	}
	raw, err := plan.Keyring.Encode()
	if err != nil {
		return w.ring, false, err
	}
	secret.Data = map[string][]byte{KeyringEntry: raw}
	if err := r.put(ctx, secret, w.keyring != nil); err != nil {
		return w.ring, false, err
	}
	return plan.Keyring, true, nil
}

// put creates an object, or updates it under the resourceVersion that it was
// loaded with. obj becomes what is stored, which has to be what was meant.
func (r *SigningKeyReconciler) put(ctx context.Context, obj client.Object, exists bool) error {
	meant := obj.DeepCopyObject().(client.Object)
	write := func() error { return r.Live.Create(ctx, obj) }
	if exists {
		write = func() error { return r.Live.Update(ctx, obj) }
	}
	if err := write(); err != nil {
		return fmt.Errorf("writing %s %s: %w", kind(obj), obj.GetName(), err)
	}
	r.written.note(obj)
	if !sameContent(meant, obj) {
		return fmt.Errorf("%s %s %w", kind(obj), obj.GetName(), errAltered)
	}
	return nil
}

// sameContent compares what the controller decides of an output or a keyring.
func sameContent(a, b client.Object) bool {
	if !maps.Equal(a.GetLabels(), b.GetLabels()) || !maps.Equal(a.GetAnnotations(), b.GetAnnotations()) ||
		!equality.Semantic.DeepEqual(a.GetOwnerReferences(), b.GetOwnerReferences()) {
		return false
	}
	switch a := a.(type) {
	case *corev1.Secret:
		return maps.EqualFunc(a.Data, b.(*corev1.Secret).Data, bytes.Equal)
	case *corev1.ConfigMap:
		b := b.(*corev1.ConfigMap)
		return maps.Equal(a.Data, b.Data) && maps.EqualFunc(a.BinaryData, b.BinaryData, bytes.Equal)
	}
	return true
}

// scope says what of the stored keyring may be projected in a pass.
type scope int

const (
	// scopeNothing: time or keyring cannot be trusted; conditions only.
	scopeNothing scope = iota
	// scopeSigner: the planned keyring could not be stored. Publications stay
	// as they are: mending one that was withdrawn would hide from the next
	// plan that its time of publication starts again.
	scopeSigner
	// scopeAll: every output and status.
	scopeAll
)

func scopeOf(w *world, plan lifecycle.Result, keyringErr error) scope {
	switch {
	case w.ringFault || plan.Hold != lifecycle.HoldNone:
		return scopeNothing
	case keyringErr != nil && w.behind():
		return scopeNothing // it is an older copy, whose active key may be long retired
	case keyringErr != nil:
		return scopeSigner
	}
	return scopeAll
}

// writeOutputs brings every output in scope in line with the stored keyring.
// Each is tried, whatever becomes of the others.
func (r *SigningKeyReconciler) writeOutputs(ctx context.Context, w *world, ring lifecycle.Keyring, within scope, now time.Time, faults *faultList) (wrote bool) {
	for _, output := range []struct {
		scope  scope
		reason string
		write  func() (bool, error)
	}{
		{scopeAll, "HMACSecretNotWritten", func() (bool, error) { return r.writeHMAC(ctx, w, ring, now) }},
		{scopeAll, "JWKSConfigMapNotWritten", func() (bool, error) { return r.writeJWKS(ctx, w, ring, now) }},
		{scopeSigner, "SignerSecretNotWritten", func() (bool, error) { return r.writeSigner(ctx, w, ring) }},
	} {
		if within < output.scope {
			continue
		}
		did, err := output.write()
		wrote = wrote || did
		if isConflict(err) {
			wrote = true // someone else wrote: look again
			continue
		}
		faults.write(output.reason, err)
	}
	return wrote
}

func (r *SigningKeyReconciler) writeSigner(ctx context.Context, w *world, ring lifecycle.Keyring) (bool, error) {
	active := ring.Active()
	if active == nil || active.Private == nil {
		return false, nil
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.sk.Namespace, Name: w.sk.SignerSecretName()}, Type: corev1.SecretTypeOpaque}
	if w.signer != nil {
		if !ours(w.signer, w.sk.Name) {
			return false, notOurs("Secret", w.signer.Name)
		}
		secret = w.signer.DeepCopy()
	}
	var template *v1alpha1.MetadataTemplate
	if w.sk.Spec.Signer != nil {
		template = w.sk.Spec.Signer.Template
	}
	mark(secret, w.sk, template)
	data, err := signerData(active, ring.TokenTTL.Current, w.decoded)
	if err != nil {
		return false, fmt.Errorf("writing Secret %s: %w", secret.Name, err)
	}
	secret.Data = data
	if w.signer != nil && sameContent(secret, w.signer) {
		return false, nil
	}
	if err := r.put(ctx, secret, w.signer != nil); err != nil {
		return false, err
	}
	w.signer = secret
	return true, nil
}

func (r *SigningKeyReconciler) writeJWKS(ctx context.Context, w *world, ring lifecycle.Keyring, now time.Time) (bool, error) {
	name := w.sk.JWKSConfigMapName()
	if name == "" {
		return false, nil
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.sk.Namespace, Name: name}}
	if w.jwks != nil {
		if !ours(w.jwks, w.sk.Name) {
			return false, notOurs("ConfigMap", name)
		}
		cm = w.jwks.DeepCopy()
	}
	mark(cm, w.sk, nil)
	data, err := jwksData(ring, now)
	if err != nil || data == nil {
		return false, err
	}
	cm.Data, cm.BinaryData = data, nil
	if w.jwks != nil && sameContent(cm, w.jwks) {
		return false, nil
	}
	if err := r.put(ctx, cm, w.jwks != nil); err != nil {
		return false, err
	}
	return true, nil
}

func (r *SigningKeyReconciler) writeHMAC(ctx context.Context, w *world, ring lifecycle.Keyring, now time.Time) (bool, error) {
	entry, err := hmacEntry(w.sk, ring, now, w.decoded)
	if err != nil {
		return false, err
	}
	if w.hmac == nil && entry != nil && !hasHMAC(w.sk) {
		// Only the keyring remembers an HS* key: its status was lost.
		if w.hmac, err = get(ctx, r.Live, r.Namespace, keyset.HMACSecretName, &corev1.Secret{}); err != nil {
			return false, err
		}
	}
	if entry != nil && onlyRetiredAreLeft(w.hmacEntry(), entry, ring, now) {
		return false, nil
	}
	return r.putHMACEntry(ctx, w.hmac, w.sk.Namespace, w.sk.Name, entry)
}

// onlyRetiredAreLeft says that an entry has all that is wanted, and beyond it
// nothing but secrets of retired keys, which no gate uses any more. They go
// with the next change, so that a retirement costs one write less.
func onlyRetiredAreLeft(there keyset.HMACEntry, wanted []byte, ring lifecycle.Keyring, now time.Time) bool {
	want, err := keyset.DecodeHMACEntry(wanted, there.Namespace, there.Name)
	if err != nil {
		return false
	}
	for id, secret := range want.Secrets {
		if !bytes.Equal(there.Secrets[id], secret) {
			return false
		}
	}
	for id := range there.Secrets {
		if _, ok := want.Secrets[id]; ok {
			continue
		}
		if k := ring.Find(id); k == nil || ring.State(k, now) != v1alpha1.KeyRetired {
			return false
		}
	}
	return true
}

// sweepHMAC removes the entry of a SigningKey that a live read did not find.
func (r *SigningKeyReconciler) sweepHMAC(ctx context.Context, name types.NamespacedName) error {
	secret, err := get(ctx, r.Live, r.Namespace, keyset.HMACSecretName, &corev1.Secret{})
	if err != nil {
		return err
	}
	_, err = r.putHMACEntry(ctx, secret, name.Namespace, name.Name, nil)
	return err
}

// putHMACEntry sets one entry of the Secret keywright-hmac; nil removes it.
func (r *SigningKeyReconciler) putHMACEntry(ctx context.Context, secret *corev1.Secret, namespace, name string, entry []byte) (bool, error) {
	exists := secret != nil
	if !exists {
		if entry == nil {
			return false, nil
		}
		secret = &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: r.Namespace, Name: keyset.HMACSecretName,
				Labels: map[string]string{v1alpha1.LabelSigningKey: hmacLabelValue},
			},
			Type: corev1.SecretTypeOpaque,
		}
	}
	key := keyset.HMACEntryName(namespace, name)
	before, had := secret.Data[key]
	if (entry == nil && !had) || (had && string(before) == string(entry)) {
		return false, nil
	}
	secret = secret.DeepCopy()
	data := maps.Clone(secret.Data)
	if data == nil {
		data = map[string][]byte{}
	}
	if data[key] = entry; entry == nil {
		delete(data, key)
	}
	secret.Data = data
	if secret.Labels == nil {
		secret.Labels = map[string]string{}
	}
	secret.Labels[v1alpha1.LabelSigningKey] = hmacLabelValue
	if err := r.put(ctx, secret, exists); err != nil {
		return false, err
	}
	return true, nil
}

// hmacLabelValue marks the Secret keywright-hmac, which is of all SigningKeys.
const hmacLabelValue = "hmac"

// writeStatus writes status when it changed. When tokens were last seen alone
// is no reason to write.
func (r *SigningKeyReconciler) writeStatus(ctx context.Context, w *world, status v1alpha1.SigningKeyStatus) (bool, error) {
	if equality.Semantic.DeepEqual(withoutLastSeen(w.sk.Status), withoutLastSeen(status)) {
		return false, nil
	}
	sk := w.sk.DeepCopy()
	sk.Status = status
	if err := r.Live.Status().Update(ctx, sk); err != nil {
		return false, fmt.Errorf("writing status: %w", err)
	}
	r.written.note(sk)
	return true, nil
}

func withoutLastSeen(s v1alpha1.SigningKeyStatus) v1alpha1.SigningKeyStatus {
	s.Keys = slices.Clone(s.Keys)
	for i := range s.Keys {
		s.Keys[i].LastSeenAt = nil
	}
	return s
}
