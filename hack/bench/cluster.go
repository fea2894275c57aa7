package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

const identityHeader = "X-Auth-Subject"

// policyOf is the name of the AccessPolicy, and of its SigningKey, in the
// namespace shop, for tokens of an algorithm.
func policyOf(algorithm keyset.Algorithm) string {
	return "orders-" + strings.ToLower(string(algorithm))
}

// signingKey is a SigningKey as the controller leaves it. The first signer is
// active, others stand by.
func signingKey(namespace, name string, signers ...*signer) (v1alpha1.SigningKey, error) {
	sk := v1alpha1.SigningKey{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SigningKey"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "1", Generation: 1, ResourceVersion: "1"},
	}
	day := v1alpha1.Duration{Duration: 24 * time.Hour}
	sk.Spec.Issuer, sk.Spec.MaxTokenTTL = issuer, day
	sk.Spec.Propagation.Leeway.Duration = 30 * time.Second
	sk.Spec.Propagation.VerifierLag.Duration = time.Minute
	sk.Status.Sequence = 1
	for i, s := range signers {
		members, err := keyset.MembersOf(s.private.Public())
		if err != nil {
			return sk, fmt.Errorf("making the SigningKey: %w", err)
		}
		public := v1alpha1.PublicJWK(members)
		key := v1alpha1.KeyStatus{
			KeyID: s.id, Sequence: 1, Algorithm: v1alpha1.Algorithm(s.algorithm), Issuer: issuer, State: v1alpha1.KeyPublished,
			PublicKey: &public, MaxTokenTTL: day, CreatedAt: metav1.Now(),
		}
		if i == 0 {
			key.State, sk.Spec.Algorithm, sk.Status.ActiveKeyID = v1alpha1.KeyActive, key.Algorithm, s.id
		}
		sk.Status.Keys = append(sk.Status.Keys, key)
	}
	return sk, nil
}

// accessPolicy is for tokens of the SigningKey of its own name. It has one rule
// with a path and one identity header.
func accessPolicy(namespace, name string) v1alpha1.AccessPolicy {
	p := v1alpha1.AccessPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AccessPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "2", Generation: 1, ResourceVersion: "1"},
	}
	p.Spec = v1alpha1.AccessPolicySpec{
		Realm:       "orders",
		Credentials: []v1alpha1.Credential{{Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"}}},
		Issuers: []v1alpha1.TokenIssuerRef{{
			SigningKeyRef: v1alpha1.SigningKeyRef{Name: name},
			Audiences:     []string{"orders"}, RequiredClaims: []string{"sub"},
		}},
		Rules: []v1alpha1.Rule{{
			Name:   "orders",
			Match:  []v1alpha1.Match{{Paths: []v1alpha1.PathMatch{{Prefix: "/orders"}}}},
			Access: v1alpha1.AccessAuthenticated,
		}},
		Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: identityHeader, Claim: "sub"}}},
	}
	return p
}

// cluster is a stand-in for the API server: it tells those who watch what there
// is, as a stream since Kubernetes 1.32, and then what changes.
type cluster struct {
	*httptest.Server
	// there are the events of what there is, by resource.
	there map[string]*bytes.Buffer
	// changes of SigningKeys, each for one who watches.
	changes chan []byte
	closing chan struct{}
}

// startCluster serves SigningKeys, policies, and namespaces without labels.
func startCluster(keys []v1alpha1.SigningKey, policies []v1alpha1.AccessPolicy, namespaces ...string) (*cluster, error) {
	c := &cluster{
		there: map[string]*bytes.Buffer{
			"signingkeys": {}, "accesspolicies": {}, "namespaces": {}, "secrets": {},
		},
		changes: make(chan []byte), closing: make(chan struct{}),
	}
	core, ours := corev1.SchemeGroupVersion.String(), v1alpha1.GroupVersion.String()
	for i := range keys {
		if err := c.add("signingkeys", "ADDED", &keys[i]); err != nil {
			return nil, err
		}
	}
	for i := range policies {
		if err := c.add("accesspolicies", "ADDED", &policies[i]); err != nil {
			return nil, err
		}
	}
	for _, name := range namespaces {
		ns := &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: core, Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1"},
		}
		if err := c.add("namespaces", "ADDED", ns); err != nil {
			return nil, err
		}
	}
	for resource, of := range map[string]metav1.TypeMeta{
		"signingkeys":    {APIVersion: ours, Kind: "SigningKey"},
		"accesspolicies": {APIVersion: ours, Kind: "AccessPolicy"},
		"namespaces":     {APIVersion: core, Kind: "Namespace"},
		"secrets":        {APIVersion: core, Kind: "Secret"},
	} {
		if err := c.add(resource, "BOOKMARK", &metav1.PartialObjectMetadata{TypeMeta: of, ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: "1", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}}); err != nil {
			return nil, err
		}
	}
	c.Server = httptest.NewServer(c)
	return c, nil
}

func (c *cluster) add(resource, kind string, object any) error {
	raw, err := event(kind, object)
	c.there[resource].Write(raw)
	return err
}

func event(kind string, object any) ([]byte, error) {
	raw, err := json.Marshal(map[string]any{"type": kind, "object": object})
	if err != nil {
		return nil, fmt.Errorf("serving objects: %w", err)
	}
	return append(raw, '\n'), nil
}

// change tells of a SigningKey that is now another.
func (c *cluster) change(ctx context.Context, sk *v1alpha1.SigningKey) error {
	raw, err := event("MODIFIED", sk)
	if err != nil {
		return err
	}
	select {
	case c.changes <- raw:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("changing SigningKey %s/%s: %w", sk.Namespace, sk.Name, ctx.Err())
	}
}

// ServeHTTP answers one who watches.
func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := path.Base(r.URL.Path)
	there, ok := c.there[resource]
	if query := r.URL.Query(); !ok || !query.Has("watch") {
		w.WriteHeader(http.StatusNotFound)
		return
	} else if !query.Has("sendInitialEvents") { // once more, and nothing is forgotten
		there = &bytes.Buffer{}
	}
	var changes chan []byte // for nobody
	if resource == "signingkeys" {
		changes = c.changes
	}
	w.Header().Set("Content-Type", "application/json")
	for next := there.Bytes(); ; {
		// A client that is gone is seen below.
		_, _ = w.Write(next)
		_ = http.NewResponseController(w).Flush()
		select {
		case next = <-changes:
		case <-r.Context().Done():
			return
		case <-c.closing:
			return
		}
	}
}

// Close ends what watches too, and what begins to just now.
func (c *cluster) Close() {
	close(c.closing)
	c.Server.Close()
}
