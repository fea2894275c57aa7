package authz

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

// sighting is what was seen of the tokens of one key. It outlives changes of
// the key set, and holds no token and no claim but the last issuer that was
// late.
type sighting struct {
	// last is when a token last passed, and newest the newest iat of those
	// that were new to the gate, in Unix seconds; 0: none.
	last, newest atomic.Int64

	mu   sync.Mutex
	late late
}

// late are tokens that were signed when no signer should have had the key any
// more.
type late struct {
	// after is what they were late by: another begins anew.
	after time.Time
	// subjects are their subjects' hashes.
	subjects map[uint64]struct{}
	issuer   string
}

// hashes of subjects are good for this process alone.
var hashes = maphash.MakeSeed()

// passed is told of every token that passes. It is on the way of each request:
// within one second, one comparison is all that it does.
func (s *sighting) passed(now time.Time) {
	if at := now.Unix(); s.last.Load() != at {
		s.last.Store(at)
	}
}

// fresh is told of a token that is new to the gate and good. lateAfter is as
// in Detail.
func (s *sighting) fresh(t *token.Token, lateAfter time.Time) {
	if t.IssuedAt.IsZero() {
		return
	}
	for at := t.IssuedAt.Unix(); ; {
		newest := s.newest.Load()
		if at <= newest || s.newest.CompareAndSwap(newest, at) {
			break
		}
	}
	if lateAfter.IsZero() || !t.IssuedAt.After(lateAfter) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.late.after.Equal(lateAfter) {
		s.late = late{after: lateAfter, subjects: map[uint64]struct{}{}}
	}
	if len(s.late.subjects) < keyset.MaxLate {
		s.late.subjects[maphash.String(hashes, t.Subject)] = struct{}{}
	}
	s.late.issuer = t.Issuer
	if len(t.Issuer) > keyset.MaxLateIssuer {
		s.late.issuer = strings.ToValidUTF8(t.Issuer[:keyset.MaxLateIssuer], "")
	}
	s.late.issuer = strings.Clone(s.late.issuer) // it is a part of something larger
}

// tell writes what was seen into a report on the key. lateAfter is as in
// Detail.
func (s *sighting) tell(k *keyset.KeyReport, lateAfter time.Time) {
	at := func(seconds int64) time.Time {
		if seconds == 0 {
			return time.Time{}
		}
		return time.Unix(seconds, 0).UTC()
	}
	k.LastSeenAt, k.NewestIssuedAt = at(s.last.Load()), at(s.newest.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.late.subjects) > 0 && s.late.after.Equal(lateAfter) {
		k.Late, k.LateIssuer = len(s.late.subjects), s.late.issuer
	}
}

// sightingOf gives what is seen of the tokens of a key of the policy's
// issuers, and when these are late; nil for a key of others.
func (e *entry) sightingOf(k *keyset.Key) (*sighting, time.Time) {
	for i := range e.issuers {
		if found, ok := e.issuers[i].keys.Lookup(k.ID); ok && found == k {
			of := e.issuers[i].of
			if of == nil {
				break
			}
			return of.seen[k.ID], of.Details[k.ID].LateAfter
		}
	}
	return nil, time.Time{}
}

// follow takes up the sightings of before: those of the same SigningKey by key
// ID, those of another one of its name by the very key.
func (k *Keys) follow(before *Keys) {
	k.seen = map[string]*sighting{}
	if before != nil && before.UID == k.UID {
		for _, refused := range [][]string{k.Revoked, k.Asked.Cut, k.Retired} {
			for _, id := range refused {
				if s := before.seen[id]; s != nil {
					k.seen[id] = s
				}
			}
		}
	}
	for _, key := range k.Set.Keys() {
		if before != nil {
			if same, _ := before.Set.Lookup(key.ID); same == key || before.UID == k.UID {
				k.seen[key.ID] = before.seen[key.ID]
			}
		}
		if k.seen[key.ID] == nil {
			k.seen[key.ID] = &sighting{}
		}
	}
}

// Report says what is known of the SigningKey's keys and what was seen of
// their tokens, for the controller. Keys that the gate has taken out by its
// own word, until the controller has told, are neither in force nor refused
// for ever: they are not in it.
func (k *Keys) Report() keyset.Report {
	out := keyset.Report{UID: k.UID, Sequence: k.Sequence}
	for _, key := range k.Set.Keys() {
		one := keyset.KeyReport{KeyID: key.ID}
		if !key.Algorithm.Symmetric() {
			// It was read from a JWK: it has one.
			one.Thumbprint, _ = keyset.Thumbprint(key.Public)
		}
		out.Keys = append(out.Keys, one)
	}
	listed := make(map[string]bool, len(k.Revoked))
	for _, refused := range [][]string{k.Revoked, k.Retired} {
		for _, id := range slices.Backward(refused) {
			if !listed[id] {
				listed[id] = true
				out.Keys = append(out.Keys, keyset.KeyReport{KeyID: id, Refused: true})
			}
		}
	}
	for i := range out.Keys {
		one := &out.Keys[i]
		if s := k.seen[one.KeyID]; s != nil {
			s.tell(one, k.Details[one.KeyID].LateAfter)
		}
	}
	return out
}
