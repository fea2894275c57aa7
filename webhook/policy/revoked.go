package policy

import (
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
)

// revokedTokens are a compiled v1alpha1.RevokedTokens.
type revokedTokens struct {
	ids      map[string]bool
	subjects map[string]time.Time
}

func compileRevoked(at *field.Path, spec *v1alpha1.RevokedTokens, faults field.ErrorList) (revokedTokens, field.ErrorList) {
	var r revokedTokens
	if spec == nil {
		return r, faults
	}
	if len(spec.JTIs) > 0 {
		r.ids = make(map[string]bool, len(spec.JTIs))
	}
	for i, id := range spec.JTIs {
		if id == "" {
			faults = append(faults, field.Required(at.Child("jtis").Index(i), "name a token's jti"))
		}
		r.ids[id] = true
	}
	if len(spec.SubjectsBefore) > 0 {
		r.subjects = make(map[string]time.Time, len(spec.SubjectsBefore))
	}
	for i := range spec.SubjectsBefore {
		one, path := &spec.SubjectsBefore[i], at.Child("subjectsBefore").Index(i)
		if one.Sub == "" {
			faults = append(faults, field.Required(path.Child("sub"), "name a token's sub"))
		}
		if one.Time.IsZero() { // would revoke nothing
			faults = append(faults, field.Required(path.Child("time"), "say before which time"))
		}
		if _, twice := r.subjects[one.Sub]; twice {
			faults = append(faults, field.Duplicate(path.Child("sub"), one.Sub))
		}
		r.subjects[one.Sub] = one.Time.Time
	}
	return r, faults
}

// Revokes says whether the policy revokes a token: its jti is listed, or its
// sub is and its iat is before the time that is said there, or absent.
func (p *Policy) Revokes(t *token.Token) bool {
	if len(p.revoked.ids) > 0 && t.ID != "" && p.revoked.ids[t.ID] {
		return true
	}
	if len(p.revoked.subjects) == 0 || t.Subject == "" {
		return false
	}
	before, listed := p.revoked.subjects[t.Subject]
	return listed && t.IssuedAt.Before(before) // zero when absent
}
