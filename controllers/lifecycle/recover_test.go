package lifecycle

import (
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// statusOf is what status would say of a keyring at now.
func statusOf(ring Keyring, now time.Time) []v1alpha1.KeyStatus {
	at := func(t time.Time) *metav1.Time {
		if t.IsZero() {
			return nil
		}
		out := metav1.NewTime(Ceil(t))
		return &out
	}
	var out []v1alpha1.KeyStatus
	for i := len(ring.Keys) - 1; i >= 0; i-- {
		k := &ring.Keys[i]
		ks := v1alpha1.KeyStatus{
			KeyID: k.ID, Sequence: k.Sequence, Algorithm: v1alpha1.Algorithm(k.Algorithm), State: ring.State(k, now),
			MaxTokenTTL: v1alpha1.Duration{Duration: k.MaxTokenTTL}, CreatedAt: metav1.NewTime(Ceil(k.CreatedAt)),
			PublishedAt: at(k.PublishedAt), ActivatedAt: at(k.ActivatedAt), DeactivatedAt: at(k.DeactivatedAt), VerifyUntil: at(k.VerifyUntil),
		}
		if k.Public != nil {
			public := v1alpha1.PublicJWK(*k.Public)
			ks.PublicKey = &public
		}
		out = append(out, ks)
	}
	for _, t := range ring.Revoked {
		out = append(out, v1alpha1.KeyStatus{KeyID: t.ID, State: v1alpha1.KeyRevoked, RevokedAt: at(t.RevokedAt)})
	}
	return out
}

// rotated is a scene with public halves in which k1 verifies, k2 signs and k3
// stands by; older is the keyring from before the rotation, in which k1 signs
// and k2 stands by.
func rotated(t *testing.T) (s *scene, older Keyring) {
	s = running(t)
	public := func() {
		for i := range s.ring.Keys {
			s.ring.Keys[i].Public = &keyset.Members{Kty: "EC", X: s.ring.Keys[i].ID}
		}
	}
	public()
	older = s.ring
	older.Keys = append([]Key(nil), s.ring.Keys...)
	s.rotate()
	public()
	s.settle()
	return s, older
}

// lose replaces the keyring, with status as it was.
func (s *scene) lose(ring Keyring) {
	s.status, s.statusSequence = statusOf(s.ring, s.now), s.ring.Sequence
	clear(s.statusTTL)
	s.ring = ring
}

// found goes on after a recovery as the shell does.
func (s *scene) found() Result {
	r := s.store()
	s.status = nil
	s.settle()
	return r
}

func TestAKeyringThatWasLostIsRebuilt(t *testing.T) {
	t.Run("the signer Secret still holds the active key", func(t *testing.T) {
		s, _ := rotated(t)
		sequence, until := s.ring.Sequence, s.key("k1").VerifyUntil
		s.lose(Keyring{})
		s.private = map[string]json.RawMessage{"k2": json.RawMessage(`{"d":"2"}`)}
		r := s.found()
		if len(r.Transitions) == 0 || r.Transitions[0].Type != v1alpha1.TransitionRecover || r.Keyring.Sequence != sequence+1 {
			t.Errorf("transitions %v, sequence %d, want a recovery at %d", r.Transitions, r.Keyring.Sequence, sequence+1)
		}
		// Nobody can sign with k3 any more; if someone has, its tokens pass.
		s.wantKeys("rebuilt", []string{"k3", "k1", "k2", "k4"}, nil)
		if k := s.key("k3"); k.VerifyUntil.IsZero() || k.Private != nil {
			t.Errorf("k3 = %+v, want it to verify for a while", k)
		}
		if a := s.ring.Active(); a == nil || a.ID != "k2" || string(a.Private) != `{"d":"2"}` {
			t.Errorf("active is %+v, want k2 with its private half", a)
		}
		same(t, "the end of k1", s.key("k1").VerifyUntil, until)
		if s.key("k1").Private != nil {
			t.Error("k1 can sign again")
		}
	})
	t.Run("the signer Secret is lost too", func(t *testing.T) {
		s, _ := rotated(t)
		s.lose(Keyring{})
		s.signer = ""
		s.found()
		for range 4 {
			s.now = s.now.Add(time.Second)
			s.settle()
		}
		if a := s.ring.Active(); a == nil || a.ID != "k4" || a.Private == nil {
			t.Fatalf("active is %+v, want the new key within seconds: signers have none", a)
		}
		if k := s.key("k2"); k.VerifyUntil.IsZero() || k.VerifyUntil.Before(s.now.Add(tokenTTL)) {
			t.Errorf("k2 verifies until %s, but its tokens live for another %s", k.VerifyUntil, tokenTTL)
		}
	})
	t.Run("the key that stands by is in the signer Secret", func(t *testing.T) {
		s, _ := rotated(t)
		s.lose(Keyring{})
		s.private = map[string]json.RawMessage{"k3": json.RawMessage(`{"d":"3"}`)}
		s.signer = "k3" // it was switched before status told
		s.store()
		if a := s.ring.Active(); a == nil || a.ID != "k3" {
			t.Errorf("active is %v, want k3: it signs", a)
		}
	})
	t.Run("a raise of maxTokenTTL begins again", func(t *testing.T) {
		s, _ := rotated(t)
		s.want.Spec.MaxTokenTTL.Duration = 5 * tokenTTL
		s.store() // status allows more, signers are not told yet
		s.lose(Keyring{})
		s.private = map[string]json.RawMessage{"k2": json.RawMessage(`{}`)}
		s.signerTTL = tokenTTL
		s.store()
		if got := s.ring.TokenTTL; got.Current != tokenTTL || got.Raise != 5*tokenTTL {
			t.Errorf("signers are told %+v, want %s until every verifier knows of more", got, tokenTTL)
		}
	})
	t.Run("a trigger that was answered is not answered again", func(t *testing.T) {
		s, _ := rotated(t)
		trigger := s.want.Spec.Rotation.Trigger
		s.lose(Keyring{})
		s.private = map[string]json.RawMessage{"k2": json.RawMessage(`{}`)}
		if r := s.found(); trigger == "" || r.Keyring.Trigger != trigger || r.Activation != nil {
			t.Errorf("trigger %q, activation %+v, want %q to be remembered and nothing to be due", r.Keyring.Trigger, r.Activation, trigger)
		}
	})
	t.Run("an end that was put off is not put off again", func(t *testing.T) {
		s, _ := rotated(t)
		s.now = s.key("k1").DeactivatedAt.Add(signerLag + 2*clockSkew + 2*time.Second)
		s.evidence.Seen = map[string]Sighting{"k1": {Late: 1}}
		s.settle()
		until := s.key("k1").VerifyUntil
		s.lose(Keyring{})
		s.private = map[string]json.RawMessage{"k2": json.RawMessage(`{}`)}
		s.found()
		same(t, "the end of k1", s.key("k1").VerifyUntil, until)
	})
	t.Run("revoked keys stay revoked", func(t *testing.T) {
		s, _ := rotated(t)
		s.revokeKey("k1")
		s.settle()
		s.want.Spec.RevokedKeys = nil
		s.lose(Keyring{})
		s.private = map[string]json.RawMessage{"k2": json.RawMessage(`{}`)}
		s.found()
		s.wantKeys("rebuilt", []string{"k3", "k2", "k4"}, []string{"k1"})
	})
}

func TestAKeyringThatIsRolledBack(t *testing.T) {
	t.Run("to when the old key signed", func(t *testing.T) {
		s, older := rotated(t)
		sequence, until := s.ring.Sequence, s.key("k1").VerifyUntil
		s.lose(older)
		r := s.found()
		if r.Keyring.Sequence != sequence+1 {
			t.Errorf("sequence = %d, want %d", r.Keyring.Sequence, sequence+1)
		}
		// k2 signs again from the copy's private half, k1 does not sign.
		if a := s.ring.Active(); a == nil || a.ID != "k2" || a.Private == nil {
			t.Fatalf("active is %+v, want k2", a)
		}
		if k := s.key("k1"); k.Private != nil || !k.VerifyUntil.Equal(until) {
			t.Errorf("k1 = %+v, want it to verify until %s and never sign", k, until)
		}
	})
	t.Run("so little that status does not tell", func(t *testing.T) {
		s, older := rotated(t)
		s.ring, s.statusSequence = older, older.Sequence
		s.want.Spec.Algorithm = "EdDSA" // k2 would not be made like this any more
		s.signer = "k2"
		s.store()
		if a := s.ring.Active(); a == nil || a.ID != "k2" {
			t.Errorf("active is %v, want k2: signers have it", a)
		}
	})
	t.Run("a key that status no longer knows is gone", func(t *testing.T) {
		s, older := rotated(t)
		none := int32(0)
		s.want.Spec.HistoryLimit = &none
		s.rotate()
		s.now = s.key("k2").VerifyUntil
		s.want.Spec.Issuer = "https://new.example" // a change, with which k1 and k2 are forgotten
		s.settle()
		s.lose(older)
		s.found()
		for _, id := range []string{"k1", "k2"} {
			if s.ring.Find(id) != nil {
				t.Errorf("%s had retired, and is back", id)
			}
		}
	})
	t.Run("to before a revocation", func(t *testing.T) {
		s, older := rotated(t)
		s.revokeKey("k2")
		s.settle()
		s.want.Spec.RevokedKeys = nil
		s.lose(older)
		s.found()
		if s.ring.Find("k2") != nil || !s.ring.IsRevoked("k2") {
			t.Error("k2 was revoked, and is back")
		}
	})
	t.Run("from a state that was taken back, in which the key that signs had retired", func(t *testing.T) {
		// All is restored to when k1 signed; then comes the keyring of before,
		// in which k2 signs and k1 has retired.
		s, older := rotated(t)
		newer := s.ring
		newer.Keys = append([]Key(nil), newer.Keys...)
		s.now = s.key("k1").VerifyUntil.Add(time.Minute)
		s.ring, s.signer = older, "k1"
		s.lose(newer)
		s.store()
		s.hand()
		s.store()
		if k := s.key("k1"); k.VerifyUntil.Before(s.now.Add(tokenTTL)) {
			t.Errorf("k1 verifies until %s, and signers have it at %s", k.VerifyUntil, s.now)
		}
	})
	t.Run("another key under a known ID", func(t *testing.T) {
		s, older := rotated(t)
		older.Keys[1].Public = &keyset.Members{Kty: "EC", X: "another"}
		s.lose(older)
		s.found()
		if k := s.key("k2"); k.Public.X != "k2" {
			t.Errorf("k2 has the material %+v, want what status says", k.Public)
		}
	})
}

func TestAKeyringThatComesLate(t *testing.T) {
	// Its SigningKey has begun another one: k1 is retired, k2 signed, k3 stood
	// by, and now k5 signs and k6 stands by.
	s, _ := rotated(t)
	lost := s.ring
	lost.Revoked = []Tombstone{{ID: "k0", RevokedAt: s.now}}
	s.now = s.now.Add(48 * time.Hour)
	s.ring, s.signer, s.made = Keyring{}, "", 4
	s.settle()
	s.now = s.now.Add(10 * time.Second)
	s.settle()
	s.wantKeys("begun anew", []string{"k5", "k6"}, nil)

	s.lose(lost)
	if s.statusSequence >= lost.Sequence {
		t.Fatalf("status is at %d, want less than the %d of the lost keyring", s.statusSequence, lost.Sequence)
	}
	s.private = map[string]json.RawMessage{"k5": json.RawMessage(`{"d":"5"}`)}
	r := s.found()
	if r.Keyring.Sequence != lost.Sequence+1 {
		t.Errorf("sequence = %d, want %d", r.Keyring.Sequence, lost.Sequence+1)
	}
	// Signers keep the key that they have. Tokens of all others pass until
	// they expire, but those of k1, which had retired, and of k0.
	s.wantKeys("joined", []string{"k1", "k2", "k3", "k6", "k5", "k7"}, []string{"k0"})
	if a := s.ring.Active(); a == nil || a.ID != "k5" || string(a.Private) != `{"d":"5"}` {
		t.Errorf("active is %+v, want k5", a)
	}
	for _, id := range []string{"k2", "k3"} {
		if k := s.key(id); k.VerifyUntil.Before(s.now.Add(tokenTTL)) || k.Private != nil {
			t.Errorf("%s = %+v, want it to verify for a token's life and never sign", id, k)
		}
	}
	if state := s.ring.State(s.key("k1"), s.now); state != v1alpha1.KeyRetired {
		t.Errorf("k1 is %s, want it to stay retired", state)
	}
	s.quiet("joined")
}

func TestAKeyIsImported(t *testing.T) {
	s := newScene(t)
	s.want.Spec.Import = &v1alpha1.Import{SecretName: "legacy", WithoutKeyID: true}
	if r := s.plan(); r.Hold != HoldImport || r.Changed {
		t.Fatalf("hold %q, changed %v while the key is not there, want %q", r.Hold, r.Changed, HoldImport)
	}
	s.imported = &Key{ID: "old-1", Public: &keyset.Members{Kty: "EC", X: "1"}, Private: json.RawMessage(`{"d":"1"}`), WithoutKeyID: true}
	s.settle()
	s.now = Ceil(s.now.Add(firstKeyWait))
	s.settle()
	a := s.ring.Active()
	if a == nil || a.ID != "old-1" || !a.WithoutKeyID || string(a.Private) != `{"d":"1"}` {
		t.Fatalf("active is %+v, want the imported key", a)
	}
	// The next rotation replaces it, and whatever becomes of import then.
	next := s.ring.Standby().ID
	s.imported = nil
	s.settle()
	s.now = Ceil(s.ring.Standby().PublishedAt.Add(verifierLag + clockSkew))
	s.want.Spec.Rotation.Trigger = "go"
	s.settle()
	if a := s.ring.Active(); a.ID != next {
		t.Errorf("active is %s, want %s", a.ID, next)
	}
	if k := s.key("old-1"); k.VerifyUntil.IsZero() {
		t.Error("the imported key verifies for ever")
	}
}
