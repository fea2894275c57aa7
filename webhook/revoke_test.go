package webhook_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook"
	"github.com/keywright/keywright/webhook/authz"
)

// made is a key that was made at a time, which is its ID too, in minutes from
// start.
func made(t testing.TB, minute int, state v1alpha1.KeyState) v1alpha1.KeyStatus {
	t.Helper()
	return with(status(t, fmt.Sprint(minute), state), func(s *v1alpha1.KeyStatus) {
		s.CreatedAt = metav1.NewTime(start.Add(time.Duration(minute) * time.Minute))
	})
}

// revoked is what status says of a key that the controller has revoked.
func revoked(id string) v1alpha1.KeyStatus {
	at := metav1.NewTime(start)
	return v1alpha1.KeyStatus{KeyID: id, State: v1alpha1.KeyRevoked, RevokedAt: &at}
}

func minutes(n float64) time.Time { return start.Add(time.Duration(n * float64(time.Minute))) }

// state is a SigningKey as it is seen at a time, in minutes from start.
type state struct {
	at       float64
	uid      string
	sequence int64
	keys     []v1alpha1.KeyStatus
	// revoke are spec.revokedKeys, before is spec.revokeCreatedBefore.
	revoke []string
	before float64
	// told is status.revokedBefore: time and cutOff.
	told [2]float64
	// want are the IDs of the keys that verify, refused those of keys whose
	// tokens are told that they are revoked.
	want, refused string
	problem       string
}

func (s *state) signingKey() *v1alpha1.SigningKey {
	uid := s.uid
	if uid == "" {
		uid = "u"
	}
	sk := signingKey(uid, s.sequence, s.keys...)
	for _, id := range s.revoke {
		sk.Spec.RevokedKeys = append(sk.Spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: id, Reason: "a test"})
	}
	if s.before != 0 {
		sk.Spec.RevokeCreatedBefore = &v1alpha1.RevokeCreatedBefore{Time: metav1.NewTime(minutes(s.before))}
	}
	if s.told != [2]float64{} {
		sk.Status.RevokedBefore = &v1alpha1.RevokedBefore{Time: metav1.NewTime(minutes(s.told[0])), CutOff: metav1.NewTime(minutes(s.told[1]))}
	}
	return sk
}

