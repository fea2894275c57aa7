package controllers

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// asymmetric lists the algorithms with a public half.
func asymmetric() []keyset.Algorithm {
	return slices.DeleteFunc(keyset.Algorithms(), keyset.Algorithm.Symmetric)
}

func TestSignerDataIsOneFileWithAll(t *testing.T) {
	for _, alg := range keyset.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			k := generated(t, alg)
			data, err := signerData(&k, 90*time.Minute, nil)
			if err != nil {
				t.Fatal(err)
			}
			var head struct {
				Kid, Alg, Iss string
				MaxTokenTTL   int64
			}
			if err := json.Unmarshal(data[SigningJWKEntry], &head); err != nil {
				t.Fatal(err)
			}
			if head.Kid != k.ID || head.Alg != string(alg) || head.Iss != k.Issuer || head.MaxTokenTTL != 5400 {
				t.Errorf("%s says %+v", SigningJWKEntry, head)
			}
			priv, _, err := keyset.DecodePrivate(data[SigningJWKEntry])
			if err != nil {
				t.Fatalf("%s is not a private JWK: %v", SigningJWKEntry, err)
			}
			if string(data[KeyIDEntry]) != k.ID || string(data[AlgorithmEntry]) != string(alg) {
				t.Errorf("kid %q, alg %q", data[KeyIDEntry], data[AlgorithmEntry])
			}
			want := []string{AlgorithmEntry, KeyIDEntry, SigningJWKEntry}
			if !alg.Symmetric() {
				want = []string{AlgorithmEntry, SigningPEMEntry, KeyIDEntry, SigningJWKEntry}
				block, rest := pem.Decode(data[SigningPEMEntry])
				if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
					t.Fatalf("%s is not one PKCS#8 block", SigningPEMEntry)
				}
				parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				if same, ok := parsed.(interface{ Equal(x any) bool }); ok && !same.Equal(priv) {
					t.Errorf("%s is another key than %s", SigningPEMEntry, SigningJWKEntry)
				}
				again, err := keyset.EncodePrivate(parsed, k.ID, alg)
				if err != nil || string(again) != string(k.Private) {
					t.Errorf("%s is another key than %s: %v", SigningPEMEntry, SigningJWKEntry, err)
				}
			}
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(data))); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			if got := signerKeyID(&corev1.Secret{Data: data}, lifecycle.Keyring{Keys: []lifecycle.Key{k}}, nil); got != k.ID {
				t.Errorf("signerKeyID of it = %q, want %q", got, k.ID)
			}
		})
	}
}

func TestSignerDataLeavesOutAnIssuerThatIsNotSet(t *testing.T) {
	k := generated(t, keyset.ES256)
	k.Issuer = ""
	data, err := signerData(&k, time.Hour, nil)
	if err != nil || strings.Contains(string(data[SigningJWKEntry]), `"iss"`) {
		t.Errorf("iss is in the file: %v", err)
	}
	k.Private = json.RawMessage(`{"kty": "EC"`)
	if _, err := signerData(&k, time.Hour, nil); err == nil {
		t.Error("a private key that cannot be read is handed to signers")
	}
}

func TestSignerKeyIDRefuses(t *testing.T) {
	ec, hs, other := generated(t, keyset.ES256), generated(t, keyset.HS256), generated(t, keyset.ES256)
	ring := lifecycle.Keyring{Keys: []lifecycle.Key{ec, hs}}
	renamed := func(k lifecycle.Key, id string) string {
		return strings.ReplaceAll(string(k.Private), k.ID, id)
	}
	public, err := json.Marshal(keyset.PublicJWK{Kid: ec.ID, Use: "sig", Alg: "ES256", Members: *ec.Public})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"nothing":                              ``,
		"no JSON":                              `garbage`,
		"null":                                 `null`,
		"a JWK cut short":                      string(ec.Private[:len(ec.Private)/2]),
		"a kid without a key":                  `{"kid": "` + ec.ID + `"}`,
		"a public key alone":                   string(public),
		"a key that is not in the keyring":     string(other.Private),
		"another key under a kid of ours":      renamed(other, ec.ID),
		"another secret under a kid of ours":   renamed(generated(t, keyset.HS256), hs.ID),
		"a secret under the kid of an EC key":  renamed(hs, ec.ID),
		"an EC key under the kid of a secret":  renamed(ec, hs.ID),
		"a key of ours under another of ours":  renamed(ec, hs.ID),
		"a longer secret under a kid of ours":  renamed(generated(t, keyset.HS512), hs.ID),
		"an array with the key of ours inside": `[` + string(ec.Private) + `]`,
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{Data: map[string][]byte{SigningJWKEntry: []byte(raw), KeyIDEntry: []byte(ec.ID)}}
			if got := signerKeyID(secret, ring, nil); got != "" {
				t.Errorf("signerKeyID = %q, want none", got)
			}
		})
	}
	for _, k := range []lifecycle.Key{ec, hs} {
		if got := signerKeyID(&corev1.Secret{Data: map[string][]byte{SigningJWKEntry: k.Private}}, ring, nil); got != k.ID {
			t.Errorf("signerKeyID of the %s key = %q, want %q", k.Algorithm, got, k.ID)
		}
	}
	if got := signerKeyID(nil, ring, nil); got != "" {
		t.Errorf("signerKeyID of no Secret = %q", got)
	}
}

