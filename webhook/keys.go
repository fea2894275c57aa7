package webhook

import (
	"crypto"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

// maxRemembered is how many retired key IDs of a SigningKey are remembered.
const maxRemembered = 512

// defaultMaxAge of a served JWKS.
const defaultMaxAge = 5 * time.Minute

// LoadKeys takes the verification keys of a SigningKey from its status, and
// the secrets of HS* keys from the SigningKey's entry of the Secret
// keyset.HMACSecretName; nil when there is none. previous is what LoadKeys
// gave before for the SigningKey of that name, or nil.
//
// A key that has not changed is the same object as in previous. A key that
// cannot be used is left out, and Problems says so; the others go on.
//
// Where sk has the same UID as previous, a status that is not newer takes
// nothing away: what it does not mention stays, and where its sequence is
// lower what previous says of a key counts. Only Retired, in either of the
// two, takes a key out. A key whose material is another than before is
// refused, and the known one stays.
func LoadKeys(previous *authz.Keys, sk *v1alpha1.SigningKey, hmacEntry []byte) *authz.Keys {
	out := &authz.Keys{
		Ref:       authz.Ref{Namespace: sk.Namespace, Name: sk.Name},
		UID:       string(sk.UID),
		Sequence:  sk.Status.Sequence,
		Issuer:    sk.Spec.Issuer,
		Symmetric: keyset.Algorithm(sk.Spec.Algorithm).Symmetric(),
		MaxAge:    min(defaultMaxAge, sk.Spec.Propagation.VerifierLag.Duration),
	}
	if sk.Spec.JWKS != nil && sk.Spec.JWKS.MaxAge != nil {
		out.MaxAge = sk.Spec.JWKS.MaxAge.Duration
	}
	if next := sk.Status.NextTransition; next != nil {
		out.NextTransition = next.Time.Time
	}
	l := loader{out: out, leeway: sk.Spec.Propagation.Leeway.Duration}
	l.allow(sk.Spec.AllowedNamespaces)
	if previous != nil {
		l.reuse = previous.Set
		if previous.UID == out.UID {
			l.known = previous.Set
			l.older = out.Sequence < previous.Sequence
			l.notNewer = out.Sequence <= previous.Sequence
			out.Sequence = max(out.Sequence, previous.Sequence)
			out.Retired = previous.Retired
			l.hold(sk.Status.Sequence, previous.Sequence)
		}
	}
	for i := range sk.Status.Keys {
		// What discovery says must fit the tokens that are signed now: a new
		// issuer in spec counts from the next key on.
		if sk.Status.Keys[i].State == v1alpha1.KeyActive {
			out.Issuer = sk.Status.Keys[i].Issuer
		}
	}
	l.readSecrets(hmacEntry)
	l.retire(sk.Status.Keys)

	var keys []*keyset.Key
	mentioned := make(map[string]bool, len(sk.Status.Keys))
	for i := range sk.Status.Keys {
		status := &sk.Status.Keys[i]
		if status.State == v1alpha1.KeyRetired || mentioned[status.KeyID] {
			continue
		}
		mentioned[status.KeyID] = true
		if k := l.key(status); k != nil {
			keys = append(keys, k)
		}
	}
	if l.notNewer {
		for _, k := range l.known.Keys() {
			if !mentioned[k.ID] && !l.isRetired(k.ID) {
				keys = append(keys, k)
			}
		}
	}
	set, err := keyset.NewSet(keys...)
	if err != nil { // each key was checked before
		l.problem("key set: %v", err)
		set = l.known
	}
	out.Set = set
	return out
}

// loader is one run of LoadKeys.
type loader struct {
	out     *authz.Keys
	leeway  time.Duration
	secrets map[string][]byte
	// reuse are keys that may be the same; known are those of the same UID.
	reuse, known *keyset.Set
	// older and notNewer compare the sequence with the largest seen.
	older, notNewer bool
}

func (l *loader) problem(format string, args ...any) {
	l.out.Problems = append(l.out.Problems, fmt.Sprintf(format, args...))
}

func (l *loader) hold(got, seen int64) {
	if l.older {
		l.problem("status has sequence %d after %d was seen: the keys of both stay until it rises above", got, seen)
	}
}

func (l *loader) allow(a v1alpha1.AllowedNamespaces) {
	switch a.From {
	case v1alpha1.NamespacesAll:
		l.out.Allowed.All = true
	case v1alpha1.NamespacesSelector:
		if a.Selector == nil {
			return
		}
		selector, err := metav1.LabelSelectorAsSelector(a.Selector)
		if err != nil {
			l.problem("spec.allowedNamespaces.selector: %v", err)
			return
		}
		l.out.Allowed.Selector = selector
	}
}

func (l *loader) readSecrets(entry []byte) {
	if entry == nil {
		return
	}
	e, err := keyset.DecodeHMACEntry(entry, l.out.Ref.Namespace, l.out.Ref.Name)
	if err != nil {
		l.problem("Secret %s: %v", keyset.HMACSecretName, err)
		return
	}
	l.secrets = e.Secrets
}

// retire remembers the retired keys, the newest at the end.
func (l *loader) retire(keys []v1alpha1.KeyStatus) {
	retired := l.out.Retired
	for i := len(keys) - 1; i >= 0; i-- { // newest first in status
		if keys[i].State == v1alpha1.KeyRetired && !slices.Contains(retired, keys[i].KeyID) {
			retired = append(slices.Clip(retired), keys[i].KeyID)
		}
	}
	l.out.Retired = retired[max(0, len(retired)-maxRemembered):]
}

func (l *loader) isRetired(id string) bool { return slices.Contains(l.out.Retired, id) }

// key gives the key that a status describes, or nil when it cannot be used.
func (l *loader) key(status *v1alpha1.KeyStatus) *keyset.Key {
	if l.isRetired(status.KeyID) {
		l.problem("key %s: retired before, stays so", status.KeyID)
		return nil
	}
	known, isKnown := l.known.Lookup(status.KeyID)
	k := &keyset.Key{
		ID:          status.KeyID,
		Algorithm:   keyset.Algorithm(status.Algorithm),
		Issuer:      status.Issuer,
		MaxTokenTTL: status.MaxTokenTTL.Duration,
		Leeway:      l.leeway,
	}
	if status.VerifyUntil != nil {
		k.VerifyUntil = status.VerifyUntil.Time
	}
	var err error
	k.Public, err = l.material(k.Algorithm, status)
	switch {
	case err != nil && isKnown && k.Algorithm.Symmetric() && known.Algorithm == k.Algorithm:
		k.Public = known.Public // its secret is on its way, or back
	case err != nil:
		l.problem("key %s: %v", k.ID, err)
		return known
	case isKnown && (known.Algorithm != k.Algorithm || !samePublic(known.Public, k.Public)):
		l.problem("key %s: another key than before has this ID: refused, the known one stays", k.ID)
		return known
	}
	switch {
	case k.ID == "":
		l.problem("a key without an ID")
		return nil
	case k.MaxTokenTTL <= 0:
		l.problem("key %s: maxTokenTTL is missing", k.ID)
		return known
	}
	if l.older && isKnown {
		return known
	}
	if same, ok := l.reuse.Lookup(k.ID); ok && equalKeys(same, k) {
		return same
	}
	return k
}

// material gives what verifies, once the algorithm can use it.
func (l *loader) material(alg keyset.Algorithm, status *v1alpha1.KeyStatus) (crypto.PublicKey, error) {
	var pub crypto.PublicKey
	switch {
	case alg.Symmetric():
		secret, ok := l.secrets[status.KeyID]
		if !ok {
			return nil, fmt.Errorf("its secret is not in the Secret %s yet", keyset.HMACSecretName)
		}
		pub = secret
	case status.PublicKey == nil:
		return nil, fmt.Errorf("publicKey is missing")
	default:
		var err error
		if pub, err = keyset.Members(*status.PublicKey).PublicKey(); err != nil {
			return nil, err
		}
	}
	return pub, alg.CheckVerificationKey(pub)
}

func equalKeys(a, b *keyset.Key) bool {
	return a.ID == b.ID && a.Algorithm == b.Algorithm && a.Issuer == b.Issuer &&
		a.MaxTokenTTL == b.MaxTokenTTL && a.Leeway == b.Leeway &&
		a.VerifyUntil.Equal(b.VerifyUntil) && samePublic(a.Public, b.Public)
}

func samePublic(a, b crypto.PublicKey) bool {
	if secret, ok := a.([]byte); ok {
		other, ok := b.([]byte)
		return ok && slices.Equal(secret, other)
	}
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}
