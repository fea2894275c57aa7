package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SigningKey is a JWT signing key that renews itself: the controller makes
// keys on a schedule, hands the active one to signers in a Secret, and keeps
// each old one verifying for as long as a token signed with it can live.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sk,categories=keywright
// +kubebuilder:printcolumn:name="Algorithm",type=string,JSONPath=`.spec.algorithm`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.activeKeyID`
// +kubebuilder:printcolumn:name="Next",type=string,JSONPath=`.status.nextTransition.type`
// +kubebuilder:printcolumn:name="At",type=string,JSONPath=`.status.nextTransition.time`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Sequence",type=integer,priority=1,JSONPath=`.status.sequence`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 200",message="metadata.name: use at most 200 characters, so that the names of the outputs fit"
type SigningKey struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={algorithm: "ES256", maxTokenTTL: "1h", rotation: {policy: "Automatic"}, propagation: {verifierLag: "30m", signerLag: "5m", clockSkew: "1m", leeway: "1m", evidence: {gates: true}}, allowedNamespaces: {from: "Same"}, deletionPolicy: "Retain", historyLimit: 10}
	// +optional
	Spec   SigningKeySpec   `json:"spec,omitempty"`
	Status SigningKeyStatus `json:"status,omitempty"`
}

// SigningKeyList is a list of SigningKeys.
//
// +kubebuilder:object:root=true
type SigningKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SigningKey `json:"items"`
}

// Algorithm is a JWS signature algorithm (RFC 7518 section 3.1, RFC 8037).
//
// +kubebuilder:validation:Enum=ES256;ES384;ES512;EdDSA;RS256;RS384;RS512;PS256;PS384;PS512;HS256;HS384;HS512
type Algorithm string

