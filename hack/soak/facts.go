package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright/api/keyset"
)

// mounted is what a correct application has in its mount that is late by lag;
// nil when that cannot be told, or there is nothing to sign with. It never has
// what the Secret stopped holding longer than signerLag ago.
func (h *history) mounted(of string, now time.Time, lag time.Duration) *mount {
	h.mu.Lock()
	defer h.mu.Unlock()
	mounts := h.signing[of].mounts
	i := -1
	for i+1 < len(mounts) && (!mounts[i+1].by.After(now.Add(-lag)) || mounts[i+1].after.Before(now.Add(-signerLag))) {
		i++
	}
	if i < 0 || mounts[i].file == nil {
		return nil
	}
	if i == len(mounts)-1 && h.complete.Before(now.Add(-signerLag)) {
		return nil // it may have changed
	}
	m := mounts[i]
	return &m
}

// symmetric says whether a key is an HS* key.
func (h *history) symmetric(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keys[id]
	return k != nil && k.alg.Symmetric()
}

// facts are what counts for one answer. heard is what the gate had shown to
// have seen when it was asked, by epoch.
func (h *history) facts(q *question) facts {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := q.token
	f := facts{
		asked: q.asked.Add(q.gate.offset), answered: q.answered.Add(q.gate.offset), end: t.exp.Add(leeway),
		forged: t.kind == forgedToken, tooLong: t.kind == longToken, stolen: t.kind == stolenToken,
		looked: h.specs[t.of].looked,
	}
	k := h.keys[t.kid]
	if k == nil {
		return f
	}
	// What gates refused before a restore the controller only hears where it
	// looks; it ends the key then for all.
	for epoch, asked := range k.revoked {
		f.revoked = f.revoked || !asked.After(q.answered) && (f.looked || q.gate.epoch <= epoch)
	}
	f.signsAgain = t.signsAgain && (f.looked || q.gate.epoch < k.endedBefore)
	knows := func(since map[int]span) bool {
		for epoch, at := range since {
			if heard, ok := q.heard[epoch]; ok && !heard.Before(at.by) {
				return true
			}
		}
		return false
	}
	f.revokedKnown = knows(k.revokedIn)
	f.known = knows(k.shown)
	f.withinLag = !q.answered.After(k.firstShown().after.Add(verifierLag))
	f.urgent = k.urgent
	f.lost = k.lostIn > 0 && q.gate.epoch >= k.lostIn
	f.retired = k.retiredFor(q)
	if k.alg.Symmetric() {
		f.noSecret = slices.ContainsFunc(h.withoutSecret, func(g gap) bool {
			began := !g.from.After(q.gate.ready) && (g.to.IsZero() || !g.to.Before(q.gate.started))
			return began && (g.to.IsZero() || !q.asked.After(g.to.Add(verifierLag)))
		})
	}
	return f
}

// retiredFor says whether every status that the gate may have gone by said that
// the key had ended when it was asked.
func (k *key) retiredFor(q *question) bool {
	if k.rolledBack || k.lostIn > 0 || len(k.ends) == 0 {
		return false
	}
	heard, ok := q.heard[q.epoch]
	from := -1
	for i, e := range k.ends {
		if e.epoch == q.epoch && ok && !heard.Before(e.by) {
			from = i
		}
	}
	if from < 0 {
		return false
	}
	now := q.asked.Add(q.gate.offset)
	for _, e := range k.ends[:from] {
		if e.epoch < q.epoch && now.Before(e.until) {
			return false // gates that ran through the restore may go by it
		}
	}
	for _, e := range k.ends[from:] {
		if e.after.After(q.answered) {
			break
		}
		if e.until.IsZero() || now.Before(e.until) {
			return false
		}
	}
	return true
}

// life tells what became of a key, for people.
func (h *history) life(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keys[id]
	if k == nil {
		return "no status has shown this key"
	}
	var b strings.Builder
	for _, epoch := range slices.Sorted(maps.Keys(k.shown)) {
		fmt.Fprintf(&b, "shown since %s (epoch %d), ", clock(k.shown[epoch].by), epoch)
	}
	for _, e := range k.ends {
		if e.until.IsZero() {
			fmt.Fprintf(&b, "without an end since %s, ", clock(e.by))
		} else {
			fmt.Fprintf(&b, "ends %s (since %s), ", clock(e.until), clock(e.by))
		}
	}
	for epoch, asked := range k.revoked {
		fmt.Fprintf(&b, "revoked %s (epoch %d), ", clock(asked), epoch)
	}
	for what, is := range map[string]bool{"urgent": k.urgent, "rolled back": k.rolledBack, "ended before that": k.endedBefore > 0, "lost": k.lostIn > 0} {
		if is {
			b.WriteString(what + ", ")
		}
	}
	fmt.Fprintf(&b, "active now: %t, sequence %d", h.signing[k.of].active == k.id, h.signing[k.of].sequence)
	return b.String()
}

func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }

// olderRing is the newest keyring whose active key is another than now.
func (h *history) olderRing(of string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.signing[of]
	for i := len(s.rings) - 1; i >= 0; i-- {
		if last := s.rings[len(s.rings)-1]; s.rings[i].active != last.active {
			return bytes.Clone(s.rings[i].raw)
		}
	}
	return nil
}

// olderSigner is what a signer Secret held before what it holds now.
func (h *history) olderSigner(of string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.signing[of]
	for i := len(s.mounts) - 1; i >= 0; i-- {
		if m := s.mounts[i]; m.file != nil && m.file.Kid != s.active {
			return bytes.Clone(m.raw)
		}
	}
	return nil
}

func (h *history) activeKey(of string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.signing[of].active
}

func (h *history) actives() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]string{}
	for name, s := range h.signing {
		out[name] = s.active
	}
	return out
}

// keyIDs are all keys that ever were.
func (h *history) keyIDs() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]bool{}
	for id := range h.keys {
		out[id] = true
	}
	return out
}

func (h *history) currentEpoch() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch
}

// theft is a key that a thief has, with what goes into its tokens.
type theft struct {
	id, of, iss string
	alg         keyset.Algorithm
	private     any
}

// thefts are keys that have signed and are of use to a thief no more: the
// newest ones that have ended, or that were revoked.
func (h *history) thefts(of string, now time.Time) (ended, revoked []theft) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.keys {
		if k.of != of || k.private == nil {
			continue
		}
		t := theft{id: k.id, of: k.of, iss: k.iss, alg: k.alg, private: k.private}
		n := len(k.ends)
		switch {
		case len(k.revoked) > 0:
			revoked = append(revoked, t)
		case n > 0 && !k.ends[n-1].until.IsZero() && !now.Before(k.ends[n-1].until) && now.Sub(k.ends[n-1].until) < time.Minute:
			ended = append(ended, t)
		}
	}
	byID := func(a, b theft) int { return strings.Compare(a.id, b.id) }
	slices.SortFunc(ended, byID)
	slices.SortFunc(revoked, byID)
	return ended, revoked
}
