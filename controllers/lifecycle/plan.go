package lifecycle

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// firstKeyWait is how long the first key of a SigningKey is shown before it
// signs, when that is less than V + e: there is no older key to go on with,
// and a verifier that has no key yet has nothing cached.
const firstKeyWait = 2 * time.Second

// maxVerifying is how many keys may verify at once, beside the one that stands
// by. The schema keeps an interval from reaching it.
const maxVerifying = 32

// Wanted is what a SigningKey asks for.
type Wanted struct {
	Spec v1alpha1.SigningKeySpec
	// UID of the SigningKey, from which jitter comes.
	UID string
	// MinInterval is the least time between two activations, for all
	// SigningKeys of the installation.
	MinInterval time.Duration
	// AsksGates says that the spec wants gates to be asked, and that the
	// installation can.
	AsksGates bool
}

// Observed is what was seen, live, before planning: the outputs and the
// status first and the keyring after them, so that the keyring is never the
// older one.
type Observed struct {
	// Shown says of a key ID that every publication (status, JWKS ConfigMap,
	// HMAC secret) holds that key.
	Shown func(keyID string) bool
	// SignerKeyID is the key ID in the signer Secret; empty: none.
	SignerKeyID string
	// SignerTTL is the maxTokenTTL in the signer Secret; 0: none.
	SignerTTL time.Duration
	// StatusSequence, StatusKeys (newest first), StatusTrigger and
	// StatusRevokedBefore are what status says.
	StatusSequence      int64
	StatusKeys          []v1alpha1.KeyStatus
	StatusTrigger       string
	StatusRevokedBefore RevokedBefore
	// Private gives the private JWK of a key in status where an output still
	// has it, else nil.
	Private func(*v1alpha1.KeyStatus) json.RawMessage
	// Imported is the key that spec.import names, with its material; nil when
	// it cannot be had.
	Imported *Key
	// Evidence is what verifiers were seen to know.
	Evidence Evidence
	// Clock is what is known of this clock against the API server's.
	Clock ClockBounds
}

// ClockBounds says by how much this clock is ahead of the API server's: at
// least Min, at most Max. The zero value is for clocks that agree.
type ClockBounds struct{ Min, Max time.Duration }

// Hold says why nothing may change.
type Hold string

// Why nothing may change.
const (
	// HoldNone: all goes on.
	HoldNone Hold = ""
	// HoldClock: this clock and the API server's differ by more than
	// clockSkew, so that no time that is written could be trusted.
	HoldClock Hold = "ClockSkewed"
	// HoldImport: the key to start from is not there, or of no use.
	HoldImport Hold = "InvalidImport"
)

// Transition is a step of a key that the next keyring records. It has
// happened once that keyring is stored.
type Transition struct {
	Type  v1alpha1.TransitionType
	KeyID string // empty: the planned key
}

// Next is what happens next. Status, the next reconcile and the max-age of
// the served JWKS all go by it.
type Next struct {
	Type  v1alpha1.TransitionType
	KeyID string
	// At is when it happens, in whole seconds; zero: when what it waits for
	// has happened.
	At time.Time
	// DueSince is set when the time has come but something is waited for.
	DueSince   time.Time
	WaitingFor string
}

// Result is a plan.
type Result struct {
	// Keyring to store, when Changed.
	Keyring Keyring
	Changed bool
	// Next is nil when nothing will happen by itself.
	Next *Next
	// Activation is the next activation, when anything but a trigger starts
	// it; Next may be something earlier.
	Activation *Next
	// Transitions that Keyring records.
	Transitions []Transition
	// Confirm is the ID of the key that would be activated if it were seen that
	// every verifier knows it: plan again with Evidence of that.
	Confirm string
	// LookAt is when to ask gates next for tokens of keys that no longer sign;
	// zero: never.
	LookAt time.Time
	// Hold says why nothing may change.
	Hold Hold
	// ScheduleErr says why the schedule is not understood; keys go on.
	ScheduleErr error
}

