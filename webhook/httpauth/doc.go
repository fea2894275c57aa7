// Package httpauth turns the questions of HTTP proxies into authz.Requests and
// writes authz.Decisions as they want them: one file a caller.
//
// Each endpoint reads each field from exactly one place and falls back to no
// other: a field that is missing, repeated or cannot be trusted is not known,
// and authz denies where the policy needs it. Whatever a client sent, the
// answer is 200, 401 or 403. Nothing is decided here.
package httpauth
