package webhook_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook"
	"github.com/keywright/keywright/webhook/authz"
)

// The propagation of these tests: signers are told within 5 minutes, tokens
// live for an hour, and 2 minutes of leeway and twice a minute of skew are
// allowed.
const lastTokenLives = (5 + 60 + 2 + 2*1) * time.Minute

func restorable(sequence int64, keys ...v1alpha1.KeyStatus) *v1alpha1.SigningKey {
	sk := signingKey("u", sequence, keys...)
	sk.Spec.Propagation.SignerLag.Duration = 5 * time.Minute
	sk.Spec.Propagation.ClockSkew.Duration = time.Minute
	return sk
}

func TestLoadKeysAfterARestore(t *testing.T) {
	old, gone, standby, fresh := status(t, "old", v1alpha1.KeyActive), status(t, "gone", v1alpha1.KeyActive), status(t, "standby", v1alpha1.KeyPublished), status(t, "fresh", v1alpha1.KeyActive)
	oldUntil := start.Add(10 * time.Minute)
	retired := func(s v1alpha1.KeyStatus) v1alpha1.KeyStatus {
		return with(s, func(s *v1alpha1.KeyStatus) { s.State = v1alpha1.KeyRetired })
	}
	// What the gate knows at sequence 5, and what a snapshot has at 3.
	known := restorable(5, standby, gone, verifyingUntil(old, oldUntil))
	snapshot := func(sequence int64) *v1alpha1.SigningKey { return restorable(sequence, old) }
	goesOn := func(sequence int64, more ...v1alpha1.KeyStatus) *v1alpha1.SigningKey {
		return restorable(sequence, append(more, fresh, verifyingUntil(old, start.Add(2*time.Hour)))...)
	}

	type step struct {
		at time.Duration
		sk *v1alpha1.SigningKey
		// want verify, each with its end from start, if any; hidden are
		// those of them that are not published.
		want   map[string]time.Duration
		hidden string
	}
	const forever = time.Duration(-1)
	for name, steps := range map[string][]step{
		"what the snapshot does not know stays, and has its end once the sequence rises": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, snapshot(3), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Hour, snapshot(4), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Hour, goesOn(6), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": time.Minute + lastTokenLives, "standby": time.Minute + lastTokenLives,
			}, "gone standby"},
			{time.Minute + lastTokenLives - 1, goesOn(6), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": time.Minute + lastTokenLives, "standby": time.Minute + lastTokenLives,
			}, "gone standby"},
			{time.Minute + lastTokenLives, goesOn(6), map[string]time.Duration{"fresh": forever, "old": 2 * time.Hour}, ""},
		},
		"it has its end even where the sequence rises only later": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, snapshot(3), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{24 * time.Hour, goesOn(6), map[string]time.Duration{"fresh": forever, "old": 2 * time.Hour}, ""},
		},
		"an end is rounded up to a second": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute + time.Millisecond, snapshot(3), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{2 * time.Minute, goesOn(6), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": time.Minute + time.Second + lastTokenLives, "standby": time.Minute + time.Second + lastTokenLives,
			}, "gone standby"},
		},
		"it keeps an end of its own": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, restorable(3, gone), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{2 * time.Minute, restorable(6, gone), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": time.Minute + lastTokenLives}, "old standby"},
			{10 * time.Minute, restorable(6, gone), map[string]time.Duration{"gone": forever, "standby": time.Minute + lastTokenLives}, "standby"},
		},
		"a gate that hears of it only when the sequence has risen": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, goesOn(6), map[string]time.Duration{"fresh": forever, "old": 2 * time.Hour, "gone": time.Minute + lastTokenLives}, "gone"},
		},
		"a standby that is replaced, without any restore": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, restorable(6, with(fresh, func(s *v1alpha1.KeyStatus) { s.State = v1alpha1.KeyPublished }), gone, verifyingUntil(old, oldUntil)), map[string]time.Duration{"fresh": forever, "old": 10 * time.Minute, "gone": forever}, ""},
		},
		"what retires, or was revoked, goes": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, snapshot(3), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, goesOn(6), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": time.Minute + lastTokenLives, "standby": time.Minute + lastTokenLives,
			}, "gone standby"},
			{2 * time.Minute, goesOn(7, retired(gone), revoked("standby")), map[string]time.Duration{"fresh": forever, "old": 2 * time.Hour}, ""},
			{3 * time.Minute, goesOn(8, gone, standby), map[string]time.Duration{"fresh": forever, "old": 2 * time.Hour}, ""},
		},
		"what status knows again is a key like any other": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, snapshot(3), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{2 * time.Minute, goesOn(6), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": time.Minute + lastTokenLives, "standby": time.Minute + lastTokenLives,
			}, "gone standby"},
			{3 * time.Minute, goesOn(7, gone), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": forever, "standby": time.Minute + lastTokenLives,
			}, "standby"},
		},
		"so is what a second snapshot knows": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, snapshot(3), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{2 * time.Minute, goesOn(6), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": time.Minute + lastTokenLives, "standby": time.Minute + lastTokenLives,
			}, "gone standby"},
			{3 * time.Minute, restorable(5, gone), map[string]time.Duration{
				"fresh": forever, "old": 2 * time.Hour, "gone": forever, "standby": time.Minute + lastTokenLives,
			}, "standby"},
			{4 * time.Minute, restorable(7, gone), map[string]time.Duration{
				"fresh": 3*time.Minute + lastTokenLives, "old": 2 * time.Hour, "gone": forever, "standby": time.Minute + lastTokenLives,
			}, "fresh old standby"},
		},
		"an emptied status": {
			{0, known, map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{time.Minute, restorable(0), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
			{2 * time.Minute, restorable(6, standby, gone, verifyingUntil(old, oldUntil)), map[string]time.Duration{"old": 10 * time.Minute, "gone": forever, "standby": forever}, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var keys *authz.Keys
			for i, s := range steps {
				keys = webhook.LoadKeys(keys, s.sk, nil, start.Add(s.at))
				got := map[string]time.Duration{}
				hidden := ""
				for _, k := range keys.Set.Keys() {
					got[k.ID] = forever
					if !k.VerifyUntil.IsZero() {
						got[k.ID] = k.VerifyUntil.Sub(start)
					}
					if keys.Details[k.ID].Hidden {
						hidden += " " + k.ID
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(s.want) || hidden != prefixed(s.hidden) {
					t.Errorf("step %d: got %v, hidden%s\nwant %v, hidden%s", i, got, hidden, s.want, prefixed(s.hidden))
				}
			}
		})
	}
}

func prefixed(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

// history is a controller with its keys, of which snapshots are restored.
type history struct {
	*rand.Rand
	t         *testing.T
	now       time.Time
	made      int
	sequence  int64
	keys      []v1alpha1.KeyStatus // newest first
	snapshots []func()
}

func (h *history) key(state v1alpha1.KeyState) v1alpha1.KeyStatus {
	h.made++
	s := with(status(h.t, fmt.Sprintf("k%03d", h.made), state), func(s *v1alpha1.KeyStatus) { s.CreatedAt = metav1.NewTime(h.now) })
	return s
}

// step lets something happen. largest is the largest sequence that a gate saw.
func (h *history) step(largest int64) {
	h.now = h.now.Add(time.Duration(h.Int64N(int64(40 * time.Minute))))
	switch h.IntN(8) {
	case 0, 1, 2: // a rotation
		h.sequence = max(h.sequence, largest*int64(h.IntN(2))) + 1 // sometimes it knows what gates have seen
		next := make([]v1alpha1.KeyStatus, 0, len(h.keys)+1)
		next = append(next, h.key(v1alpha1.KeyPublished))
		for _, k := range h.keys {
			switch k.State {
			case v1alpha1.KeyPublished:
				k.State = v1alpha1.KeyActive
			case v1alpha1.KeyActive:
				k = verifyingUntil(k, h.now.Add(lastTokenLives))
			}
			next = append(next, k)
		}
		h.keys = next
	case 3: // what is over retires, and is forgotten in time
		var next []v1alpha1.KeyStatus
		for _, k := range h.keys {
			if k.State == v1alpha1.KeyRetired && h.IntN(2) == 0 {
				continue
			}
			if k.State == v1alpha1.KeyVerifying && !h.now.Before(k.VerifyUntil.Time) {
				k.State = v1alpha1.KeyRetired
				h.sequence++
			}
			next = append(next, k)
		}
		h.keys = next
	case 4: // a key is revoked
		if len(h.keys) > 2 {
			i := h.IntN(len(h.keys))
			h.sequence++
			h.keys = append([]v1alpha1.KeyStatus{}, h.keys...)
			h.keys[i] = revoked(h.keys[i].KeyID)
		}
	case 5: // a snapshot is taken
		keys, sequence := h.keys, h.sequence
		h.snapshots = append(h.snapshots, func() { h.keys, h.sequence = keys, sequence })
	case 6: // and one is restored
		if len(h.snapshots) > 0 {
			h.snapshots[h.IntN(len(h.snapshots))]()
		}
	}
}

// TestRestoresCutOffNoKey walks random histories with restores: no gate
// refuses a key before its end, brings back one that it has seen retired or
// revoked, or publishes one that status has gone on without.
func TestRestoresCutOffNoKey(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := &history{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, now: start} //nolint:gosec // histories are to be had again by their seed
			h.keys = []v1alpha1.KeyStatus{h.key(v1alpha1.KeyPublished), h.key(v1alpha1.KeyActive)}
			var gate *authz.Keys
			out := map[string]bool{}          // seen retired or revoked
			missing := map[string]time.Time{} // since when, of what the gate knows
			hidden := map[string]bool{}
			var seen int64
			for range 40 {
				h.step(seen)
				if h.IntN(4) == 0 {
					continue // this one the gate does not hear of
				}
				sk := restorable(h.sequence, h.keys...)
				before := gate
				gate = webhook.LoadKeys(before, sk, nil, h.now)
				risen := h.sequence > seen
				seen = max(seen, h.sequence)

				alive := map[string]bool{}
				for _, k := range h.keys {
					switch k.State {
					case v1alpha1.KeyRetired, v1alpha1.KeyRevoked:
						out[k.KeyID] = true
					default:
						alive[k.KeyID] = true
						delete(missing, k.KeyID)
						delete(hidden, k.KeyID)
					}
				}
				var known []*keyset.Key
				if before != nil {
					known = before.Set.Keys()
				}
				for _, k := range known {
					if alive[k.ID] {
						continue
					}
					replaced := risen && missing[k.ID].IsZero() && !before.Details[k.ID].Signed
					if missing[k.ID].IsZero() {
						missing[k.ID] = h.now
					}
					if risen {
						hidden[k.ID] = true
					}
					end := k.VerifyUntil
					if end.IsZero() && hidden[k.ID] {
						end = missing[k.ID].Add(lastTokenLives)
					}
					got, there := gate.Set.Lookup(k.ID)
					switch over := !end.IsZero() && !h.now.Before(end.Add(time.Second)); {
					case out[k.ID], replaced:
					case !there && !over && (end.IsZero() || h.now.Before(end)):
						t.Fatalf("%s is cut off at %s, its end is %s", k.ID, h.now, end)
					case there && over && got.ValidAt(h.now):
						t.Fatalf("%s verifies at %s, its end was %s", k.ID, h.now, end)
					case there && gate.Details[k.ID].Hidden != hidden[k.ID]:
						t.Fatalf("%s is hidden: %t", k.ID, gate.Details[k.ID].Hidden)
					}
				}
				for id := range alive {
					if _, there := gate.Set.Lookup(id); there == out[id] {
						t.Fatalf("%s, which status has, verifies: %t; seen retired or revoked: %t", id, there, out[id])
					}
				}
				for id := range out {
					if _, there := gate.Set.Lookup(id); there {
						t.Fatalf("%s verifies, which was seen retired or revoked", id)
					}
				}
			}
		})
	}
}