// Plan decides one pass. It is called again after its result is stored and
// the outputs are written, until nothing changes any more.
func Plan(want Wanted, ring Keyring, seen Observed, now time.Time) Result {
	now = now.UTC().Round(0)
	p := &planner{want: want, seen: seen, now: now, ring: ring}
	p.ring.Version = KeyringVersion
	p.ring.Keys, p.ring.Revoked = slices.Clone(ring.Keys), slices.Clone(ring.Revoked)

	skew := want.Spec.Propagation.ClockSkew.Duration
	switch {
	case seen.Clock.Min > skew || seen.Clock.Max < -skew:
		return Result{Keyring: ring, Hold: HoldClock}
	case p.imports() && seen.Imported == nil:
		return Result{Keyring: ring, Hold: HoldImport}
	}

	p.recover()
	p.heed()
	p.revoke()
	p.adopt()
	p.dropUnfitStandby()
	p.stamp()
	p.extend()
	p.signers()
	p.activate()
	p.ensureStandby()
	p.tokenTTL()
	p.destroySecrets()

	changed := !reflect.DeepEqual(ring.Keys, p.ring.Keys) || !slices.Equal(ring.Revoked, p.ring.Revoked) || ring.Sequence != p.ring.Sequence
	if changed {
		p.ring.Sequence++
		p.forget()
		for i := range p.ring.Keys {
			if p.ring.Keys[i].Sequence == 0 {
				p.ring.Keys[i].Sequence = p.ring.Sequence
			}
		}
	}
	next, activation := p.next()
	return Result{
		Keyring: p.ring,
		Changed: changed || p.ring.Trigger != ring.Trigger || p.ring.TokenTTL != ring.TokenTTL ||
			p.ring.RevokedBefore != ring.RevokedBefore || ring.Version != KeyringVersion,
		Next:        next,
		Activation:  activation,
		Transitions: p.transitions,
		Confirm:     p.confirm,
		LookAt:      p.lookAt(),
		ScheduleErr: p.scheduleErr,
	}
}

type planner struct {
	want        Wanted
	seen        Observed
	now         time.Time
	ring        Keyring
	transitions []Transition
	confirm     string
	scheduleErr error
}

func (p *planner) propagation() (v, s, e, leeway time.Duration) {
	w := p.want.Spec.Propagation
	return w.VerifierLag.Duration, w.SignerLag.Duration, w.ClockSkew.Duration, w.Leeway.Duration
}

// dropUnfitStandby removes a standby that the spec no longer wants. No signer
// has ever had it, so nothing of it is in circulation.
func (p *planner) dropUnfitStandby() {
	k := p.ring.Standby()
	if k == nil || k.Imported { // what an application signs with is what it is
		return
	}
	fresh := p.planned()
	if k.Algorithm != fresh.Algorithm || k.RSABits != fresh.RSABits || k.Issuer != fresh.Issuer {
		p.ring.Keys = p.ring.Keys[:len(p.ring.Keys)-1]
	}
}

// stamp turns what was seen into times. A time is that of seeing, which is
// never before the write: after a crash it is simply later.
func (p *planner) stamp() {
	if k := p.ring.Standby(); k != nil {
		shown := p.seen.Shown(k.ID)
		switch {
		case shown && k.PublishedAt.IsZero():
			k.PublishedAt = p.now
			p.note(v1alpha1.TransitionPublish, k.ID)
		case !shown && !k.PublishedAt.IsZero():
			// Withdrawn by someone: whoever looked meanwhile has to look again.
			k.PublishedAt = time.Time{}
		}
	}
	active := p.ring.Active()
	if active == nil {
		return
	}
	if p.seen.SignerKeyID != active.ID {
		p.reopen()
		return
	}
	for i := range p.ring.Keys {
		k := &p.ring.Keys[i]
		if k == active || k.ActivatedAt.IsZero() || !k.DeactivatedAt.IsZero() {
			continue
		}
		k.DeactivatedAt = p.now
		k.VerifyUntil = p.verifyUntil(k)
		if !k.Algorithm.Symmetric() {
			k.Private = nil
		}
	}
}

