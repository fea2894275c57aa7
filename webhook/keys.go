package webhook

import (
	"crypto"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/authz"
)

// How many IDs of a SigningKey's retired and revoked keys are remembered. What
// spec and status name is within the second in any case: 128 and 1024.
const (
	maxRetired = 512
	maxRevoked = 2048
)

// defaultMaxAge of a served JWKS.
const defaultMaxAge = 5 * time.Minute

// LoadKeys takes the verification keys of a SigningKey from its status, and
// the secrets of HS* keys from the SigningKey's entry of the Secret
// keyset.HMACSecretName; nil when there is none. previous is what LoadKeys
// gave before for the SigningKey of that name, or nil. now is when sk was
// seen.
//
// A key that has not changed is the same object as in previous. A key that
// cannot be used is left out, and Problems says so; the others go on.
//
// What spec revokes is out at once, whatever status says: the gate does not
// wait for the controller. See loader.revoke.
//
// Where sk has the same UID as previous, a status that is not newer takes
// nothing away: what it does not mention stays, and where its sequence is
// lower than that from which a key is known what previous says of the key
// counts. A newer one does not cut off what it has forgotten either: see
// loader.keep. Only Retired and Revoked, in any of them, take a key out, for
// ever. A key whose material is another than before is refused, and the known
// one stays.
func LoadKeys(previous *authz.Keys, sk *v1alpha1.SigningKey, hmacEntry []byte, now time.Time) *authz.Keys {
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
	out.Details = make(map[string]authz.Detail, len(sk.Status.Keys))
	l := loader{out: out, now: now, sequence: sk.Status.Sequence, propagation: sk.Spec.Propagation}
	l.revoked, l.remembered = map[string]bool{}, map[string]bool{}
	l.allow(sk.Spec.AllowedNamespaces)
	if previous != nil {
		l.reuse = previous.Set
		if previous.UID == out.UID {
			l.known, l.details = previous.Set, previous.Details
			l.older = out.Sequence < previous.Sequence
			l.notNewer = out.Sequence <= previous.Sequence
			out.Sequence = max(out.Sequence, previous.Sequence)
			out.Retired, out.Revoked = previous.Retired, previous.Revoked
			out.RevokedBefore, out.Asked = previous.RevokedBefore, previous.Asked
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
	l.revoke(sk)

	var keys []*keyset.Key
	mentioned := make(map[string]bool, len(sk.Status.Keys))
	for i := range sk.Status.Keys {
		status := &sk.Status.Keys[i]
		if status.State == v1alpha1.KeyRetired || status.State == v1alpha1.KeyRevoked || mentioned[status.KeyID] {
			continue
		}
		mentioned[status.KeyID] = true
		if k := l.key(status); k != nil {
			keys = append(keys, k)
			out.Details[k.ID] = authz.Detail{
				CreatedAt: status.CreatedAt.Time,
				Sequence:  max(sk.Status.Sequence, l.details[k.ID].Sequence),
				Signed:    status.State != v1alpha1.KeyPublished || l.details[k.ID].Signed,
				LateAfter: l.lateAfter(status),
			}
		}
	}
	keys = append(keys, l.keep(mentioned)...)
	set, err := keyset.NewSet(keys...)
	if err != nil { // each key was checked before
		l.problem("key set: %v", err)
		set = &keyset.Set{}
	}
	out.Set = set
	return out
}

// loader is one run of LoadKeys.
type loader struct {
	out         *authz.Keys
	now         time.Time
	sequence    int64
	propagation v1alpha1.Propagation
	secrets     map[string][]byte
	// revoked are the IDs of all revoked keys; remembered are those among
	// them that neither spec nor status names any more.
	revoked, remembered map[string]bool
	// reuse are keys that may be the same; known are those of the same UID,
	// and details what is known of these.
	reuse, known *keyset.Set
	details      map[string]authz.Detail
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
	l.out.Retired = retired[max(0, len(retired)-maxRetired):]
}

func (l *loader) isRetired(id string) bool { return slices.Contains(l.out.Retired, id) }

// revoke takes up what spec and status say is revoked, and remembers it: an
// entry that leaves spec brings no key back.
func (l *loader) revoke(sk *v1alpha1.SigningKey) {
	var named []string
	name := func(id string) {
		if !l.revoked[id] {
			l.revoked[id] = true
			named = append(named, id)
		}
	}
	for i := range sk.Spec.RevokedKeys {
		name(sk.Spec.RevokedKeys[i].KeyID)
	}
	created := make(map[string]time.Time, len(sk.Status.Keys))
	for id, d := range l.details {
		created[id] = d.CreatedAt
	}
	for i := range sk.Status.Keys {
		switch k := &sk.Status.Keys[i]; k.State {
		case v1alpha1.KeyRevoked:
			name(k.KeyID)
		case v1alpha1.KeyRetired: // is out as it is
		default:
			created[k.KeyID] = k.CreatedAt.Time
		}
	}
	told := l.cutOff(sk)
	cut := l.out.Asked.Cut
	for _, id := range slices.Sorted(maps.Keys(created)) {
		at := created[id]
		switch asked := at.Before(l.out.Asked.CutOff); {
		case l.revoked[id]:
		case at.Before(l.out.RevokedBefore):
			name(id)
			l.remembered[id] = !asked && !at.Before(told)
		case asked:
			cut = append(slices.Clip(cut), id)
		}
	}
	// Those that nobody names any more come first, to be the first that are
	// forgotten.
	remembered := slices.DeleteFunc(slices.Clone(l.out.Revoked), func(id string) bool { return l.revoked[id] })
	if over := len(remembered) + len(named) - maxRevoked; over > 0 {
		remembered = remembered[min(over, len(remembered)):]
	}
	for _, id := range remembered {
		l.revoked[id], l.remembered[id] = true, true
	}
	l.out.Revoked = append(remembered, named...)
	l.out.Asked.Cut = nil
	for _, id := range cut {
		if !l.revoked[id] {
			l.revoked[id] = true
			l.out.Asked.Cut = append(l.out.Asked.Cut, id)
		}
	}
}

// cutOff takes up spec.revokeCreatedBefore. What the controller makes of it
// counts, and all that it ever told; until it has, the time itself, or this
// moment where it is still to come: keys that are not made yet are not meant.
//
// Keys that the gate took out by its own word are left to the controller's
// once there is one: two clocks may differ, and a key made just then be good.
// Where spec asks for something else before, they stay out.
func (l *loader) cutOff(sk *v1alpha1.SigningKey) (told time.Time) {
	before, wanted, answer := l.out.Asked, sk.Spec.RevokeCreatedBefore, sk.Status.RevokedBefore
	if answer != nil {
		told = answer.CutOff.Time
	}
	if told.After(l.out.RevokedBefore) {
		l.out.RevokedBefore = told
	}
	switch {
	case wanted == nil:
		l.out.Asked = authz.Asked{}
	case answer != nil && answer.Time.Equal(&wanted.Time):
		l.out.Asked = authz.Asked{Time: wanted.Time.Time, CutOff: told}
	case !before.Time.Equal(wanted.Time.Time):
		l.out.Asked = authz.Asked{Time: wanted.Time.Time, CutOff: wanted.Time.Time}
		if l.now.Before(wanted.Time.Time) {
			l.out.Asked.CutOff = l.now
		}
	}
	if !before.Time.Equal(l.out.Asked.Time) && (answer == nil || !answer.Time.Time.Equal(before.Time)) {
		l.out.Revoked = slices.Concat(l.out.Revoked, before.Cut)
	}
	return told
}

func (l *loader) isRevoked(id string) bool { return l.revoked[id] }

// key gives the key that a status describes, or nil when it cannot be used.
func (l *loader) key(status *v1alpha1.KeyStatus) *keyset.Key {
	if l.isRevoked(status.KeyID) {
		if l.remembered[status.KeyID] {
			l.problem("key %s: revoked before, stays so", status.KeyID)
		}
		return nil
	}
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
		Leeway:      l.propagation.Leeway.Duration,

		WithoutKeyID: status.WithoutKeyID,
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
	// A key that was first seen after a restore is known from statuses of low
	// sequences alone, and ends as the next of those says.
	if d := l.details[k.ID]; isKnown && l.sequence < d.Sequence && !d.EndIsOurs {
		return known
	}
	if isKnown && l.details[k.ID].Signed {
		// The controller never lowers it while tokens are about; only a
		// restore of what status is stored in does.
		k.MaxTokenTTL = max(k.MaxTokenTTL, known.MaxTokenTTL)
	}
	if same, ok := l.reuse.Lookup(k.ID); ok && equalKeys(same, k) {
		return same
	}
	return k
}

// lateAfter is when the last signer should have turned to another key.
func (l *loader) lateAfter(status *v1alpha1.KeyStatus) time.Time {
	if status.State != v1alpha1.KeyVerifying || status.DeactivatedAt == nil {
		return time.Time{}
	}
	return status.DeactivatedAt.Add(l.propagation.SignerLag.Duration + 2*l.propagation.ClockSkew.Duration)
}

// keep gives the known keys that status does not mention, and that are neither
// retired nor revoked: after a restore of what status is stored in, tokens of
// keys are about that nobody knows any more but the gate.
//
// Until the sequence has risen above what was seen, they count as they are.
// From then on they verify to their own end and are not published any more;
// one that had no end yet has it once the last token that could have been
// signed when it was first missing has expired.
//
// A gate may hear of a restore only when the sequence has risen already. So a
// key that goes without having been retired is kept too, unless it never
// signed: such a one can be replaced.
func (l *loader) keep(mentioned map[string]bool) (keys []*keyset.Key) {
	for _, k := range l.known.Keys() {
		if mentioned[k.ID] || l.isRetired(k.ID) || l.isRevoked(k.ID) {
			continue
		}
		d := l.details[k.ID]
		if d.MissingSince.IsZero() {
			if !l.notNewer && !d.Signed {
				continue
			}
			d.MissingSince = l.now
		}
		if !l.notNewer && !d.Hidden {
			d.Hidden = true
			if k.VerifyUntil.IsZero() {
				d.EndIsOurs = true
				ended := *k
				ended.VerifyUntil = l.lastTokenEnds(d.MissingSince, k)
				k = &ended
			}
		}
		if d.Hidden {
			if !k.ValidAt(l.now) {
				continue
			}
			l.problem("key %s: status knows it no more: it verifies until %s", k.ID, k.VerifyUntil.UTC().Format(time.RFC3339))
		}
		l.out.Details[k.ID] = d
		keys = append(keys, k)
	}
	return keys
}

// lastTokenEnds is when the last token of a key has expired that a signer
// could have made which was told of another key at since.
func (l *loader) lastTokenEnds(since time.Time, k *keyset.Key) time.Time {
	p := &l.propagation
	end := since.Add(p.SignerLag.Duration + k.MaxTokenTTL + p.Leeway.Duration + 2*p.ClockSkew.Duration)
	if whole := end.Truncate(time.Second); whole.Before(end) {
		return whole.Add(time.Second)
	}
	return end
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
		a.MaxTokenTTL == b.MaxTokenTTL && a.Leeway == b.Leeway && a.WithoutKeyID == b.WithoutKeyID &&
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
