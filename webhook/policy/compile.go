package policy

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keywright/keywright/api/v1alpha1"
)

// defaultRule is the name of the rule of a policy without rules.
const defaultRule = "default"

// Policy is a compiled AccessPolicy. It is immutable and safe for concurrent
// use. Slices that it hands out must not be changed.
type Policy struct {
	realm       string
	credentials []v1alpha1.Credential
	issuers     []v1alpha1.TokenIssuerRef
	ruleCount   int
	rules       []Rule // never empty
	identity    []identityHeader
	revoked     revokedTokens
	normalize   bool
	preflight   bool
	showsReason bool
	cacheFor    time.Duration
	looksAt     aspect
}

// Realm for WWW-Authenticate: printable ASCII without quotes and backslashes.
func (p *Policy) Realm() string { return p.realm }

// Credentials says where a token may be; never empty.
func (p *Policy) Credentials() []v1alpha1.Credential { return p.credentials }

// Issuers says whose tokens count; every reference has its namespace.
func (p *Policy) Issuers() []v1alpha1.TokenIssuerRef { return p.issuers }

// Rules is how many rules the author wrote: 0 when the implicit one decides.
func (p *Policy) Rules() int { return p.ruleCount }

// AllowsPreflight says whether CORS preflights pass without a token.
func (p *Policy) AllowsPreflight() bool { return p.preflight }

// ShowsReason says whether clients are told the reason of a denial.
func (p *Policy) ShowsReason() bool { return p.showsReason }

// CacheFor is how long a proxy may keep an answer that allows; 0: not at all.
func (p *Policy) CacheFor() time.Duration { return p.cacheFor }

// NeedsMethod says whether a rule or an expression looks at the method,
// or whether the policy lets preflights pass.
func (p *Policy) NeedsMethod() bool { return p.preflight || p.looksAt&aspectMethod != 0 }

// NeedsPath says whether a rule, an expression or a credential looks at the
// path or the query.
func (p *Policy) NeedsPath() bool { return p.looksAt&(aspectPath|aspectQuery) != 0 }

// NeedsHost says whether a rule or an expression looks at the host.
func (p *Policy) NeedsHost() bool { return p.looksAt&aspectHost != 0 }

// maxFaults is how many faults are told at once. To put an error together
// takes time that grows with the square of its length.
const maxFaults = 20

// Compile understands the spec of the policy namespace/name. The error lists
// every fault with its field's path and what to change; where there are more
// than maxFaults it says so.
//
// It does not rely on the resource's own validation rules where a breach would
// open a gap: an older or a missing CRD does not make it accept more.
func Compile(namespace, name string, spec *v1alpha1.AccessPolicySpec) (*Policy, error) {
	var faults field.ErrorList
	at := field.NewPath("spec")
	p := &Policy{realm: spec.Realm, ruleCount: len(spec.Rules)}

	if p.realm == "" {
		p.realm = name
	}
	if !isQuotable(p.realm) {
		faults = append(faults, field.Invalid(at.Child("realm"), p.realm,
			"use printable ASCII without quotes and backslashes"))
	}

	switch spec.AmbiguousPaths {
	case "", v1alpha1.AmbiguousPathsDeny:
	case v1alpha1.AmbiguousPathsNormalize:
		p.normalize = true
	default:
		faults = append(faults, field.NotSupported(at.Child("ambiguousPaths"), spec.AmbiguousPaths,
			[]v1alpha1.AmbiguousPaths{v1alpha1.AmbiguousPathsDeny, v1alpha1.AmbiguousPathsNormalize}))
	}

	switch spec.Preflight {
	case "", v1alpha1.PreflightDeny:
	case v1alpha1.PreflightAllow:
		p.preflight = true
	default:
		faults = append(faults, field.NotSupported(at.Child("preflight"), spec.Preflight,
			[]v1alpha1.Preflight{v1alpha1.PreflightDeny, v1alpha1.PreflightAllow}))
	}
	p.showsReason = spec.Denials != nil && spec.Denials.ReasonHeader

	p.credentials, faults = compileCredentials(at.Child("credentials"), spec.Credentials, faults)
	for i := range p.credentials {
		if p.credentials[i].Query != nil {
			p.looksAt |= aspectQuery
		}
	}
	withTokens := map[string]bool{}
	for i := range p.credentials {
		if h := p.credentials[i].Header; h != nil {
			withTokens[strings.ToLower(string(h.Name))] = true
		}
	}
	p.issuers, faults = compileIssuers(at.Child("issuers"), namespace, spec.Issuers, faults)
	p.revoked, faults = compileRevoked(at.Child("revokedTokens"), spec.RevokedTokens, faults)

	names := map[string]bool{}
	for i := range spec.Rules {
		if len(faults) > maxFaults {
			break
		}
		rule := &spec.Rules[i]
		path := at.Child("rules").Index(i)
		if names[rule.Name] {
			faults = append(faults, field.Duplicate(path.Child("name"), rule.Name))
		}
		names[rule.Name] = true
		var r Rule
		r, faults = compileRule(path, rule, p.normalize, withTokens, faults)
		p.rules = append(p.rules, r)
		p.looksAt |= r.looksAt | r.expressionsLooksAt
	}
	if len(spec.Rules) == 0 {
		p.rules = []Rule{{name: defaultRule, access: v1alpha1.AccessAuthenticated, normalize: p.normalize}}
	}

	if spec.Identity != nil && len(faults) <= maxFaults {
		p.identity, faults = compileIdentity(at.Child("identity", "headers"), spec.Identity.Headers, withTokens, faults)
	}
	for i := range p.identity {
		if e := p.identity[i].expr; e != nil {
			p.looksAt |= e.looksAt
		}
	}

	if p.cacheFor = spec.DecisionCache.Duration; p.cacheFor != 0 && len(faults) <= maxFaults {
		faults = append(faults, p.checkCacheFor(at.Child("decisionCache"))...)
	}

	if len(faults) > maxFaults {
		return nil, fmt.Errorf("compiling AccessPolicy %s/%s: the first %d faults, and there are more: %w",
			namespace, name, maxFaults, faults[:maxFaults].ToAggregate())
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("compiling AccessPolicy %s/%s: %w", namespace, name, faults.ToAggregate())
	}
	return p, nil
}

