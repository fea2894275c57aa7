package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AccessPolicy says which requests pass the gate: whose tokens count, where
// they are found, and what they must say.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ap,categories=keywright
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Rules",type=integer,JSONPath=`.status.rules`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AccessPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AccessPolicySpec   `json:"spec"`
	Status AccessPolicyStatus `json:"status,omitempty"`
}

// AccessPolicyList is a list of AccessPolicies.
//
// +kubebuilder:object:root=true
type AccessPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AccessPolicy `json:"items"`
}

// AccessPolicySpec is what a user asks for.
//
// +kubebuilder:validation:XValidation:rule="!has(self.decisionCache) || duration(self.decisionCache) == duration('0s') || !has(self.rules) || size(self.rules) == 0",message="decisionCache goes with a policy without rules only: proxies keep one answer for all paths and methods; remove it or the rules"
// +kubebuilder:validation:XValidation:rule="!has(self.decisionCache) || duration(self.decisionCache) == duration('0s') || !has(self.credentials) || !self.credentials.exists(c, has(c.query))",message="decisionCache does not go with a credential in the query: an answer could not say that it depends on that; remove one of them"
type AccessPolicySpec struct {
	// realm is named in WWW-Authenticate; the policy's name when not set.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[ !#-\\\\[\\\\]-~]*$')",message="realm: use printable ASCII without quotes and backslashes"
	// +optional
	Realm string `json:"realm,omitempty"`

	// credentials says where a token may be; the Authorization header with
	// scheme Bearer when not set. A request with more than one is denied.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	Credentials []Credential `json:"credentials,omitempty"`

	// issuers says whose tokens count.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Issuers []TokenIssuerRef `json:"issuers"`

	// rules are looked at in order and the first that matches decides. No
	// match denies. Without any rule every valid token passes.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Rules []Rule `json:"rules,omitempty"`

	// identity says what the application is told about the caller.
	// +optional
	Identity *Identity `json:"identity,omitempty"`

	// ambiguousPaths says what becomes of a request whose path would route
	// differently raw and normalised (dot segments, encoded characters that
	// need no encoding, doubled slashes): Deny it where a rule looks at the
	// path, or Normalize it and decide by that. Choose Normalize only when
	// the application itself normalises the same way.
	// +kubebuilder:validation:Enum=Deny;Normalize
	// +kubebuilder:default=Deny
	// +optional
	AmbiguousPaths AmbiguousPaths `json:"ambiguousPaths,omitempty"`

	// preflight says what becomes of a CORS preflight: a request with the method
	// OPTIONS, Origin and Access-Control-Request-Method, which browsers send
	// without credentials. Deny treats it like any other. Allow lets it pass
	// without a token where the request that it announces could pass with one:
	// the rule is the one for the announced method, and access: Denied denies.
	// Rules that name OPTIONS are not asked about preflights then.
	// +kubebuilder:validation:Enum=Deny;Allow
	// +kubebuilder:default=Deny
	// +optional
	Preflight Preflight `json:"preflight,omitempty"`

	// decisionCache is how long a proxy that caches answers may let a token
	// pass without asking again: never beyond the token's exp and the end of
	// its key. Revocations wait as long. Denials are never kept. For policies
	// without rules only.
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('1h')",message="decisionCache must be at most 1h: revocations wait for it"
	// +optional
	DecisionCache Duration `json:"decisionCache,omitzero"`

	// denials say what a client learns from a denial beyond WWW-Authenticate.
	// +optional
	Denials *Denials `json:"denials,omitempty"`

	// revokedTokens count no more, whatever else is right about them. This
	// policy refuses them; others do not know of it.
	// +optional
	RevokedTokens *RevokedTokens `json:"revokedTokens,omitempty"`
}

// AmbiguousPaths says what becomes of a request with an ambiguous path.
type AmbiguousPaths string

// What becomes of a request with an ambiguous path.
const (
	AmbiguousPathsDeny      AmbiguousPaths = "Deny"
	AmbiguousPathsNormalize AmbiguousPaths = "Normalize"
)

// Preflight says what becomes of a CORS preflight.
type Preflight string

// What becomes of a CORS preflight.
const (
	PreflightDeny  Preflight = "Deny"
	PreflightAllow Preflight = "Allow"
)

// Denials say what a client learns from a denial.
type Denials struct {
	// reasonHeader adds X-Keywright-Reason to denials, with the reason that
	// logs and metrics have. Clients that should not learn why are better off
	// without it. (nginx drops it: it passes WWW-Authenticate on alone.)
	// +optional
	ReasonHeader bool `json:"reasonHeader,omitempty"`
}