// reopen takes back the ends of keys that may sign again, because the active
// key was taken away from signers or an old one put back: the one that the
// signer Secret holds, and those that some signer may not have left yet. The
// ends are dated anew once the Secret is mended. A key that has retired stays
// so, unless status has never shown that end: then the keyring comes from a
// state that a restore has taken back.
func (p *planner) reopen() {
	_, s, e, _ := p.propagation()
	for i := range p.ring.Keys {
		k := &p.ring.Keys[i]
		signs := k.ID == p.seen.SignerKeyID
		retired := !p.now.Before(k.VerifyUntil)
		if k.DeactivatedAt.IsZero() || (retired && (!signs || !p.counts(k))) {
			continue
		}
		if signs || p.now.Before(k.DeactivatedAt.Add(s+2*e)) {
			k.DeactivatedAt, k.VerifyUntil = time.Time{}, time.Time{}
		}
	}
}

// counts says whether status shows that a key verifies, without an end.
func (p *planner) counts(k *Key) bool {
	return slices.ContainsFunc(p.seen.StatusKeys, func(s v1alpha1.KeyStatus) bool {
		return s.KeyID == k.ID && (s.State == v1alpha1.KeyActive || s.State == v1alpha1.KeyVerifying) && s.VerifyUntil == nil
	})
}

// verifyUntil is the instant after which no token of a deactivated key can be
// valid: the last signer switches S later, by a clock that may be e behind,
// and signs for L; the token passes for the leeway more, by a clock that may
// be e behind as well.
func (p *planner) verifyUntil(k *Key) time.Time {
	_, s, e, leeway := p.propagation()
	return Ceil(k.DeactivatedAt.Add(s + k.MaxTokenTTL + leeway + 2*e))
}

// extend moves the end of keys that still verify when the spec's spans have
// grown. An end never comes nearer.
func (p *planner) extend() {
	for i := range p.ring.Keys {
		k := &p.ring.Keys[i]
		if k.DeactivatedAt.IsZero() || !p.now.Before(k.VerifyUntil) {
			continue
		}
		if until := p.verifyUntil(k); until.After(k.VerifyUntil) {
			k.VerifyUntil = until
		}
	}
}

// activate lets the standby take over when its time has come and every
// verifier knows it.
func (p *planner) activate() {
	k := p.ring.Standby()
	if k == nil || k.ID == "" || k.PublishedAt.IsZero() {
		return
	}
	if !p.urgent() && (p.ring.switching() != nil || p.crowded()) {
		return
	}
	at, ok := p.due()
	if !ok || p.now.Before(at) || p.now.Before(p.known(k)) || !p.confirmed(k) {
		return
	}
	k.ActivatedAt = p.now
	p.ring.Trigger = p.want.Spec.Rotation.Trigger
	p.note(v1alpha1.TransitionActivate, k.ID)
}

// urgent says that signers have no key, or none that can be handed to them
// again: the first one is still to come, the active one was revoked, or its
// private half was lost.
func (p *planner) urgent() bool {
	active := p.ring.Active()
	return active == nil || active.Private == nil
}

// crowded says that so many keys verify that no more may come: a schedule or
// triggers that outrun the keys' ends must not grow the key set without bound.
func (p *planner) crowded() bool { return len(p.ring.Verifying(p.now)) > maxVerifying }

// known is when every verifier knows a published key.
func (p *planner) known(k *Key) time.Time {
	v, _, e, _ := p.propagation()
	wait := v + e
	if p.urgent() {
		wait = min(wait, firstKeyWait)
	}
	return Ceil(k.PublishedAt.Add(wait))
}

