package rotation

import (
	"fmt"
	"testing"
)

// row is an event of the design's table, numbered as there. Row 36 goes beyond
// it: how a key comes in.
type row struct {
	number int
	event  string
	test   func(t *testing.T)
}

func (r row) name() string { return fmt.Sprintf("row %02d: %s", r.number, r.event) }

// TestFailureTable is the design's table of what must survive, with a subtest
// for each row: here those whose clock is moved, and those that take from all
// what all need, the API server or the controllers' rights.
func TestFailureTable(t *testing.T) {
	for _, r := range []row{
		{1, "crash after generating, before the write", crashBeforeTheWrite},
		{2, "crash after the publish write, before the stamp", crashBeforeTheStamp},
		{3, "crash between the keyring write and the signer Secret, and between the signer Secret and the stamp", crashInTheSwitch},
		{4, "two leaders at once", twoLeaders},
		{5, "stale informer", staleReads},
		{6, "API server away past the rotation time", apiServerAwayPastTheRotation},
		{7, "API server away past verifyUntil", apiServerAwayPastVerifyUntil},
		{9, "clock 30 days ahead of the API server's", clockAhead},
		{10, "clock stepped back", clockSteppedBack},
		{11, "signer and verifier e apart, either way, last token of the old key", clocksApart},
		{12, "signer mount lags by S", signerMountLags},
		{14, "a verifier that caches for verifierLag and never refetches", verifierThatCaches},
		{16, "maxTokenTTL raised, lowered", tokenTTLEdited},
		{17, "interval raised or lowered mid-life", intervalEdited},
		{18, "algorithm changed", algorithmChanged},
		{19, "two triggers in a row", twoTriggers},
		{20, "active key revoked", activeRevoked},
		{21, "every key made before a time revoked", everythingBeforeRevoked},
		{22, "revoked key comes back from a backup of the keyring", revokedBackFromABackup},
		{22, "revoked key comes back from GitOps", revokedBackFromGitOps},
		{22, "revoked key comes back by deleting and creating the SigningKey with Retain", revokedBackCreatedAgain},
		{23, "keyring Secret deleted", keyringDeleted},
		{24, "signer Secret or JWKS ConfigMap deleted, emptied, edited", outputsTamperedWith},
		{25, "keyring unreadable or from a newer version", keyringUnreadable},
		{26, "keyring rolled back to an older copy", keyringRolledBack},
		{27, "restored into a new cluster without status", restoredWithoutStatus},
		{27, "restored after the new SigningKey has made a key", restoredLate},
		{28, "SigningKey deleted and created again with Retain", createdAgain},
		{30, "RBAC lost", rightsLost},
		{31, "times truncated to seconds", timesTruncated},
		{32, "JWKS in any output", neverAPrivateMember},
		{33, "same kid, other key", sameKeyIDOtherKey},
		{34, "two SigningKeys, one output", oneOutputForTwo},
		{36, "an ES256 key in use is imported", importedES256},
		{36, "an HS256 secret in use is imported", importedHS256},
	} {
		t.Run(r.name(), r.test)
	}
}

// TestFailureTableOfProcesses has the rows whose time is the real one. They
// mostly wait, each for processes of its own in a namespace of its own, and so
// run beside each other.
func TestFailureTableOfProcesses(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{4, "two leaders at once", twoProcessesLead},
		{8, "controller down for three intervals", controllerDown},
		{13, "signer still on the old key after S (env var, subPath)", signerStaysBehind},
		{15, "flood of random kids", floodOfKeyIDs},
		{20, "active key revoked", activeRevokedAtRealGates},
		{21, "every key made before a time revoked", everythingRevokedAtRealGates},
		{23, "keyring Secret deleted", keyringDeletedUnderProcesses},
		{29, "GitOps prune or kubectl delete of an output", outputsPruned},
		{30, "quota full", quotaFull},
		{30, "admission policy refusing", admissionRefuses},
		{36, "an ES256 key in use is imported", importedES256ByProcesses},
		{36, "an HS256 secret in use is imported", importedHS256ByProcesses},
	} {
		t.Run(r.name(), func(t *testing.T) {
			t.Parallel()
			r.test(t)
		})
	}
}
