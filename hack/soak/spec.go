package main

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

// namespace holds all SigningKeys of the soak.
const namespace = "soak"

// The spans of every SigningKey, short so that much happens. Injected faults
// may well last longer than verifierLag: what is promised then is in judge.go.
const (
	verifierLag = 3 * time.Second
	signerLag   = 2 * time.Second
	clockSkew   = time.Second
	leeway      = 2 * time.Second
	maxTokenTTL = 6 * time.Second
	interval    = 9 * time.Second
)

// spec is one SigningKey.
type spec struct {
	name string
	alg  keyset.Algorithm
	// looked: the controller looks at gates before it activates a key. The
	// others go by verifierLag alone.
	looked bool
}

// specs are the SigningKeys. Two secrets make up what a gate knows of HS* keys,
// so that only a look can tell: it is among those that are looked after.
func specs(evidence bool) []spec {
	return []spec{
		{"es256", keyset.ES256, evidence},
		{"eddsa", keyset.EdDSA, false},
		{"hs256", keyset.HS256, evidence},
		{"rs256", keyset.RS256, false},
	}
}

func lasting(d time.Duration) v1alpha1.Duration { return v1alpha1.Duration{Duration: d} }

func (s spec) signingKey() *v1alpha1.SigningKey {
	every := lasting(interval)
	sk := &v1alpha1.SigningKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name},
		Spec: v1alpha1.SigningKeySpec{
			Algorithm: v1alpha1.Algorithm(s.alg), Issuer: "https://" + s.name + ".example", MaxTokenTTL: lasting(maxTokenTTL),
			Rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationAutomatic, Interval: &every},
			Propagation: v1alpha1.Propagation{
				VerifierLag: lasting(verifierLag), SignerLag: lasting(signerLag), ClockSkew: lasting(clockSkew), Leeway: lasting(leeway),
				Evidence: v1alpha1.Evidence{Gates: &s.looked},
			},
		},
	}
	if s.alg.Family() == keyset.FamilyRSA {
		sk.Spec.RSAKeySize = 2048
	}
	if !s.alg.Symmetric() {
		age := lasting(time.Second)
		sk.Spec.JWKS = &v1alpha1.JWKS{ConfigMapName: v1alpha1.OutputName(s.name + "-jwks"), MaxAge: &age}
	}
	return sk
}

func (s spec) accessPolicy() *v1alpha1.AccessPolicy {
	return &v1alpha1.AccessPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name},
		Spec: v1alpha1.AccessPolicySpec{
			Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: s.name}, Audiences: []string{"orders"}}},
		},
	}
}

// canaryName is a SigningKey whose maxAge is a number that goes up: a gate that
// serves its JWKS with a number has seen every change of SigningKeys that was
// written before that number was.
const canaryName = "zz-canary"

func canaryKey() *v1alpha1.SigningKey {
	age := lasting(time.Second)
	no := false
	return &v1alpha1.SigningKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: canaryName},
		Spec: v1alpha1.SigningKeySpec{
			Algorithm: "ES256", MaxTokenTTL: lasting(maxTokenTTL), Rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationManual},
			Propagation: v1alpha1.Propagation{
				VerifierLag: lasting(24 * time.Hour), SignerLag: lasting(time.Second), ClockSkew: lasting(clockSkew), Leeway: lasting(leeway),
				Evidence: v1alpha1.Evidence{Gates: &no},
			},
			JWKS: &v1alpha1.JWKS{MaxAge: &age},
		},
	}
}
