package policy_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/webhook/policy"
)

func TestOriginsBeyondTheBoundAreThoseOfTheLastPolicies(t *testing.T) {
	named := policy.Named{}
	at := func(i int) policy.Origin { return policy.Origin{URL: fmt.Sprintf("https://i.example/%03d", i)} }
	for i := range policy.MaxOrigins {
		named.Add(at(i), "b")
	}
	if beyond := named.Beyond(); len(beyond) != 0 {
		t.Errorf("%v are beyond the bound", beyond)
	}
	named.Add(at(500), "c")
	named.Add(at(900), "a")
	named.Add(at(900), "z") // shared with a later one
	if diff := cmp.Diff([]policy.Origin{at(policy.MaxOrigins - 1), at(500)}, named.Beyond()); diff != "" {
		t.Errorf("beyond the bound (-want +got):\n%s", diff)
	}
	named.Add(at(500), "0")
	if diff := cmp.Diff([]policy.Origin{at(policy.MaxOrigins - 2), at(policy.MaxOrigins - 1)}, named.Beyond()); diff != "" {
		t.Errorf("beyond the bound, once an earlier policy names it (-want +got):\n%s", diff)
	}
}
