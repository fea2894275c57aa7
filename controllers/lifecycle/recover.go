package lifecycle

import (
	"slices"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// Behind says whether a keyring is older than status: its sequence is, or
// status has a key that signs or has signed, and was made after every key of
// the keyring. The latter is so when the keyring was lost, a new SigningKey has
// begun another, and the lost one comes back.
func Behind(ring Keyring, sequence int64, keys []v1alpha1.KeyStatus) bool {
	return ring.Sequence < sequence || comesLate(ring, keys)
}

func comesLate(ring Keyring, keys []v1alpha1.KeyStatus) bool {
	if len(ring.Keys) == 0 {
		return false // there is none, or all of its keys were revoked
	}
	var newest time.Time
	for i := range ring.Keys {
		if at := ring.Keys[i].CreatedAt; at.After(newest) {
			newest = at
		}
	}
	return slices.ContainsFunc(keys, func(k v1alpha1.KeyStatus) bool {
		signed := k.State == v1alpha1.KeyActive || k.State == v1alpha1.KeyVerifying
		return signed && k.CreatedAt.After(Ceil(newest)) && ring.Find(k.KeyID) == nil && !ring.IsRevoked(k.KeyID)
	})
}

// recover makes the keyring whole again when status is newer: it was lost, or
// replaced by an older copy. What status says of a key counts, for verifiers
// have gone by it; the keyring gives private halves, and so do the outputs. A
// key that status no longer knows is gone: it had retired, or never signed.
// In a keyring that comes late it is one whose tokens may be about.
// Older keys than the active one stand before it in the keyring.
func (p *planner) recover() {
	if !Behind(p.ring, p.seen.StatusSequence, p.seen.StatusKeys) {
		return
	}
	old := p.ring
	late := old.Sequence >= p.seen.StatusSequence
	p.ring.Sequence, p.ring.Keys = max(old.Sequence, p.seen.StatusSequence), nil
	p.ring.Revoked = slices.Clone(old.Revoked)
	p.ring.Trigger = p.seen.StatusTrigger
	for i := len(p.seen.StatusKeys) - 1; i >= 0; i-- { // newest first in status
		status := &p.seen.StatusKeys[i]
		switch {
		case p.ring.IsRevoked(status.KeyID):
		case status.State == v1alpha1.KeyRevoked:
			p.ring.Revoked = append(p.ring.Revoked, Tombstone{
				ID: status.KeyID, Sequence: status.Sequence, CreatedAt: status.CreatedAt.UTC(), RevokedAt: instant(status.RevokedAt),
			})
		default:
			k := p.recovered(status, old.Find(status.KeyID))
			if k.ActivatedAt.IsZero() && (k.Private == nil || p.seen.SignerKeyID == "") {
				// It will not sign, but someone may have signed with it,
				// before status could say so.
				p.ring.Keys = slices.Insert(p.ring.Keys, 0, p.ended(k))
				continue
			}
			p.ring.Keys = append(p.ring.Keys, k)
		}
	}
	if late {
		var earlier []Key
		for _, k := range old.Keys {
			if p.ring.Find(k.ID) == nil && !p.ring.IsRevoked(k.ID) {
				earlier = append(earlier, p.ended(k))
			}
		}
		p.ring.Keys = append(earlier, p.ring.Keys...)
	}
	if r := p.seen.StatusRevokedBefore; r.CutOff.After(p.ring.RevokedBefore.CutOff) {
		p.ring.RevokedBefore = r
	}
	p.ring.TokenTTL = TokenTTL{Current: p.leastTTL()}
	p.note(v1alpha1.TransitionRecover, "")
}

// ended is a key that signs no more from now on.
func (p *planner) ended(k Key) Key {
	if k.ActivatedAt.IsZero() {
		k.ActivatedAt = p.now
	}
	if k.DeactivatedAt.IsZero() {
		k.DeactivatedAt = p.now
		k.VerifyUntil = p.verifyUntil(&k)
	}
	if k.Public != nil {
		k.Private = nil
	}
	return k
}

// recovered is a key as status tells of it, with what the keyring had.
func (p *planner) recovered(status *v1alpha1.KeyStatus, old *Key) Key {
	k := Key{
		ID:            status.KeyID,
		Sequence:      status.Sequence,
		Algorithm:     keyset.Algorithm(status.Algorithm),
		Issuer:        status.Issuer,
		WithoutKeyID:  status.WithoutKeyID,
		MaxTokenTTL:   status.MaxTokenTTL.Duration,
		CreatedAt:     status.CreatedAt.UTC(),
		PublishedAt:   instant(status.PublishedAt),
		ActivatedAt:   instant(status.ActivatedAt),
		DeactivatedAt: instant(status.DeactivatedAt),
		VerifyUntil:   instant(status.VerifyUntil),
	}
	if status.PublicKey != nil {
		public := keyset.Members(*status.PublicKey)
		k.Public = &public
	}
	if old != nil && old.Algorithm == k.Algorithm && samePublic(old.Public, k.Public) {
		k.RSABits, k.Imported, k.Private, k.Held = old.RSABits, old.Imported, old.Private, old.Held
		if !k.VerifyUntil.IsZero() && old.VerifyUntil.After(k.VerifyUntil) {
			k.VerifyUntil = old.VerifyUntil
		}
	}
	if !k.DeactivatedAt.IsZero() && k.VerifyUntil.After(p.verifyUntil(&k)) {
		k.Held = true // for all that is known: it must not be put off again
	}
	if k.Private == nil && p.seen.Private != nil {
		k.Private = p.seen.Private(status)
	}
	if k.Public != nil && !k.DeactivatedAt.IsZero() {
		k.Private = nil // it never signs again
	}
	return k
}

func samePublic(a, b *keyset.Members) bool {
	return a == b || (a != nil && b != nil && *a == *b)
}

// leastTTL is what signers were told, where an output still has it, and at
// most what every key that verifies and the spec allow: a raise that was under
// way begins again.
func (p *planner) leastTTL() time.Duration {
	least := p.want.Spec.MaxTokenTTL.Duration
	if told := p.seen.SignerTTL; told > 0 {
		least = min(least, told)
	}
	for _, k := range p.ring.Verifying(p.now) {
		least = min(least, k.MaxTokenTTL)
	}
	return least
}

// adopt takes the key that stands by for active when the signer Secret has it:
// the keyring is a copy from before the switch, and its tokens are about.
func (p *planner) adopt() {
	if k := p.ring.Standby(); k != nil && k.ID != "" && k.ID == p.seen.SignerKeyID {
		k.ActivatedAt = p.now
		p.note(v1alpha1.TransitionActivate, k.ID)
	}
}
