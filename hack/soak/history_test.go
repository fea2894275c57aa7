package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers"
)

// told is a history that is told by hand, in seconds after noon.
type told struct {
	*history
	t    *testing.T
	keys map[string]any
}

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

func newTold(t *testing.T) *told {
	h := newHistory([]spec{{"eddsa", keyset.EdDSA, false}}, func(format string, args ...any) { t.Errorf(format, args...) })
	told := &told{history: h, t: t, keys: map[string]any{}}
	h.restart(span{at(0), at(0)}, nil)
	return told
}

// within is when something came about, give or take.
func within(seconds float64) span { return span{at(seconds - 0.1), at(seconds)} }

// status has keys in order; an end of 0 is none.
func (h *told) status(seconds float64, first bool, ends map[string]float64, revoked ...string) {
	sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "eddsa"}}
	for id, end := range ends {
		k := v1alpha1.KeyStatus{KeyID: id, Algorithm: "EdDSA", State: v1alpha1.KeyActive}
		if end > 0 {
			until := metav1.NewTime(at(end))
			k.State, k.VerifyUntil = v1alpha1.KeyVerifying, &until
		}
		sk.Status.Keys = append(sk.Status.Keys, k)
	}
	for _, id := range revoked {
		sk.Spec.RevokedKeys = append(sk.Spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: id})
	}
	h.signingKey(within(seconds), sk, first)
	h.upTo(at(seconds))
}