// SigningKeySpec is what a user asks for.
//
// Rules that compute with durations let pass what is none: the duration's own
// rule says what is wrong with it, and theirs would only add a type error.
//
// +kubebuilder:validation:XValidation:rule="!has(self.rsaKeySize) || self.algorithm.startsWith('RS') || self.algorithm.startsWith('PS')",message="rsaKeySize is for RS* and PS* algorithms only: remove it, or choose such an algorithm"
// +kubebuilder:validation:XValidation:rule="!has(self.jwks) || !has(self.jwks.configMapName) || !self.algorithm.startsWith('HS')",message="jwks.configMapName: an HS* key has no public half to publish: remove it, or choose an asymmetric algorithm"
// +kubebuilder:validation:XValidation:rule="!has(self.propagation.evidence) || !has(self.propagation.evidence.urls) || size(self.propagation.evidence.urls) == 0 || !self.algorithm.startsWith('HS')",message="propagation.evidence.urls: no public document shows an HS* key: remove them, or choose an asymmetric algorithm"
// +kubebuilder:validation:XValidation:rule="has(self.rotation.schedule) || ![has(self.rotation.interval) ? self.rotation.interval : '720h', self.propagation.verifierLag, self.propagation.signerLag, self.propagation.clockSkew].all(d, d.matches('^([0-9]+[hms])+$')) || duration(has(self.rotation.interval) ? self.rotation.interval : '720h') >= duration(self.propagation.verifierLag) + duration(self.propagation.signerLag) + duration(self.propagation.clockSkew) + duration(self.propagation.clockSkew) + duration(self.propagation.clockSkew)",message="rotation.interval must be at least verifierLag + signerLag + 3*clockSkew: raise it, or lower the lags if they are smaller in your cluster"
// +kubebuilder:validation:XValidation:rule="has(self.rotation.schedule) || ![has(self.rotation.interval) ? self.rotation.interval : '720h', self.maxTokenTTL, self.propagation.signerLag, self.propagation.leeway, self.propagation.clockSkew].all(d, d.matches('^([0-9]+[hms])+$')) || (duration(self.propagation.signerLag) + duration(self.maxTokenTTL) + duration(self.propagation.leeway) + duration(self.propagation.clockSkew) + duration(self.propagation.clockSkew)).getSeconds() <= 16 * duration(has(self.rotation.interval) ? self.rotation.interval : '720h').getSeconds()",message="rotation.interval is too short for maxTokenTTL: more than 16 keys would verify at once; raise the interval or lower maxTokenTTL"
// +kubebuilder:validation:XValidation:rule="!has(self.jwks) || !has(self.jwks.maxAge) || ![self.jwks.maxAge, self.propagation.verifierLag].all(d, d.matches('^([0-9]+[hms])+$')) || duration(self.jwks.maxAge) <= duration(self.propagation.verifierLag)",message="jwks.maxAge must be at most propagation.verifierLag: a verifier may hold a document that long"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.jwks) || !has(oldSelf.jwks.configMapName) || (has(self.jwks) && has(self.jwks.configMapName) && self.jwks.configMapName == oldSelf.jwks.configMapName)",message="jwks.configMapName cannot be changed or removed once set: readers of the old one would be left behind; create a new SigningKey instead"
// +kubebuilder:validation:XValidation:rule="(has(self.signer) && has(self.signer.secretName)) == (has(oldSelf.signer) && has(oldSelf.signer.secretName)) && (!has(self.signer) || !has(self.signer.secretName) || self.signer.secretName == oldSelf.signer.secretName)",message="signer.secretName cannot be changed: signers that read the old Secret would be left behind; create a new SigningKey instead"
// +kubebuilder:validation:XValidation:rule="!has(self.__import__) || (has(oldSelf.__import__) && self.__import__.secretName == oldSelf.__import__.secretName && has(self.__import__.keyID) == has(oldSelf.__import__.keyID) && (!has(self.__import__.keyID) || self.__import__.keyID == oldSelf.__import__.keyID) && has(self.__import__.withoutKeyID) == has(oldSelf.__import__.withoutKeyID) && (!has(self.__import__.withoutKeyID) || self.__import__.withoutKeyID == oldSelf.__import__.withoutKeyID))",message="import is for a new SigningKey: it can be removed but neither added nor changed later; create a new SigningKey instead"
type SigningKeySpec struct {
	// algorithm of the keys. An edit applies to the next key.
	// +kubebuilder:default=ES256
	// +optional
	Algorithm Algorithm `json:"algorithm,omitempty"`

	// rsaKeySize is the size of RSA keys in bits (3072 when not set). Only
	// with RS* and PS*. An edit applies to the next key.
	// +kubebuilder:validation:Enum=2048;3072;4096
	// +optional
	RSAKeySize int32 `json:"rsaKeySize,omitempty"`

	// maxTokenTTL is the longest exp - iat that a token may have. Signers
	// keep to it and the gate enforces it.
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]+[hms])+$') || duration(self) >= duration('1s')",message="maxTokenTTL must be at least 1s"
	// +optional
	MaxTokenTTL Duration `json:"maxTokenTTL,omitzero"`

	// rotation says when a new key takes over.
	// +kubebuilder:default={policy: "Automatic"}
	// +optional
	Rotation Rotation `json:"rotation,omitzero"`

	// propagation holds facts about the world around the keys, from which
	// all waits are computed.
	// +kubebuilder:default={verifierLag: "30m", signerLag: "5m", clockSkew: "1m", leeway: "1m", evidence: {gates: true}}
	// +optional
	Propagation Propagation `json:"propagation,omitzero"`

	// signer is the Secret that hands the active private key to signers.
	// +optional
	Signer *Signer `json:"signer,omitempty"`

	// jwks is how the public keys are published.
	// +optional
	JWKS *JWKS `json:"jwks,omitempty"`

	// issuer is the iss of the tokens. An edit applies to the next key: each
	// key keeps its own and the gate compares with that, character by
	// character. When not set, iss is not looked at: the key itself says
	// whose token it is.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Issuer string `json:"issuer,omitempty"`

	// allowedNamespaces says whose AccessPolicies may refer to this key.
	// +kubebuilder:default={from: "Same"}
	// +optional
	AllowedNamespaces AllowedNamespaces `json:"allowedNamespaces,omitzero"`

	// import starts from a key that an application signs with already, so that
	// the tokens in circulation go on passing. It counts for the first key
	// only, and may be removed once that key is in status.
	// +optional
	Import *Import `json:"import,omitempty"`

	// revokedKeys are refused from now on, for ever: removing an entry brings
	// no key back. Where the active key is among them, the key that stands by
	// takes over at once.
	// +kubebuilder:validation:MaxItems=128
	// +listType=map
	// +listMapKey=keyID
	// +optional
	RevokedKeys []RevokedKey `json:"revokedKeys,omitempty"`

	// revokeCreatedBefore revokes every key that was made before a time, for
	// ever.
	// +optional
	RevokeCreatedBefore *RevokeCreatedBefore `json:"revokeCreatedBefore,omitempty"`

	// deletionPolicy says what becomes of keyring and outputs when the
	// SigningKey is deleted: Retain keeps them, and a SigningKey of the same
	// name goes on with the same keys; Delete removes them.
	// +kubebuilder:validation:Enum=Retain;Delete
	// +kubebuilder:default=Retain
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// historyLimit is how many retired keys status keeps.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=10
	// +optional
	HistoryLimit *int32 `json:"historyLimit,omitempty"`
}

