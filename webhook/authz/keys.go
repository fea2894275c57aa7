package authz

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/keywright/keywright/api/keyset"
)

// Keys are what the gate knows of one SigningKey. They are not changed once
// they are in a Store.
type Keys struct {
	Ref Ref
	// UID of the SigningKey: another one is another SigningKey.
	UID string
	// Sequence is the largest that was seen in the SigningKey's status.
	Sequence int64
	// Set are the keys that verify.
	Set *keyset.Set
	// Retired are IDs of keys that were seen Retired, oldest first: an older
	// status must not bring them back.
	Retired []string
	// Revoked are IDs of keys that were revoked, the longest known first:
	// nothing brings them back, and tokens of them are told so.
	Revoked []string
	// RevokedBefore is the latest cut-off that the controller told: keys made
	// before it are revoked.
	RevokedBefore time.Time
	// Asked is the cut-off that spec asks for.
	Asked Asked
	// Details of the keys in Set, by ID.
	Details map[string]Detail
	// Allowed says whose policies may refer to these keys.
	Allowed Allowed
	// Issuer is the spec's, for the discovery document.
	Issuer string
	// Symmetric says that the spec asks for an HS* algorithm: there is
	// nothing to publish.
	Symmetric bool
	// MaxAge and NextTransition bound how long a verifier may keep the JWKS.
	MaxAge         time.Duration
	NextTransition time.Time
	// Problems say which keys were left out and why, for a person.
	Problems []string

	// revoked are the IDs of Revoked and Asked.Cut.
	revoked map[string]bool
	// seen is what was seen of the tokens of each key, by ID.
	seen map[string]*sighting
}

// Asked is a revocation by time as spec asks for it.
type Asked struct {
	// Time is spec's; zero: it asks for none.
	Time time.Time
	// CutOff is what counts: the controller's word, or the gate's own until
	// there is one.
	CutOff time.Time
	// Cut are IDs of keys that only this cut-off takes out, as long as it is
	// the gate's own.
	Cut []string
}

// Detail is what is known of a key beside what verifies tokens.
type Detail struct {
	// CreatedAt is when the key was made, which revocations by time ask for.
	CreatedAt time.Time
	// Sequence is the largest of those statuses that said something of it.
	Sequence int64
	// Signed says that the key was seen Active or later: tokens of it are
	// about.
	Signed bool
	// MissingSince is since when status does not mention the key, which then
	// is known to the gate alone; zero: it does.
	MissingSince time.Time
	// Hidden keys are such keys once status has gone on without them: they
	// verify, and are not published. EndIsOurs says that such a key's
	// VerifyUntil is the gate's own.
	Hidden, EndIsOurs bool
	// LateAfter is when the last signer should have turned to another key: a
	// token with a later iat is late. Zero: they may still sign with this one.
	LateAfter time.Time
}

// index prepares what decisions look up.
func (k *Keys) index(before *Keys) {
	k.follow(before)
	k.revoked = make(map[string]bool, len(k.Revoked)+len(k.Asked.Cut))
	for _, ids := range [][]string{k.Revoked, k.Asked.Cut} {
		for _, id := range ids {
			k.revoked[id] = true
		}
	}
}

// Allowed says policies of which namespaces, beside the SigningKey's own, may
// refer to it.
type Allowed struct {
	All bool
	// Selector matches labels of namespaces; nil: none.
	Selector labels.Selector
}

// allows says whether a policy in namespace may refer to k. has are the
// namespace's labels; known is false when the namespace was not seen.
func (k *Keys) allows(namespace string, has labels.Set, known bool) bool {
	switch {
	case namespace == k.Ref.Namespace, k.Allowed.All:
		return true
	case k.Allowed.Selector == nil, !known:
		return false
	}
	return k.Allowed.Selector.Matches(has)
}
