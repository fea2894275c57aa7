package controllers

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// Entries of the outputs.
const (
	// KeyringEntry of the keyring Secret is the whole keyring.
	KeyringEntry = "keyring.json"
	// SigningJWKEntry of the signer Secret is all that a signer needs in one
	// file: the private JWK with kid and alg, and beside its members iss and
	// maxTokenTTL (seconds), so that no reader sees a torn pair.
	SigningJWKEntry = "signing.jwk"
	// SigningPEMEntry of the signer Secret is the private key in PKCS#8 PEM;
	// absent with HS*.
	SigningPEMEntry = "key.pem"
	// KeyIDEntry and AlgorithmEntry of the signer Secret go with key.pem.
	KeyIDEntry     = "kid"
	AlgorithmEntry = "alg"
	// JWKSEntry of the JWKS ConfigMap is the public JWK Set.
	JWKSEntry = "jwks.json"
)

// privateKey is a private JWK, decoded.
type privateKey struct {
	priv   any
	public keyset.Members // nothing with HS*
}

// privateKeys remembers private JWKs that were decoded, for as long as one
// reconcile takes: that asks for the same ones again and again, and to see that
// the halves of a key belong together takes longer than all the rest of it. A
// nil one remembers nothing.
type privateKeys map[string]privateKey

func (p privateKeys) decode(raw []byte) (privateKey, error) {
	if known, ok := p[string(raw)]; ok {
		return known, nil
	}
	priv, pub, err := keyset.DecodePrivate(raw)
	if err != nil {
		return privateKey{}, err
	}
	k := privateKey{priv: priv}
	if _, symmetric := priv.([]byte); !symmetric {
		if k.public, err = keyset.MembersOf(pub); err != nil {
			return privateKey{}, err
		}
	}
	if p != nil {
		p[string(raw)] = k
	}
	return k, nil
}

// signerData is the content of the signer Secret.
func signerData(k *lifecycle.Key, ttl time.Duration, decoded privateKeys) (map[string][]byte, error) {
	var jwk map[string]any
	if err := json.Unmarshal(k.Private, &jwk); err != nil {
		return nil, keyset.ErrMalformedJWK
	}
	if k.Issuer != "" {
		jwk["iss"] = k.Issuer
	}
	jwk["maxTokenTTL"] = int64(ttl / time.Second)
	raw, err := json.Marshal(jwk)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", SigningJWKEntry, err)
	}
	data := map[string][]byte{
		SigningJWKEntry: raw,
		KeyIDEntry:      []byte(k.ID),
		AlgorithmEntry:  []byte(k.Algorithm),
	}
	if k.Algorithm.Symmetric() {
		return data, nil
	}
	key, err := decoded.decode(raw) // that which signerKeyID decodes too
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key.priv)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", SigningPEMEntry, err)
	}
	data[SigningPEMEntry] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return data, nil
}

// signerKeyID says which key of the keyring a signer Secret holds; empty when
// it holds none, or another key under that ID.
func signerKeyID(secret *corev1.Secret, ring lifecycle.Keyring, decoded privateKeys) string {
	if secret == nil {
		return ""
	}
	var head struct {
		Kid string `json:"kid"`
	}
	raw := secret.Data[SigningJWKEntry]
	if json.Unmarshal(raw, &head) != nil {
		return ""
	}
	k := ring.Find(head.Kid)
	if k == nil {
		return ""
	}
	held, err := decoded.decode(raw)
	if err != nil {
		return ""
	}
	if secretKey, ok := held.priv.([]byte); ok {
		want, err := decoded.decode(k.Private)
		if wantKey, ok := want.priv.([]byte); err != nil || !ok || !bytes.Equal(secretKey, wantKey) {
			return ""
		}
		return k.ID
	}
	if k.Public == nil || held.public != *k.Public {
		return ""
	}
	return k.ID
}