// Import names a Secret with a private key in use.
type Import struct {
	// secretName is a Secret in the SigningKey's namespace. Of its entries one
	// is read: signing.jwk, jwk.json, tls.key, key.pem, private.pem or, for
	// HS*, secret; or the only entry that there is. It holds a private key as
	// a JWK (RFC 7517), or in PEM as PKCS#8, PKCS#1 (RSA) or SEC 1 (EC); for
	// HS* a JWK or the secret's bytes as they are.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`

	// keyID is the kid of the tokens in circulation; when not set, the JWK's
	// own kid, else the RFC 7638 thumbprint (with HS* a random text).
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^[!-~]*$')",message="keyID: use printable ASCII without spaces, exactly as the tokens' kid has it"
	// +optional
	KeyID string `json:"keyID,omitempty"`

	// withoutKeyID lets tokens that carry no kid be checked with this key, and
	// with this key alone.
	// +optional
	WithoutKeyID bool `json:"withoutKeyID,omitempty"`
}

// RevokedKey is a key that is refused for ever.
type RevokedKey struct {
	// keyID is the kid of the key.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	KeyID string `json:"keyID"`
	// reason is for people, and shown in events.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Reason string `json:"reason,omitempty"`
}

// RevokeCreatedBefore revokes keys by when they were made.
type RevokeCreatedBefore struct {
	// time before which the keys were made. A time that is still to come
	// counts as the moment at which the controller first saw it.
	Time metav1.Time `json:"time"`
	// reason is for people, and shown in events.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Reason string `json:"reason,omitempty"`
}

// DeletionPolicy says what becomes of keyring and outputs of a deleted
// SigningKey.
type DeletionPolicy string

// The deletion policies.
const (
	DeletionRetain DeletionPolicy = "Retain"
	DeletionDelete DeletionPolicy = "Delete"
)

// RotationPolicy says what starts a rotation.
type RotationPolicy string

// The rotation policies.
const (
	RotationAutomatic RotationPolicy = "Automatic"
	RotationManual    RotationPolicy = "Manual"
)

// Rotation says when a new key takes over.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.interval) && has(self.schedule))",message="set either interval or schedule, not both"
// +kubebuilder:validation:XValidation:rule="!has(self.timeZone) || has(self.schedule)",message="timeZone goes with schedule: remove it, or set schedule"
// +kubebuilder:validation:XValidation:rule="self.policy != 'Manual' || (!has(self.interval) && !has(self.schedule))",message="policy Manual rotates on trigger only: remove interval and schedule, or set policy to Automatic"
type Rotation struct {
	// policy is Automatic (by interval or schedule, and on trigger) or
	// Manual (only on trigger).
	// +kubebuilder:validation:Enum=Automatic;Manual
	// +kubebuilder:default=Automatic
	// +optional
	Policy RotationPolicy `json:"policy,omitempty"`

	// interval between two rotations; 720h when neither it nor schedule is
	// set. Up to a tenth of it (at most an hour) is added, fixed for each
	// SigningKey, so that many do not rotate at once.
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]+[hms])+$') || duration(self) >= duration('1s')",message="interval must be at least 1s"
	// +optional
	Interval *Duration `json:"interval,omitempty"`

	// schedule in five-field cron syntax: minute, hour, day of month, month,
	// day of week. Up to a minute is added, fixed for each SigningKey.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="!self.contains('TZ=')",message="write the time zone into timeZone, not into schedule"
	// +optional
	Schedule string `json:"schedule,omitempty"`

	// timeZone of schedule, an IANA name such as Europe/Berlin; UTC when not
	// set.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self.lowerAscii() != 'local'",message="timeZone Local means another thing on each machine: write an IANA name such as Europe/Berlin"
	// +optional
	TimeZone string `json:"timeZone,omitempty"`

	// trigger asks for one rotation, as soon as it is safe, with each new
	// value that is not empty.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Trigger string `json:"trigger,omitempty"`
}

// Propagation holds facts about the world around the keys.
//
// +kubebuilder:validation:XValidation:rule="![self.leeway, self.clockSkew].all(d, d.matches('^([0-9]+[hms])+$')) || duration(self.leeway) >= duration(self.clockSkew)",message="leeway must be at least clockSkew: otherwise clocks that differ by the skew refuse valid tokens; raise leeway"
type Propagation struct {
	// verifierLag is the time from a key's publication until the last
	// verifier knows it (Envoy caches a JWKS for 10m, Istio for 20m).
	// +kubebuilder:default="30m"
	// +optional
	VerifierLag Duration `json:"verifierLag,omitempty"`

	// signerLag is the time from a change of the signer Secret until the
	// last signer uses it (the kubelet needs up to 100s).
	// +kubebuilder:default="5m"
	// +optional
	SignerLag Duration `json:"signerLag,omitempty"`

	// clockSkew is the largest difference between any two clocks involved.
	// +kubebuilder:default="1m"
	// +optional
	ClockSkew Duration `json:"clockSkew,omitempty"`

	// leeway is what the gate allows on exp, nbf, iat and the token's length
	// of life; at least clockSkew.
	// +kubebuilder:default="1m"
	// +optional
	Leeway Duration `json:"leeway,omitempty"`

	// evidence: besides waiting, look whether verifiers know the new key
	// before it signs. Who does not is named in status, and the active key
	// goes on until then.
	// +kubebuilder:default={gates: true}
	// +optional
	Evidence Evidence `json:"evidence,omitzero"`
}

