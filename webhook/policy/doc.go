// Package policy understands AccessPolicies and answers by them: which rule a
// request falls under, whether a verified token meets it, and what the
// application is told about the caller.
//
// It is pure. It does not find or verify tokens, resolves no SigningKey, knows
// no proxy and no HTTP status, and reads no clock: whoever asks brings the
// claims of a token that has been verified and a Request whose fields come
// from a source that it trusts.
//
//	spec ──Compile──► Policy (immutable, safe for concurrent use)
//	                    │
//	request ──Select────┤ first rule that matches, or a denial
//	claims  ──Evaluate──┤ nil, or a denial
//	        ──IdentityHeaders──► headers for the application, or a denial
//
// Everything that is in doubt is a denial. Denials are errors of this package
// with a stable Reason; they name rules and claims, never a claim's value.
//
// # What a rule may look at
//
// A rule, or an expression, that looks at a part of the request which is not
// known (method, host, path or query) denies the request; later rules are not
// tried, because no one can tell whether this one would have decided. The
// same holds for an ambiguous path, unless the policy normalises: see
// ParseTarget for what is ambiguous.
//
// # Expressions
//
// CEL with the standard macros and functions, optional values
// (claims.?groups.orValue([])) and the string, list and set extensions, over
//
//	claims          map(string, dyn)            the token's claims
//	request.method  string                      such as GET
//	request.host    string                      lower case, no port, no trailing dot
//	request.path    string                      decoded once, normalised, no query
//	request.query   map(string, list(string))   decoded; a malformed query denies
//	request.headers map(string, string)         by names in lower case, each written in the expression
//
// A header is what the client says, unless the proxy sets it, and absent also
// where the proxy passes it to the application alone. One that came more than
// once, or with '_' or '.' in place of '-', denies; those that have tokens
// cannot be asked for.
//
// All of these are variables of their own, not fields of one object: the checked
// expression says exactly which of them it looks at. All expressions
// of one decision cost at most CostLimit together, and none is shown a part of
// a request of more than 8 KiB.
package policy
