package policy

import (
	"encoding/json"
	"strconv"

	"github.com/keywright/keywright/webhook/token"
)

// object are claims as tests write them, with the types of token.Claims.Map.
type object = map[string]any

// claimsOf reads claims as a token's are read.
func claimsOf(o object) *token.Claims {
	text, err := json.Marshal(spelled(o))
	if err != nil {
		panic(err)
	}
	claims, err := token.DecodeClaims(string(text))
	if err != nil {
		panic(err)
	}
	return claims
}

// spelled gives numbers that are a float64 an exponent, so that they are read
// as one.
func spelled(v any) any {
	switch v := v.(type) {
	case float64:
		return json.Number(strconv.FormatFloat(v, 'e', -1, 64))
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = spelled(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, one := range v {
			out[name] = spelled(one)
		}
		return out
	}
	return v
}