// maxCacheFor bounds how long a revocation waits for proxies that cache.
const maxCacheFor = time.Hour

// checkCacheFor refuses to let answers be kept that depend on more than the
// headers with credentials: proxies keep one for all paths and methods.
func (p *Policy) checkCacheFor(at *field.Path) field.ErrorList {
	switch {
	case p.cacheFor < 0 || p.cacheFor > maxCacheFor:
		return field.ErrorList{field.Invalid(at, p.cacheFor.String(), "must be from 0s to 1h: revocations wait for it")}
	case p.ruleCount > 0:
		return field.ErrorList{field.Forbidden(at, "it goes with a policy without rules only: proxies keep one answer for all paths and methods")}
	case p.looksAt != 0:
		return field.ErrorList{field.Forbidden(at, "a credential or an identity header looks at the request's method, host, path, query or headers: proxies keep one answer for all of them")}
	}
	return nil
}

func compileCredentials(at *field.Path, credentials []v1alpha1.Credential, faults field.ErrorList) ([]v1alpha1.Credential, field.ErrorList) {
	if len(credentials) == 0 {
		return []v1alpha1.Credential{{
			Header: &v1alpha1.HeaderCredential{Name: "Authorization", Scheme: "Bearer"},
		}}, faults
	}
	// The same place twice would find every token twice, and two are denied.
	seen := map[string]bool{}
	compiled := make([]v1alpha1.Credential, len(credentials))
	for i := range credentials {
		path := at.Index(i)
		credentials[i].DeepCopyInto(&compiled[i])
		var place string
		switch c := &compiled[i]; {
		case countTrue(c.Header != nil, c.Cookie != nil, c.Query != nil, c.WebSocketProtocol != nil) != 1:
			faults = append(faults, field.Required(path, "set exactly one of header, cookie, query and webSocketProtocol"))
			continue
		case c.Header != nil:
			if !isHeaderName(string(c.Header.Name)) {
				faults = append(faults, field.Invalid(path.Child("header", "name"), c.Header.Name, headerNameHint))
			}
			place = "header " + strings.ToLower(string(c.Header.Name)) + " " + strings.ToLower(c.Header.Scheme)
		case c.Cookie != nil:
			if c.Cookie.Name == "" {
				faults = append(faults, field.Required(path.Child("cookie", "name"), "name the cookie"))
			}
			place = "cookie " + c.Cookie.Name
		case c.Query != nil:
			if !isPlainName(c.Query.Name) {
				faults = append(faults, field.Invalid(path.Child("query", "name"), c.Query.Name, plainNameHint))
			}
			place = "query " + c.Query.Name
		default:
			if !isPlainName(c.WebSocketProtocol.Prefix) {
				faults = append(faults, field.Invalid(path.Child("webSocketProtocol", "prefix"), c.WebSocketProtocol.Prefix, plainNameHint))
			}
			place = "webSocketProtocol " + c.WebSocketProtocol.Prefix
		}
		if seen[place] {
			faults = append(faults, field.Duplicate(path, place))
		}
		seen[place] = true
	}
	return compiled, faults
}

