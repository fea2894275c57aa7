// Package token verifies JWTs: compact JWSs (RFC 7515) with a claims set
// (RFC 7519), by the advice of RFC 8725.
//
// It owns what makes a token good: its form, its header, its signature, its
// claims and its times. It does not own where a token is found in a request,
// which keys count for whom, or what its claims allow.
//
// Signatures are checked by golang-jwt. Everything around them is done here,
// because golang-jwt ignores crit, takes any PSS salt length, folds the case of
// claims, takes invalid UTF-8, takes line breaks in base64url and lets a huge
// nbf overflow.
//
// A token is looked at in this order, and the first fault is the one reported,
// so that nothing is said about claims that nobody signed:
//
//	form → header → key → signature → claims → times, issuer, audience
//	└──────────────── Parse ───────────────┘   └────── Validate ─────┘
//
// Parse gives the same answer at any time and for anyone who asks, so its
// result may be kept; Validate is asked each time anew.
package token
