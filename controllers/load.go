package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// world is what was loaded for one pass. Objects that do not exist are nil.
type world struct {
	sk      *v1alpha1.SigningKey
	signer  *corev1.Secret
	jwks    *corev1.ConfigMap
	hmac    *corev1.Secret
	keyring *corev1.Secret
	ring    lifecycle.Keyring
	// imported is the key that spec.import names; importErr says why it is of
	// no use. Both nil: there is none, or it has been taken up.
	imported  *lifecycle.Key
	importErr error
	// gates are what gates said, before the keyring was read, and evidence is
	// what follows from it and from a look at verifiers.
	gates    []GateAnswer
	evidence lifecycle.Evidence
	// decoded are the private keys that this reconcile has decoded.
	decoded privateKeys
	// faults that loading found; ringFault: the keyring must not be touched.
	faults    faultList
	ringFault bool
}

// load reads outputs and SigningKey first and the keyring last: what is
// planned is never based on a keyring that is older than what was seen. Gates
// are asked unless they have been.
func (r *SigningKeyReconciler) load(ctx context.Context, name types.NamespacedName, gates []GateAnswer) (*world, error) {
	w := &world{sk: &v1alpha1.SigningKey{}, gates: gates}
	if err := r.Live.Get(ctx, name, w.sk); err != nil {
		return nil, fmt.Errorf("reading SigningKey: %w", err)
	}
	if w.gates == nil {
		w.gates = r.askGates(ctx, w.sk)
	}
	w.evidence = evidenceOf(w.gates, string(w.sk.UID))
	if err := r.loadOutputs(ctx, w); err != nil {
		w.ringFault = true
		w.faults.add("NotReadable", err)
		return w, nil
	}
	w.readKeyring()
	if w.sk.Spec.Import != nil && w.ring.Sequence == 0 && w.sk.Status.Sequence == 0 && !w.ringFault {
		w.imported, w.importErr = r.loadImport(ctx, w.sk)
	}
	return w, nil
}

func (r *SigningKeyReconciler) loadOutputs(ctx context.Context, w *world) (err error) {
	if w.signer, err = get(ctx, r.Live, w.sk.Namespace, w.sk.SignerSecretName(), &corev1.Secret{}); err != nil {
		return err
	}
	if cm := w.sk.JWKSConfigMapName(); cm != "" {
		if w.jwks, err = get(ctx, r.Live, w.sk.Namespace, cm, &corev1.ConfigMap{}); err != nil {
			return err
		}
	}
	if hasHMAC(w.sk) {
		if w.hmac, err = get(ctx, r.Live, r.Namespace, keyset.HMACSecretName, &corev1.Secret{}); err != nil {
			return err
		}
	}
	w.keyring, err = get(ctx, r.Live, w.sk.Namespace, w.sk.KeyringSecretName(), &corev1.Secret{})
	return err
}

// get reads an object; nil when it does not exist.
func get[T client.Object](ctx context.Context, c client.Reader, namespace, name string, into T) (T, error) {
	var none T
	err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into)
	if apierrors.IsNotFound(err) {
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("reading %s %s: %w", kind(into), name, err)
	}
	return into, nil
}

// kind is the kind of an object, for people.
func kind(obj client.Object) string { return reflect.TypeOf(obj).Elem().Name() }

// hasHMAC says whether a SigningKey has, or is about to have, HS* keys.
func hasHMAC(sk *v1alpha1.SigningKey) bool {
	if keyset.Algorithm(sk.Spec.Algorithm).Symmetric() {
		return true
	}
	return slices.ContainsFunc(sk.Status.Keys, func(k v1alpha1.KeyStatus) bool {
		return keyset.Algorithm(k.Algorithm).Symmetric()
	})
}

func (w *world) readKeyring() {
	if w.keyring == nil {
		return
	}
	if !ours(w.keyring, w.sk.Name) || w.keyring.Type != v1alpha1.SecretTypeKeyring {
		w.ringFault = true
		w.faults.add("KeyringNotOurs", fmt.Errorf("Secret %s %w: it is left as it is; if it is a keyring that a restore brought back, give it the type %s and the annotation %s: %s", w.keyring.Name, errNotOurs, v1alpha1.SecretTypeKeyring, v1alpha1.AnnotationSigningKey, w.sk.Name)) //nolint:staticcheck // Secret is a kind's name
		return
	}
	ring, err := lifecycle.DecodeKeyring(w.keyring.Data[KeyringEntry])
	if err != nil {
		w.ringFault = true
		reason := "KeyringUnreadable"
		if errors.Is(err, lifecycle.ErrKeyringTooNew) {
			reason = "KeyringTooNew"
		}
		w.faults.add(reason, fmt.Errorf("Secret %s: %w: it is left as it is and the keys go on verifying", w.keyring.Name, err)) //nolint:staticcheck // Secret is a kind's name
		return
	}
	w.ring = ring
}