func compileIssuers(at *field.Path, namespace string, issuers []v1alpha1.TokenIssuerRef, faults field.ErrorList) ([]v1alpha1.TokenIssuerRef, field.ErrorList) {
	if len(issuers) == 0 {
		return nil, append(faults, field.Required(at, "name at least one issuer whose tokens count"))
	}
	compiled := make([]v1alpha1.TokenIssuerRef, len(issuers))
	rsa := map[string]string{} // by where the keys are
	for i := range issuers {
		issuers[i].DeepCopyInto(&compiled[i])
		ref, one := &compiled[i].SigningKeyRef, &compiled[i]
		switch {
		case countTrue(*ref != v1alpha1.SigningKeyRef{}, one.OIDC != nil, one.JWKS != nil) > 1:
			faults = append(faults, field.Forbidden(at.Index(i), "set exactly one of signingKeyRef, oidc and jwks"))
		case one.OIDC != nil || one.JWKS != nil:
			faults = append(faults, checkRemote(at.Index(i), one)...)
			if only := onlyRSA(one.Algorithms); only != "" {
				keys := keysOf(one)
				if other := rsa[keys]; other != "" && other != only {
					faults = append(faults, field.Invalid(at.Index(i).Child("algorithms"), only,
						"another entry uses the same keys with "+other+": a key that names no algorithm is used with one; name the same in both"))
				}
				rsa[keys] = only
			}
		default:
			if ref.Name == "" {
				faults = append(faults, field.Required(at.Index(i).Child("signingKeyRef", "name"), "name a SigningKey"))
			}
			if len(one.Algorithms) > 0 {
				faults = append(faults, field.Forbidden(at.Index(i).Child("algorithms"), "a SigningKey says its own"))
			}
			if ref.Namespace == "" {
				ref.Namespace = namespace
			}
		}
		switch compiled[i].Profile {
		case "":
		case v1alpha1.ProfileAccessToken:
			if len(compiled[i].Audiences) == 0 {
				faults = append(faults, field.Required(at.Index(i).Child("audiences"), "profile AccessToken needs at least one"))
			}
		default:
			faults = append(faults, field.NotSupported(at.Index(i).Child("profile"), compiled[i].Profile, []v1alpha1.Profile{v1alpha1.ProfileAccessToken}))
		}
	}
	return compiled, faults
}

// publicAlgorithms are those whose keys can be published.
var publicAlgorithms = []string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}

// checkRemote looks at an issuer of others.
func checkRemote(at *field.Path, issuer *v1alpha1.TokenIssuerRef) (faults field.ErrorList) {
	if len(issuer.Audiences) == 0 {
		faults = append(faults, field.Required(at.Child("audiences"), "tokens of another issuer are for many: name at least one that is yours"))
	}
	if len(issuer.Algorithms) == 0 {
		faults = append(faults, field.Required(at.Child("algorithms"), "oidc and jwks need at least one"))
	}
	for i, name := range issuer.Algorithms {
		if !isOneOf(publicAlgorithms, name) {
			faults = append(faults, field.NotSupported(at.Child("algorithms").Index(i), name, publicAlgorithms))
		}
	}
	path, target := at.Child("oidc", "url"), ""
	if issuer.OIDC != nil {
		target = issuer.OIDC.URL
		if strings.ContainsAny(target, "?#") {
			faults = append(faults, field.Invalid(path, target, "write it without query and fragment"))
		}
	} else {
		path, target = at.Child("jwks", "url"), issuer.JWKS.URL
		if issuer.JWKS.Issuer == "" {
			faults = append(faults, field.Required(at.Child("jwks", "issuer"), "say what the tokens' iss says"))
		}
	}
	if u, err := url.Parse(target); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		faults = append(faults, field.Invalid(path, target, "write a whole https URL"))
	}
	return faults
}