// Credential is one place where a token may be.
//
// +kubebuilder:validation:XValidation:rule="[has(self.header), has(self.cookie), has(self.query), has(self.webSocketProtocol)].filter(x, x).size() == 1",message="set exactly one of header, cookie, query and webSocketProtocol"
type Credential struct {
	// +optional
	Header *HeaderCredential `json:"header,omitempty"`
	// +optional
	Cookie *CookieCredential `json:"cookie,omitempty"`
	// +optional
	Query *QueryCredential `json:"query,omitempty"`
	// +optional
	WebSocketProtocol *WebSocketProtocolCredential `json:"webSocketProtocol,omitempty"`
}

// HeaderName is the name of an HTTP header field (RFC 9110 section 5.1).
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9-]+$')",message="use letters, digits and '-': other characters are changed or dropped by proxies"
type HeaderName string

// HeaderCredential finds a token in a header field.
type HeaderCredential struct {
	// name of the header.
	Name HeaderName `json:"name"`
	// scheme that stands before the token, compared without regard to case;
	// the whole value is the token when not set.
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9-]*$')",message="scheme: use letters, digits and '-'"
	// +optional
	Scheme string `json:"scheme,omitempty"`
}

// CookieCredential finds a token in a cookie.
type CookieCredential struct {
	// name of the cookie.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$')",message="name: use letters, digits, '_', '.' and '-'"
	Name string `json:"name"`
}

// QueryCredential finds a token in a parameter of the query, for clients that
// can set neither headers nor cookies. URLs end in logs, histories and Referer
// headers, and the tokens with them: choose another place where there is one,
// and let such tokens live for minutes only.
type QueryCredential struct {
	// name of the parameter.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$')",message="name: use letters, digits, '_', '.' and '-'"
	Name string `json:"name"`
}

// WebSocketProtocolCredential finds a token among the subprotocols that a
// WebSocket client offers, the only header that scripts in browsers can set:
// new WebSocket(url, ["chat", "bearer." + token]). The application answers
// with another one of them, never with the token.
type WebSocketProtocolCredential struct {
	// prefix that stands before the token, such as "bearer.", compared
	// character by character.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]+$')",message="prefix: use letters, digits, '_', '.' and '-'"
	Prefix string `json:"prefix"`
}

// Profile is a kind of tokens.
type Profile string

// ProfileAccessToken is that of RFC 9068: typ is at+jwt, and iss, exp, aud,
// sub, client_id, iat and jti are there.
const ProfileAccessToken Profile = "AccessToken"

// TokenIssuerRef says whose tokens count, and what they must carry.
//
// +kubebuilder:validation:XValidation:rule="[has(self.signingKeyRef), has(self.oidc), has(self.jwks)].filter(x, x).size() == 1",message="set exactly one of signingKeyRef, oidc and jwks"
// +kubebuilder:validation:XValidation:rule="has(self.signingKeyRef) || has(self.audiences) && size(self.audiences) > 0",message="audiences: tokens of another issuer are for many: name at least one that is yours"
// +kubebuilder:validation:XValidation:rule="has(self.signingKeyRef) != (has(self.algorithms) && size(self.algorithms) > 0)",message="algorithms: oidc and jwks need at least one; a SigningKey says its own"
// +kubebuilder:validation:XValidation:rule="!has(self.profile) || has(self.audiences) && size(self.audiences) > 0",message="audiences: profile AccessToken needs at least one"
type TokenIssuerRef struct {
	// signingKeyRef names the SigningKey whose tokens count.
	// +optional
	SigningKeyRef SigningKeyRef `json:"signingKeyRef,omitzero"`

	// oidc names an issuer of others that has a discovery document.
	// +optional
	OIDC *OIDCIssuer `json:"oidc,omitempty"`

	// jwks names an issuer of others by its JWK Set alone.
	// +optional
	JWKS *JWKSIssuer `json:"jwks,omitempty"`

	// algorithms that count with oidc and jwks. Each key is used with one of
	// them: the one that it names, or the only one that fits it. Where several
	// of a policy's issuers have the same keys, they have to agree on it.
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:Enum=ES256;ES384;ES512;EdDSA;RS256;RS384;RS512;PS256;PS384;PS512
	// +listType=set
	// +optional
	Algorithms []string `json:"algorithms,omitempty"`

	// audiences of which a token's aud must name at least one. aud is not
	// looked at when none is given.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +listType=set
	// +optional
	Audiences []string `json:"audiences,omitempty"`

	// profile is the kind of tokens that count; any when not set. AccessToken
	// takes access tokens as RFC 9068 section 4 says and nothing else, ID
	// tokens among it: typ is at+jwt, the claims iss, exp, aud, sub, client_id,
	// iat and jti are there, and the SigningKey names its issuer.
	// +kubebuilder:validation:Enum=AccessToken
	// +optional
	Profile Profile `json:"profile,omitempty"`

	// requiredClaims must be present and neither null nor empty.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +listType=set
	// +optional
	RequiredClaims []string `json:"requiredClaims,omitempty"`
}

