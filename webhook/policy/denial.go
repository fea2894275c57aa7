package policy

import "errors"

// Denial is a class of denial. Errors of this package wrap exactly one of the
// classes below, or are one: compare with errors.Is, count by Reason.
type Denial struct {
	reason string
	text   string
}

// Error says in words what the class is.
func (d *Denial) Error() string { return d.text }

// Reason is the class's stable name, for metrics and logs.
func (d *Denial) Reason() string { return d.reason }

// The classes of denial.
var (
	// ErrBadPath says that a request target cannot be understood safely.
	ErrBadPath = &Denial{"path_invalid", "the request's path is not valid"}
	// ErrBadHost says that a host is not a name or an address.
	ErrBadHost = &Denial{"host_invalid", "the request's host is not valid"}

	// ErrNoRule says that no rule of the policy matches.
	ErrNoRule = &Denial{"no_rule", "no rule matches the request"}
	// ErrPathAmbiguous says that a path which routes differently raw and
	// normalised was looked at.
	ErrPathAmbiguous = &Denial{"path_ambiguous", "the request's path is ambiguous"}
	// ErrPathUnknown says that the path or the query was looked at and is not known.
	ErrPathUnknown = &Denial{"path_unknown", "the request's path is not known"}
	// ErrHostUnknown says that the host was looked at and is not known.
	ErrHostUnknown = &Denial{"host_unknown", "the request's host is not known"}
	// ErrMethodUnknown says that the method was looked at and is not known,
	// or is not one that a rule could name.
	ErrMethodUnknown = &Denial{"method_unknown", "the request's method is not known"}

	// ErrHeaderRepeated says that a header came more than once that an
	// expression looks at, or under another spelling: see IsSpelling.
	ErrHeaderRepeated = &Denial{"header_repeated", "a header that an expression looks at came more than once, or with '_' or '.' for '-'"}

	// ErrAccessDenied says that the rule lets nobody pass.
	ErrAccessDenied = &Denial{"access_denied", "the rule lets nobody pass"}
	// ErrUnauthenticated says that the rule asks for a token and there are no claims.
	ErrUnauthenticated = &Denial{"unauthenticated", "the rule asks for a token"}
	// ErrInsufficientScope says that the token lacks a scope.
	ErrInsufficientScope = &Denial{"insufficient_scope", "the token lacks a scope"}
	// ErrClaimMismatch says that a claim is not what the rule asks for.
	ErrClaimMismatch = &Denial{"claim_mismatch", "a claim is not what the rule asks for"}
	// ErrExpressionFalse says that an expression is not true.
	ErrExpressionFalse = &Denial{"expression_false", "an expression is not true"}
	// ErrExpression says that an expression could not be evaluated.
	ErrExpression = &Denial{"expression_error", "an expression could not be evaluated"}

	// ErrIdentityInvalid says that an identity header's value cannot be
	// sent such that the application reads what the token says.
	ErrIdentityInvalid = &Denial{"identity_invalid", "an identity header's value cannot be sent"}
	// ErrIdentityTooLarge says that the identity headers are over MaxIdentityBytes.
	ErrIdentityTooLarge = &Denial{"identity_too_large", "the identity headers are too large"}
	// ErrIdentityExpression says that an identity header's expression could not be evaluated.
	ErrIdentityExpression = &Denial{"identity_error", "an identity header's expression could not be evaluated"}
)

// Reason gives the stable name of a denial's class: "" for nil, and
// "internal" for an error that is not of this package.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	var d *Denial
	if errors.As(err, &d) {
		return d.reason
	}
	return "internal"
}

// detail is a denial of a class with what it is about. Its text is put
// together only when somebody reads it: a flood of denials costs little.
type detail struct {
	class *Denial
	about string // "rule", "header" or "request target"
	name  string
	what  string
	cause error
}

func (d *detail) Error() string {
	text := d.about
	if d.name != "" {
		text += " " + d.name
	}
	text += ": " + d.class.text
	if d.what != "" {
		text += ": " + d.what
	}
	if d.cause != nil {
		text += ": " + d.cause.Error()
	}
	return text
}

func (d *detail) Unwrap() error { return d.class }
