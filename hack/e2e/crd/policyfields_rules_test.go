package crd

import (
	"maps"
	"strings"
)

// They are rules of AccessPolicy like the others.
func init() { maps.Copy(accessPolicyRules, policyFieldsRules) }

// policyFieldsRules are those of where tokens are, preflights, answers that
// proxies keep, and profiles.
var policyFieldsRules = map[string]rule{
	"a credential in the query is no other": {
		accepted: with(`credentials: [{query: {name: access_token}}, {webSocketProtocol: {prefix: bearer.}}]`),
		refused:  with(`credentials: [{query: {name: access_token}, webSocketProtocol: {prefix: bearer.}}]`),
		want:     `spec.credentials[0]: Invalid value: set exactly one of header, cookie, query and webSocketProtocol`,
	},
	"a query parameter needs no encoding": {
		accepted: with(`credentials: [{query: {name: a-b_c.d}}]`),
		refused:  with(`credentials: [{query: {name: a b}}]`),
		want:     `spec.credentials[0].query.name: Invalid value: "a b": name: use letters, digits, '_', '.' and '-'`,
	},
	"a query parameter's name is short": {
		accepted: with(`credentials: [{query: {name: ` + strings.Repeat("n", 64) + `}}]`),
		refused:  with(`credentials: [{query: {name: ` + strings.Repeat("n", 65) + `}}]`),
		want:     `* spec.credentials[0].query.name: Too long: may not be more than 64 bytes` + unchecked,
	},
	"a prefix of subprotocols is part of a subprotocol": {
		accepted: with(`credentials: [{webSocketProtocol: {prefix: "base64url.bearer."}}]`),
		refused:  with(`credentials: [{webSocketProtocol: {prefix: "bearer,"}}]`),
		want:     `spec.credentials[0].webSocketProtocol.prefix: Invalid value: "bearer,": prefix: use letters, digits, '_', '.' and '-'`,
	},
	"a prefix of subprotocols is short": {
		accepted: with(`credentials: [{webSocketProtocol: {prefix: ` + strings.Repeat("p", 32) + `}}]`),
		refused:  with(`credentials: [{webSocketProtocol: {prefix: ` + strings.Repeat("p", 33) + `}}]`),
		want:     `* spec.credentials[0].webSocketProtocol.prefix: Too long: may not be more than 32 bytes` + unchecked,
	},
	"preflights are denied or allowed": {
		accepted: with(`preflight: Allow`),
		refused:  with(`preflight: Pass`),
		want:     `* spec.preflight: Unsupported value: "Pass": supported values: "Deny", "Allow"` + unchecked,
	},
	"answers are not kept for long": {
		accepted: with(`decisionCache: 1h`),
		refused:  with(`decisionCache: 61m`),
		want:     `spec.decisionCache: Invalid value: "61m": decisionCache must be at most 1h: revocations wait for it`,
	},
	"answers are not kept with rules": {
		accepted: with(`decisionCache: 0s, rules: [{name: r}]`),
		refused:  with(`decisionCache: 1m, rules: [{name: r}]`),
		want:     `spec: Invalid value: decisionCache goes with a policy without rules only: proxies keep one answer for all paths and methods; remove it or the rules`,
	},
	"answers are not kept with tokens in the query": {
		accepted: with(`decisionCache: 1m, credentials: [{cookie: {name: session}}]`),
		refused:  with(`decisionCache: 1m, credentials: [{query: {name: t}}]`),
		want:     `spec: Invalid value: decisionCache does not go with a credential in the query: an answer could not say that it depends on that; remove one of them`,
	},
	"a profile is known": {
		accepted: withIssuer(`profile: AccessToken, audiences: [orders]`),
		refused:  withIssuer(`profile: IDToken, audiences: [orders]`),
		want:     `* spec.issuers[0].profile: Unsupported value: "IDToken": supported values: "AccessToken"` + unchecked,
	},
	"access tokens are for somebody": {
		accepted: withIssuer(`profile: AccessToken, audiences: [orders]`),
		refused:  withIssuer(`profile: AccessToken`),
		want:     `spec.issuers[0]: Invalid value: audiences: profile AccessToken needs at least one`,
	},
}
