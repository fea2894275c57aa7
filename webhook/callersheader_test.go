package webhook

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/policy"
)

// What callers prove themselves by is a secret, which no policy may ask for.
func TestNoExpressionIsShownTheSecretOfCallers(t *testing.T) {
	for header, want := range map[string]bool{callerHeader: false, callerHeader + "-X": true} {
		_, err := policy.Compile("shop", "orders", &v1alpha1.AccessPolicySpec{
			Issuers: []v1alpha1.TokenIssuerRef{{SigningKeyRef: v1alpha1.SigningKeyRef{Name: "orders"}}},
			Rules: []v1alpha1.Rule{{Name: "r", Require: &v1alpha1.Requirements{Expressions: []v1alpha1.Expression{{
				CEL: fmt.Sprintf("request.headers['%s'] == ''", strings.ToLower(header)),
			}}}}},
		})
		if got := err == nil; got != want {
			t.Errorf("%s may be asked for: %t, want %t: %v", header, got, want, err)
		}
	}
}