// observed is what the planner has to know of the world.
func (w *world) observed(clock lifecycle.ClockBounds) lifecycle.Observed {
	inStatus := map[string]v1alpha1.KeyStatus{}
	for _, k := range w.sk.Status.Keys {
		inStatus[k.KeyID] = k
	}
	inJWKS := shownInJWKS(w.jwks)
	inHMAC := w.hmacEntry()
	seen := lifecycle.Observed{
		Shown: func(id string) bool {
			k := w.ring.Find(id)
			status, ok := inStatus[id]
			if k == nil || !ok || status.State == v1alpha1.KeyRetired {
				return false
			}
			if k.Algorithm.Symmetric() {
				_, ok := inHMAC.Secrets[id]
				return ok
			}
			if k.Public == nil || status.PublicKey == nil || keyset.Members(*status.PublicKey) != *k.Public {
				return false
			}
			return w.sk.JWKSConfigMapName() == "" || inJWKS[id] == *k.Public
		},
		StatusSequence: w.sk.Status.Sequence,
		StatusKeys:     w.sk.Status.Keys,
		StatusTrigger:  w.sk.Status.AnsweredTrigger,
		Private:        w.privateInOutputs,
		Imported:       w.imported,
		Evidence:       w.evidence,
		Clock:          clock,
	}
	if r := w.sk.Status.RevokedBefore; r != nil {
		seen.StatusRevokedBefore = lifecycle.RevokedBefore{Asked: r.Time.UTC(), CutOff: r.CutOff.UTC()}
	}
	if w.signer != nil {
		ring := w.ring
		if w.behind() {
			ring = w.statusRing() // it was lost
		}
		seen.SignerKeyID, seen.SignerTTL = signerKeyID(w.signer, ring, w.decoded), signerTTL(w.signer)
	}
	return seen
}

// behind says whether the keyring is older than status.
func (w *world) behind() bool {
	return lifecycle.Behind(w.ring, w.sk.Status.Sequence, w.sk.Status.Keys)
}

// statusRing is what status tells of the keys, as far as a signer Secret is
// compared with it.
func (w *world) statusRing() (ring lifecycle.Keyring) {
	for i := range w.sk.Status.Keys {
		status := &w.sk.Status.Keys[i]
		k := lifecycle.Key{ID: status.KeyID, Algorithm: keyset.Algorithm(status.Algorithm)}
		if status.PublicKey != nil {
			public := keyset.Members(*status.PublicKey)
			k.Public = &public
		} else {
			k.Private = w.privateInOutputs(status)
		}
		ring.Keys = append(ring.Keys, k)
	}
	return ring
}

// privateInOutputs gives the private JWK of a key of status where an output
// has it: that in the signer Secret, if it is the active key or the one that
// stands by (which is active before status says so), and those of HS* in
// keywright-hmac.
func (w *world) privateInOutputs(k *v1alpha1.KeyStatus) json.RawMessage {
	alg := keyset.Algorithm(k.Algorithm)
	if alg.Symmetric() {
		secret, ok := w.hmacEntry().Secrets[k.KeyID]
		if !ok || alg.CheckVerificationKey(secret) != nil {
			return nil
		}
		return encoded(secret, k)
	}
	if (k.State != v1alpha1.KeyActive && k.State != v1alpha1.KeyPublished) || k.PublicKey == nil || w.signer == nil || !ours(w.signer, w.sk.Name) {
		return nil
	}
	priv, pub, err := keyset.DecodePrivate(w.signer.Data[SigningJWKEntry])
	if err != nil {
		return nil
	}
	if members, err := keyset.MembersOf(pub); err != nil || members != keyset.Members(*k.PublicKey) {
		return nil
	}
	return encoded(priv, k)
}

// encoded is the private JWK of a key of status; nil when it cannot be one.
func encoded(priv any, k *v1alpha1.KeyStatus) json.RawMessage {
	raw, err := keyset.EncodePrivate(priv, k.KeyID, keyset.Algorithm(k.Algorithm))
	if err != nil {
		return nil
	}
	return raw
}

func (w *world) hmacEntry() keyset.HMACEntry {
	if w.hmac == nil {
		return keyset.HMACEntry{}
	}
	entry, err := keyset.DecodeHMACEntry(w.hmac.Data[keyset.HMACEntryName(w.sk.Namespace, w.sk.Name)], w.sk.Namespace, w.sk.Name)
	if err != nil {
		return keyset.HMACEntry{}
	}
	return entry
}