func TestLoadKeysLeavesOutWhatIsRevoked(t *testing.T) {
	k1, k2, k3 := made(t, 1, v1alpha1.KeyVerifying), made(t, 2, v1alpha1.KeyActive), made(t, 3, v1alpha1.KeyPublished)
	k9 := made(t, 9, v1alpha1.KeyPublished)
	all := []v1alpha1.KeyStatus{k3, k2, k1}
	undated := with(k2, func(s *v1alpha1.KeyStatus) { s.CreatedAt = metav1.Time{} })
	odd := with(k2, func(s *v1alpha1.KeyStatus) { s.PublicKey = nil })

	for name, steps := range map[string][]state{
		"a key that spec lists, before the controller has seen it": {
			{sequence: 1, keys: all, want: "1 2 3"},
			{sequence: 1, keys: all, revoke: []string{"2"}, want: "1 3", refused: "2"},
		},
		"a key that spec lists and that cannot be used": {
			{sequence: 1, keys: []v1alpha1.KeyStatus{odd, k1}, revoke: []string{"2"}, want: "1", refused: "2"},
		},
		"an ID that spec lists and no key has yet": {
			{sequence: 1, keys: []v1alpha1.KeyStatus{k1}, revoke: []string{"2", "nobody"}, want: "1", refused: "2 nobody"},
			{sequence: 2, keys: all, revoke: []string{"2"}, want: "1 3", refused: "2 nobody"},
		},
		"a key that leaves spec's list": {
			{sequence: 1, keys: all, revoke: []string{"2"}, want: "1 3", refused: "2"},
			{sequence: 1, keys: all, want: "1 3", refused: "2", problem: "key 2: revoked before"},
			{sequence: 2, keys: all, want: "1 3", refused: "2", problem: "key 2: revoked before"},
		},
		"a key that status says is revoked, and of which an older status says otherwise": {
			{sequence: 5, keys: []v1alpha1.KeyStatus{k3, k1, revoked("2")}, want: "1 3", refused: "2"},
			{sequence: 4, keys: all, want: "1 3", refused: "2", problem: "key 2: revoked before"},
			{sequence: 9, keys: all, want: "1 3", refused: "2", problem: "key 2: revoked before"},
		},
		"a key that an older status says is revoked": {
			{sequence: 5, keys: all, want: "1 2 3"},
			{sequence: 4, keys: []v1alpha1.KeyStatus{revoked("2")}, want: "1 3", refused: "2"},
		},
		"a key that status forgets and spec lists": {
			{sequence: 5, keys: all, want: "1 2 3"},
			{sequence: 4, keys: []v1alpha1.KeyStatus{k3}, revoke: []string{"2"}, want: "1 3", refused: "2"},
		},
		"no key of another SigningKey of the name": {
			{at: 5, sequence: 1, keys: all, revoke: []string{"2"}, before: 3, want: "3", refused: "1 2"},
			{sequence: 1, uid: "u2", keys: all, want: "1 2 3"},
		},
		"all keys": {
			{sequence: 1, keys: all, revoke: []string{"1", "2", "3"}, want: "", refused: "1 2 3"},
		},

		"keys made before a time that is over": {
			{at: 5, sequence: 1, keys: all, before: 2, want: "2 3", refused: "1"},
			{at: 6, sequence: 2, keys: all, before: 2, told: [2]float64{2, 2}, want: "2 3", refused: "1"},
		},
		"keys made before now, where the time is still to come": {
			{at: 2.5, sequence: 1, keys: all, before: 60, want: "3", refused: "1 2"},
		},
		"but none made since the time to come was first seen": {
			{at: 2.5, sequence: 1, keys: []v1alpha1.KeyStatus{k2}, before: 60, want: "", refused: "2"},
			{at: 30, sequence: 2, keys: []v1alpha1.KeyStatus{k3, k2}, before: 60, want: "3", refused: "2"},
			{at: 90, sequence: 3, keys: []v1alpha1.KeyStatus{k9, k3, k2}, before: 60, want: "3 9", refused: "2"},
		},
		"as the controller has it once it has told, however its clock stands": {
			{at: 5, sequence: 1, keys: all, before: 60, want: "", refused: "1 2 3"},
			{at: 6, sequence: 2, keys: all, before: 60, told: [2]float64{60, 3}, want: "3", refused: "1 2"},
		},
		"not as the controller had it for another time": {
			{at: 5, sequence: 1, keys: all, before: 3, told: [2]float64{2, 2}, want: "3", refused: "1 2"},
		},
		"as the controller told, where spec says no more": {
			{at: 5, sequence: 1, keys: all, told: [2]float64{60, 3}, want: "3", refused: "1 2"},
		},
		"as the controller once told, whatever it tells later": {
			{at: 5, sequence: 1, keys: all, before: 60, told: [2]float64{60, 3}, want: "3", refused: "1 2"},
			{at: 6, sequence: 1, keys: all, before: 60, told: [2]float64{60, 2}, want: "3", refused: "1 2", problem: "key 2: revoked before"},
			{at: 7, sequence: 1, keys: all, want: "3", refused: "1 2", problem: "key 1: revoked before"},
			{at: 8, sequence: 2, keys: []v1alpha1.KeyStatus{k9, with(k2, func(s *v1alpha1.KeyStatus) { s.KeyID = "other" })}, want: "9", refused: "1 2 other", problem: "key other: revoked before"},
		},
		"as it once told, and listed by now": {
			{at: 5, sequence: 1, keys: all, told: [2]float64{60, 3}, want: "3", refused: "1 2"},
			{at: 6, sequence: 1, keys: all, revoke: []string{"1", "2"}, want: "3", refused: "1 2"},
		},
		"as it told, where a status that was restored has lost it": {
			{at: 5, sequence: 5, keys: all, before: 60, told: [2]float64{60, 3}, want: "3", refused: "1 2"},
			{at: 6, sequence: 4, keys: []v1alpha1.KeyStatus{k9, k3, k2, k1}, before: 60, want: "3 9", refused: "1 2", problem: "sequence 4 after 5"},
		},
		"also when spec takes it back before the controller has seen it": {
			{at: 2.5, sequence: 1, keys: all, before: 60, want: "3", refused: "1 2"},
			{at: 3, sequence: 1, keys: all, want: "3", refused: "1 2", problem: "key 1: revoked before"},
		},
		"also when spec asks for less before the controller has seen it": {
			{at: 5, sequence: 1, keys: all, before: 3, want: "3", refused: "1 2"},
			{at: 6, sequence: 1, keys: all, before: 2, want: "3", refused: "1 2", problem: "key 2: revoked before"},
			{at: 7, sequence: 2, keys: all, before: 2, told: [2]float64{2, 2}, want: "3", refused: "1 2", problem: "key 2: revoked before"},
		},
		"as the controller tells, also when spec asks for another by then": {
			{at: 5, sequence: 1, keys: all, before: 60, want: "", refused: "1 2 3"},
			{at: 6, sequence: 2, keys: all, before: 2, told: [2]float64{60, 3}, want: "3", refused: "1 2"},
		},
		"of which only the gate knows by now": {
			{at: 5, sequence: 5, keys: all, want: "1 2 3"},
			{at: 6, sequence: 4, keys: []v1alpha1.KeyStatus{k3}, before: 3, want: "3", refused: "1 2", problem: "sequence 4 after 5"},
		},
		"that does not say when it was made": {
			{at: 5, sequence: 1, keys: []v1alpha1.KeyStatus{undated, k3}, want: "2 3"},
			{at: 5, sequence: 1, keys: []v1alpha1.KeyStatus{undated, k3}, before: 1, want: "3", refused: "2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var keys *authz.Keys
			for i, s := range steps {
				keys = webhook.LoadKeys(keys, s.signingKey(), nil, minutes(s.at))
				refused := slices.Sorted(slices.Values(slices.Concat(keys.Revoked, keys.Asked.Cut)))
				if got := strings.Join(refused, " "); ids(keys) != s.want || got != s.refused {
					t.Errorf("step %d: keys %q, refused %q, want %q, %q", i, ids(keys), got, s.want, s.refused)
				}
				if told := strings.Join(keys.Problems, "; "); s.problem == "" && strings.Contains(told, "key ") && !strings.Contains(name, "older status") ||
					!strings.Contains(told, s.problem) {
					t.Errorf("step %d: problems %q, want %q", i, told, s.problem)
				}
			}
		})
	}
}