// mounts writes the signer Secret; "" deletes it.
func (h *told) mounts(seconds float64, id string) {
	h.t.Helper()
	if id == "" {
		h.signer(within(seconds), "eddsa", nil)
		return
	}
	private, ok := h.keys[id]
	if !ok {
		forgers, err := newForgers()
		if err != nil {
			h.t.Fatal(err)
		}
		private = forgers[keyset.EdDSA]
		h.keys[id] = private
	}
	raw, err := keyset.EncodePrivate(private, id, keyset.EdDSA)
	if err != nil {
		h.t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(raw, &file); err != nil {
		h.t.Fatal(err)
	}
	file["maxTokenTTL"] = 6
	if raw, err = json.Marshal(file); err != nil {
		h.t.Fatal(err)
	}
	h.signer(within(seconds), "eddsa", &corev1.Secret{Data: map[string][]byte{controllers.SigningJWKEntry: raw}})
}

func TestMounted(t *testing.T) {
	h := newTold(t)
	h.status(1, false, map[string]float64{"a": 0})
	h.mounts(2, "a")
	h.status(3, false, map[string]float64{"a": 0, "b": 0})
	h.mounts(10, "b")
	h.upTo(at(20))
	h.mounts(20, "")
	h.upTo(at(21))
	for name, tc := range map[string]struct {
		now, lag float64
		want     string
	}{
		"before the first one there is none":                    {1.9, 0, ""},
		"the first one":                                         {2, 0, "a"},
		"a late application still has the old one":              {11, 1.5, "a"},
		"a prompt one has the new one":                          {11, 0.5, "b"},
		"nobody has the old one once signerLag may have passed": {11.95, 1.99, "b"},
		"a late one outlives a deletion":                        {21, 1.5, "b"},
		"a prompt one has nothing after it":                     {21, 0.5, ""},
		"where history is not complete nobody signs":            {23.1, 1.5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := h.mounted("eddsa", at(tc.now), time.Duration(tc.lag*float64(time.Second)))
			got := ""
			if m != nil {
				got = m.file.Kid
			}
			if got != tc.want {
				t.Errorf("mounted %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFacts(t *testing.T) {
	h := newTold(t)
	h.status(1, false, map[string]float64{"a": 0})
	h.mounts(2, "a")
	h.status(3, false, map[string]float64{"a": 0, "b": 0})
	h.mounts(10, "b")
	h.status(11, false, map[string]float64{"a": 30, "b": 0, "c": 0})
	h.upTo(at(40))
	h.mounts(40, "c")
	h.status(41, false, map[string]float64{"a": 30, "b": 60, "c": 0, "d": 0})
	h.history.keys["c"].revoked[1] = at(50)
	h.status(51, false, map[string]float64{"a": 30, "b": 60, "c": 0, "d": 0}, "c")
	// Back to second 12.
	h.restart(span{at(70), at(71)}, nil)
	h.status(71, true, map[string]float64{"a": 30, "b": 0, "c": 0})

	ask := func(id string, seconds float64, heard map[int]float64, change func(*question)) func() facts {
		return func() facts {
			q := &question{
				token: &token{of: "eddsa", kid: id, exp: at(seconds + 3)}, gate: &life{epoch: 1, offset: time.Second / 2},
				epoch: 1, heard: map[int]time.Time{}, asked: at(seconds), answered: at(seconds + 0.01),
			}
			for epoch, to := range heard {
				q.heard[epoch] = at(to)
			}
			if change != nil {
				change(q)
			}
			return h.facts(q)
		}
	}
	for name, tc := range map[string]struct {
		facts func() facts
		want  string
	}{
		"a gate that has heard of a key's publication knows it": {ask("b", 10, map[int]float64{1: 3}, nil), "known"},
		"a gate that has not does not, and the lag passes":      {ask("b", 10, map[int]float64{1: 2.9}, nil), ""},
		"a key that was published just now":                     {ask("b", 5, nil, nil), "withinLag"},
		"the first key waits for nobody":                        {ask("a", 5, nil, nil), "urgent"},
		"an end counts by the gate's clock":                     {ask("a", 29.5, map[int]float64{1: 12}, nil), "known urgent retired"},
		"an end does not count before":                          {ask("a", 29.4, map[int]float64{1: 12}, nil), "known urgent"},
		"an end counts where it was heard of":                   {ask("a", 35, map[int]float64{1: 10}, nil), "known urgent"},
		"a revocation that is under way":                        {ask("c", 50.5, map[int]float64{1: 50}, nil), "known revoked"},
		"a revocation that was heard of":                        {ask("c", 52, map[int]float64{1: 51}, nil), "known revoked revokedKnown"},
		"one that was heard of before a restore counts after it": {
			ask("c", 72, map[int]float64{1: 51, 2: 71}, func(q *question) { q.epoch = 2 }), "known revoked revokedKnown",
		},
		"one that was not is gone with the restore": {
			ask("c", 72, map[int]float64{2: 71}, func(q *question) { q.epoch = 2 }), "known revoked",
		},
		"a gate that began after the restore does not know, and nobody looks": {
			ask("c", 72, map[int]float64{2: 71}, func(q *question) { q.epoch, q.gate.epoch = 2, 2 }), "known",
		},
		"the end of a key that a restore took back does not count": {
			ask("b", 72, map[int]float64{1: 41, 2: 71}, func(q *question) { q.epoch = 2 }), "known",
		},
		"a key that a restore took away, at a gate that ran through it": {
			ask("d", 72, map[int]float64{1: 60, 2: 71}, func(q *question) { q.epoch = 2 }), "known",
		},
		"the same key at a gate that began after it": {
			ask("d", 72, map[int]float64{2: 71}, func(q *question) { q.epoch, q.gate.epoch = 2, 2 }), "lost",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, got := tc.facts(), ""
			for _, is := range []struct {
				name string
				is   bool
			}{
				{"known", f.known}, {"withinLag", f.withinLag}, {"urgent", f.urgent}, {"retired", f.retired},
				{"revoked", f.revoked}, {"revokedKnown", f.revokedKnown}, {"lost", f.lost},
			} {
				if is.is {
					got += " " + is.name
				}
			}
			if want := tc.want; got != want && got != " "+want {
				t.Errorf("the facts are%s, want %s", got, want)
			}
		})
	}
	for id, want := range map[string]bool{"a": false, "b": true, "c": false} {
		if got := h.signsAgain(id); got != want {
			t.Errorf("key %s had ended before the restore: %t, want %t", id, got, want)
		}
	}
	if got := fmt.Sprint(h.rotations()); got != "map[eddsa:2]" {
		t.Errorf("rotations: %s, want 2", got)
	}
}
