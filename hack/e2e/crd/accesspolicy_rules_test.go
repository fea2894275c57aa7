package crd

import (
	"fmt"
	"strings"
)

// with is a policy of one issuer and what is added to it.
func with(fields string) string { return `{issuers: [{signingKeyRef: {name: shop}}], ` + fields + `}` }

// withRule is a policy of one rule.
func withRule(fields string) string { return with(`rules: [{name: r, ` + fields + `}]`) }

// withMatch is a policy of one rule for some requests.
func withMatch(fields string) string { return withRule(`match: [{` + fields + `}]`) }

// withRequire is a policy of one rule that asks for something.
func withRequire(fields string) string { return withRule(`require: {` + fields + `}`) }

// withIssuer is a policy of one issuer that asks for something.
func withIssuer(fields string) string {
	return `{issuers: [{signingKeyRef: {name: shop}, ` + fields + `}]}`
}

// withHeader is a policy with one identity header.
func withHeader(fields string) string { return with(`identity: {headers: [{` + fields + `}]}`) }

// accessPolicyRules has each rule of AccessPolicy: a spec that keeps to it,
// one that does not, and what kubectl says of that.
var accessPolicyRules = map[string]rule{
	"issuers are there": {
		accepted: `{issuers: [{signingKeyRef: {name: shop}}]}`,
		refused:  `{realm: shop}`,
		want:     `* spec.issuers: Required value` + unchecked,
	},
	"issuers are not empty": {
		accepted: `{issuers: [{signingKeyRef: {name: shop}}, {signingKeyRef: {name: partners}}]}`,
		refused:  `{issuers: []}`,
		want:     `spec.issuers: Invalid value: 0: spec.issuers in body should have at least 1 items`,
	},
	"issuers are few": {
		accepted: `{issuers: [` + repeat(16, `{signingKeyRef: {name: shop%d}}`) + `]}`,
		refused:  `{issuers: [` + repeat(17, `{signingKeyRef: {name: shop%d}}`) + `]}`,
		want:     `* spec.issuers: Too many: 17: must have at most 16 items` + unchecked,
	},
	"an issuer names its SigningKey": {
		accepted: `{issuers: [{signingKeyRef: {name: shop, namespace: other}}]}`,
		refused:  `{issuers: [{signingKeyRef: {}}]}`,
		want:     `* spec.issuers[0].signingKeyRef.name: Required value` + unchecked,
	},
	"a SigningKey's name is not empty": {
		accepted: `{issuers: [{signingKeyRef: {name: s}}]}`,
		refused:  `{issuers: [{signingKeyRef: {name: ""}}]}`,
		want:     `spec.issuers[0].signingKeyRef.name: Invalid value: "": spec.issuers[0].signingKeyRef.name in body should be at least 1 chars long`,
	},
	"a SigningKey's name is short": {
		accepted: `{issuers: [{signingKeyRef: {name: ` + strings.Repeat("s", 253) + `}}]}`,
		refused:  `{issuers: [{signingKeyRef: {name: ` + strings.Repeat("s", 254) + `}}]}`,
		want:     `* spec.issuers[0].signingKeyRef.name: Too long: may not be more than 253 bytes` + unchecked,
	},
	"a namespace is short": {
		accepted: `{issuers: [{signingKeyRef: {name: s, namespace: ` + strings.Repeat("n", 63) + `}}]}`,
		refused:  `{issuers: [{signingKeyRef: {name: s, namespace: ` + strings.Repeat("n", 64) + `}}]}`,
		want:     `* spec.issuers[0].signingKeyRef.namespace: Too long: may not be more than 63 bytes` + unchecked,
	},
	"audiences are few": {
		accepted: withIssuer(`audiences: [` + repeat(16, `a%d`) + `]`),
		refused:  withIssuer(`audiences: [` + repeat(17, `a%d`) + `]`),
		want:     `* spec.issuers[0].audiences: Too many: 17: must have at most 16 items` + unchecked,
	},
	"an audience is not empty": {
		accepted: withIssuer(`audiences: [shop]`),
		refused:  withIssuer(`audiences: [""]`),
		want:     `spec.issuers[0].audiences[0]: Invalid value: "": spec.issuers[0].audiences[0] in body should be at least 1 chars long`,
	},
	"an audience is short": {
		accepted: withIssuer(`audiences: [` + strings.Repeat("a", 512) + `]`),
		refused:  withIssuer(`audiences: [` + strings.Repeat("a", 513) + `]`),
		want:     `* spec.issuers[0].audiences[0]: Too long: may not be more than 512 bytes` + unchecked,
	},
	"an audience is named once": {
		accepted: withIssuer(`audiences: [shop, Shop]`),
		refused:  withIssuer(`audiences: [shop, shop]`),
		want:     `spec.issuers[0].audiences[1]: Duplicate value: "shop"`,
	},
	"requiredClaims are few": {
		accepted: withIssuer(`requiredClaims: [` + repeat(32, `c%d`) + `]`),
		refused:  withIssuer(`requiredClaims: [` + repeat(33, `c%d`) + `]`),
		want:     `* spec.issuers[0].requiredClaims: Too many: 33: must have at most 32 items` + unchecked,
	},
	"a required claim is not empty": {
		accepted: withIssuer(`requiredClaims: [sub]`),
		refused:  withIssuer(`requiredClaims: [""]`),
		want:     `spec.issuers[0].requiredClaims[0]: Invalid value: "": spec.issuers[0].requiredClaims[0] in body should be at least 1 chars long`,
	},
	"a required claim is short": {
		accepted: withIssuer(`requiredClaims: [` + strings.Repeat("c", 256) + `]`),
		refused:  withIssuer(`requiredClaims: [` + strings.Repeat("c", 257) + `]`),
		want:     `* spec.issuers[0].requiredClaims[0]: Too long: may not be more than 256 bytes` + unchecked,
	},
	"a required claim is named once": {
		accepted: withIssuer(`requiredClaims: [sub, email]`),
		refused:  withIssuer(`requiredClaims: [sub, sub]`),
		want:     `spec.issuers[0].requiredClaims[1]: Duplicate value: "sub"`,
	},
	"a realm can be quoted": {
		accepted: with(`realm: "the shop's (internal) API"`),
		refused:  with(`realm: 'the "shop"'`),
		want:     `spec.realm: Invalid value: "the \"shop\"": realm: use printable ASCII without quotes and backslashes`,
	},
	"a realm is short": {
		accepted: with(`realm: ` + strings.Repeat("r", 128)),
		refused:  with(`realm: ` + strings.Repeat("r", 129)),
		want:     `* spec.realm: Too long: may not be more than 128 bytes` + unchecked,
	},
	"credentials are few": {
		accepted: with(`credentials: [` + repeat(8, `{cookie: {name: c%d}}`) + `]`),
		refused:  with(`credentials: [` + repeat(9, `{cookie: {name: c%d}}`) + `]`),
		want:     `* spec.credentials: Too many: 9: must have at most 8 items` + unchecked,
	},
	"a credential is not two": {
		accepted: with(`credentials: [{header: {name: Authorization, scheme: Bearer}}, {cookie: {name: session}}]`),
		refused:  with(`credentials: [{header: {name: Authorization, scheme: Bearer}, cookie: {name: session}}]`),
		want:     `spec.credentials[0]: Invalid value: set exactly one of header, cookie, query and webSocketProtocol`,
	},
	"a credential is something": {
		accepted: with(`credentials: [{header: {name: X-Token}}]`),
		refused:  with(`credentials: [{}]`),
		want:     `spec.credentials[0]: Invalid value: set exactly one of header, cookie, query and webSocketProtocol`,
	},
	"a header has a name that proxies keep": {
		accepted: with(`credentials: [{header: {name: X-Token-2}}]`),
		refused:  with(`credentials: [{header: {name: X_Token}}]`),
		want:     `spec.credentials[0].header.name: Invalid value: "X_Token": use letters, digits and '-': other characters are changed or dropped by proxies`,
	},
	"a header has a name": {
		accepted: with(`credentials: [{header: {name: X}}]`),
		refused:  with(`credentials: [{header: {name: ""}}]`),
		want:     "* spec.credentials[0].header.name: Invalid value: \"\": spec.credentials[0].header.name in body should be at least 1 chars long\n* spec.credentials[0].header.name: Invalid value: \"\": use letters, digits and '-': other characters are changed or dropped by proxies",
	},
	"a header has a short name": {
		accepted: with(`credentials: [{header: {name: ` + strings.Repeat("X", 64) + `}}]`),
		refused:  with(`credentials: [{header: {name: ` + strings.Repeat("X", 65) + `}}]`),
		want:     `* spec.credentials[0].header.name: Too long: may not be more than 64 bytes` + unchecked,
	},
	"a scheme is one word": {
		accepted: with(`credentials: [{header: {name: Authorization, scheme: DPoP}}]`),
		refused:  with(`credentials: [{header: {name: Authorization, scheme: "Bearer "}}]`),
		want:     `spec.credentials[0].header.scheme: Invalid value: "Bearer ": scheme: use letters, digits and '-'`,
	},
	"a scheme is short": {
		accepted: with(`credentials: [{header: {name: Authorization, scheme: ` + strings.Repeat("s", 32) + `}}]`),
		refused:  with(`credentials: [{header: {name: Authorization, scheme: ` + strings.Repeat("s", 33) + `}}]`),
		want:     `* spec.credentials[0].header.scheme: Too long: may not be more than 32 bytes` + unchecked,
	},
	"a cookie has a name that cookies can have": {
		accepted: with(`credentials: [{cookie: {name: __Host-session.2}}]`),
		refused:  with(`credentials: [{cookie: {name: "a=b"}}]`),
		want:     `spec.credentials[0].cookie.name: Invalid value: "a=b": name: use letters, digits, '_', '.' and '-'`,
	},
	"a cookie has a name": {
		accepted: with(`credentials: [{cookie: {name: s}}]`),
		refused:  with(`credentials: [{cookie: {}}]`),
		want:     `* spec.credentials[0].cookie.name: Required value` + unchecked,
	},
	"a cookie's name is not empty": {
		accepted: with(`credentials: [{cookie: {name: c}}]`),
		refused:  with(`credentials: [{cookie: {name: ""}}]`),
		want:     "* spec.credentials[0].cookie.name: Invalid value: \"\": spec.credentials[0].cookie.name in body should be at least 1 chars long\n* spec.credentials[0].cookie.name: Invalid value: \"\": name: use letters, digits, '_', '.' and '-'",
	},
	"a cookie has a short name": {
		accepted: with(`credentials: [{cookie: {name: ` + strings.Repeat("c", 64) + `}}]`),
		refused:  with(`credentials: [{cookie: {name: ` + strings.Repeat("c", 65) + `}}]`),
		want:     `* spec.credentials[0].cookie.name: Too long: may not be more than 64 bytes` + unchecked,
	},
	"ambiguousPaths is one that there is": {
		accepted: with(`ambiguousPaths: Normalize`),
		refused:  with(`ambiguousPaths: Allow`),
		want:     `* spec.ambiguousPaths: Unsupported value: "Allow": supported values: "Deny", "Normalize"` + unchecked,
	},
	"rules are few": {
		accepted: with(`rules: [` + repeat(64, `{name: r%d}`) + `]`),
		refused:  with(`rules: [` + repeat(65, `{name: r%d}`) + `]`),
		want:     `* spec.rules: Too many: 65: must have at most 64 items` + unchecked,
	},
	"a rule has a name": {
		accepted: with(`rules: [{name: everyone}]`),
		refused:  with(`rules: [{access: Anonymous}]`),
		want:     `* spec.rules[0].name: Required value` + unchecked,
	},
	"a rule's name is not empty": {
		accepted: with(`rules: [{name: r}]`),
		refused:  with(`rules: [{name: ""}]`),
		want:     "* spec.rules[0].name: Invalid value: \"\": spec.rules[0].name in body should be at least 1 chars long\n* spec.rules[0].name: Invalid value: \"\": name: use letters, digits, '_', '.' and '-'",
	},
	"a rule's name fits into logs and metrics": {
		accepted: with(`rules: [{name: read_shop.v2-all}]`),
		refused:  with(`rules: [{name: "read shop"}]`),
		want:     `spec.rules[0].name: Invalid value: "read shop": name: use letters, digits, '_', '.' and '-'`,
	},
	"a rule's name is short": {
		accepted: with(`rules: [{name: ` + strings.Repeat("r", 63) + `}]`),
		refused:  with(`rules: [{name: ` + strings.Repeat("r", 64) + `}]`),
		want:     `* spec.rules[0].name: Too long: may not be more than 63 bytes` + unchecked,
	},
	"access is one that there is": {
		accepted: withRule(`access: Denied`),
		refused:  withRule(`access: Public`),
		want:     `* spec.rules[0].access: Unsupported value: "Public": supported values: "Anonymous", "Authenticated", "Denied"` + unchecked,
	},
	"nothing is required of everyone": {
		accepted: withRule(`access: Authenticated, require: {scopes: [read]}`),
		refused:  withRule(`access: Anonymous, require: {scopes: [read]}`),
		want:     `spec.rules[0]: Invalid value: require goes with access: Authenticated only`,
	},
	"nothing is required of nobody": {
		accepted: withRule(`require: {scopes: [read]}`),
		refused:  withRule(`access: Denied, require: {scopes: [read]}`),
		want:     `spec.rules[0]: Invalid value: require goes with access: Authenticated only`,
	},
	"matches are few": {
		accepted: withRule(`match: [` + repeat(16, `{hosts: [h%d.example]}`) + `]`),
		refused:  withRule(`match: [` + repeat(17, `{hosts: [h%d.example]}`) + `]`),
		want:     `* spec.rules[0].match: Too many: 17: must have at most 16 items` + unchecked,
	},
	"hosts are few": {
		accepted: withMatch(`hosts: [` + repeat(32, `h%d.example`) + `]`),
		refused:  withMatch(`hosts: [` + repeat(33, `h%d.example`) + `]`),
		want:     `* spec.rules[0].match[0].hosts: Too many: 33: must have at most 32 items` + unchecked,
	},
	"a host is not empty": {
		accepted: withMatch(`hosts: [shop.example]`),
		refused:  withMatch(`hosts: [""]`),
		want:     `spec.rules[0].match[0].hosts[0]: Invalid value: "": spec.rules[0].match[0].hosts[0] in body should be at least 1 chars long`,
	},
	"a host is short": {
		accepted: withMatch(`hosts: [` + strings.Repeat("h", 253) + `]`),
		refused:  withMatch(`hosts: [` + strings.Repeat("h", 254) + `]`),
		want:     `* spec.rules[0].match[0].hosts[0]: Too long: may not be more than 253 bytes` + unchecked,
	},
	"a host is named once": {
		accepted: withMatch(`hosts: [a.example, b.example]`),
		refused:  withMatch(`hosts: [a.example, a.example]`),
		want:     `spec.rules[0].match[0].hosts[1]: Duplicate value: "a.example"`,
	},
	"methods are few": {
		accepted: withMatch(`methods: [` + methods(16) + `]`),
		refused:  withMatch(`methods: [` + methods(17) + `]`),
		want:     `* spec.rules[0].match[0].methods: Too many: 17: must have at most 16 items` + unchecked,
	},
	"methods are in capitals": {
		accepted: withMatch(`methods: [GET, VERSION-CONTROL]`),
		refused:  withMatch(`methods: [get]`),
		want:     `spec.rules[0].match[0].methods[0]: Invalid value: "get": spec.rules[0].match[0].methods[0] in body should match '^[A-Z][A-Z-]*$'`,
	},
	"a method is short": {
		accepted: withMatch(`methods: [` + strings.Repeat("M", 32) + `]`),
		refused:  withMatch(`methods: [` + strings.Repeat("M", 33) + `]`),
		want:     `* spec.rules[0].match[0].methods[0]: Too long: may not be more than 32 bytes` + unchecked,
	},
	"a method is named once": {
		accepted: withMatch(`methods: [GET, HEAD]`),
		refused:  withMatch(`methods: [GET, GET]`),
		want:     `spec.rules[0].match[0].methods[1]: Duplicate value: "GET"`,
	},
	"paths are few": {
		accepted: withMatch(`paths: [` + repeat(16, `{prefix: /%d}`) + `]`),
		refused:  withMatch(`paths: [` + repeat(17, `{prefix: /%d}`) + `]`),
		want:     `* spec.rules[0].match[0].paths: Too many: 17: must have at most 16 items` + unchecked,
	},
	"a path is not two": {
		accepted: withMatch(`paths: [{exact: /a}, {prefix: /a}]`),
		refused:  withMatch(`paths: [{exact: /a, prefix: /a}]`),
		want:     `spec.rules[0].match[0].paths[0]: Invalid value: set exactly one of exact and prefix`,
	},
	"a path is something": {
		accepted: withMatch(`paths: [{exact: /}]`),
		refused:  withMatch(`paths: [{}]`),
		want:     `spec.rules[0].match[0].paths[0]: Invalid value: set exactly one of exact and prefix`,
	},
	"an exact path begins with a slash": {
		accepted: withMatch(`paths: [{exact: /admin}]`),
		refused:  withMatch(`paths: [{exact: admin}]`),
		want:     `spec.rules[0].match[0].paths[0].exact: Invalid value: "admin": write a path that begins with '/'`,
	},
	"a prefix begins with a slash": {
		accepted: withMatch(`paths: [{prefix: /}]`),
		refused:  withMatch(`paths: [{prefix: ""}]`),
		want:     `spec.rules[0].match[0].paths[0].prefix: Invalid value: "": write a path that begins with '/'`,
	},
	"an exact path is short": {
		accepted: withMatch(`paths: [{exact: /` + strings.Repeat("p", 511) + `}]`),
		refused:  withMatch(`paths: [{exact: /` + strings.Repeat("p", 512) + `}]`),
		want:     `* spec.rules[0].match[0].paths[0].exact: Too long: may not be more than 512 bytes` + unchecked,
	},
	"a prefix is short": {
		accepted: withMatch(`paths: [{prefix: /` + strings.Repeat("p", 511) + `}]`),
		refused:  withMatch(`paths: [{prefix: /` + strings.Repeat("p", 512) + `}]`),
		want:     `* spec.rules[0].match[0].paths[0].prefix: Too long: may not be more than 512 bytes` + unchecked,
	},
	"scopes are few": {
		accepted: withRequire(`scopes: [` + repeat(32, `s%d`) + `]`),
		refused:  withRequire(`scopes: [` + repeat(33, `s%d`) + `]`),
		want:     `* spec.rules[0].require.scopes: Too many: 33: must have at most 32 items` + unchecked,
	},
	"a scope is one word": {
		accepted: withRequire(`scopes: ["shop:read", "https://shop.example/write"]`),
		refused:  withRequire(`scopes: ["read write"]`),
		want:     `spec.rules[0].require.scopes: Invalid value: a scope is printable ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)`,
	},
	"a scope is not empty": {
		accepted: withRequire(`scopes: [r]`),
		refused:  withRequire(`scopes: [""]`),
		want:     "* spec.rules[0].require.scopes[0]: Invalid value: \"\": spec.rules[0].require.scopes[0] in body should be at least 1 chars long\n* spec.rules[0].require.scopes: Invalid value: a scope is printable ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)",
	},
	"a scope is short": {
		accepted: withRequire(`scopes: [` + strings.Repeat("s", 256) + `]`),
		refused:  withRequire(`scopes: [` + strings.Repeat("s", 257) + `]`),
		want:     `* spec.rules[0].require.scopes[0]: Too long: may not be more than 256 bytes` + unchecked,
	},
	"a scope is named once": {
		accepted: withRequire(`scopes: [read, write]`),
		refused:  withRequire(`scopes: [read, read]`),
		want:     `spec.rules[0].require.scopes[1]: Duplicate value: "read"`,
	},
	"claims are few": {
		accepted: withRequire(`claims: [` + repeat(32, `{path: c%d, equals: x}`) + `]`),
		refused:  withRequire(`claims: [` + repeat(33, `{path: c%d, equals: x}`) + `]`),
		want:     `* spec.rules[0].require.claims: Too many: 33: must have at most 32 items` + unchecked,
	},
	"a claim has one requirement": {
		accepted: withRequire(`claims: [{path: tier, equals: gold}, {path: groups, anyOf: [a, b]}, {path: groups, allOf: [c]}]`),
		refused:  withRequire(`claims: [{path: groups, anyOf: [a], allOf: [b]}]`),
		want:     `spec.rules[0].require.claims[0]: Invalid value: set exactly one of equals, anyOf and allOf`,
	},
	"a claim has a requirement": {
		accepted: withRequire(`claims: [{path: tier, equals: ""}]`),
		refused:  withRequire(`claims: [{path: tier}]`),
		want:     `spec.rules[0].require.claims[0]: Invalid value: set exactly one of equals, anyOf and allOf`,
	},
	"a claim has a path": {
		accepted: withRequire(`claims: [{path: realm_access.roles, anyOf: [admin]}]`),
		refused:  withRequire(`claims: [{equals: gold}]`),
		want:     `* spec.rules[0].require.claims[0].path: Required value` + unchecked,
	},
	"a claim's path is not empty": {
		accepted: withRequire(`claims: [{path: t, equals: gold}]`),
		refused:  withRequire(`claims: [{path: "", equals: gold}]`),
		want:     `spec.rules[0].require.claims[0].path: Invalid value: "": spec.rules[0].require.claims[0].path in body should be at least 1 chars long`,
	},
	"a claim's path is short": {
		accepted: withRequire(`claims: [{path: ` + strings.Repeat("c", 256) + `, equals: gold}]`),
		refused:  withRequire(`claims: [{path: ` + strings.Repeat("c", 257) + `, equals: gold}]`),
		want:     `* spec.rules[0].require.claims[0].path: Too long: may not be more than 256 bytes` + unchecked,
	},
	"equals is short": {
		accepted: withRequire(`claims: [{path: c, equals: ` + strings.Repeat("v", 1024) + `}]`),
		refused:  withRequire(`claims: [{path: c, equals: ` + strings.Repeat("v", 1025) + `}]`),
		want:     `* spec.rules[0].require.claims[0].equals: Too long: may not be more than 1024 bytes` + unchecked,
	},
	"anyOf is not empty": {
		accepted: withRequire(`claims: [{path: c, anyOf: [a]}]`),
		refused:  withRequire(`claims: [{path: c, anyOf: []}]`),
		want:     `spec.rules[0].require.claims[0].anyOf: Invalid value: 0: spec.rules[0].require.claims[0].anyOf in body should have at least 1 items`,
	},
	"anyOf is short": {
		accepted: withRequire(`claims: [{path: c, anyOf: [` + repeat(64, `v%d`) + `]}]`),
		refused:  withRequire(`claims: [{path: c, anyOf: [` + repeat(65, `v%d`) + `]}]`),
		want:     `* spec.rules[0].require.claims[0].anyOf: Too many: 65: must have at most 64 items` + unchecked,
	},
	"allOf is not empty": {
		accepted: withRequire(`claims: [{path: c, allOf: [a]}]`),
		refused:  withRequire(`claims: [{path: c, allOf: []}]`),
		want:     `spec.rules[0].require.claims[0].allOf: Invalid value: 0: spec.rules[0].require.claims[0].allOf in body should have at least 1 items`,
	},
	"allOf is short": {
		accepted: withRequire(`claims: [{path: c, allOf: [` + repeat(64, `v%d`) + `]}]`),
		refused:  withRequire(`claims: [{path: c, allOf: [` + repeat(65, `v%d`) + `]}]`),
		want:     `* spec.rules[0].require.claims[0].allOf: Too many: 65: must have at most 64 items` + unchecked,
	},
	"expressions are few": {
		accepted: withRequire(`expressions: [` + repeat(16, `{cel: "claims.n == %d"}`) + `]`),
		refused:  withRequire(`expressions: [` + repeat(17, `{cel: "claims.n == %d"}`) + `]`),
		want:     `* spec.rules[0].require.expressions: Too many: 17: must have at most 16 items` + unchecked,
	},
	"an expression is not empty": {
		accepted: withRequire(`expressions: [{cel: "true", message: always}]`),
		refused:  withRequire(`expressions: [{cel: ""}]`),
		want:     `spec.rules[0].require.expressions[0].cel: Invalid value: "": spec.rules[0].require.expressions[0].cel in body should be at least 1 chars long`,
	},
	"an expression is short": {
		accepted: withRequire(`expressions: [{cel: ` + strings.Repeat("c", 4096) + `}]`),
		refused:  withRequire(`expressions: [{cel: ` + strings.Repeat("c", 4097) + `}]`),
		want:     `* spec.rules[0].require.expressions[0].cel: Too long: may not be more than 4096 bytes` + unchecked,
	},
	"an expression's message is short": {
		accepted: withRequire(`expressions: [{cel: "true", message: ` + strings.Repeat("m", 256) + `}]`),
		refused:  withRequire(`expressions: [{cel: "true", message: ` + strings.Repeat("m", 257) + `}]`),
		want:     `* spec.rules[0].require.expressions[0].message: Too long: may not be more than 256 bytes` + unchecked,
	},
	"identity headers are few": {
		accepted: with(`identity: {headers: [` + repeat(16, `{name: X-%d, claim: sub}`) + `]}`),
		refused:  with(`identity: {headers: [` + repeat(17, `{name: X-%d, claim: sub}`) + `]}`),
		want:     `* spec.identity.headers: Too many: 17: must have at most 16 items` + unchecked,
	},
	"an identity header is named once": {
		accepted: with(`identity: {headers: [{name: X-User, claim: sub}, {name: X-Mail, claim: email}]}`),
		refused:  with(`identity: {headers: [{name: X-User, claim: sub}, {name: X-User, claim: email}]}`),
		want:     `spec.identity.headers[1]: Duplicate value: {"name":"X-User"}`,
	},
	"an identity header is not two things": {
		accepted: withHeader(`name: X-User, cel: "claims.sub"`),
		refused:  withHeader(`name: X-User, claim: sub, cel: "claims.sub"`),
		want:     `spec.identity.headers[0]: Invalid value: set exactly one of claim and cel`,
	},
	"an identity header is something": {
		accepted: withHeader(`name: X-User, claim: sub`),
		refused:  withHeader(`name: X-User`),
		want:     `spec.identity.headers[0]: Invalid value: set exactly one of claim and cel`,
	},
	"an identity header has a name that proxies keep": {
		accepted: withHeader(`name: X-Auth-Subject, claim: sub`),
		refused:  withHeader(`name: X_Auth_Subject, claim: sub`),
		want:     `spec.identity.headers[0].name: Invalid value: "X_Auth_Subject": use letters, digits and '-': other characters are changed or dropped by proxies`,
	},
	"an identity header has no meaning of its own": {
		accepted: withHeader(`name: Authorization-Info, claim: sub`),
		refused:  withHeader(`name: Transfer-Encoding, claim: sub`),
		want:     `spec.identity.headers[0]: Invalid value: name: this header has a meaning of its own between proxies: choose another, such as X-Auth-Subject`,
	},
	"an identity header gives nginx no orders": {
		accepted: withHeader(`name: Accel-X, claim: sub`),
		refused:  withHeader(`name: X-ACCEL-Redirect, claim: sub`),
		want:     `spec.identity.headers[0]: Invalid value: name: this header has a meaning of its own between proxies: choose another, such as X-Auth-Subject`,
	},
	"an identity header says nothing to caches": {
		accepted: withHeader(`name: X-Vary, claim: sub`),
		refused:  withHeader(`name: Vary, claim: sub`),
		want:     `spec.identity.headers[0]: Invalid value: name: this header has a meaning of its own between proxies: choose another, such as X-Auth-Subject`,
	},
	"an identity header's claim is not empty": {
		accepted: withHeader(`name: X-User, claim: s`),
		refused:  withHeader(`name: X-User, claim: ""`),
		want:     `spec.identity.headers[0].claim: Invalid value: "": spec.identity.headers[0].claim in body should be at least 1 chars long`,
	},
	"an identity header's claim is short": {
		accepted: withHeader(`name: X-User, claim: ` + strings.Repeat("c", 256)),
		refused:  withHeader(`name: X-User, claim: ` + strings.Repeat("c", 257)),
		want:     `* spec.identity.headers[0].claim: Too long: may not be more than 256 bytes` + unchecked,
	},
	"an identity header's expression is not empty": {
		accepted: withHeader(`name: X-User, cel: "'a'"`),
		refused:  withHeader(`name: X-User, cel: ""`),
		want:     `spec.identity.headers[0].cel: Invalid value: "": spec.identity.headers[0].cel in body should be at least 1 chars long`,
	},
	"an identity header's expression is short": {
		accepted: withHeader(`name: X-User, cel: ` + strings.Repeat("c", 4096)),
		refused:  withHeader(`name: X-User, cel: ` + strings.Repeat("c", 4097)),
		want:     `* spec.identity.headers[0].cel: Too long: may not be more than 4096 bytes` + unchecked,
	},
	"a field that there is not": {
		accepted: with(`realm: shop`),
		refused:  with(`relm: shop`),
		want:     `Error from server (BadRequest): error when creating "FILE": AccessPolicy in version "v1alpha1" cannot be handled as a AccessPolicy: strict decoding error: unknown field "spec.relm"`,
	},
}

// repeat lists n times the format, which may hold the number.
func repeat(n int, format string) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return strings.Join(out, ", ")
}

// entries is a map of n.
func entries(n int) string { return repeat(n, "k%d: v") }

// methods lists n methods.
func methods(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("M-%c", 'A'+i))
	}
	return strings.Join(out, ", ")
}
