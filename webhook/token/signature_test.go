package token

import (
	"testing"

	"github.com/keywright/keywright/api/keyset"
)

func TestEveryAlgorithmHasAMethodOfItsOwnName(t *testing.T) {
	for _, alg := range keyset.Algorithms() {
		if m := methods[alg]; m == nil || m.Alg() != string(alg) {
			t.Errorf("%s has method %v", alg, m)
		}
	}
	if len(methods) != len(keyset.Algorithms()) {
		t.Errorf("%d methods for %d algorithms", len(methods), len(keyset.Algorithms()))
	}
}