// OIDCIssuer is an issuer that has a discovery document (OpenID Connect
// Discovery 1.0 section 4). Each gate fetches it and the keys that it leads to
// in the background; until they are there its tokens are denied.
type OIDCIssuer struct {
	// url of the issuer: exactly what its document and its tokens call it.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHostname() != '' && !self.contains('?') && !self.contains('#')",message="url: write a whole https URL without query and fragment, such as https://accounts.example.com"
	URL string `json:"url"`
}

// JWKSIssuer is an issuer that is known by its JWK Set.
type JWKSIssuer struct {
	// url of the JWK Set.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHostname() != ''",message="url: write a whole https URL, such as https://auth.example.com/.well-known/jwks.json"
	URL string `json:"url"`
	// issuer is what its tokens' iss says, compared character by character.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer"`
}

// SigningKeyRef names a SigningKey.
type SigningKeyRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// namespace of the SigningKey; the policy's own when not set. Another
	// one needs the SigningKey's allowedNamespaces.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`
}

// RevokedTokens names tokens that count no more. An entry is needed only until
// the last token that it is about has expired: maxTokenTTL after it was signed.
type RevokedTokens struct {
	// jtis are the jti of tokens, compared character by character.
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +listType=set
	// +optional
	JTIs []string `json:"jtis,omitempty"`

	// subjectsBefore revokes the tokens that a subject got before a time.
	// +kubebuilder:validation:MaxItems=256
	// +listType=map
	// +listMapKey=sub
	// +optional
	SubjectsBefore []SubjectBefore `json:"subjectsBefore,omitempty"`
}

// SubjectBefore is a subject's tokens of before a time.
type SubjectBefore struct {
	// sub of the tokens, compared character by character, whichever of the
	// policy's issuers they are from.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Sub string `json:"sub"`
	// time before which the tokens were signed, by their iat. A token without
	// iat counts as one of before.
	Time metav1.Time `json:"time"`
}

// Access says what a rule asks for.
type Access string

// What a rule asks for.
const (
	// AccessAnonymous lets everyone pass; a token is not looked at.
	AccessAnonymous Access = "Anonymous"
	// AccessAuthenticated asks for a valid token that meets require.
	AccessAuthenticated Access = "Authenticated"
	// AccessDenied lets nobody pass.
	AccessDenied Access = "Denied"
)

// Rule is one line of a policy.
//
// +kubebuilder:validation:XValidation:rule="!has(self.require) || self.access == 'Authenticated'",message="require goes with access: Authenticated only"
type Rule struct {
	// name of the rule, shown in logs.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$')",message="name: use letters, digits, '_', '.' and '-'"
	Name string `json:"name"`

	// match says which requests the rule is for: those that fit any entry;
	// all when not set.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Match []Match `json:"match,omitempty"`

	// access is Anonymous, Authenticated or Denied.
	// +kubebuilder:validation:Enum=Anonymous;Authenticated;Denied
	// +kubebuilder:default=Authenticated
	// +optional
	Access Access `json:"access,omitempty"`

	// require says what a token must carry; all of it.
	// +optional
	Require *Requirements `json:"require,omitempty"`
}

// Match fits a request when every field that is set fits.
type Match struct {
	// hosts, compared without regard to case, port and trailing dot.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Hosts []string `json:"hosts,omitempty"`

	// methods in capitals, such as GET, which stands for HEAD too.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern=`^[A-Z][A-Z-]*$`
	// +listType=set
	// +optional
	Methods []string `json:"methods,omitempty"`

	// paths of which one must fit. They are compared byte by byte: to an
	// application that does not look at case /Admin is /admin, and a rule for
	// the one is none for the other. Before such an application name what may
	// pass, and deny the rest.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Paths []PathMatch `json:"paths,omitempty"`
}