// Evidence says at which verifiers to look before a new key signs.
type Evidence struct {
	// gates: every gate replica that is ready must have loaded the key.
	// +kubebuilder:default=true
	// +optional
	Gates *bool `json:"gates,omitempty"`

	// urls of public JWK Sets that must show the key: https, fetched without
	// following redirects. Private addresses are refused unless the
	// installation allows them.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.all(u, isURL(u) && url(u).getScheme() == 'https' && url(u).getHostname() != '')",message="urls: write whole https URLs, such as https://auth.example.com/.well-known/jwks.json"
	// +listType=set
	// +optional
	URLs []string `json:"urls,omitempty"`
}

// AsksGates says whether gates are asked.
func (e Evidence) AsksGates() bool { return e.Gates == nil || *e.Gates }

// OutputName is the name of a Secret or ConfigMap that the controller writes.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="!self.endsWith('-keyring')",message="names that end in -keyring are kept for keyrings: choose another name"
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
type OutputName string

// Signer is the Secret that hands the active private key to signers.
type Signer struct {
	// secretName is <name>-signing when not set. It cannot be changed.
	// +optional
	SecretName OutputName `json:"secretName,omitempty"`

	// template is copied onto the Secret.
	// +optional
	Template *MetadataTemplate `json:"template,omitempty"`
}

// MetadataTemplate is metadata for an output.
type MetadataTemplate struct {
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.contains('keywright.dev/'))",message="keywright.dev/ labels are set by the controller: remove them"
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.contains('keywright.dev/'))",message="keywright.dev/ annotations are set by the controller: remove them"
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// JWKS is how the public keys are published.
type JWKS struct {
	// configMapName is a ConfigMap with the key jwks.json for applications
	// that mount it. None is written when not set. Once set it stays.
	// +optional
	ConfigMapName OutputName `json:"configMapName,omitempty"`

	// maxAge is the Cache-Control max-age of the served JWKS, at most
	// verifierLag; the smaller of 5m and verifierLag when not set.
	// +optional
	MaxAge *Duration `json:"maxAge,omitempty"`
}

// NamespacesFrom says which namespaces are meant.
type NamespacesFrom string

// Which namespaces are meant.
const (
	NamespacesSame     NamespacesFrom = "Same"
	NamespacesAll      NamespacesFrom = "All"
	NamespacesSelector NamespacesFrom = "Selector"
)

// AllowedNamespaces says whose AccessPolicies may refer to a SigningKey.
//
// +kubebuilder:validation:XValidation:rule="(self.from == 'Selector') == has(self.selector)",message="selector goes with from: Selector, and from: Selector needs one"
type AllowedNamespaces struct {
	// from is Same (this namespace), All, or Selector (and this namespace).
	// +kubebuilder:validation:Enum=Same;All;Selector
	// +kubebuilder:default=Same
	// +optional
	From NamespacesFrom `json:"from,omitempty"`

	// selector matches labels of namespaces.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// Labels and annotations on what the controller writes.
const (
	// LabelSigningKey marks outputs and keyrings; its value is a hash of the
	// SigningKey's name, because names can be longer than label values.
	LabelSigningKey = "keywright.dev/signing-key"
	// AnnotationSigningKey names the SigningKey that an object belongs to.
	AnnotationSigningKey = "keywright.dev/signing-key"
	// SecretTypeKeyring is the type of keyring Secrets.
	SecretTypeKeyring = "keywright.dev/keyring"
)

// SignerSecretName is the name of the Secret with the active private key.
func (k *SigningKey) SignerSecretName() string {
	if k.Spec.Signer != nil && k.Spec.Signer.SecretName != "" {
		return string(k.Spec.Signer.SecretName)
	}
	return k.Name + "-signing"
}

// JWKSConfigMapName is the name of the ConfigMap with the public keys, or
// empty when none is asked for.
func (k *SigningKey) JWKSConfigMapName() string {
	if k.Spec.JWKS == nil {
		return ""
	}
	return string(k.Spec.JWKS.ConfigMapName)
}

// KeyringSecretName is the name of the Secret with all keys.
func (k *SigningKey) KeyringSecretName() string { return k.Name + "-keyring" }
