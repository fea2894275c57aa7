package lifecycle

import (
	"fmt"
	"strings"
	"time"
)

// Evidence is what gates, and documents that anyone can fetch, were seen to
// say. It only ever makes a plan wait longer, or end a key that gates refuse.
type Evidence struct {
	// Sequence is the largest that a gate has seen of this SigningKey.
	Sequence int64
	// Refused are keys that a gate refuses for ever.
	Refused map[string]bool
	// Seen is what gates have seen of the tokens of each key.
	Seen map[string]Sighting
	// Confirmed is the key ID that a look was taken for, and Late names, for
	// people, who did not know it. Empty: no look was taken.
	Confirmed string
	Late      []string
}

// Sighting is what gates have seen of the tokens of one key.
type Sighting struct {
	LastAt time.Time
	// Late is how many subjects had fresh tokens that were signed when no
	// signer should have had the key any more, and Issuer who signed them.
	Late   int
	Issuer string
}

// wantsLook says whether the spec asks for a look before an activation.
func (p *planner) wantsLook() bool {
	return p.want.AsksGates || len(p.want.Spec.Propagation.Evidence.URLs) > 0
}

// confirmed says whether a look has shown that all know a key; where none was
// taken, the result of the plan asks for one.
func (p *planner) confirmed(k *Key) bool {
	if p.urgent() || !p.wantsLook() {
		return true
	}
	if p.seen.Evidence.Confirmed != k.ID {
		p.confirm = k.ID
		return false
	}
	return len(p.seen.Evidence.Late) == 0
}

// lateNames says who is late, shortened.
func lateNames(late []string) string {
	const most = 3
	if len(late) <= most {
		return strings.Join(late, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(late[:most], ", "), len(late)-most)
}

// heed takes what gates know and the API server has lost, after a restore of
// its storage: the sequence must rise above what they saw, verifiers may have
// forgotten the key that stands by, and a key that gates refuse must not sign.
func (p *planner) heed() {
	if seen := p.seen.Evidence.Sequence; seen > p.ring.Sequence {
		p.ring.Sequence = seen
		if k := p.ring.Standby(); k != nil {
			k.PublishedAt = time.Time{}
		}
	}
	refused := p.seen.Evidence.Refused
	if k := p.ring.Standby(); k != nil && refused[k.ID] {
		p.ring.Keys = p.ring.Keys[:len(p.ring.Keys)-1]
	}
	for i := range p.ring.Keys {
		k := &p.ring.Keys[i]
		if !refused[k.ID] || k.ActivatedAt.IsZero() || !k.DeactivatedAt.IsZero() {
			continue
		}
		k.DeactivatedAt, k.VerifyUntil = p.now, p.now
		if !k.Algorithm.Symmetric() {
			k.Private = nil
		}
	}
}

// signers holds the retirement of a key that someone still signs with, once:
// whoever has stolen a key must not keep it alive.
func (p *planner) signers() {
	_, s, _, _ := p.propagation()
	for i := range p.ring.Keys {
		k := &p.ring.Keys[i]
		if k.DeactivatedAt.IsZero() || k.Held || !p.now.Before(k.VerifyUntil) || p.seen.Evidence.Seen[k.ID].Late == 0 {
			continue
		}
		k.Held = true
		k.VerifyUntil = Ceil(k.VerifyUntil.Add(s + k.MaxTokenTTL))
	}
}

// lookAt is when to look next for signers that have stayed behind: late enough
// to tell, and early enough for every verifier to hear of a new end.
func (p *planner) lookAt() time.Time {
	v, s, e, _ := p.propagation()
	var first time.Time
	if !p.want.AsksGates {
		return first
	}
	for i := range p.ring.Keys {
		k := &p.ring.Keys[i]
		if k.DeactivatedAt.IsZero() || k.Held {
			continue
		}
		at := k.DeactivatedAt.Add(s + 2*e + time.Second)
		if last := k.VerifyUntil.Add(-v - e); last.After(at) {
			at = last
		}
		if at.After(p.now) && at.Before(k.VerifyUntil) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}
