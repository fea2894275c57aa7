package interop_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

const (
	issuer   = "https://auth.shop.example"
	audience = "orders"
	subject  = "u-17"
)

// key is a key pair as the product hands it out.
type key struct {
	*keyset.Key
	private any
	// jwk is the private key as the signer Secret holds it, pem the same in
	// PKCS #8; secrets have no PEM.
	jwk json.RawMessage
	pem string
	// jwks is the public document that verifiers are given; a secret is in
	// none, they have to be given its jwk.
	jwks json.RawMessage
}

// mintTask and verifyTask are what the scripts are asked, answer is what they
// say. A verification is answered with the token's sub, or nil for a refusal.
type (
	mintTask struct {
		Alg    keyset.Algorithm `json:"alg"`
		Kid    string           `json:"kid"`
		JWK    json.RawMessage  `json:"jwk,omitempty"`
		PEM    string           `json:"pem,omitempty"`
		Claims map[string]any   `json:"claims"`
	}
	verifyTask struct {
		Token string           `json:"token"`
		JWKS  json.RawMessage  `json:"jwks,omitempty"`
		JWK   json.RawMessage  `json:"jwk,omitempty"`
		Alg   keyset.Algorithm `json:"alg"`
		Aud   string           `json:"aud"`
		Iss   string           `json:"iss"`
	}
	job struct {
		Mint   []mintTask   `json:"mint,omitempty"`
		Verify []verifyTask `json:"verify,omitempty"`
	}
	answer struct {
		Mint   []string  `json:"mint"`
		Verify []*string `json:"verify"`
	}
)

// libraries are the other implementations: the command that runs a whole job.
var libraries = map[string][]string{
	"PyJWT": {"/usr/bin/python3", "pyjwt.py"},
	"jose":  {"node", "jose.mjs"},
}

func ask(t *testing.T, library string, j job) answer {
	t.Helper()
	in, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	command := libraries[library]
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("asking %s: %v\n%s\nIf it is not installed: make deps", library, err, stderr.String())
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("asking %s: %v", library, err)
	}
	if len(a.Mint) != len(j.Mint) || len(a.Verify) != len(j.Verify) {
		t.Fatalf("%s gave %d tokens for %d and %d verdicts for %d", library, len(a.Mint), len(j.Mint), len(a.Verify), len(j.Verify))
	}
	return a
}

// newKey makes a key pair, with its RFC 7638 thumbprint as the kid.
func newKey(t *testing.T, alg keyset.Algorithm) key {
	t.Helper()
	var (
		priv any
		pub  crypto.PublicKey
		err  error
	)
	switch alg.Family() {
	case keyset.FamilyEC:
		var k *ecdsa.PrivateKey
		if k, err = ecdsa.GenerateKey(alg.Curve(), rand.Reader); err == nil {
			priv, pub = k, &k.PublicKey
		}
	case keyset.FamilyOKP:
		pub, priv, err = ed25519.GenerateKey(rand.Reader)
	case keyset.FamilyRSA:
		var k *rsa.PrivateKey
		if k, err = rsa.GenerateKey(rand.Reader, keyset.MinRSABits); err == nil {
			priv, pub = k, &k.PublicKey
		}
	case keyset.FamilyHMAC:
		secret := make([]byte, alg.MinSecretBytes())
		_, err = rand.Read(secret)
		priv, pub = secret, secret
	}
	if err != nil {
		t.Fatal(err)
	}
	id := "secret-" + string(alg)
	if !alg.Symmetric() {
		if id, err = keyset.Thumbprint(pub); err != nil {
			t.Fatal(err)
		}
	}
	k := key{
		Key:     &keyset.Key{ID: id, Algorithm: alg, Public: pub, Issuer: issuer, MaxTokenTTL: time.Hour, Leeway: time.Minute},
		private: priv,
	}
	if k.jwk, err = keyset.EncodePrivate(priv, id, alg); err != nil {
		t.Fatal(err)
	}
	if alg.Symmetric() {
		return k
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	k.pem = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return k
}

// newKeys makes a pair for every algorithm. The public ones share one JWKS,
// in which verifiers have to find the right key by its kid.
func newKeys(t *testing.T) []key {
	t.Helper()
	var keys []key
	var public []*keyset.Key
	for _, alg := range keyset.Algorithms() {
		k := newKey(t, alg)
		keys, public = append(keys, k), append(public, k.Key)
	}
	doc, err := keyset.DocumentOf(public)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if !keys[i].Algorithm.Symmetric() {
			keys[i].jwks = raw
		}
	}
	return keys
}