// due is when the standby should take over; ok is false when nothing says so.
func (p *planner) due() (at time.Time, ok bool) {
	active := p.ring.Active()
	if p.urgent() {
		_, _, p.scheduleErr = due(p.want.Spec.Rotation, p.want.UID, p.now)
		// A time that stays the same from pass to pass: status shows it.
		at = p.now
		if k := p.ring.Standby(); k != nil && k.CreatedAt.Before(at) {
			at = k.CreatedAt
		}
		return at.Truncate(time.Second), true
	}
	at, ok, p.scheduleErr = due(p.want.Spec.Rotation, p.want.UID, active.ActivatedAt)
	if trigger := p.want.Spec.Rotation.Trigger; trigger != "" && trigger != p.ring.Trigger {
		at, ok = active.ActivatedAt, true
	}
	if least := active.ActivatedAt.Add(p.want.MinInterval); at.Before(least) {
		at = least
	}
	return Ceil(at), ok
}

// ensureStandby plans the key that takes over next.
func (p *planner) ensureStandby() {
	switch {
	case p.ring.Standby() != nil:
	case p.imports() && !p.ring.IsRevoked(p.seen.Imported.ID):
		k := p.planned()
		in := p.seen.Imported
		k.ID, k.Public, k.Private, k.RSABits = in.ID, in.Public, in.Private, in.RSABits
		k.Imported, k.WithoutKeyID = true, in.WithoutKeyID
		p.ring.Keys = append(p.ring.Keys, k)
	default:
		p.ring.Keys = append(p.ring.Keys, p.planned())
	}
}

// imports says whether the first key is still to be imported.
func (p *planner) imports() bool {
	return p.want.Spec.Import != nil && p.ring.Sequence == 0 && p.seen.StatusSequence == 0
}

func (p *planner) planned() Key {
	spec := p.want.Spec
	k := Key{
		Algorithm:   keyset.Algorithm(spec.Algorithm),
		Issuer:      spec.Issuer,
		MaxTokenTTL: spec.MaxTokenTTL.Duration,
		CreatedAt:   p.now,
	}
	if cutOff := p.ring.RevokedBefore.CutOff; cutOff.After(p.now) {
		k.CreatedAt = cutOff // another controller's clock is ahead of this one
	}
	if k.Algorithm.Family() == keyset.FamilyRSA {
		k.RSABits = spec.RSAKeySize
		if k.RSABits == 0 {
			k.RSABits = 3072
		}
	}
	return k
}

// tokenTTL lowers at once what signers are told, and raises it only when the
// raised limit of every key that may sign has been in status for V + e. The
// limits themselves never fall while a key can have tokens in circulation.
func (p *planner) tokenTTL() {
	wanted := p.want.Spec.MaxTokenTTL.Duration
	ttl := &p.ring.TokenTTL
	if ttl.Current == 0 {
		ttl.Current = wanted
	}
	if wanted <= ttl.Current {
		*ttl = TokenTTL{Current: wanted}
	} else if ttl.Raise != wanted {
		*ttl = TokenTTL{Current: ttl.Current, Raise: wanted}
	}
	limit := max(ttl.Current, ttl.Raise)
	active, standby := p.ring.Active(), p.ring.Standby()
	if active != nil {
		active.MaxTokenTTL = max(active.MaxTokenTTL, limit)
	}
	if standby != nil {
		standby.MaxTokenTTL = limit
	}
	if ttl.Raise == 0 {
		return
	}
	if ttl.RaiseShownAt.IsZero() && p.shownTTL(active, limit) && p.shownTTL(standby, limit) {
		ttl.RaiseShownAt = p.now
	}
	if at := p.raiseAt(); !at.IsZero() && !p.now.Before(at) {
		*ttl = TokenTTL{Current: wanted}
		p.note(v1alpha1.TransitionExtend, "")
	}
}

func (p *planner) shownTTL(k *Key, limit time.Duration) bool {
	return k == nil || slices.ContainsFunc(p.seen.StatusKeys, func(s v1alpha1.KeyStatus) bool {
		return s.KeyID == k.ID && s.MaxTokenTTL.Duration >= limit
	})
}

// raiseAt is when signers are told the raised limit; zero: not known yet.
func (p *planner) raiseAt() time.Time {
	if p.ring.TokenTTL.RaiseShownAt.IsZero() {
		return time.Time{}
	}
	v, _, e, _ := p.propagation()
	return Ceil(p.ring.TokenTTL.RaiseShownAt.Add(v + e))
}

