package lifecycle

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// aKeyring has a key in every state at noon on 1 March 2026: k1 retired, k2
// verifying, k3 active, k4 standing by.
func aKeyring() Keyring {
	noon := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	public := &keyset.Members{Kty: "EC", Crv: "P-256", X: "x", Y: "y"}
	key := func(id string, sequence int64) Key {
		return Key{
			ID: id, Sequence: sequence, Algorithm: keyset.ES256, Issuer: "https://auth.example", Public: public,
			MaxTokenTTL: time.Hour, CreatedAt: noon.Add(-9 * time.Hour), PublishedAt: noon.Add(-8*time.Hour + time.Nanosecond),
		}
	}
	k1, k2, k3, k4 := key("k1", 1), key("k2", 2), key("k3", 4), key("k4", 6)
	k1.ActivatedAt, k1.DeactivatedAt, k1.VerifyUntil = noon.Add(-7*time.Hour), noon.Add(-5*time.Hour), noon.Add(-3*time.Hour)
	k2.ActivatedAt, k2.DeactivatedAt, k2.VerifyUntil = noon.Add(-5*time.Hour), noon.Add(-time.Hour), noon.Add(time.Hour)
	k3.ActivatedAt, k3.Private = noon.Add(-time.Hour), json.RawMessage(`{"kty":"EC"}`)
	k4.Private = json.RawMessage(`{"kty":"EC"}`)
	return Keyring{
		Version: KeyringVersion, Sequence: 7, Trigger: "again",
		TokenTTL: TokenTTL{Current: time.Hour, Raise: 2 * time.Hour, RaiseShownAt: noon},
		Keys:     []Key{k1, k2, k3, k4},
	}
}

func TestKeyringStates(t *testing.T) {
	noon := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	ring := aKeyring()
	states := func(now time.Time) map[string]v1alpha1.KeyState {
		out := map[string]v1alpha1.KeyState{}
		for i := range ring.Keys {
			out[ring.Keys[i].ID] = ring.State(&ring.Keys[i], now)
		}
		return out
	}
	want := map[string]v1alpha1.KeyState{
		"k1": v1alpha1.KeyRetired, "k2": v1alpha1.KeyVerifying, "k3": v1alpha1.KeyActive, "k4": v1alpha1.KeyPublished,
	}
	if diff := cmp.Diff(want, states(noon.Add(time.Hour-time.Nanosecond))); diff != "" {
		t.Errorf("states just before k2's end (-want +got):\n%s", diff)
	}
	want["k2"] = v1alpha1.KeyRetired
	if diff := cmp.Diff(want, states(noon.Add(time.Hour))); diff != "" {
		t.Errorf("states at k2's end (-want +got):\n%s", diff)
	}
	var ids []string
	for _, k := range ring.Verifying(noon) {
		ids = append(ids, k.ID)
	}
	if diff := cmp.Diff([]string{"k4", "k3", "k2"}, ids); diff != "" {
		t.Errorf("keys that count (-want +got):\n%s", diff)
	}
	if k := ring.Active(); k == nil || k.ID != "k3" {
		t.Errorf("Active = %v, want k3", k)
	}
	if k := ring.Standby(); k == nil || k.ID != "k4" {
		t.Errorf("Standby = %v, want k4", k)
	}
	if k := ring.switching(); k != nil {
		t.Errorf("switching = %s, want none", k.ID)
	}
	// From the decision to activate k4 until the signer Secret holds it, k3
	// verifies without an end.
	ring.Keys[3].ActivatedAt = noon
	if k := ring.switching(); k == nil || k.ID != "k3" {
		t.Errorf("switching = %v, want k3", k)
	}
	want = map[string]v1alpha1.KeyState{
		"k1": v1alpha1.KeyRetired, "k2": v1alpha1.KeyRetired, "k3": v1alpha1.KeyVerifying, "k4": v1alpha1.KeyActive,
	}
	if diff := cmp.Diff(want, states(noon.Add(1000*time.Hour))); diff != "" {
		t.Errorf("states long into a switch (-want +got):\n%s", diff)
	}
	if ring.Standby() != nil || ring.Find("k5") != nil || ring.Find("k1").Sequence != 1 {
		t.Errorf("Standby = %v, Find(k5) = %v, Find(k1) = %v", ring.Standby(), ring.Find("k5"), ring.Find("k1"))
	}
}

