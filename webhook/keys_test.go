package webhook_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook"
	"github.com/keywright/keywright/webhook/authz"
)

var start = time.Unix(1_800_000_000, 0)

// status is a key of a SigningKey, Active, with new material.
func status(t testing.TB, id string, state v1alpha1.KeyState) v1alpha1.KeyStatus {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, err := keyset.MembersOf(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := v1alpha1.PublicJWK(m)
	return v1alpha1.KeyStatus{
		KeyID: id, Algorithm: "ES256", State: state, PublicKey: &public, Issuer: "https://auth.example",
		MaxTokenTTL: v1alpha1.Duration{Duration: time.Hour}, CreatedAt: metav1.NewTime(start),
	}
}

func signingKey(uid string, sequence int64, keys ...v1alpha1.KeyStatus) *v1alpha1.SigningKey {
	return &v1alpha1.SigningKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: types.UID(uid)},
		Spec: v1alpha1.SigningKeySpec{
			Algorithm: "ES256", Issuer: "https://auth.example",
			Propagation: v1alpha1.Propagation{
				Leeway:      v1alpha1.Duration{Duration: 2 * time.Minute},
				VerifierLag: v1alpha1.Duration{Duration: 30 * time.Minute},
			},
		},
		Status: v1alpha1.SigningKeyStatus{Sequence: sequence, Keys: keys},
	}
}

func with(s v1alpha1.KeyStatus, change func(*v1alpha1.KeyStatus)) v1alpha1.KeyStatus {
	s = *s.DeepCopy()
	change(&s)
	return s
}

func verifyingUntil(s v1alpha1.KeyStatus, until time.Time) v1alpha1.KeyStatus {
	return with(s, func(s *v1alpha1.KeyStatus) {
		at := metav1.NewTime(until)
		s.State, s.VerifyUntil = v1alpha1.KeyVerifying, &at
	})
}

func ids(k *authz.Keys) string {
	var all []string
	for _, key := range k.Set.Keys() {
		all = append(all, key.ID)
	}
	return strings.Join(all, " ")
}

func TestLoadKeysTakesWhatStatusSays(t *testing.T) {
	a := verifyingUntil(status(t, "a", ""), start)
	sk := signingKey("u1", 3, status(t, "c", v1alpha1.KeyPublished), status(t, "b", v1alpha1.KeyActive), a, status(t, "r", v1alpha1.KeyRetired))
	next := metav1.NewTime(start.Add(time.Minute))
	sk.Status.NextTransition = &v1alpha1.NextTransition{Type: v1alpha1.TransitionActivate, Time: next}
	got := webhook.LoadKeys(nil, sk, nil, start)
	if ids(got) != "a b c" || len(got.Problems) != 0 {
		t.Fatalf("got %s, problems %q", ids(got), got.Problems)
	}
	key, _ := got.Set.Lookup("a")
	public := key.Public
	want := &keyset.Key{
		ID: "a", Algorithm: keyset.ES256, Public: public, Issuer: "https://auth.example",
		MaxTokenTTL: time.Hour, Leeway: 2 * time.Minute, VerifyUntil: start,
	}
	if !cmp.Equal(want.VerifyUntil, key.VerifyUntil) || key.Issuer != want.Issuer || key.MaxTokenTTL != want.MaxTokenTTL || key.Leeway != want.Leeway {
		t.Errorf("got %+v, want %+v", key, want)
	}
	if got.Sequence != 3 || got.UID != "u1" || got.MaxAge != 5*time.Minute || !got.NextTransition.Equal(next.Time) || got.Issuer != "https://auth.example" {
		t.Errorf("got %+v", got)
	}
	sk.Spec.JWKS = &v1alpha1.JWKS{MaxAge: &v1alpha1.Duration{Duration: time.Second}}
	if got := webhook.LoadKeys(nil, sk, nil, start); got.MaxAge != time.Second {
		t.Errorf("got max-age %s", got.MaxAge)
	}
}

