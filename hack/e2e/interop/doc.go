// Package interop shows that other JWT libraries and ours understand each
// other: PyJWT and npm's jose, for every algorithm, in both directions. They
// sign with a private key as a signer Secret holds it, and verify from a JWKS
// as the gate serves it.
//
// `make deps` installs the two libraries.
package interop
