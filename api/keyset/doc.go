// Package keyset holds what a verification key is: the algorithms, their
// limits, JWKs (RFC 7517), thumbprint key IDs (RFC 7638) and sets of keys that
// are looked up by key ID.
//
// It owns no time and no I/O: whether a key counts at an instant is a question
// asked with that instant. It does not verify tokens and does not decide when
// keys change.
package keyset
