package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally counts questions and answers.
type tally struct {
	mu       sync.Mutex
	requests int
	judged   map[string]*[3]int // by kind of token and by verdict
	open     map[string]int     // either, by reason
	musts    map[string]int     // by reason
	besides  map[string]int
	refused  int
	accepted int
	// calm and troubled are how long gates went on taking a revoked key, with
	// nothing done to them or the way to them, and otherwise.
	calm, troubled []time.Duration
	// behind is the longest that a gate was seen to be.
	behind   time.Duration
	behindAt string
}

func newTally() *tally {
	return &tally{judged: map[string]*[3]int{}, open: map[string]int{}, musts: map[string]int{}, besides: map[string]int{}}
}

var kindNames = [...]string{
	soundToken: "by applications", longToken: "that live too long", forgedToken: "forged", stolenToken: "of ended and revoked keys, by thieves",
}

func (t *tally) add(q *question, v verdict, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	name := kindNames[q.token.kind]
	if t.judged[name] == nil {
		t.judged[name] = &[3]int{}
	}
	t.judged[name][v]++
	if v == either {
		t.open[why]++
	} else {
		t.musts[v.String()+": "+why]++
	}
}

// violates counts an answer that must not be, and gives how many of its kind there were.
func (t *tally) violates(v verdict) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v == mustPass {
		t.refused++
		return t.refused
	}
	t.accepted++
	return t.accepted
}

// aside counts what did not become a question.
func (t *tally) aside(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.besides[what]++
}

func (t *tally) refusedAfter(d time.Duration, disturbed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if disturbed {
		t.troubled = append(t.troubled, d)
	} else {
		t.calm = append(t.calm, d)
	}
}

func (t *tally) wasBehind(d time.Duration, gate string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d > t.behind {
		t.behind, t.behindAt = d, gate+" at "+clock(time.Now())
	}
}

// progress is one short line.
func (w *world) progress() string {
	w.mu.Lock()
	injected, faults := 0, w.faults
	for _, n := range w.injected {
		injected += n
	}
	w.mu.Unlock()
	rotations := 0
	for _, n := range w.history.rotations() {
		rotations += n
	}
	t := w.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("injected %d  rotations %d  asked %d  refused %d  accepted wrongly %d  other faults %d", injected, rotations, t.requests, t.refused, t.accepted, faults)
}

// report is what the soak came to.
func (w *world) report() string {
	var b strings.Builder
	list := func(title string, of map[string]int) {
		fmt.Fprintf(&b, "\n%s\n", title)
		for _, name := range slices.Sorted(maps.Keys(of)) {
			fmt.Fprintf(&b, "  %7d  %s\n", of[name], name)
		}
	}
	w.mu.Lock()
	fmt.Fprintf(&b, "\nseed %d, %s of faults, %d SigningKeys, %d gates, %d controllers; controllers ask gates: %t\n",
		w.seed, w.options.faults, len(w.specs), len(w.gates), len(w.controllers), w.evidence)
	list("injected", w.injected)
	faults := w.faults
	w.mu.Unlock()
	if w.history == nil {
		return b.String()
	}
	b.WriteString(w.history.summary())

	t := w.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(&b, "\nrequests: %d, with tokens%38s%16s%10s\n", t.requests, mustPass, mustRefuse, either)
	for _, name := range kindNames {
		if n := t.judged[name]; n != nil {
			fmt.Fprintf(&b, "  %-42s%20d%16d%10d\n", name, n[mustPass], n[mustRefuse], n[either])
		}
	}
	list("certain", t.musts)
	list("either, because", t.open)
	list("besides", t.besides)
	fmt.Fprintf(&b, "\nrevoked to refused, at a gate left alone:  %s\nrevoked to refused, at one cut off or so:  %s\n", spread(t.calm), spread(t.troubled))
	fmt.Fprintf(&b, "longest that a running gate was behind the API server: %s (%s)\n", t.behind.Round(10*time.Millisecond), t.behindAt)
	fmt.Fprintf(&b, "\nrefused: %d\naccepted wrongly: %d\nother faults: %d\n", t.refused, t.accepted, faults)
	return b.String()
}

// good says whether nothing happened that must not.
func (w *world) good() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.mu.Lock()
	defer w.tally.mu.Unlock()
	return w.faults == 0 && w.tally.refused == 0 && w.tally.accepted == 0
}

func spread(of []time.Duration) string {
	if len(of) == 0 {
		return "not measured"
	}
	slices.Sort(of)
	return fmt.Sprintf("%d times, median %s, longest %s", len(of), of[len(of)/2].Round(time.Millisecond), of[len(of)-1].Round(time.Millisecond))
}

// summary is what became of the keys.
func (h *history) summary() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	rotations, versions, highest := 0, 0, int64(0)
	for _, s := range h.signing {
		rotations += max(0, s.activations-1)
		versions += s.versions
		highest = max(highest, s.highest)
	}
	lost := 0
	for _, k := range h.keys {
		if k.lostIn > 0 && k.signed && !k.ended() {
			lost++
		}
	}
	fmt.Fprintf(&b, "\nrotations: %d (", rotations)
	for i, name := range slices.Sorted(maps.Keys(h.signing)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", name, max(0, h.signing[name].activations-1))
	}
	fmt.Fprintf(&b, "), leaders: %d, changes of leader: %d, without one or it without the API server: %s\nkeyring versions: %d, highest sequence: %d, restores: %d, active keys that a restore lost: %d\n",
		len(h.leaders), h.changes, h.unled.Round(time.Second), versions, highest, max(0, h.epoch-1), lost)
	return b.String()
}

// rotations are how often each SigningKey has rotated.
func (h *history) rotations() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]int{}
	for name, s := range h.signing {
		out[name] = max(0, s.activations-1)
	}
	return out
}

func (h *history) rotatedSince(before map[string]int) bool {
	for name, n := range h.rotations() {
		if n <= before[name] {
			return false
		}
	}
	return true
}

// checkSequences demands that sequences have risen above what gates saw before
// the last restore, where the controller could ask one.
func (h *history) checkSequences(couldAsk bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, s := range h.signing {
		if couldAsk && s.spec.looked && s.sequence <= s.atLoss {
			h.fault("%s: the sequence is %d, and gates saw %d before the restore", name, s.sequence, s.atLoss)
		}
	}
}

// signsAgain says whether a key had ended before a restore.
func (h *history) signsAgain(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keys[id]
	return k != nil && k.endedBefore > 0
}

// newest is the token that was signed last.
func (c *crowd) newest(s spec) *token {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held[s.name]
	if len(held) == 0 {
		return nil
	}
	return held[len(held)-1]
}