// destroySecrets removes the secrets of HS* keys that no longer verify.
func (p *planner) destroySecrets() {
	for i := range p.ring.Keys {
		if k := &p.ring.Keys[i]; k.Private != nil && p.ring.State(k, p.now) == v1alpha1.KeyRetired {
			k.Private = nil
		}
	}
}

// forget drops the oldest retired keys beyond the limit. It is done only
// along with another change, so that a retirement alone costs no write.
func (p *planner) forget() {
	limit, retired := HistoryLimit(p.want.Spec), 0
	for i := len(p.ring.Keys) - 1; i >= 0; i-- {
		if p.ring.State(&p.ring.Keys[i], p.now) != v1alpha1.KeyRetired {
			continue
		}
		if retired++; retired > limit {
			p.ring.Keys = slices.Delete(p.ring.Keys, i, i+1)
		}
	}
}

// HistoryLimit is how many retired keys are kept.
func HistoryLimit(spec v1alpha1.SigningKeySpec) int {
	if spec.HistoryLimit == nil {
		return 10
	}
	return int(*spec.HistoryLimit)
}

// next is the earliest thing that will happen by itself, and the activation
// among them.
func (p *planner) next() (next, activation *Next) {
	consider := func(n Next) {
		if next == nil || next.At.IsZero() || (!n.At.IsZero() && n.At.Before(next.At)) {
			next = &n
		}
	}
	if k := p.ring.Standby(); k != nil {
		if at, ok := p.due(); ok {
			n := p.activation(k, at)
			activation = &n
			consider(n)
		}
	}
	if at := p.raiseAt(); !at.IsZero() {
		consider(Next{Type: v1alpha1.TransitionExtend, At: at})
	}
	for i := range p.ring.Keys {
		k := &p.ring.Keys[i]
		if !k.DeactivatedAt.IsZero() && p.now.Before(k.VerifyUntil) {
			consider(Next{Type: v1alpha1.TransitionRetire, KeyID: k.ID, At: k.VerifyUntil})
		}
	}
	return next, activation
}

// activation is the next activation of the standby k, due at a time.
func (p *planner) activation(k *Key, at time.Time) Next {
	n := Next{Type: v1alpha1.TransitionActivate, KeyID: k.ID, At: at}
	if !p.now.Before(at) {
		n.DueSince = at
	}
	switch {
	case p.ring.switching() != nil && !p.urgent():
		n.At = time.Time{}
		n.WaitingFor = "the signer Secret to hold the active key"
	case k.PublishedAt.IsZero():
		n.At = time.Time{}
		n.WaitingFor = "the new key to be published"
	case p.crowded() && !p.urgent():
		n.At = time.Time{}
		n.WaitingFor = fmt.Sprintf("older keys to retire: %d verify", maxVerifying)
	case p.seen.Evidence.Confirmed == k.ID && len(p.seen.Evidence.Late) > 0: // after the lag
		n.At = time.Time{}
		n.WaitingFor = "the new key to be seen at " + lateNames(p.seen.Evidence.Late)
	case p.known(k).After(at):
		n.At = p.known(k)
		v, _, e, _ := p.propagation()
		n.WaitingFor = fmt.Sprintf("every verifier to know the new key (verifierLag + clockSkew = %s after it was published)", v+e)
		if p.urgent() {
			n.WaitingFor = fmt.Sprintf("the key to be shown for a moment (at most %s) before it signs", firstKeyWait)
		}
	}
	return n
}

func (p *planner) note(t v1alpha1.TransitionType, keyID string) {
	p.transitions = append(p.transitions, Transition{Type: t, KeyID: keyID})
}

// Ceil rounds up to whole seconds, which is what status can show: so that
// keyring, status, gate and wake-up go by one value.
func Ceil(t time.Time) time.Time {
	if down := t.Truncate(time.Second); down.Before(t) {
		return down.Add(time.Second)
	}
	return t
}

// instant is a time of status.
func instant(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