// onlyRSA gives the one algorithm that an RSA key without alg is used with; ""
// when there is none, or more than one. Other keys fit one in any case.
func onlyRSA(algorithms []string) (only string) {
	for _, name := range algorithms {
		if !strings.HasPrefix(name, "RS") && !strings.HasPrefix(name, "PS") {
			continue
		}
		if only != "" && only != name {
			return ""
		}
		only = name
	}
	return only
}

// keysOf says where the keys of an issuer of others are, and whose they are.
func keysOf(issuer *v1alpha1.TokenIssuerRef) string {
	if issuer.OIDC != nil {
		return "oidc " + issuer.OIDC.URL
	}
	return "jwks " + issuer.JWKS.URL + " " + issuer.JWKS.Issuer
}

func compileRule(at *field.Path, rule *v1alpha1.Rule, normalize bool, withTokens map[string]bool, faults field.ErrorList) (Rule, field.ErrorList) {
	r := Rule{name: rule.Name, access: rule.Access, normalize: normalize}
	if r.name == "" {
		faults = append(faults, field.Required(at.Child("name"), "name the rule"))
	}
	switch r.access {
	case "":
		r.access = v1alpha1.AccessAuthenticated
	case v1alpha1.AccessAnonymous, v1alpha1.AccessAuthenticated, v1alpha1.AccessDenied:
	default:
		faults = append(faults, field.NotSupported(at.Child("access"), r.access,
			[]v1alpha1.Access{v1alpha1.AccessAnonymous, v1alpha1.AccessAuthenticated, v1alpha1.AccessDenied}))
	}

	for i := range rule.Match {
		var m match
		m, faults = compileMatch(at.Child("match").Index(i), &rule.Match[i], normalize, faults)
		r.matches = append(r.matches, m)
		if len(m.methods) > 0 {
			r.looksAt |= aspectMethod
		}
		if len(m.hosts) > 0 {
			r.looksAt |= aspectHost
		}
		if len(m.exact)+len(m.prefixes) > 0 {
			r.looksAt |= aspectPath
		}
	}

	if rule.Require == nil {
		return r, faults
	}
	require := at.Child("require")
	if r.access != v1alpha1.AccessAuthenticated {
		faults = append(faults, field.Forbidden(require, "it goes with access: Authenticated only"))
	}
	for i, scope := range rule.Require.Scopes {
		if scope == "" || strings.Contains(scope, " ") || !isQuotable(scope) {
			faults = append(faults, field.Invalid(require.Child("scopes").Index(i), scope,
				"a scope is printable ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)"))
		}
		r.scopes = append(r.scopes, scope)
	}
	for i := range rule.Require.Claims {
		test, fault := compileClaim(require.Child("claims").Index(i), &rule.Require.Claims[i])
		if fault != nil {
			faults = append(faults, fault)
		}
		r.claims = append(r.claims, test)
	}
	for i := range rule.Require.Expressions {
		one := &rule.Require.Expressions[i]
		e, fault := compileExpression(require.Child("expressions").Index(i).Child("cel"), one.CEL, cel.BoolType, withTokens)
		if fault != nil {
			faults = append(faults, fault)
		}
		e.message = one.Message
		r.expressions = append(r.expressions, e)
		r.expressionsLooksAt |= e.looksAt
		r.expressionsHeaders = append(r.expressionsHeaders, e.headers...)
	}
	return r, faults
}

func compileMatch(at *field.Path, spec *v1alpha1.Match, normalize bool, faults field.ErrorList) (match, field.ErrorList) {
	var m match
	for i, method := range spec.Methods {
		if !IsMethod(method) {
			faults = append(faults, field.Invalid(at.Child("methods").Index(i), method,
				"write methods in capitals, such as GET"))
		}
		m.methods = append(m.methods, method)
	}
	for i, raw := range spec.Hosts {
		host, err := NormalizeHost(raw)
		if err != nil {
			faults = append(faults, field.Invalid(at.Child("hosts").Index(i), raw,
				"write a whole host name such as shop.example.com; there are no wildcards"))
		}
		m.hosts = append(m.hosts, host)
	}
	for i := range spec.Paths {
		path, one := at.Child("paths").Index(i), &spec.Paths[i]
		switch {
		case (one.Exact != "") == (one.Prefix != ""):
			faults = append(faults, field.Required(path, "set exactly one of exact and prefix"))
		case one.Exact != "":
			faults = append(faults, checkPath(path.Child("exact"), one.Exact, normalize)...)
			m.exact = append(m.exact, one.Exact)
		default:
			faults = append(faults, checkPath(path.Child("prefix"), one.Prefix, normalize)...)
			m.prefixes = append(m.prefixes, strings.TrimSuffix(one.Prefix, "/"))
		}
	}
	return m, faults
}

