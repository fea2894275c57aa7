package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
)

const (
	issuer         = "https://auth.example.com"
	subject        = "u-17"
	keyID          = "bench-1"
	identityHeader = "X-Auth-Subject"

	// keyVariable is the environment variable with the key that signs the
	// tokens of this run, PKCS #8 in base64.
	keyVariable = "KEYWRIGHT_BENCH_KEY"
)

func keyOfEnvironment() (*ecdsa.PrivateKey, error) {
	der, err := base64.StdEncoding.DecodeString(os.Getenv(keyVariable))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyVariable, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyVariable, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T", keyVariable, key)
	}
	return ec, nil
}

// sign makes a token as an application would. Its id makes it a new one.
func sign(key *ecdsa.PrivateKey, now time.Time, id string) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": issuer, "sub": subject, "aud": "orders", "jti": id,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"scope": "orders:read orders:write", "roles": []string{"customer"},
	})
	t.Header["kid"] = keyID
	return t.SignedString(key)
}

// signingKey is a SigningKey as the controller leaves it.
func signingKey(key *ecdsa.PrivateKey) (v1alpha1.SigningKey, error) {
	sk := v1alpha1.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "1", Generation: 1}}
	members, err := keyset.MembersOf(&key.PublicKey)
	if err != nil {
		return sk, fmt.Errorf("making the SigningKey: %w", err)
	}
	public := v1alpha1.PublicJWK(members)
	day := v1alpha1.Duration{Duration: 24 * time.Hour}
	sk.Spec.Algorithm, sk.Spec.Issuer, sk.Spec.MaxTokenTTL = "ES256", issuer, day
	sk.Spec.Propagation.Leeway.Duration = 30 * time.Second
	sk.Spec.Propagation.VerifierLag.Duration = time.Minute
	sk.Status.Sequence, sk.Status.ActiveKeyID = 1, keyID
	sk.Status.Keys = []v1alpha1.KeyStatus{{
		KeyID: keyID, Sequence: 1, Algorithm: "ES256", Issuer: issuer, State: v1alpha1.KeyActive,
		PublicKey: &public, MaxTokenTTL: day, CreatedAt: metav1.Now(),
	}}
	return sk, nil
}

// accessPolicy has one rule with a path and one identity header.
func accessPolicy() v1alpha1.AccessPolicy {
	p := v1alpha1.AccessPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders", UID: "2", Generation: 1}}
	p.Spec = v1alpha1.AccessPolicySpec{
		Realm:       "orders",
		Credentials: []v1alpha1.Credential{{Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"}}},
		Issuers: []v1alpha1.TokenIssuerRef{{
			SigningKeyRef: v1alpha1.SigningKeyRef{Name: "shop"},
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

// startAPI serves what the gate lists of an API server; nothing changes, so
// that watches stay silent.
func startAPI(key *ecdsa.PrivateKey) (url string, stop func(), err error) {
	sk, err := signingKey(key)
	if err != nil {
		return "", nil, err
	}
	core, keywright := corev1.SchemeGroupVersion.String(), v1alpha1.GroupVersion.String()
	version := metav1.ListMeta{ResourceVersion: "1"}
	lists := map[string]any{
		"signingkeys": v1alpha1.SigningKeyList{
			TypeMeta: metav1.TypeMeta{APIVersion: keywright, Kind: "SigningKeyList"}, ListMeta: version,
			Items: []v1alpha1.SigningKey{sk},
		},
		"accesspolicies": v1alpha1.AccessPolicyList{
			TypeMeta: metav1.TypeMeta{APIVersion: keywright, Kind: "AccessPolicyList"}, ListMeta: version,
			Items: []v1alpha1.AccessPolicy{accessPolicy()},
		},
		"secrets": corev1.SecretList{TypeMeta: metav1.TypeMeta{APIVersion: core, Kind: "SecretList"}, ListMeta: version},
		"namespaces": corev1.NamespaceList{
			TypeMeta: metav1.TypeMeta{APIVersion: core, Kind: "NamespaceList"}, ListMeta: version,
			Items: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
		},
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, ok := lists[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		query := r.URL.Query()
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		case query.Has("sendInitialEvents"): // then the client lists
			w.WriteHeader(http.StatusBadRequest)
		case query.Has("watch"):
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush() // a client that is gone is seen below
			<-r.Context().Done()
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(list) // a client that is gone asks again
		}
	}))
	return api.URL, func() {
		api.CloseClientConnections()
		api.Close()
	}, nil
}