func TestLoadKeysLeavesOutWhatCannotBeUsed(t *testing.T) {
	good := status(t, "good", v1alpha1.KeyActive)
	tests := map[string]struct {
		change  func(*v1alpha1.KeyStatus)
		problem string
	}{
		"an unknown algorithm":    {func(s *v1alpha1.KeyStatus) { s.Algorithm = "none" }, "not known"},
		"another curve":           {func(s *v1alpha1.KeyStatus) { s.Algorithm = "ES384" }, "P-256"},
		"another family":          {func(s *v1alpha1.KeyStatus) { s.Algorithm = "RS256" }, "EC key"},
		"no public key":           {func(s *v1alpha1.KeyStatus) { s.PublicKey = nil }, "publicKey"},
		"an unknown kty":          {func(s *v1alpha1.KeyStatus) { s.PublicKey.Kty = "XX" }, "JWK"},
		"a point off the curve":   {func(s *v1alpha1.KeyStatus) { s.PublicKey.Y = s.PublicKey.X }, ""},
		"a short coordinate":      {func(s *v1alpha1.KeyStatus) { s.PublicKey.X = s.PublicKey.X[:20] }, ""},
		"no maxTokenTTL":          {func(s *v1alpha1.KeyStatus) { s.MaxTokenTTL.Duration = 0 }, "maxTokenTTL"},
		"a secret not there yet":  {func(s *v1alpha1.KeyStatus) { s.Algorithm, s.PublicKey = "HS256", nil }, "not in the Secret"},
		"a public key for a HMAC": {func(s *v1alpha1.KeyStatus) { s.Algorithm = "HS256" }, "not in the Secret"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := webhook.LoadKeys(nil, signingKey("u", 1, with(status(t, "bad", v1alpha1.KeyActive), tc.change), good), nil, start)
			if ids(got) != "good" || len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "bad") || !strings.Contains(got.Problems[0], tc.problem) {
				t.Errorf("got %s, problems %q", ids(got), got.Problems)
			}
		})
	}
}

func TestLoadKeysKeepsKeyObjects(t *testing.T) {
	a, b := status(t, "a", v1alpha1.KeyActive), status(t, "b", v1alpha1.KeyPublished)
	before := webhook.LoadKeys(nil, signingKey("u", 1, b, a), nil, start)
	changed := signingKey("u", 2, with(b, func(s *v1alpha1.KeyStatus) { s.State = v1alpha1.KeyActive }), verifyingUntil(a, start))
	after := webhook.LoadKeys(before, changed, nil, start)
	for id, want := range map[string]bool{"a": false, "b": true} {
		was, _ := before.Set.Lookup(id)
		is, _ := after.Set.Lookup(id)
		if (was == is) != want {
			t.Errorf("%s: same object %v, want %v", id, was == is, want)
		}
	}
	// A SigningKey that was deleted and made again goes on with them.
	again := webhook.LoadKeys(after, signingKey("u2", 1, changed.Status.Keys...), nil, start)
	if !cmp.Equal(ids(again), "a b") || again.Sequence != 1 {
		t.Errorf("got %s, sequence %d", ids(again), again.Sequence)
	}
	if is, _ := again.Set.Lookup("b"); is != mustLookup(t, after, "b") {
		t.Error("b is another object")
	}
}

func TestLoadKeysTellsWhichKeyIsForTokensWithoutAKeyID(t *testing.T) {
	imported := with(status(t, "legacy", v1alpha1.KeyActive), func(s *v1alpha1.KeyStatus) { s.WithoutKeyID = true })
	plain := with(imported, func(s *v1alpha1.KeyStatus) { s.WithoutKeyID = false })
	before := webhook.LoadKeys(nil, signingKey("u", 1, status(t, "next", v1alpha1.KeyPublished), imported), nil, start)
	if got := before.Set.WithoutKeyID(); len(got) != 1 || got[0] != mustLookup(t, before, "legacy") {
		t.Errorf("got %v", got)
	}
	after := webhook.LoadKeys(before, signingKey("u", 2, plain), nil, start)
	if mustLookup(t, after, "legacy") == mustLookup(t, before, "legacy") || len(after.Set.WithoutKeyID()) != 0 {
		t.Error("it stays so when status says otherwise")
	}
}

func mustLookup(t *testing.T, k *authz.Keys, id string) *keyset.Key {
	t.Helper()
	key, ok := k.Set.Lookup(id)
	if !ok {
		t.Fatalf("no key %s in %s", id, ids(k))
	}
	return key
}

