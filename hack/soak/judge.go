package main

import "time"

// verdict is what an answer has to be.
type verdict int

const (
	either verdict = iota
	mustPass
	mustRefuse
)

func (v verdict) String() string {
	return [...]string{"either", "must pass", "must be refused"}[v]
}

// Why an answer may be either. There are no other reasons.
const (
	// The token's or the key's last moment lies between question and answer.
	whyMoment = "the answer changes just then"
	// A thief has the key while it still counts.
	whyStolen = "a thief's token of a key that still counts"
	// The promise begins when the gate's watch has brought the revocation.
	whyRevoking = "revoked, and not seen to be known there"
	// Signers had no key any more: the new one waits for nobody.
	whyUrgent = "a key that signs at once, not seen to be known there"
	// Injected faults kept the watch away for longer than verifierLag, and
	// this SigningKey has nobody look at gates.
	whyLate = "the gate was cut off for longer than verifierLag, and nobody looked"
	// Gates know the end of a key that a restore gave to signers again.
	whySignsAgain = "restored: its key had ended before"
	// A key that only gates know, at a gate that began after the restore.
	whyLost = "restored: its key is lost, and this gate began after"
	// A gate that began while someone had taken away the Secret with HS* keys.
	whySecret = "the gate began while its Secret was taken away"
)

// Why an answer must be what it must be.
const (
	whyValid   = "a correct signer's token that has not ended"
	whyTooSoon = "its key may not have signed before verifierLag had passed"
	whyForged  = "forged"
	whyTooLong = "lives longer than maxTokenTTL and leeway"
	whyExpired = "expired, leeway and all"
	whyRevoked = "its key is revoked, and the gate has heard of it"
	whyRetired = "its key has ended, and the gate has heard of it"
)

// facts are all that decides about one answer. Times are by the gate's clock.
type facts struct {
	asked, answered time.Time
	// end is the token's exp with the leeway.
	end time.Time

	// forged: by another key than it says. tooLong: exp - iat is beyond what
	// any gate may take. stolen: signed by nobody who should.
	forged, tooLong, stolen bool

	// revoked: someone began to revoke its key before the answer.
	// revokedKnown: and the gate has shown since that it is not behind that.
	revoked, revokedKnown bool
	// retired: in every status that the gate may have gone by, the key's end
	// was there and had come when it was asked.
	retired bool

	// known: the gate has shown that it is not behind the key's publication.
	known bool
	// withinLag: verifierLag had not passed since the key was published.
	withinLag bool
	// urgent: the key took over from one that was revoked or lost.
	urgent bool
	// looked: the controller looks at gates before it activates the key.
	looked bool

	// signsAgain: the key had ended before a restore let it sign this token.
	signsAgain bool
	// lost: a restore took the key away, and this gate began after that.
	lost bool
	// noSecret: the key is HS*, and the gate began while the Secret for it was
	// taken away.
	noSecret bool
}

// judge says what an answer has to be, and why.
func judge(f facts) (verdict, string) {
	switch {
	case f.forged:
		return mustRefuse, whyForged
	case f.tooLong:
		return mustRefuse, whyTooLong
	case !f.asked.Before(f.end):
		return mustRefuse, whyExpired
	case f.revokedKnown:
		return mustRefuse, whyRevoked
	case f.retired:
		return mustRefuse, whyRetired

	case f.stolen:
		return either, whyStolen
	case f.revoked:
		return either, whyRevoking
	case !f.answered.Before(f.end):
		return either, whyMoment
	case f.signsAgain:
		return either, whySignsAgain
	case f.lost:
		return either, whyLost
	case f.noSecret:
		return either, whySecret

	case f.known:
		return mustPass, whyValid
	case f.urgent:
		return either, whyUrgent
	case f.withinLag:
		return mustPass, whyTooSoon
	case f.looked:
		return mustPass, whyValid
	}
	return either, whyLate
}