// PathMatch fits a path, without query, after one decoding.
//
// +kubebuilder:validation:XValidation:rule="has(self.exact) != has(self.prefix)",message="set exactly one of exact and prefix"
type PathMatch struct {
	// exact is the whole path, without empty and dot segments.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/')",message="write a path that begins with '/'"
	// +optional
	Exact string `json:"exact,omitempty"`
	// prefix is the beginning of the path, in whole segments: /admin fits
	// /admin and /admin/x, not /administrator.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/')",message="write a path that begins with '/'"
	// +optional
	Prefix string `json:"prefix,omitempty"`
}

// Requirements say what a token must carry; all of it.
type Requirements struct {
	// scopes that the token must all have, in scope (a text, separated by
	// spaces) or scp (a list).
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.matches('^[!#-\\\\[\\\\]-~]+$'))",message="a scope is printable ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)"
	// +listType=set
	// +optional
	Scopes []string `json:"scopes,omitempty"`

	// claims that must fit; all of them.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Claims []ClaimRequirement `json:"claims,omitempty"`

	// expressions that must be true; all of them.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Expressions []Expression `json:"expressions,omitempty"`
}

// ClaimRequirement says what a claim must be.
//
// +kubebuilder:validation:XValidation:rule="[has(self.equals), has(self.anyOf), has(self.allOf)].filter(x, x).size() == 1",message="set exactly one of equals, anyOf and allOf"
type ClaimRequirement struct {
	// path of the claim: a claim's name, or names joined by dots for claims
	// within claims. A claim whose own name has dots is found first.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path"`
	// equals: the claim is this text, number or truth value.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Equals *string `json:"equals,omitempty"`
	// anyOf: the claim is one of these, or a list that has one of them.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=1024
	// +listType=set
	// +optional
	AnyOf []string `json:"anyOf,omitempty"`
	// allOf: the claim is a list that has all of these.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=1024
	// +listType=set
	// +optional
	AllOf []string `json:"allOf,omitempty"`
}

// Expression is a CEL expression over claims and request that must be true.
type Expression struct {
	// cel over claims (the token's claims) and request (method, host, path,
	// query, headers). It must give a truth value. Headers are asked for by a
	// constant name in lower case: request.headers['x-tenant'], or
	// 'x-tenant' in request.headers. One that came more than once denies, with
	// '_' or '.' in place of '-' too, and those with tokens (Authorization,
	// Cookie, Sec-WebSocket-Protocol and the policy's own credentials) cannot
	// be asked for. A header is what the client says unless the proxy
	// overwrites it. All expressions of a policy, those of identity headers
	// among them, have 100000 steps for a request together; ten bytes of a
	// text are one too, and a pattern takes its length times the text's. What
	// needs more is denied, as is a request of which a part that is looked at
	// has more than 8 KiB.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	CEL string `json:"cel"`
	// message says what is missing, for logs.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
}

// Identity says what the application is told about the caller.
type Identity struct {
	// headers that the gate answers with. Each is always sent, empty when
	// its claim is absent, so that a client's own never gets through.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Headers []IdentityHeader `json:"headers,omitempty"`
}

// IdentityHeader is one header that tells the application about the caller.
//
// +kubebuilder:validation:XValidation:rule="has(self.claim) != has(self.cel)",message="set exactly one of claim and cel"
// +kubebuilder:validation:XValidation:rule="!(self.name.lowerAscii() in ['connection','content-length','content-type','date','host','keep-alive','te','trailer','transfer-encoding','upgrade','cache-control','www-authenticate','set-cookie','location','expires','vary','content-encoding','proxy-authenticate']) && !self.name.lowerAscii().startsWith('x-accel-')",message="name: this header has a meaning of its own between proxies: choose another, such as X-Auth-Subject"
type IdentityHeader struct {
	// name of the header.
	Name HeaderName `json:"name"`
	// claim whose value is sent: texts, numbers and truth values as they
	// are, lists of them joined by commas. A path as in claims.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Claim string `json:"claim,omitempty"`
	// cel over claims and request that gives a text, as in rules. It is sent
	// empty when a claim or a header that it asks for is absent.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	CEL string `json:"cel,omitempty"`
}

// AccessPolicyStatus is what the controller answers.
type AccessPolicyStatus struct {
	// observedGeneration is the generation of the spec that this answers.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// rules is how many rules are in force; 0 when the policy denies because
	// it is not Ready.
	// +optional
	Rules int32 `json:"rules,omitempty"`
	// conditions: Ready, Compiled, KeysResolved.
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
