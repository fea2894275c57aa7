package policy

import (
	"cmp"
	"slices"

	"github.com/keywright/keywright/api/v1alpha1"
)

// Origin is where the keys of an issuer of others come from. Policies that name
// the same one share it.
type Origin struct {
	// Discovery says that URL is the issuer's, whose discovery document leads
	// to the keys; else it is that of the keys.
	Discovery bool
	URL       string
	// Issuer is what its tokens' iss says.
	Issuer string
}

// OriginOf gives the origin of an issuer's keys; false: it is a SigningKey.
func OriginOf(ref *v1alpha1.TokenIssuerRef) (Origin, bool) {
	switch {
	case ref.OIDC != nil:
		return Origin{Discovery: true, URL: ref.OIDC.URL, Issuer: ref.OIDC.URL}, true
	case ref.JWKS != nil:
		return Origin{URL: ref.JWKS.URL, Issuer: ref.JWKS.Issuer}, true
	}
	return Origin{}, false
}

// MaxOrigins is of how many origins a gate has keys for the policies of one
// namespace. It bounds what one namespace costs each gate in memory and in
// fetches.
const MaxOrigins = 64

// Named are the origins that policies of one namespace name, each with the
// least name of such a policy.
type Named map[Origin]string

// Add notes that a policy names an origin.
func (n Named) Add(origin Origin, policy string) {
	if least, ok := n[origin]; !ok || policy < least {
		n[origin] = policy
	}
}

// Beyond lists those of which no gate has keys: all after the first MaxOrigins,
// in the order of the policies' names. Who writes status and each gate, started
// whenever, so come to the same ones.
func (n Named) Beyond() []Origin {
	if len(n) <= MaxOrigins {
		return nil
	}
	all := make([]Origin, 0, len(n))
	for origin := range n {
		all = append(all, origin)
	}
	slices.SortFunc(all, func(a, b Origin) int {
		return cmp.Or(cmp.Compare(n[a], n[b]), cmp.Compare(a.URL, b.URL), cmp.Compare(a.Issuer, b.Issuer), discoveryFirst(a, b))
	})
	return all[MaxOrigins:]
}

// discoveryFirst orders two origins that differ in nothing else.
func discoveryFirst(a, b Origin) int {
	switch {
	case a.Discovery == b.Discovery:
		return 0
	case a.Discovery:
		return -1
	}
	return 1
}
