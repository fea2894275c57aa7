package authz

import (
	"errors"
	"strings"
	"time"

	"github.com/keywright/keywright/webhook/policy"
	"github.com/keywright/keywright/webhook/token"
)

// Ref names an object in a namespace.
type Ref struct{ Namespace, Name string }

// String is namespace/name.
func (r Ref) String() string { return r.Namespace + "/" + r.Name }

// ParseRef takes namespace/name apart. Nothing is decoded or cleaned; ok is
// false for what cannot name an object, and then the Ref is empty.
func ParseRef(text string) (ref Ref, ok bool) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || !isName(namespace) || !isName(name) {
		return Ref{}, false
	}
	return Ref{Namespace: namespace, Name: name}, true
}

// isName says whether s can be the name of an object: a DNS-1123 subdomain,
// loosely.
func isName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// Request is what a caller asks about. A field that the caller did not give,
// gave twice or gave in a way that cannot be trusted is not known, which denies
// where the policy needs it.
type Request struct {
	// Policy is the policy that decides.
	Policy Ref
	// Target is the raw request target: path and query as the client sent
	// them.
	Target    string
	HasTarget bool
	// Method is the client's, in the client's case.
	Method    string
	HasMethod bool
	// Host is the one that the request was routed by.
	Host    string
	HasHost bool
	// Header holds the fields in which credentials may be, those of a preflight
	// and those that expressions ask for, with all their lines, under the names
	// that textproto.CanonicalMIMEHeaderKey gives.
	Header map[string][]string
}

// Challenge is the error code of a WWW-Authenticate field (RFC 6750 section
// 3.1).
type Challenge uint8

// The challenges.
const (
	// ChallengeNone: no field at all; no credentials could help.
	ChallengeNone Challenge = iota
	// ChallengeBare: without a code, to a request without credentials.
	ChallengeBare
	// ChallengeInvalidRequest: credentials that cannot be read, or several.
	ChallengeInvalidRequest
	// ChallengeInvalidToken: a token that does not count.
	ChallengeInvalidToken
	// ChallengeInsufficientScope: a good token that does not suffice.
	ChallengeInsufficientScope
)

// Statuses of decisions.
const (
	StatusAllowed      = 200
	StatusUnauthorized = 401
	StatusForbidden    = 403
)

// Decision is the answer to a Request.
type Decision struct {
	Allowed bool
	// Status is StatusAllowed, StatusUnauthorized or StatusForbidden.
	Status int
	// Reason of a denial: one of the Reason constants, or what token.Reason
	// or policy.Reason gives. For logs and metrics, and for clients when
	// ShowReason.
	Reason string
	// Rule that decided; empty when none did.
	Rule string
	// KeyID of the token's key; empty when there is no token with a known one.
	KeyID string
	// Challenge, Realm and Scopes make up WWW-Authenticate.
	Challenge Challenge
	Realm     string
	Scopes    []string
	// Identity is what the application is told when allowed: every header
	// that the policy names, empty where there is nothing to tell.
	Identity []policy.Header
	// CacheFor is how long a proxy may keep an answer that allows, in whole
	// seconds, and Vary names the headers that it depends on; 0: not at all.
	CacheFor time.Duration
	Vary     string
	// ShowReason says that the client of a denial is told its Reason.
	ShowReason bool
	// Err is what a denial came from, if anything: it may quote a key ID or
	// an issuer that a client sent, shortened, never a token or a claim.
	Err error
}

// Reasons of denials that are found here; those of tokens and of policies are
// in their packages.
const (
	ReasonPolicyNotFound       = "policy_not_found"
	ReasonPolicyNotReady       = "policy_not_ready"
	ReasonNoCredentials        = "no_credentials"
	ReasonSeveralCredentials   = "several_credentials"
	ReasonMalformedCredentials = "malformed_credentials"
	ReasonAmbiguousKey         = "ambiguous_key"
	ReasonTokenRevoked         = "token_revoked"
	ReasonIssuerNotLoaded      = "issuer_not_loaded"
	ReasonInternalError        = "internal_error"
)

// Reasons of denials before anything is decided, which those who ask a Gate
// give.
const (
	ReasonCallerUnknown     = "caller_unknown"
	ReasonOverloaded        = "overloaded"
	ReasonUnreadableRequest = "unreadable_request"
	ReasonNotSynced         = "not_synced"
	ReasonStale             = "stale"
)

// reason is an error of this package.
type reason struct {
	name, text string
	challenge  Challenge
}

func (r *reason) Error() string { return r.text }

// Errors behind the reasons of the same names.
var (
	ErrNoCredentials        error = &reason{ReasonNoCredentials, "request has no credentials", ChallengeBare}
	ErrSeveralCredentials   error = &reason{ReasonSeveralCredentials, "request has more than one credential", ChallengeInvalidRequest}
	ErrMalformedCredentials error = &reason{ReasonMalformedCredentials, "credentials are malformed", ChallengeInvalidRequest}
	ErrAmbiguousKey         error = &reason{ReasonAmbiguousKey, "two keys of the policy's issuers have the token's key ID", ChallengeInvalidToken}
	ErrTokenRevoked         error = &reason{ReasonTokenRevoked, "the policy revokes the token", ChallengeInvalidToken}
	// ErrIssuerNotLoaded is no word about the token, which may count the next
	// minute: its client keeps it.
	ErrIssuerNotLoaded error = &reason{ReasonIssuerNotLoaded, "the keys of the token's issuer are not loaded", ChallengeNone}
)

func deny(status int, reason string, err error) Decision {
	return Decision{Status: status, Reason: reason, Err: err}
}

// refuse is the answer to a request whose credentials are not good.
func (e *entry) refuse(rule string, err error) Decision {
	d := deny(StatusUnauthorized, "", err)
	d.Rule, d.Realm = rule, e.realm
	var own *reason
	switch {
	case errors.As(err, &own):
		d.Reason, d.Challenge = own.name, own.challenge
		if own.challenge == ChallengeNone {
			d.Status = StatusForbidden
		}
	case token.Reason(err) == "internal":
		d.Reason, d.Challenge = ReasonInternalError, ChallengeInvalidToken
	default:
		d.Reason, d.Challenge = token.Reason(err), ChallengeInvalidToken
	}
	return d
}

// WWWAuthenticate is the value of the field of that name; empty when there is
// to be none. It says no more than the class of fault.
func (d *Decision) WWWAuthenticate() string {
	if d.Challenge == ChallengeNone {
		return ""
	}
	var b strings.Builder
	b.WriteString(`Bearer realm="`)
	b.WriteString(quotable(d.Realm))
	b.WriteByte('"')
	switch d.Challenge {
	case ChallengeInvalidRequest:
		b.WriteString(`, error="invalid_request"`)
	case ChallengeInvalidToken:
		b.WriteString(`, error="invalid_token"`)
	case ChallengeInsufficientScope:
		b.WriteString(`, error="insufficient_scope"`)
		if scopes := quotable(strings.Join(d.Scopes, " ")); scopes != "" && len(scopes) <= maxScopeBytes {
			b.WriteString(`, scope="`)
			b.WriteString(scopes)
			b.WriteByte('"')
		}
	}
	return b.String()
}

// maxScopeBytes is the longest list of scopes that is named in a challenge.
const maxScopeBytes = 2 << 10

// quotable leaves out what must not be in these quoted strings (RFC 6750
// section 3). The schema of AccessPolicy lets none of it in.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}
