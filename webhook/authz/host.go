package authz

import "github.com/keywright/keywright/webhook/policy"

// SameHost says whether two texts name one host: it compares without regard to case, port and trailing dot.
func SameHost(a, b string) bool {
	if a == b {
		return true
	}
	na, err := policy.NormalizeHost(a)
	if err != nil {
		return false
	}
	nb, err := policy.NormalizeHost(b)
	return err == nil && na == nb
}
