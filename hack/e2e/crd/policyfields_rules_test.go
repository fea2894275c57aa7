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
	"an issuer is of one kind": {
		accepted: `{issuers: [{oidc: {url: "https://a.example"}, audiences: [o], algorithms: [RS256]}, {signingKeyRef: {name: a}}]}`,
		refused:  `{issuers: [{oidc: {url: "https://a.example"}, signingKeyRef: {name: a}, audiences: [o]}]}`,
		want:     `spec.issuers[0]: Invalid value: set exactly one of signingKeyRef, oidc and jwks`,
	},
	"tokens of others are for somebody": {
		accepted: `{issuers: [{jwks: {url: "https://a.example/keys", issuer: a}, audiences: [o], algorithms: [RS256]}]}`,
		refused:  `{issuers: [{jwks: {url: "https://a.example/keys", issuer: a}, algorithms: [RS256]}]}`,
		want:     `spec.issuers[0]: Invalid value: audiences: tokens of another issuer are for many: name at least one that is yours`,
	},
	"keys of others have algorithms": {
		accepted: `{issuers: [{oidc: {url: "https://a.example/x"}, audiences: [o], algorithms: [RS256, ES256]}]}`,
		refused:  `{issuers: [{oidc: {url: "https://a.example/x"}, audiences: [o]}]}`,
		want:     `spec.issuers[0]: Invalid value: algorithms: oidc and jwks need at least one; a SigningKey says its own`,
	},
	"keys of others are no secrets": {
		accepted: `{issuers: [{oidc: {url: "https://a.example"}, audiences: [o], algorithms: [EdDSA]}]}`,
		refused:  `{issuers: [{oidc: {url: "https://a.example"}, audiences: [o], algorithms: [HS256]}]}`,
		want:     `* spec.issuers[0].algorithms[0]: Unsupported value: "HS256": supported values: "ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"` + unchecked,
	},
	"an issuer's URL is https": {
		accepted: `{issuers: [{oidc: {url: "https://a.example"}, audiences: [o], algorithms: [RS256]}]}`,
		refused:  `{issuers: [{oidc: {url: "http://a.example"}, audiences: [o], algorithms: [RS256]}]}`,
		want:     `spec.issuers[0].oidc.url: Invalid value: "http://a.example": url: write a whole https URL without query and fragment, such as https://accounts.example.com`,
	},
	"a set's URL is https": {
		accepted: `{issuers: [{jwks: {url: "https://a.example/keys", issuer: a}, audiences: [o], algorithms: [RS256]}]}`,
		refused:  `{issuers: [{jwks: {url: "/keys", issuer: a}, audiences: [o], algorithms: [RS256]}]}`,
		want:     `spec.issuers[0].jwks.url: Invalid value: "/keys": url: write a whole https URL, such as https://auth.example.com/.well-known/jwks.json`,
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