// signerTTL is what a signer Secret tells of maxTokenTTL; 0: nothing.
func signerTTL(secret *corev1.Secret) time.Duration {
	var head struct {
		MaxTokenTTL int64 `json:"maxTokenTTL"` // seconds
	}
	if json.Unmarshal(secret.Data[SigningJWKEntry], &head) != nil || head.MaxTokenTTL < 0 || head.MaxTokenTTL > int64(math.MaxInt64/time.Second) {
		return 0
	}
	return time.Duration(head.MaxTokenTTL) * time.Second
}

// jwksData is the content of the JWKS ConfigMap at now; nil when there is no
// key to show, because an empty set would make verifiers refuse everything.
func jwksData(ring lifecycle.Keyring, now time.Time) (map[string]string, error) {
	doc := keyset.Document{}
	for _, k := range ring.Verifying(now) {
		if k.Public != nil {
			doc.Keys = append(doc.Keys, keyset.PublicJWK{Kid: k.ID, Use: "sig", Alg: string(k.Algorithm), Members: *k.Public})
		}
	}
	if len(doc.Keys) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", JWKSEntry, err)
	}
	return map[string]string{JWKSEntry: string(raw)}, nil
}

// shownInJWKS says which keys a JWKS ConfigMap shows.
func shownInJWKS(cm *corev1.ConfigMap) map[string]keyset.Members {
	var doc keyset.Document
	if cm == nil || json.Unmarshal([]byte(cm.Data[JWKSEntry]), &doc) != nil {
		return nil
	}
	shown := map[string]keyset.Members{}
	for _, k := range doc.Keys {
		shown[k.Kid] = k.Members
	}
	return shown
}

// hmacEntry is what the gate needs of a keyring's HS* keys at now; nil when
// there are none.
func hmacEntry(sk *v1alpha1.SigningKey, ring lifecycle.Keyring, now time.Time, decoded privateKeys) ([]byte, error) {
	entry := keyset.HMACEntry{Namespace: sk.Namespace, Name: sk.Name, Secrets: map[string][]byte{}}
	for _, k := range ring.Verifying(now) {
		if !k.Algorithm.Symmetric() || k.Private == nil {
			continue
		}
		key, err := decoded.decode(k.Private)
		secret, ok := key.priv.([]byte)
		if err != nil || !ok {
			return nil, fmt.Errorf("key %s: %w", k.ID, keyset.ErrMalformedJWK)
		}
		entry.Secrets[k.ID] = secret
	}
	if len(entry.Secrets) == 0 {
		return nil, nil
	}
	return entry.Encode()
}

// labelValue stands for a SigningKey's name in a label.
func labelValue(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

// ours says whether an object belongs to the SigningKey of a name.
func ours(obj metav1.Object, name string) bool {
	return obj.GetAnnotations()[v1alpha1.AnnotationSigningKey] == name
}

// mark gives an object the label, annotation and owner reference of sk, and
// the metadata of a template.
func mark(obj metav1.Object, sk *v1alpha1.SigningKey, template *v1alpha1.MetadataTemplate) {
	labels, annotations := maps.Clone(obj.GetLabels()), maps.Clone(obj.GetAnnotations())
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	if template != nil {
		maps.Copy(labels, template.Labels)
		maps.Copy(annotations, template.Annotations)
	}
	labels[v1alpha1.LabelSigningKey] = labelValue(sk.Name)
	annotations[v1alpha1.AnnotationSigningKey] = sk.Name
	obj.SetLabels(labels)
	obj.SetAnnotations(annotations)

	var owners []metav1.OwnerReference
	for _, o := range obj.GetOwnerReferences() {
		if o.Kind != "SigningKey" || o.APIVersion != v1alpha1.GroupVersion.String() {
			owners = append(owners, o)
		}
	}
	if sk.Spec.DeletionPolicy == v1alpha1.DeletionDelete {
		owners = append(owners, metav1.OwnerReference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "SigningKey", Name: sk.Name, UID: sk.UID,
		})
	}
	obj.SetOwnerReferences(owners)
}
