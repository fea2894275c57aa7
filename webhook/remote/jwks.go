package remote

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/authz"
)

// Bounds of a JWK Set.
const (
	maxKeys  = 256
	maxKeyID = 512
)

// Parse reads a JWK Set (RFC 7517 section 5). Keys that cannot be read or are
// not for signatures are left out one by one, and so are all keys of an ID that
// two have: nothing says which one a token means. Members that nobody knows
// are ignored, and so is the order.
func Parse(raw []byte) ([]authz.RemoteKey, error) {
	var doc struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(raw, &doc) != nil || doc.Keys == nil {
		return nil, errors.New("is not a JWK Set")
	}
	if len(*doc.Keys) > maxKeys {
		return nil, errors.New("is a JWK Set of too many keys")
	}
	var out []authz.RemoteKey
	count := map[string]int{}
	for _, one := range *doc.Keys {
		var jwk struct {
			Kid    string   `json:"kid"`
			Use    *string  `json:"use"`
			KeyOps []string `json:"key_ops"`
			Alg    string   `json:"alg"`
			keyset.Members
		}
		if json.Unmarshal(one, &jwk) != nil || jwk.Kid == "" || len(jwk.Kid) > maxKeyID {
			continue
		}
		if jwk.Use != nil && *jwk.Use != "sig" || jwk.KeyOps != nil && !slices.Contains(jwk.KeyOps, "verify") {
			continue // no rival of one that is for signatures
		}
		count[jwk.Kid]++
		pub, err := jwk.PublicKey()
		if err != nil {
			continue
		}
		out = append(out, authz.RemoteKey{ID: jwk.Kid, Algorithm: keyset.Algorithm(jwk.Alg), Public: pub})
	}
	out = slices.DeleteFunc(out, func(k authz.RemoteKey) bool { return count[k.ID] > 1 })
	slices.SortFunc(out, func(a, b authz.RemoteKey) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