func TestKeyringSurvivesItsDocument(t *testing.T) {
	for name, ring := range map[string]Keyring{
		"with a key in every state": aKeyring(),
		"without keys":              {Version: KeyringVersion},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := ring.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeKeyring(raw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ring, got); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeKeyringRefuses(t *testing.T) {
	const secret = "c2VjcmV0"
	tests := map[string]struct {
		document string
		want     error
	}{
		"nothing":                      {``, ErrKeyringUnreadable},
		"no JSON":                      {secret, ErrKeyringUnreadable},
		"another JSON":                 {`["` + secret + `"]`, ErrKeyringUnreadable},
		"null":                         {`null`, ErrKeyringUnreadable},
		"an object of something else":  {`{"d": "` + secret + `"}`, ErrKeyringUnreadable},
		"a document cut short":         {`{"version": 1, "keys": [{"id": "` + secret, ErrKeyringUnreadable},
		"two documents":                {`{"version": 1} {"version": 1}`, ErrKeyringUnreadable},
		"a member of another type":     {`{"version": 1, "sequence": "` + secret + `"}`, ErrKeyringUnreadable},
		"a time that is none":          {`{"version": 1, "keys": [{"id": "a", "algorithm": "ES256", "createdAt": "` + secret + `"}]}`, ErrKeyringUnreadable},
		"version 0":                    {`{"version": 0}`, ErrKeyringUnreadable},
		"a negative version":           {`{"version": -1}`, ErrKeyringUnreadable},
		"a version that is a text":     {`{"version": "1"}`, ErrKeyringUnreadable},
		"a key without an ID":          {`{"version": 1, "keys": [{"algorithm": "ES256", "private": "` + secret + `"}]}`, ErrKeyringUnreadable},
		"two keys with one ID":         {`{"version": 1, "keys": [{"id": "` + secret + `", "algorithm": "ES256"}, {"id": "` + secret + `", "algorithm": "ES256"}]}`, ErrKeyringUnreadable},
		"an algorithm that is unknown": {`{"version": 1, "keys": [{"id": "a", "algorithm": "` + secret + `"}]}`, ErrKeyringUnreadable},
		"a newer version":              {`{"version": 2}`, ErrKeyringTooNew},
		"a newer version whose members have other types": {`{"version": 2, "keys": "` + secret + `"}`, ErrKeyringTooNew},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ring, err := DecodeKeyring([]byte(tc.document))
			if !errors.Is(err, tc.want) {
				t.Fatalf("DecodeKeyring = %v, want %v", err, tc.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error quotes the document: %v", err)
			}
			if diff := cmp.Diff(Keyring{}, ring); diff != "" {
				t.Errorf("a keyring comes with the error:\n%s", diff)
			}
		})
	}
}

func FuzzDecodeKeyring(f *testing.F) {
	whole, err := aKeyring().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":2,"keys":"later"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ring, err := DecodeKeyring(raw)
		if err != nil {
			if !errors.Is(err, ErrKeyringUnreadable) && !errors.Is(err, ErrKeyringTooNew) {
				t.Fatalf("an error without a sentinel: %v", err)
			}
			return
		}
		// What was read can be written and read again, and says the same.
		first, err := ring.Encode()
		if err != nil {
			t.Fatalf("writing what was read: %v", err)
		}
		again, err := DecodeKeyring(first)
		if err != nil {
			t.Fatalf("reading what was written: %v", err)
		}
		second, err := again.Encode()
		if err != nil || string(second) != string(first) {
			t.Fatalf("written twice: %s, then %s, %v", first, second, err)
		}
	})
}
