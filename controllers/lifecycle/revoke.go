package lifecycle

import (
	"time"

	"github.com/keywright/keywright/api/v1alpha1"
)

// Tombstone is what stays of a revoked key, for ever: whatever a restore or a
// GitOps tool brings back, a key of this ID is never taken up again.
type Tombstone struct {
	ID string `json:"id"`
	// Sequence at which the key had come into the keyring; 0: it was not there.
	Sequence  int64     `json:"sequence,omitempty"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
	RevokedAt time.Time `json:"revokedAt"`
}

// RevokedBefore is what came of spec.revokeCreatedBefore.
type RevokedBefore struct {
	// Asked is the time that the spec named last.
	Asked time.Time `json:"asked,omitzero"`
	// CutOff is the time that counts: keys made before it are revoked. It
	// never falls, and was never in the future.
	CutOff time.Time `json:"cutOff,omitzero"`
}

// IsRevoked says whether a key ID is revoked.
func (r Keyring) IsRevoked(id string) bool {
	for i := range r.Revoked {
		if r.Revoked[i].ID == id {
			return true
		}
	}
	return false
}

// revoke takes out what the spec revokes. What remains decides what follows:
// without an active key the one that stands by takes over at once.
func (p *planner) revoke() {
	all := p.cutOff()
	listed := map[string]bool{}
	for _, r := range p.want.Spec.RevokedKeys {
		listed[r.KeyID] = true
	}
	kept := p.ring.Keys[:0]
	for _, k := range p.ring.Keys {
		switch {
		case p.ring.IsRevoked(k.ID):
		case all, listed[k.ID], Ceil(k.CreatedAt).Before(p.ring.RevokedBefore.CutOff):
			p.bury(Tombstone{ID: k.ID, Sequence: k.Sequence, CreatedAt: k.CreatedAt})
		default:
			kept = append(kept, k)
		}
	}
	p.ring.Keys = kept
	// An ID that is listed and not there is remembered as well: its key may
	// come back from a backup.
	for _, r := range p.want.Spec.RevokedKeys {
		if !p.ring.IsRevoked(r.KeyID) {
			p.bury(Tombstone{ID: r.KeyID})
		}
	}
}

// cutOff takes up a new spec.revokeCreatedBefore. A time to come counts as
// now; then every key that there is was made before, also in this second.
func (p *planner) cutOff() (all bool) {
	r := p.want.Spec.RevokeCreatedBefore
	if r == nil || r.Time.Time.Equal(p.ring.RevokedBefore.Asked) {
		return false
	}
	at := r.Time.UTC()
	p.ring.RevokedBefore.Asked = at
	if at.After(p.now) {
		at, all = Ceil(p.now), true
	}
	if at.After(p.ring.RevokedBefore.CutOff) {
		p.ring.RevokedBefore.CutOff = at
	}
	return all
}

func (p *planner) bury(t Tombstone) {
	t.RevokedAt = p.now
	p.ring.Revoked = append(p.ring.Revoked, t)
	p.note(v1alpha1.TransitionRevoke, t.ID)
}
