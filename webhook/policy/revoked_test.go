package policy

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
)

func TestRevokes(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	before := func(sub string, when time.Time) []v1alpha1.SubjectBefore {
		return []v1alpha1.SubjectBefore{{Sub: "someone", Time: metav1.NewTime(at.Add(time.Hour))}, {Sub: sub, Time: metav1.NewTime(when)}}
	}
	for name, tc := range map[string]struct {
		spec  *v1alpha1.RevokedTokens
		token *token.Token
		want  bool
	}{
		"nothing is revoked":             {nil, &token.Token{ID: "j", Subject: "u", IssuedAt: at}, false},
		"empty lists revoke nothing":     {&v1alpha1.RevokedTokens{}, &token.Token{ID: "j", Subject: "u"}, false},
		"a jti that is listed":           {&v1alpha1.RevokedTokens{JTIs: []string{"i", "j"}}, &token.Token{ID: "j"}, true},
		"a jti that is not":              {&v1alpha1.RevokedTokens{JTIs: []string{"i", "j"}}, &token.Token{ID: "J"}, false},
		"no jti":                         {&v1alpha1.RevokedTokens{JTIs: []string{"i", "j"}}, &token.Token{Subject: "j"}, false},
		"a subject's token of before":    {&v1alpha1.RevokedTokens{SubjectsBefore: before("u", at)}, &token.Token{Subject: "u", IssuedAt: at.Add(-time.Microsecond)}, true},
		"a subject's token of that time": {&v1alpha1.RevokedTokens{SubjectsBefore: before("u", at)}, &token.Token{Subject: "u", IssuedAt: at}, false},
		"a subject's token of later":     {&v1alpha1.RevokedTokens{SubjectsBefore: before("u", at)}, &token.Token{Subject: "u", IssuedAt: at.Add(time.Hour)}, false},
		"a subject's token without iat":  {&v1alpha1.RevokedTokens{SubjectsBefore: before("u", at)}, &token.Token{Subject: "u"}, true},
		"another subject's token":        {&v1alpha1.RevokedTokens{SubjectsBefore: before("u", at)}, &token.Token{Subject: "U"}, false},
		"a token without a subject":      {&v1alpha1.RevokedTokens{SubjectsBefore: before("u", at)}, &token.Token{ID: "u"}, false},
		"a jti of a subject that is listed for earlier tokens": {
			&v1alpha1.RevokedTokens{JTIs: []string{"j"}, SubjectsBefore: before("u", at)}, &token.Token{ID: "j", Subject: "u", IssuedAt: at.Add(time.Hour)}, true,
		},
		"a subject's token, where the time is still to come": {
			&v1alpha1.RevokedTokens{SubjectsBefore: before("u", at.Add(time.Hour))}, &token.Token{Subject: "u", IssuedAt: at}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, v1alpha1.AccessPolicySpec{RevokedTokens: tc.spec})
			if got := p.Revokes(tc.token); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
}

func TestRevokedTokensThatCannotBeMeant(t *testing.T) {
	at := metav1.NewTime(time.Unix(1_800_000_000, 0))
	for name, tc := range map[string]struct {
		spec v1alpha1.RevokedTokens
		want string
	}{
		"an empty jti": {v1alpha1.RevokedTokens{JTIs: []string{"j", ""}}, "spec.revokedTokens.jtis[1]"},
		"no sub":       {v1alpha1.RevokedTokens{SubjectsBefore: []v1alpha1.SubjectBefore{{Time: at}}}, "spec.revokedTokens.subjectsBefore[0].sub"},
		"no time":      {v1alpha1.RevokedTokens{SubjectsBefore: []v1alpha1.SubjectBefore{{Sub: "u"}}}, "spec.revokedTokens.subjectsBefore[0].time"},
		"a sub twice": {
			v1alpha1.RevokedTokens{SubjectsBefore: []v1alpha1.SubjectBefore{{Sub: "u", Time: at}, {Sub: "u", Time: at}}},
			"spec.revokedTokens.subjectsBefore[1].sub",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile("shop", "orders", &v1alpha1.AccessPolicySpec{Issuers: someIssuer, RevokedTokens: &tc.spec})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s named", err, tc.want)
			}
		})
	}
}
