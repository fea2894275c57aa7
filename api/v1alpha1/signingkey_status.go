package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SigningKeyStatus is what the controller answers. The gate takes its public
// keys from here, so only the controller may write it.
type SigningKeyStatus struct {
	// observedGeneration is the generation of the spec that this answers.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// sequence grows with each change of the key set.
	// +optional
	Sequence int64 `json:"sequence,omitempty"`

	// activeKeyID is the key ID (kid) that signers are given.
	// +optional
	ActiveKeyID string `json:"activeKeyID,omitempty"`

	// nextKeyID is the key that stands by, published ahead.
	// +optional
	NextKeyID string `json:"nextKeyID,omitempty"`

	// lastRotationTime is when the active key took over.
	// +optional
	LastRotationTime *metav1.Time `json:"lastRotationTime,omitempty"`

	// nextTransition is what happens next.
	// +optional
	NextTransition *NextTransition `json:"nextTransition,omitempty"`

	// answeredTrigger is the last value of spec.rotation.trigger that started
	// a rotation.
	// +optional
	AnsweredTrigger string `json:"answeredTrigger,omitempty"`

	// revokedBefore is what came of spec.revokeCreatedBefore: keys made before
	// its cutOff are revoked.
	// +optional
	RevokedBefore *RevokedBefore `json:"revokedBefore,omitempty"`

	// keys, newest first, and after them those that were revoked.
	// +listType=map
	// +listMapKey=keyID
	// +kubebuilder:validation:MaxItems=1024
	// +optional
	Keys []KeyStatus `json:"keys,omitempty"`

	// conditions: Ready, Rotated, PropagationConfirmed, SignersCurrent,
	// Degraded.
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RevokedBefore is what came of a spec.revokeCreatedBefore.
type RevokedBefore struct {
	// time is the one that the spec asked for last.
	Time metav1.Time `json:"time"`
	// cutOff is the time that counts: never later than when it was first seen.
	CutOff metav1.Time `json:"cutOff"`
}

// TransitionType names a step in a key's life.
type TransitionType string

// The steps in a key's life.
const (
	TransitionPublish  TransitionType = "Publish"
	TransitionActivate TransitionType = "Activate"
	TransitionExtend   TransitionType = "ExtendTokenTTL"
	TransitionRetire   TransitionType = "Retire"
	TransitionRevoke   TransitionType = "Revoke"
	TransitionRecover  TransitionType = "Recover"
)

// NextTransition is what happens next, and when.
type NextTransition struct {
	// type is Activate, ExtendTokenTTL or Retire.
	Type TransitionType `json:"type"`
	// keyID is the key that it happens to.
	// +optional
	KeyID string `json:"keyID,omitempty"`
	// time at which it happens, or since when it is due.
	Time metav1.Time `json:"time"`
	// waitingFor says what a transition that is due waits for.
	// +optional
	WaitingFor string `json:"waitingFor,omitempty"`
}

// KeyState is where a key stands in its life.
type KeyState string

// The states of a key.
const (
	// KeyPublished keys are known to verifiers and stand by to sign.
	KeyPublished KeyState = "Published"
	// KeyActive is the key that signs.
	KeyActive KeyState = "Active"
	// KeyVerifying keys no longer sign; their tokens still pass.
	KeyVerifying KeyState = "Verifying"
	// KeyRetired keys verify nothing any more.
	KeyRetired KeyState = "Retired"
	// KeyRevoked keys were taken out before their end, for ever.
	KeyRevoked KeyState = "Revoked"
)

// KeyStatus is one key. Times are rounded up to whole seconds.
type KeyStatus struct {
	// keyID is the kid: the RFC 7638 thumbprint, or a random text with HS*.
	KeyID string `json:"keyID"`
	// sequence at which the key came into the key set.
	// +optional
	Sequence int64 `json:"sequence,omitempty"`
	// algorithm of the key.
	// +optional
	Algorithm Algorithm `json:"algorithm,omitempty"`
	// issuer is the iss of tokens signed with this key.
	// +optional
	Issuer string `json:"issuer,omitempty"`
	// state of the key: Published, Active, Verifying, Retired or Revoked. Of a
	// revoked key only its ID and times stay.
	State KeyState `json:"state"`
	// publicKey holds the members of the public JWK; absent with HS*.
	// +optional
	PublicKey *PublicJWK `json:"publicKey,omitempty"`
	// withoutKeyID says that tokens without a kid are checked with this key.
	// +optional
	WithoutKeyID bool `json:"withoutKeyID,omitempty"`
	// maxTokenTTL is the longest exp - iat that the gate accepts from it.
	// +optional
	MaxTokenTTL Duration `json:"maxTokenTTL,omitzero"`
	// createdAt is when the key was made, or imported.
	// +optional
	CreatedAt metav1.Time `json:"createdAt,omitzero"`
	// publishedAt is when its publication was confirmed.
	// +optional
	PublishedAt *metav1.Time `json:"publishedAt,omitempty"`
	// activatedAt is when it was chosen to sign.
	// +optional
	ActivatedAt *metav1.Time `json:"activatedAt,omitempty"`
	// deactivatedAt is when its successor was confirmed to be what signers get.
	// +optional
	DeactivatedAt *metav1.Time `json:"deactivatedAt,omitempty"`
	// verifyUntil is when its tokens cease to pass.
	// +optional
	VerifyUntil *metav1.Time `json:"verifyUntil,omitempty"`
	// lastSeenAt is when a gate last let a token of this key pass, as far as
	// the controller has heard. It is brought up to date along with other
	// changes.
	// +optional
	LastSeenAt *metav1.Time `json:"lastSeenAt,omitempty"`
	// revokedAt is when it was revoked.
	// +optional
	RevokedAt *metav1.Time `json:"revokedAt,omitempty"`
}

// PublicJWK holds the public members of a JWK (RFC 7517, 7518 section 6, 8037
// section 2). It has no place for a private one.
type PublicJWK struct {
	// kty: EC, RSA or OKP.
	Kty string `json:"kty"`
	// +optional
	Crv string `json:"crv,omitempty"`
	// +optional
	X string `json:"x,omitempty"`
	// +optional
	Y string `json:"y,omitempty"`
	// +optional
	N string `json:"n,omitempty"`
	// +optional
	E string `json:"e,omitempty"`
}

// Condition types of a SigningKey and an AccessPolicy.
const (
	// ConditionReady: a SigningKey's signers have a key and verifiers know
	// it; an AccessPolicy is in force.
	ConditionReady = "Ready"
	// ConditionRotated: no rotation is overdue.
	ConditionRotated = "Rotated"
	// ConditionPropagationConfirmed: who was asked for evidence knows the key
	// that stands by.
	ConditionPropagationConfirmed = "PropagationConfirmed"
	// ConditionSignersCurrent: no token was seen that was signed with an old
	// key when no signer should have had it any more.
	ConditionSignersCurrent = "SignersCurrent"
	// ConditionDegraded: something is in the way; the message says what.
	ConditionDegraded = "Degraded"
	// ConditionCompiled: every part of an AccessPolicy is understood.
	ConditionCompiled = "Compiled"
	// ConditionKeysResolved: the SigningKeys of an AccessPolicy exist and
	// allow its namespace.
	ConditionKeysResolved = "KeysResolved"
)
