package main

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	noon := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }
	// A token of a key that the gate knows, asked for well before its end.
	valid := facts{asked: noon, answered: at(0.1), end: at(5), known: true}
	with := func(change func(*facts)) facts {
		f := valid
		change(&f)
		return f
	}
	for name, tc := range map[string]struct {
		facts facts
		want  verdict
		why   string
	}{
		"a valid token passes": {valid, mustPass, whyValid},
		"it passes until the last moment of the leeway": {
			with(func(f *facts) { f.end = at(0.1001) }), mustPass, whyValid,
		},
		"an answer that falls on the last moment may be either": {
			with(func(f *facts) { f.end = f.answered }), either, whyMoment,
		},
		"a question at the end is answered with no": {
			with(func(f *facts) { f.end = f.asked }), mustRefuse, whyExpired,
		},
		"a forged token is refused, whatever it says": {
			with(func(f *facts) { f.forged, f.looked, f.known = true, true, false }), mustRefuse, whyForged,
		},
		"a token that lives too long is refused": {
			with(func(f *facts) { f.tooLong = true }), mustRefuse, whyTooLong,
		},
		"a revoked key is refused once the gate has heard of it": {
			with(func(f *facts) { f.revoked, f.revokedKnown = true, true }), mustRefuse, whyRevoked,
		},
		"a revocation that the gate may not have heard of leaves it open": {
			with(func(f *facts) { f.revoked = true }), either, whyRevoking,
		},
		"what a gate has heard counts, also when a restore lets the key sign again": {
			with(func(f *facts) { f.revokedKnown, f.signsAgain = true, true }), mustRefuse, whyRevoked,
		},
		"a thief's token of a retired key is refused": {
			with(func(f *facts) { f.stolen, f.retired = true, true }), mustRefuse, whyRetired,
		},
		"a correct signer's token of a retired key would be refused: no such token is valid": {
			with(func(f *facts) { f.retired = true }), mustRefuse, whyRetired,
		},
		"a thief's token of a key that counts may be either": {
			with(func(f *facts) { f.stolen = true }), either, whyStolen,
		},
		"a key that the gate cannot know yet must not have signed": {
			with(func(f *facts) { f.known, f.withinLag = false, true }), mustPass, whyTooSoon,
		},
		"a key that waits for nobody may be unknown": {
			with(func(f *facts) { f.known, f.urgent, f.withinLag, f.looked = false, true, true, true }), either, whyUrgent,
		},
		"a key that waits for nobody passes once it is known": {
			with(func(f *facts) { f.urgent = true }), mustPass, whyValid,
		},
		"a gate that was away for longer than the lag may not know a key for which nobody looked": {
			with(func(f *facts) { f.known = false }), either, whyLate,
		},
		"it must know one for which the controller looked": {
			with(func(f *facts) { f.known, f.looked = false, true }), mustPass, whyValid,
		},
		"a key that had ended before a restore may be either": {
			with(func(f *facts) { f.signsAgain = true }), either, whySignsAgain,
		},
		"a lost key may be either at a gate that began after the restore": {
			with(func(f *facts) { f.lost, f.known = true, false }), either, whyLost,
		},
		"a gate that began without the Secret may lack an HS* key": {
			with(func(f *facts) { f.noSecret = true }), either, whySecret,
		},
		"without the Secret a forged token is refused all the same": {
			with(func(f *facts) { f.noSecret, f.forged = true, true }), mustRefuse, whyForged,
		},
		"an expired token of a lost key is refused": {
			with(func(f *facts) { f.lost, f.end = true, at(-1) }), mustRefuse, whyExpired,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got, why := judge(tc.facts); got != tc.want || why != tc.why {
				t.Errorf("judged %s (%s), want %s (%s)", got, why, tc.want, tc.why)
			}
		})
	}
}