func TestLoadKeysForgetsOnlyRevokedKeysThatNobodyNames(t *testing.T) {
	const most = 2048
	alive := status(t, "alive", v1alpha1.KeyActive)
	var keys *authz.Keys
	load := func(prefix string, n int, keep ...string) {
		sk := signingKey("u", 1, alive)
		for i := range n {
			sk.Spec.RevokedKeys = append(sk.Spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: fmt.Sprint(prefix, i)})
		}
		for _, id := range keep {
			sk.Spec.RevokedKeys = append(sk.Spec.RevokedKeys, v1alpha1.RevokedKey{KeyID: id})
		}
		keys = webhook.LoadKeys(keys, sk, nil, start)
	}
	load("a", 1000, "kept")
	load("b", 1000, "kept")
	load("c", 1000, "kept")
	if len(keys.Revoked) != most || !slices.Contains(keys.Revoked, "kept") || slices.Contains(keys.Revoked, "a0") || !slices.Contains(keys.Revoked, "b0") {
		t.Errorf("%d are remembered", len(keys.Revoked))
	}
	load("d", most+5, "kept") // more than any schema lets in
	if got := len(keys.Revoked); got != most+6 || ids(keys) != "alive" {
		t.Errorf("%d are remembered, %s verify", got, ids(keys))
	}
}

func TestLoadKeysGivesARevocationTheSameWayEachTime(t *testing.T) {
	keys := []v1alpha1.KeyStatus{made(t, 1, v1alpha1.KeyActive), made(t, 2, v1alpha1.KeyActive), made(t, 3, v1alpha1.KeyActive)}
	s := state{at: 5, sequence: 1, keys: keys, before: 60}
	first := webhook.LoadKeys(nil, s.signingKey(), nil, minutes(5))
	for range 20 {
		if diff := cmp.Diff(first.Asked, webhook.LoadKeys(nil, s.signingKey(), nil, minutes(5)).Asked); diff != "" {
			t.Fatal(diff)
		}
	}
}