// inEveryState is a keyring of asymmetric keys, one retired, one verifying,
// one active, one standing by at noon, whose times have fractions.
func inEveryState(t *testing.T, alg keyset.Algorithm) lifecycle.Keyring {
	t.Helper()
	ring := lifecycle.Keyring{Version: lifecycle.KeyringVersion, Sequence: 9, TokenTTL: lifecycle.TokenTTL{Current: time.Hour}}
	for i := range 4 {
		k := generated(t, alg)
		k.Sequence, k.MaxTokenTTL = int64(2*i+1), time.Hour
		k.CreatedAt = noon.Add(time.Duration(i-9)*time.Hour + time.Nanosecond)
		k.PublishedAt = k.CreatedAt.Add(time.Second)
		if i < 3 {
			k.ActivatedAt = noon.Add(time.Duration(i-4)*time.Hour + 500*time.Millisecond)
		}
		if i < 2 {
			k.DeactivatedAt = noon.Add(time.Duration(i-3)*time.Hour + 999_999_999)
			k.VerifyUntil = lifecycle.Ceil(k.DeactivatedAt.Add(150 * time.Minute))
			if !alg.Symmetric() {
				k.Private = nil
			}
		}
		ring.Keys = append(ring.Keys, k)
	}
	return ring
}

func TestJWKSDataHasNoPrivateMember(t *testing.T) {
	private := []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
	for _, alg := range asymmetric() {
		t.Run(string(alg), func(t *testing.T) {
			ring := inEveryState(t, alg)
			data, err := jwksData(ring, noon)
			if err != nil {
				t.Fatal(err)
			}
			var doc struct{ Keys []map[string]any }
			if err := json.Unmarshal([]byte(data[JWKSEntry]), &doc); err != nil || len(data) != 1 {
				t.Fatalf("entries %v, %v", slices.Sorted(maps.Keys(data)), err)
			}
			var kids []string
			for _, k := range doc.Keys {
				kids = append(kids, k["kid"].(string))
				if k["alg"] != string(alg) || k["use"] != "sig" {
					t.Errorf("key %s: alg %v, use %v", k["kid"], k["alg"], k["use"])
				}
				for _, member := range private {
					if _, ok := k[member]; ok {
						t.Errorf("key %s shows its private member %q", k["kid"], member)
					}
				}
			}
			want := []string{ring.Keys[3].ID, ring.Keys[2].ID, ring.Keys[1].ID}
			if diff := cmp.Diff(want, kids); diff != "" {
				t.Errorf("keys that count, newest first (-want +got):\n%s", diff)
			}
			shown := shownInJWKS(&corev1.ConfigMap{Data: data})
			if len(shown) != 3 || shown[want[0]] != *ring.Keys[3].Public {
				t.Errorf("read back: %d keys", len(shown))
			}
		})
	}
}

func TestJWKSDataIsNeverAnEmptySet(t *testing.T) {
	retired := inEveryState(t, keyset.ES256)
	retired.Keys = retired.Keys[:1]
	for name, ring := range map[string]lifecycle.Keyring{
		"no keys":           {},
		"retired keys only": retired,
		"secrets only":      inEveryState(t, keyset.HS256),
	} {
		t.Run(name, func(t *testing.T) {
			if data, err := jwksData(ring, noon); err != nil || data != nil {
				t.Errorf("jwksData = %v, %v, want nothing", data, err)
			}
		})
	}
	for name, cm := range map[string]*corev1.ConfigMap{"no ConfigMap": nil, "an emptied one": {}, "an edited one": {Data: map[string]string{JWKSEntry: "{"}}} {
		if shown := shownInJWKS(cm); len(shown) != 0 {
			t.Errorf("%s shows %d keys", name, len(shown))
		}
	}
}