// The length of life that a key's tokens may have falls for no reason but a
// restore: then tokens are about that were signed with the larger one.
func TestARestoreDoesNotShortenTokens(t *testing.T) {
	a := status(t, "a", v1alpha1.KeyActive)
	life := func(d time.Duration, state v1alpha1.KeyState) v1alpha1.KeyStatus {
		return with(a, func(s *v1alpha1.KeyStatus) { s.State, s.MaxTokenTTL.Duration = state, d })
	}
	for name, tc := range map[string]struct {
		before v1alpha1.KeyState
		want   time.Duration
	}{
		"of a key that signs":     {v1alpha1.KeyActive, 2 * time.Hour},
		"of a key that stands by": {v1alpha1.KeyPublished, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			raised := webhook.LoadKeys(nil, signingKey("u", 5, life(2*time.Hour, tc.before)), nil, start)
			restored := webhook.LoadKeys(raised, signingKey("u", 3, life(time.Hour, tc.before)), nil, start)
			after := webhook.LoadKeys(restored, signingKey("u", 6, life(time.Hour, tc.before)), nil, start)
			k, ok := after.Set.Lookup("a")
			if !ok || k.MaxTokenTTL != tc.want {
				t.Errorf("after the restore tokens may live for %s, want %s", k.MaxTokenTTL, tc.want)
			}
		})
	}
}
