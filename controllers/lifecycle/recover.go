package lifecycle

import (
	"slices"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// recover makes the keyring whole again when status is newer: it was lost, or
// replaced by an older copy. What status says of a key counts, for verifiers
// have gone by it; the keyring gives private halves, and so do the outputs. A
// key that status no longer knows is gone: it had retired, or never signed.
func (p *planner) recover() {
	if p.ring.Sequence >= p.seen.StatusSequence {
		return
	}
	old := p.ring
	p.ring.Sequence, p.ring.Keys = p.seen.StatusSequence, nil
	p.ring.Revoked = slices.Clone(old.Revoked)
	for i := len(p.seen.StatusKeys) - 1; i >= 0; i-- { // newest first in status
		status := &p.seen.StatusKeys[i]
		switch {
		case p.ring.IsRevoked(status.KeyID):
		case status.State == v1alpha1.KeyRevoked:
			p.ring.Revoked = append(p.ring.Revoked, Tombstone{
				ID: status.KeyID, Sequence: status.Sequence, CreatedAt: status.CreatedAt.UTC(), RevokedAt: instant(status.RevokedAt),
			})
		default:
			if k := p.recovered(status, old.Find(status.KeyID)); k.Private != nil || !k.ActivatedAt.IsZero() {
				p.ring.Keys = append(p.ring.Keys, k)
			} // else nobody can ever sign with it
		}
	}
	if r := p.seen.StatusRevokedBefore; r.CutOff.After(p.ring.RevokedBefore.CutOff) {
		p.ring.RevokedBefore = r
	}
	if p.ring.TokenTTL.Current == 0 {
		p.ring.TokenTTL.Current = p.leastTTL()
	}
	p.note(v1alpha1.TransitionRecover, "")
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
		k.RSABits, k.Imported, k.Private = old.RSABits, old.Imported, old.Private
		if !k.VerifyUntil.IsZero() && old.VerifyUntil.After(k.VerifyUntil) {
			k.VerifyUntil = old.VerifyUntil
		}
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

// leastTTL is what every key that verifies allows, and the spec: nobody knows
// any more what signers were told.
func (p *planner) leastTTL() time.Duration {
	least := p.want.Spec.MaxTokenTTL.Duration
	for _, k := range p.ring.Verifying(p.now) {
		least = min(least, k.MaxTokenTTL)
	}
	return least
}
