package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// begin is when the clock starts: any time will do, this one is whole.
var begin = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

const (
	// pass is from a write until the next plan has seen it.
	pass = time.Second
	// maxPasses bounds a simulation whose plan never comes to rest.
	maxPasses = 100_000
	// uid is what the jitter of the interval comes from.
	uid = "00000000-0000-4000-8000-000000000000"
)

// history runs the plan for a span, in a world where each write succeeds and
// is seen one pass later, and gives every key with the times that it got,
// oldest first.
func history(spec v1alpha1.SigningKeySpec, span time.Duration) ([]lifecycle.Key, error) {
	var (
		want   = lifecycle.Wanted{Spec: spec, UID: uid}
		ring   lifecycle.Keyring
		shown  = map[string]bool{}
		signer string
		lives  []lifecycle.Key
		now    = begin
	)
	for range maxPasses {
		if !now.Before(begin.Add(span)) {
			return lives, nil
		}
		plan := lifecycle.Plan(want, ring, lifecycle.Observed{
			Shown:          func(id string) bool { return shown[id] },
			SignerKeyID:    signer,
			StatusSequence: ring.Sequence,
		}, now)
		if plan.Hold != lifecycle.HoldNone || plan.ScheduleErr != nil {
			return nil, fmt.Errorf("the plan holds: %s %w", plan.Hold, plan.ScheduleErr)
		}
		ring = plan.Keyring
		for i := range ring.Keys {
			k := &ring.Keys[i]
			if k.ID == "" {
				k.ID, k.Private = fmt.Sprintf("key %d", len(lives)+1), json.RawMessage(`{}`)
				lives = append(lives, *k)
			}
			shown[k.ID] = true
			lives[slices.IndexFunc(lives, func(l lifecycle.Key) bool { return l.ID == k.ID })] = *k
		}
		if active := ring.Active(); active != nil {
			signer = active.ID
		}
		now = now.Add(pass)
		if !plan.Changed {
			if plan.Next == nil {
				return nil, errors.New("the plan waits for nothing: is its policy Manual?")
			}
			if plan.Next.At.After(now) {
				now = plan.Next.At
			}
		}
	}
	return nil, fmt.Errorf("the plan does not come to rest in %d passes", maxPasses)
}
