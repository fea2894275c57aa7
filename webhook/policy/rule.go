package policy

import (
	"strings"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
	"github.com/keywright/keywright/webhook/trace"
)

// Request is what a policy may look at of a request. Its fields come from a
// source that the caller trusts; what is not known is left out, not guessed.
// One is for one decision: what its expressions cost is counted in it.
type Request struct {
	// Method as the request line has it; "" when it is not known.
	Method string
	// Path as ParseTarget gives it, when HasPath.
	Path string
	// Query is raw, without '?'. It is known when HasPath.
	Query string
	// Host as NormalizeHost gives it, when HasHost: not when it is unknown
	// or when two sources of it disagree.
	Host string
	// Header has the header fields as they came, with all their lines, under
	// the names that textproto.CanonicalMIMEHeaderKey gives.
	Header map[string][]string
	// HasPath and HasHost say what is known; Ambiguous as ParseTarget gives it.
	HasPath, HasHost, Ambiguous bool
	// Trace, if any, records the steps of what is asked about the request.
	Trace *trace.Trace

	cost  meter
	shown shown
}

// Rule is one compiled rule of a policy. It is immutable.
type Rule struct {
	name      string
	access    v1alpha1.Access
	normalize bool // the policy's ambiguousPaths: Normalize

	matches []match // none: every request
	looksAt aspect  // of matches

	scopes             []string
	claims             []claimTest
	expressions        []expression
	expressionsLooksAt aspect
	expressionsHeaders []header
}

// match is a compiled v1alpha1.Match.
type match struct {
	methods  []string
	hosts    []string // normalised
	exact    []string
	prefixes []string // without the last '/': "" is the prefix of all
}

// Name of the rule, as the policy's author gave it.
func (r *Rule) Name() string { return r.name }

// Access says what the rule asks for.
func (r *Rule) Access() v1alpha1.Access { return r.access }

// Scopes that the rule asks for, all of them. The slice must not be changed.
func (r *Rule) Scopes() []string { return r.scopes }

// Select finds the rule that decides: the first that matches. The error, when
// there is none, is a denial: ErrNoRule, or ErrPathUnknown, ErrPathAmbiguous,
// ErrHostUnknown, ErrMethodUnknown when a rule that had to be asked looks at
// what the request does not say.
func (p *Policy) Select(req *Request) (*Rule, error) {
	for i := range p.rules {
		r := &p.rules[i]
		if class := lacking(req, r.looksAt, r.normalize); class != nil {
			req.Trace.No("rule", r.name, class.text)
			return nil, r.denial(class, "", nil)
		}
		misfit := r.misfit(req)
		if misfit == "" {
			req.Trace.Yes("rule", r.name, "is the first that matches")
			return r, nil
		}
		req.Trace.No("rule", r.name, misfit)
	}
	req.Trace.No("rules", "", ErrNoRule.text)
	return nil, ErrNoRule
}

// lacking gives the denial for a request that does not say what is looked at,
// nil when it says all of it.
func lacking(req *Request, looksAt aspect, normalize bool) *Denial {
	switch {
	case looksAt == 0:
		return nil
	case looksAt&(aspectPath|aspectQuery) != 0 && !req.HasPath:
		return ErrPathUnknown
	case looksAt&aspectPath != 0 && req.Ambiguous && !normalize:
		return ErrPathAmbiguous
	case looksAt&aspectHost != 0 && !req.HasHost:
		return ErrHostUnknown
	case looksAt&aspectMethod != 0 && !IsMethod(req.Method):
		return ErrMethodUnknown
	}
	return nil
}

// IsMethod says whether a rule could name this method. Methods are case
// sensitive (RFC 9110 section 9.1), but not every server agrees: "delete"
// must not slip past a rule for DELETE to one behind it.
func IsMethod(s string) bool {
	if s == "" || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return true
}

// misfit says why a rule is not for a request; empty when it is.
func (r *Rule) misfit(req *Request) string {
	why := ""
	for i := range r.matches {
		if why = r.matches[i].misfit(req); why == "" {
			return ""
		}
	}
	if len(r.matches) > 1 {
		return "does not match: no entry does"
	}
	return why
}

func (m *match) misfit(req *Request) string {
	switch {
	case len(m.methods) > 0 && !m.hasMethod(req.Method):
		return "does not match: another method"
	case len(m.hosts) > 0 && !isOneOf(m.hosts, req.Host):
		return "does not match: another host"
	case len(m.exact)+len(m.prefixes) > 0 && !isOneOf(m.exact, req.Path) && !m.hasPrefixOf(req.Path):
		return "does not match: another path"
	}
	return ""
}

// hasMethod says whether a method is named. A rule that names GET is for HEAD
// too, which is a GET whose answer has no content (RFC 9110 section 9.3.2):
// who may not have the one must not slip past the rule with the other. One
// that names HEAD alone is not for GET.
func (m *match) hasMethod(method string) bool {
	return isOneOf(m.methods, method) || method == "HEAD" && isOneOf(m.methods, "GET")
}

func (m *match) hasPrefixOf(path string) bool {
	for _, prefix := range m.prefixes {
		if strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/') {
			return true
		}
	}
	return false
}

func isOneOf(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// Evaluate says whether a token with these claims meets the rule: nil, or a
// denial. Claims are nil when there is no token. An Anonymous rule lets
// everyone pass, a Denied one nobody.
func (r *Rule) Evaluate(claims *token.Claims, req *Request) error {
	switch r.access {
	case v1alpha1.AccessAnonymous:
		return nil
	case v1alpha1.AccessAuthenticated:
	default:
		return r.denial(ErrAccessDenied, "", nil)
	}
	if claims == nil {
		return r.denial(ErrUnauthenticated, "", nil)
	}
	for _, scope := range r.scopes {
		if !hasScope(claims, scope) {
			req.Trace.No("scope", scope, ErrInsufficientScope.text)
			return r.denial(ErrInsufficientScope, scope, nil)
		}
		req.Trace.Yes("scope", scope, "the token has it")
	}
	for i := range r.claims {
		if !r.claims[i].fits(claims) {
			req.Trace.No("claim", r.claims[i].path, ErrClaimMismatch.text)
			return r.denial(ErrClaimMismatch, r.claims[i].path, nil)
		}
		req.Trace.Yes("claim", r.claims[i].path, "is what the rule asks for")
	}
	if class := lacking(req, r.expressionsLooksAt, r.normalize); class != nil {
		req.Trace.No("expressions", "", class.text)
		return r.denial(class, "", nil)
	}
	if name := repeated(req, r.expressionsHeaders); name != "" {
		req.Trace.No("header", name, ErrHeaderRepeated.text)
		return r.denial(ErrHeaderRepeated, name, nil)
	}
	for i := range r.expressions {
		e := &r.expressions[i]
		value, err := e.eval(claims, req)
		isTrue, isBool := value.(bool)
		var denied error
		switch {
		case err == nil && !isBool:
			denied = r.denial(ErrExpression, e.message, errOtherType)
		case err != nil:
			denied = r.denial(ErrExpression, e.message, err)
		case !isTrue:
			denied = r.denial(ErrExpressionFalse, e.message, nil)
		}
		if denied != nil {
			return req.Trace.Fault("expression", e.message, denied)
		}
		req.Trace.Yes("expression", e.message, "is true")
	}
	return nil
}

func (r *Rule) denial(class *Denial, what string, cause error) error {
	return &detail{class: class, about: "rule", name: r.name, what: what, cause: cause}
}
