package crd

import (
	"maps"
	"strings"
)

// withRevoked is a policy that revokes tokens.
func withRevoked(fields string) string { return with(`revokedTokens: {` + fields + `}`) }

// They are rules of AccessPolicy like the others.
func init() { maps.Copy(accessPolicyRules, revokedTokensRules) }

const someTime = `"2026-11-24T09:30:00Z"`

// revokedTokensRules are those of AccessPolicy's revokedTokens.
var revokedTokensRules = map[string]rule{
	"jtis are not too many": {
		accepted: withRevoked(`jtis: [` + repeat(1024, `j%d`) + `]`),
		refused:  withRevoked(`jtis: [` + repeat(1025, `j%d`) + `]`),
		want:     `* spec.revokedTokens.jtis: Too many: 1025: must have at most 1024 items` + unchecked,
	},
	"a jti is not empty": {
		accepted: withRevoked(`jtis: [j]`),
		refused:  withRevoked(`jtis: [""]`),
		want:     `spec.revokedTokens.jtis[0]: Invalid value: "": spec.revokedTokens.jtis[0] in body should be at least 1 chars long`,
	},
	"a jti is short": {
		accepted: withRevoked(`jtis: [` + strings.Repeat("j", 256) + `]`),
		refused:  withRevoked(`jtis: [` + strings.Repeat("j", 257) + `]`),
		want:     `* spec.revokedTokens.jtis[0]: Too long: may not be more than 256 bytes` + unchecked,
	},
	"a jti is named once": {
		accepted: withRevoked(`jtis: [j, J]`),
		refused:  withRevoked(`jtis: [j, j]`),
		want:     `spec.revokedTokens.jtis[1]: Duplicate value: "j"`,
	},
	"subjectsBefore are not too many": {
		accepted: withRevoked(`subjectsBefore: [` + repeat(256, `{sub: s%d, time: `+someTime+`}`) + `]`),
		refused:  withRevoked(`subjectsBefore: [` + repeat(257, `{sub: s%d, time: `+someTime+`}`) + `]`),
		want:     `* spec.revokedTokens.subjectsBefore: Too many: 257: must have at most 256 items` + unchecked,
	},
	"a sub is there": {
		accepted: withRevoked(`subjectsBefore: [{sub: s, time: ` + someTime + `}]`),
		refused:  withRevoked(`subjectsBefore: [{time: ` + someTime + `}]`),
		want:     `* spec.revokedTokens.subjectsBefore[0].sub: Required value` + unchecked,
	},
	"a sub is not empty": {
		accepted: withRevoked(`subjectsBefore: [{sub: s, time: ` + someTime + `}]`),
		refused:  withRevoked(`subjectsBefore: [{sub: "", time: ` + someTime + `}]`),
		want:     `spec.revokedTokens.subjectsBefore[0].sub: Invalid value: "": spec.revokedTokens.subjectsBefore[0].sub in body should be at least 1 chars long`,
	},
	"a sub is short": {
		accepted: withRevoked(`subjectsBefore: [{sub: ` + strings.Repeat("s", 512) + `, time: ` + someTime + `}]`),
		refused:  withRevoked(`subjectsBefore: [{sub: ` + strings.Repeat("s", 513) + `, time: ` + someTime + `}]`),
		want:     `* spec.revokedTokens.subjectsBefore[0].sub: Too long: may not be more than 512 bytes` + unchecked,
	},
	"a sub is named once": {
		accepted: withRevoked(`subjectsBefore: [{sub: s, time: ` + someTime + `}, {sub: S, time: ` + someTime + `}]`),
		refused:  withRevoked(`subjectsBefore: [{sub: s, time: ` + someTime + `}, {sub: s, time: "2026-11-25T09:30:00Z"}]`),
		want:     `spec.revokedTokens.subjectsBefore[1]: Duplicate value: {"sub":"s"}`,
	},
	"a subject's tokens are revoked before a time": {
		accepted: withRevoked(`subjectsBefore: [{sub: s, time: "2026-11-24T10:30:00+01:00"}]`),
		refused:  withRevoked(`subjectsBefore: [{sub: s}]`),
		want:     `* spec.revokedTokens.subjectsBefore[0].time: Required value` + unchecked,
	},
	"a time is one": {
		accepted: withRevoked(`subjectsBefore: [{sub: s, time: ` + someTime + `}]`),
		refused:  withRevoked(`subjectsBefore: [{sub: s, time: yesterday}]`),
		want:     `* spec.revokedTokens.subjectsBefore[0].time: Invalid value: "yesterday": spec.revokedTokens.subjectsBefore[0].time in body must be of type date-time: "yesterday"` + unchecked,
	},
}