func TestLoadKeysWhenStatusGoesBack(t *testing.T) {
	a, b, c, d := status(t, "a", v1alpha1.KeyActive), status(t, "b", v1alpha1.KeyActive), status(t, "c", v1alpha1.KeyPublished), status(t, "d", v1alpha1.KeyPublished)
	retired := func(s v1alpha1.KeyStatus) v1alpha1.KeyStatus {
		return with(s, func(s *v1alpha1.KeyStatus) { s.State = v1alpha1.KeyRetired })
	}
	now := webhook.LoadKeys(nil, signingKey("u", 5, c, verifyingUntil(b, start), retired(a)), nil, start)

	t.Run("both key sets count, the newer word about a key stays, retired keys stay so", func(t *testing.T) {
		got := webhook.LoadKeys(now, signingKey("u", 4, d, b, a), nil, start)
		if ids(got) != "b c d" || got.Sequence != 5 || len(got.Problems) == 0 {
			t.Fatalf("got %s, sequence %d, problems %q", ids(got), got.Sequence, got.Problems)
		}
		if !mustLookup(t, got, "b").VerifyUntil.Equal(start) {
			t.Error("b has lost its end")
		}
		got = webhook.LoadKeys(got, signingKey("u", 5, d), nil, start)
		if ids(got) != "b c d" {
			t.Errorf("at the same sequence: got %s", ids(got))
		}
		got = webhook.LoadKeys(got, signingKey("u", 6, d, a), nil, start)
		if ids(got) != "c d" || got.Sequence != 6 { // b's time is over
			t.Errorf("once it rises: got %s, sequence %d", ids(got), got.Sequence)
		}
	})
	t.Run("a key that only older ones know ends as the next of those says", func(t *testing.T) {
		got := webhook.LoadKeys(now, signingKey("u", 2, d, b), nil, start)
		got = webhook.LoadKeys(got, signingKey("u", 3, verifyingUntil(d, start.Add(time.Minute)), b), nil, start)
		if end := mustLookup(t, got, "d").VerifyUntil; !end.Equal(start.Add(time.Minute)) {
			t.Errorf("d ends %s", end)
		}
		got = webhook.LoadKeys(got, signingKey("u", 2, d, b), nil, start) // late news
		if end := mustLookup(t, got, "d").VerifyUntil; !end.Equal(start.Add(time.Minute)) {
			t.Errorf("after an older one d ends %s", end)
		}
		if end := mustLookup(t, got, "b").VerifyUntil; !end.Equal(start) {
			t.Errorf("b, which the newest knows, ends %s", end)
		}
	})
	t.Run("retired in the older one counts", func(t *testing.T) {
		if got := webhook.LoadKeys(now, signingKey("u", 4, retired(b)), nil, start); ids(got) != "c" {
			t.Errorf("got %s", ids(got))
		}
	})
	t.Run("an emptied status takes nothing away", func(t *testing.T) {
		if got := webhook.LoadKeys(now, signingKey("u", 0), nil, start); ids(got) != "b c" || got.Sequence != 5 {
			t.Errorf("got %s, sequence %d", ids(got), got.Sequence)
		}
	})
	t.Run("another SigningKey of the name begins anew", func(t *testing.T) {
		if got := webhook.LoadKeys(now, signingKey("u2", 1, d), nil, start); ids(got) != "d" || got.Sequence != 1 {
			t.Errorf("got %s, sequence %d", ids(got), got.Sequence)
		}
	})
	t.Run("the same sequence may tell more of a key", func(t *testing.T) {
		got := webhook.LoadKeys(now, signingKey("u", 5, c, verifyingUntil(b, start.Add(time.Hour))), nil, start)
		if !mustLookup(t, got, "b").VerifyUntil.Equal(start.Add(time.Hour)) {
			t.Error("b's end was not taken")
		}
	})
}

func TestLoadKeysRefusesOtherMaterial(t *testing.T) {
	a := status(t, "a", v1alpha1.KeyActive)
	before := webhook.LoadKeys(nil, signingKey("u", 1, a), nil, start)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, err := keyset.MembersOf(public)
	if err != nil {
		t.Fatal(err)
	}
	jwk := v1alpha1.PublicJWK(m)
	others := map[string]v1alpha1.KeyStatus{
		"another key":      status(t, "a", v1alpha1.KeyActive),
		"another kind":     with(a, func(s *v1alpha1.KeyStatus) { s.Algorithm, s.PublicKey = "EdDSA", &jwk }),
		"an unusable key":  with(a, func(s *v1alpha1.KeyStatus) { s.PublicKey = nil }),
		"no maxTokenTTL":   with(a, func(s *v1alpha1.KeyStatus) { s.MaxTokenTTL.Duration = 0 }),
		"a secret instead": with(a, func(s *v1alpha1.KeyStatus) { s.Algorithm, s.PublicKey = "HS256", nil }),
	}
	for name, other := range others {
		t.Run(name, func(t *testing.T) {
			got := webhook.LoadKeys(before, signingKey("u", 2, other), nil, start)
			if mustLookup(t, got, "a") != mustLookup(t, before, "a") || len(got.Problems) != 1 {
				t.Errorf("another key counts, or no problem is told: %q", got.Problems)
			}
		})
	}
	t.Run("another SigningKey of the name may have another", func(t *testing.T) {
		got := webhook.LoadKeys(before, signingKey("u2", 1, others["another key"]), nil, start)
		if mustLookup(t, got, "a") == mustLookup(t, before, "a") || len(got.Problems) != 0 {
			t.Errorf("the old key stays: %q", got.Problems)
		}
	})
}