// checkPath refuses a path that no request could fit: a Denied rule with one
// would look as if it protected something.
func checkPath(at *field.Path, path string, normalize bool) field.ErrorList {
	normal, _, ambiguous, err := ParseTarget(escapePath(path))
	switch {
	case err != nil || normal != path:
		return field.ErrorList{field.Invalid(at, path,
			"write the path as it is after decoding: begin with '/', without empty or dot segments and without '\\' and control characters")}
	case ambiguous && !normalize:
		return field.ErrorList{field.Invalid(at, path,
			"no request can fit it: paths are compared decoded and without their query, and one with '%', '?', '#', ';' or a look-alike of ASCII is ambiguous and denied")}
	}
	return nil
}

func compileClaim(at *field.Path, spec *v1alpha1.ClaimRequirement) (claimTest, *field.Error) {
	test := claimTest{path: spec.Path}
	set := 0
	if spec.Equals != nil {
		set++
		test.kind, test.want = claimEquals, []string{*spec.Equals}
	}
	if spec.AnyOf != nil {
		set++
		test.kind, test.want = claimAnyOf, append([]string{}, spec.AnyOf...)
	}
	if spec.AllOf != nil {
		set++
		test.kind, test.want = claimAllOf, append([]string{}, spec.AllOf...)
	}
	switch {
	case spec.Path == "":
		return test, field.Required(at.Child("path"), "name a claim")
	case set != 1:
		return test, field.Required(at, "set exactly one of equals, anyOf and allOf")
	case len(test.want) == 0: // allOf nothing would be met by every list
		return test, field.Required(at, "list at least one value")
	}
	return test, nil
}

func compileIdentity(at *field.Path, headers []v1alpha1.IdentityHeader, withTokens map[string]bool, faults field.ErrorList) ([]identityHeader, field.ErrorList) {
	var compiled []identityHeader
	seen := map[string]bool{}
	for i := range headers {
		spec, path := &headers[i], at.Index(i)
		h := identityHeader{field: NewField(string(spec.Name)), claim: spec.Claim}
		lower := h.field.Lower
		switch {
		case !isHeaderName(h.field.Name):
			faults = append(faults, field.Invalid(path.Child("name"), spec.Name, headerNameHint))
		case reservedHeaders[lower], strings.HasPrefix(lower, reservedPrefix):
			faults = append(faults, field.Invalid(path.Child("name"), spec.Name,
				"this header has a meaning of its own between proxies: choose another, such as X-Auth-Subject"))
		case seen[lower]:
			faults = append(faults, field.Duplicate(path.Child("name"), spec.Name))
		}
		seen[lower] = true
		switch {
		case (spec.Claim != "") == (spec.CEL != ""):
			faults = append(faults, field.Required(path, "set exactly one of claim and cel"))
		case spec.CEL != "":
			e, fault := compileExpression(path.Child("cel"), spec.CEL, cel.StringType, withTokens)
			if fault != nil {
				faults = append(faults, fault)
			}
			h.expr = &e
		}
		compiled = append(compiled, h)
	}
	return compiled, faults
}

func countTrue(all ...bool) (n int) {
	for _, one := range all {
		if one {
			n++
		}
	}
	return n
}

const plainNameHint = "use letters, digits, '_', '.' and '-'"

// isPlainName says whether s is written the same everywhere: in a query, where
// nothing of it is encoded, and in a list of subprotocols.
func isPlainName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '~' || !isUnreserved(c) {
			return false
		}
	}
	return s != ""
}

const headerNameHint = "use letters, digits and '-': other characters are changed or dropped by proxies"

func isHeaderName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '.' || c == '_' || c == '~' || !isUnreserved(c) {
			return false
		}
	}
	return s != ""
}

// reservedHeaders would change what becomes of an answer, as would those that
// begin with reservedPrefix, which are orders to nginx. The resource's own rule
// refuses the same.
var reservedHeaders = map[string]bool{
	"connection": true, "content-length": true, "content-type": true, "date": true, "host": true,
	"keep-alive": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
	"cache-control": true, "www-authenticate": true, "set-cookie": true, "location": true,
	"expires": true, "vary": true, "content-encoding": true, "proxy-authenticate": true,
}

const reservedPrefix = "x-accel-"

// isQuotable says whether s goes between quotes in a header as it is.
func isQuotable(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
