//go:build linux

package gate

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
)

// victim is a token that passes until it is revoked. While it is being revoked
// nobody asks with it: either answer would be right.
type victim struct {
	mu       sync.Mutex
	state    string
	url      string
	token    string
	refused  string // what questions with it are called once it is revoked
	underWay sync.WaitGroup
}

// ask gives a question with the token, or false while it is being revoked.
func (v *victim) ask() (question, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch v.state {
	case "":
		v.underWay.Add(1)
		return question{url: v.url, token: v.token, kind: toRevoke, good: true, answered: v.underWay.Done}, true
	case revoked:
		return question{url: v.url, token: v.token, kind: v.refused}, true
	}
	return question{}, false
}

func (v *victim) become(state string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.state = state
}

// revoke waits for the answers that are under way, revokes, and waits until
// the first caller refuses the token. All ask the same gate.
func (v *victim) revoke(t *testing.T, c *caller, with func()) {
	t.Helper()
	v.become("being revoked")
	v.underWay.Wait()
	with()
	await(t, "the token to be refused", func() error {
		got, err := send(t.Context(), c, http.MethodGet, v.url, v.token)
		if err == nil && got != http.StatusUnauthorized {
			err = fmt.Errorf("status %d", got)
		}
		return err
	})
	v.become(revoked)
}

// tokenAndKeyAreRevoked revokes one token of a user who keeps another, and then
// the active key of one issuer of two.
func tokenAndKeyAreRevoked(t *testing.T, cs []*caller) {
	const name = "revocable"
	const url = "http://revocable.test/orders"
	seconds := func(n time.Duration) v1alpha1.Duration { return v1alpha1.Duration{Duration: n * time.Second} }
	week := seconds(7 * 24 * 3600)
	sk := &v1alpha1.SigningKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: v1alpha1.SigningKeySpec{
			Algorithm: "ES256", Issuer: "https://revocable.example", MaxTokenTTL: seconds(3600),
			Rotation: v1alpha1.Rotation{Interval: &week},
			// A standby that was just made may sign after as long.
			Propagation: v1alpha1.Propagation{VerifierLag: seconds(1), SignerLag: seconds(2), ClockSkew: seconds(0), Leeway: seconds(1)},
		},
	}
	accessPolicy := &v1alpha1.AccessPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: v1alpha1.AccessPolicySpec{Issuers: []v1alpha1.TokenIssuerRef{
			{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"}, Audiences: []string{"orders"}},
			{SigningKeyRef: v1alpha1.SigningKeyRef{Name: name}, Audiences: []string{"orders"}},
		}},
	}
	for _, object := range []client.Object{sk, accessPolicy} {
		if err := env.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := env.Client.Delete(context.Background(), object); err != nil {
				t.Error(err)
			}
		})
		if err := awaitReady(t.Context(), object.DeepCopyObject().(client.Object), "shop", name); err != nil {
			t.Fatal(err)
		}
	}
	patch := func(object client.Object, with func()) {
		t.Helper()
		before := client.MergeFrom(object.DeepCopyObject().(client.Object))
		with()
		if err := env.Client.Patch(t.Context(), object, before); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range cs {
		if err := c.serve(t.Context(), endpointOf(env.gate), site{host: "revocable.test", namespace: "shop", policy: name}); err != nil {
			t.Fatal(err)
		}
	}

	mint := func(secret, jti string) (string, *signer) {
		t.Helper()
		s, err := readSigner(t.Context(), "shop", secret)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := s.sign(s.claims(time.Now(), 50*time.Minute, jwt.MapClaims{"jti": jti}))
		if err != nil {
			t.Fatal(err)
		}
		return raw, s
	}
	passes := func(token string) {
		t.Helper()
		await(t, "the token to pass", func() error {
			got, err := send(t.Context(), cs[0], http.MethodGet, url, token)
			if err == nil && got != http.StatusOK {
				err = fmt.Errorf("status %d", got)
			}
			return err
		})
	}
	stolen, _ := mint("shop-signing", "stolen")
	ofKey, leaked := mint(name+"-signing", "any")
	token := &victim{url: url, token: stolen, refused: revoked}
	key := &victim{url: url, token: ofKey, refused: keyGone}
	passes(stolen)
	passes(ofKey)
	var mu sync.Mutex
	var tookOver string
	next := func(n int64) (question, error) {
		mu.Lock()
		defer mu.Unlock()
		switch n % 5 {
		case 0:
			return question{url: url, token: env.tokens[forged], kind: forged}, nil
		case 1:
			if q, ok := token.ask(); ok {
				return q, nil
			}
		case 2:
			if q, ok := key.ask(); ok {
				return q, nil
			}
		case 3:
			if tookOver != "" {
				return question{url: url, token: tookOver, kind: successor, good: true}, nil
			}
		}
		return question{url: url, token: env.tokens["user"], kind: valid, good: true}, nil
	}
	underLoad(t, cs, next, func(y *tally) {
		y.awaitSent(t, 150)
		token.revoke(t, cs[0], func() {
			patch(accessPolicy, func() { accessPolicy.Spec.RevokedTokens = &v1alpha1.RevokedTokens{JTIs: []string{"stolen"}} })
		})
		y.awaitSent(t, 150)
		key.revoke(t, cs[0], func() {
			patch(sk, func() { sk.Spec.RevokedKeys = []v1alpha1.RevokedKey{{KeyID: leaked.kid}} })
		})
		var fresh string
		await(t, "another key to sign", func() error {
			raw, s := mint(name+"-signing", "any")
			if s.kid == leaked.kid {
				return fmt.Errorf("it is still %s", s.kid)
			}
			fresh = raw
			return nil
		})
		passes(fresh)
		mu.Lock()
		tookOver = fresh
		mu.Unlock()
		y.awaitSent(t, 300)
	}).check(t, valid, forged, toRevoke, revoked, keyGone, successor)
}