func TestLoadKeysOfHMAC(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	entry := func(name string, secrets map[string][]byte) []byte {
		raw, err := keyset.HMACEntry{Namespace: "shop", Name: name, Secrets: secrets}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	h := with(status(t, "h", v1alpha1.KeyActive), func(s *v1alpha1.KeyStatus) { s.Algorithm, s.PublicKey = "HS256", nil })
	sk := signingKey("u", 1, h)
	good := webhook.LoadKeys(webhook.LoadKeys(nil, sk, nil, start), sk, entry("shop", map[string][]byte{"h": secret}), start)
	if ids(good) != "h" || len(good.Problems) != 0 {
		t.Fatalf("got %s, problems %q", ids(good), good.Problems)
	}
	tests := map[string]struct {
		previous *authz.Keys
		entry    []byte
		want     string
	}{
		"another SigningKey's entry":       {nil, entry("other", map[string][]byte{"h": secret}), ""},
		"an entry that cannot be read":     {nil, []byte("{"), ""},
		"a secret that is too short":       {nil, entry("shop", map[string][]byte{"h": secret[:31]}), ""},
		"an entry that is away for a time": {good, nil, "h"},
		"another secret for the ID":        {good, entry("shop", map[string][]byte{"h": []byte(strings.Repeat("x", 32))}), "h"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := webhook.LoadKeys(tc.previous, sk, tc.entry, start)
			if ids(got) != tc.want {
				t.Errorf("got %s, problems %q", ids(got), got.Problems)
			}
			if tc.want != "" && mustLookup(t, got, "h") != mustLookup(t, good, "h") {
				t.Error("another object")
			}
			for _, problem := range got.Problems {
				if strings.Contains(problem, string(secret[:31])) {
					t.Errorf("secret shown: %q", problem)
				}
			}
		})
	}
}

func TestLoadKeysTellsTheIssuerOfTheActiveKey(t *testing.T) {
	old := func(state v1alpha1.KeyState) v1alpha1.KeyStatus {
		return with(status(t, "a", state), func(s *v1alpha1.KeyStatus) { s.Issuer = "https://old.example" })
	}
	for name, tc := range map[string]struct {
		keys []v1alpha1.KeyStatus
		want string
	}{
		"an active key of the issuer before": {[]v1alpha1.KeyStatus{status(t, "b", v1alpha1.KeyPublished), old(v1alpha1.KeyActive)}, "https://old.example"},
		"an active key without an issuer":    {[]v1alpha1.KeyStatus{with(old(v1alpha1.KeyActive), func(s *v1alpha1.KeyStatus) { s.Issuer = "" })}, ""},
		"no active key":                      {[]v1alpha1.KeyStatus{old(v1alpha1.KeyVerifying)}, "https://auth.example"},
		"no key":                             {nil, "https://auth.example"},
	} {
		if got := webhook.LoadKeys(nil, signingKey("u", 1, tc.keys...), nil, start).Issuer; got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestLoadKeysAllowedNamespaces(t *testing.T) {
	sk := signingKey("u", 1)
	sk.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesAll}
	if got := webhook.LoadKeys(nil, sk, nil, start); !got.Allowed.All {
		t.Error("All allows not all")
	}
	sk.Spec.AllowedNamespaces = v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesSelector, Selector: &metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Nope"}},
	}}
	if got := webhook.LoadKeys(nil, sk, nil, start); got.Allowed.All || got.Allowed.Selector != nil || len(got.Problems) != 1 {
		t.Errorf("got %+v", got)
	}
}