func claims(now time.Time) map[string]any {
	return map[string]any{"iss": issuer, "aud": audience, "sub": subject, "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
}

// tampered are a token's forgeries: another sub under the same signature,
// another signature, and none.
func tampered(t *testing.T, raw string) map[string]string {
	t.Helper()
	seg := strings.Split(raw, ".")
	if len(seg) != 3 {
		t.Fatalf("a token of %d segments", len(seg))
	}
	payload, err := base64.RawURLEncoding.DecodeString(seg[1])
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.RawURLEncoding.DecodeString(seg[2])
	if err != nil {
		t.Fatal(err)
	}
	admin := bytes.Replace(payload, []byte(subject), []byte("admin"), 1)
	if bytes.Equal(admin, payload) {
		t.Fatalf("no sub in %s", payload)
	}
	sig[len(sig)/2] ^= 1
	return map[string]string{
		"another sub":       seg[0] + "." + base64.RawURLEncoding.EncodeToString(admin) + "." + seg[2],
		"another signature": seg[0] + "." + seg[1] + "." + base64.RawURLEncoding.EncodeToString(sig),
		"no signature":      seg[0] + "." + seg[1] + ".",
	}
}

// TestTheySignAndWeVerify: an application signs with the signer Secret's JWK
// or PEM, and the gate lets it pass.
func TestTheySignAndWeVerify(t *testing.T) {
	for library := range libraries {
		t.Run(library, func(t *testing.T) {
			keys := newKeys(t)
			now := time.Now()
			var tasks []mintTask
			var signers []key
			for _, k := range keys {
				tasks = append(tasks, mintTask{Alg: k.Algorithm, Kid: k.ID, JWK: k.jwk, Claims: claims(now)})
				signers = append(signers, k)
				if k.pem != "" {
					tasks = append(tasks, mintTask{Alg: k.Algorithm, Kid: k.ID, PEM: k.pem, Claims: claims(now)})
					signers = append(signers, k)
				}
			}
			var public []*keyset.Key
			for _, k := range keys {
				public = append(public, k.Key)
			}
			set, err := keyset.NewSet(public...)
			if err != nil {
				t.Fatal(err)
			}
			expected := token.Expected{Audiences: []string{audience}, RequiredClaims: []string{"sub"}}
			for i, raw := range ask(t, library, job{Mint: tasks}).Mint {
				form := "JWK"
				if tasks[i].PEM != "" {
					form = "PEM"
				}
				t.Run(fmt.Sprintf("%s from a %s", signers[i].Algorithm, form), func(t *testing.T) {
					got, err := token.Verify(raw, set, expected, now)
					if err != nil {
						t.Fatal(err)
					}
					if got.Key != signers[i].Key || got.Subject != subject {
						t.Errorf("got key %s and sub %q", got.Key.ID, got.Subject)
					}
					for how, bad := range tampered(t, raw) {
						if _, err := token.Verify(bad, set, expected, now); token.Reason(err) != "bad_signature" {
							t.Errorf("%s: got %v, want bad_signature", how, err)
						}
					}
				})
			}
		})
	}
}

// TestWeSignAndTheyVerify: they find the key in our JWKS by kid and take the
// token, and refuse its forgeries.
func TestWeSignAndTheyVerify(t *testing.T) {
	for library := range libraries {
		t.Run(library, func(t *testing.T) {
			now := time.Now()
			var tasks []verifyTask
			var names []string
			want := map[int]bool{}
			for _, k := range newKeys(t) {
				unsigned := jwt.NewWithClaims(jwt.GetSigningMethod(string(k.Algorithm)), jwt.MapClaims(claims(now)))
				unsigned.Header["kid"] = k.ID
				raw, err := unsigned.SignedString(k.private)
				if err != nil {
					t.Fatal(err)
				}
				add := func(name, raw string) {
					names = append(names, string(k.Algorithm)+", "+name)
					task := verifyTask{Token: raw, JWKS: k.jwks, Alg: k.Algorithm, Aud: audience, Iss: issuer}
					if k.Algorithm.Symmetric() {
						task.JWK = k.jwk
					}
					tasks = append(tasks, task)
				}
				want[len(tasks)] = true
				add("as it was signed", raw)
				for how, bad := range tampered(t, raw) {
					add(how, bad)
				}
			}
			if len(want) != len(keyset.Algorithms()) {
				t.Fatalf("%d tokens", len(want))
			}
			for i, verdict := range ask(t, library, job{Verify: tasks}).Verify {
				t.Run(names[i], func(t *testing.T) {
					switch {
					case want[i] && (verdict == nil || *verdict != subject):
						t.Errorf("refused")
					case !want[i] && verdict != nil:
						t.Errorf("passed with sub %q", *verdict)
					}
				})
			}
		})
	}
}

// TestLockFileNamesNoRegistry keeps the lock file usable behind any mirror.
func TestLockFileNamesNoRegistry(t *testing.T) {
	raw, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(`"resolved"`)) {
		t.Error(`package-lock.json has "resolved" members: .npmrc's omit-lockfile-registry-resolved was not in force`)
	}
}