func TestHMACEntry(t *testing.T) {
	sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"}}
	ring := inEveryState(t, keyset.HS384)
	ring.Keys = append(ring.Keys, generated(t, keyset.ES256)) // the algorithm was edited
	raw, err := hmacEntry(sk, ring, noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := keyset.DecodeHMACEntry(raw, "shop", "orders")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	for _, k := range ring.Keys[1:4] {
		_, secret, err := keyset.DecodePrivate(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		want[k.ID] = secret.([]byte)
	}
	if diff := cmp.Diff(want, entry.Secrets); diff != "" {
		t.Errorf("secrets that count (-want +got):\n%s", diff)
	}
	if again, err := hmacEntry(sk, ring, noon, nil); err != nil || string(again) != string(raw) {
		t.Error("the same keyring gives another entry: it would be written at each pass")
	}
	for name, ring := range map[string]lifecycle.Keyring{"no keys": {}, "asymmetric keys only": inEveryState(t, keyset.EdDSA)} {
		if raw, err := hmacEntry(sk, ring, noon, nil); err != nil || raw != nil {
			t.Errorf("%s: %q, %v, want no entry", name, raw, err)
		}
	}
	ring.Keys[3].Private = json.RawMessage(`{"kty":"oct","k":"c2VjcmV0`)
	if _, err := hmacEntry(sk, ring, noon, nil); err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("a secret that cannot be read: %v", err)
	}
}

func TestMark(t *testing.T) {
	sk := &v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: strings.Repeat("n", 200), UID: "uid-1",
		Labels: map[string]string{"argocd.argoproj.io/instance": "shop"},
	}}
	foreign := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "uid-2"}
	mine := metav1.OwnerReference{APIVersion: "keywright.dev/v1alpha1", Kind: "SigningKey", Name: sk.Name, UID: "uid-1"}
	before := metav1.OwnerReference{APIVersion: "keywright.dev/v1alpha1", Kind: "SigningKey", Name: sk.Name, UID: "uid-0"}

	tests := map[string]struct {
		policy v1alpha1.DeletionPolicy
		owners []metav1.OwnerReference
		want   []metav1.OwnerReference
	}{
		"Retain has no owner":                           {policy: v1alpha1.DeletionRetain},
		"Retain keeps a foreign owner":                  {v1alpha1.DeletionRetain, []metav1.OwnerReference{foreign}, []metav1.OwnerReference{foreign}},
		"Retain takes its own back":                     {v1alpha1.DeletionRetain, []metav1.OwnerReference{mine, foreign}, []metav1.OwnerReference{foreign}},
		"Delete has an owner":                           {v1alpha1.DeletionDelete, nil, []metav1.OwnerReference{mine}},
		"Delete has it once":                            {v1alpha1.DeletionDelete, []metav1.OwnerReference{mine}, []metav1.OwnerReference{mine}},
		"Delete replaces that of a former one":          {v1alpha1.DeletionDelete, []metav1.OwnerReference{before}, []metav1.OwnerReference{mine}},
		"Delete keeps a foreign owner":                  {v1alpha1.DeletionDelete, []metav1.OwnerReference{foreign}, []metav1.OwnerReference{foreign, mine}},
		"nothing said is Retain, as the API's defaults": {"", []metav1.OwnerReference{mine}, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			sk := sk.DeepCopy()
			sk.Spec.DeletionPolicy = tc.policy
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
				OwnerReferences: tc.owners,
				Labels:          map[string]string{"theirs": "kept"},
				Annotations:     map[string]string{"theirs": "kept"},
			}}
			mark(secret, sk, &v1alpha1.MetadataTemplate{
				Labels:      map[string]string{"team": "shop", v1alpha1.LabelSigningKey: "forged"},
				Annotations: map[string]string{"note": "hello", v1alpha1.AnnotationSigningKey: "forged"},
			})
			if diff := cmp.Diff(tc.want, secret.OwnerReferences); diff != "" {
				t.Errorf("owners (-want +got):\n%s", diff)
			}
			wantLabels := map[string]string{"theirs": "kept", "team": "shop", v1alpha1.LabelSigningKey: labelValue(sk.Name)}
			if diff := cmp.Diff(wantLabels, secret.Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			wantAnnotations := map[string]string{"theirs": "kept", "note": "hello", v1alpha1.AnnotationSigningKey: sk.Name}
			if diff := cmp.Diff(wantAnnotations, secret.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			if !ours(secret, sk.Name) || ours(secret, "other") || len(secret.Labels[v1alpha1.LabelSigningKey]) > 63 {
				t.Errorf("ours = %v, of another %v, label %q", ours(secret, sk.Name), ours(secret, "other"), secret.Labels[v1alpha1.LabelSigningKey])
			}
		})
	}
	if ours(&corev1.Secret{}, "shop") {
		t.Error("an object without marks is ours")
	}
}
