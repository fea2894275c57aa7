// Package lifecycle decides what becomes of the keys of one SigningKey. It is
// the whole rotation logic and it is pure: spec, keyring, what was observed
// and the time go in; the next keyring, what happens next and the transitions
// come out. It reads no clock, makes no key material and writes nothing: the
// package controllers does that, in the order that is described there.
//
//	           generate     known for V + e        successor active        D + S + L + leeway + 2e
//	(planned) ---------> Published --------> Active ----------> Verifying ----------------> Retired
//
// A key's state is not stored: it follows from its times. Between the decision
// to activate a successor and the moment D at which the signer Secret is seen
// to hold it, the old key is switching: it verifies without an end.
//
// The waits come from the SigningKey's propagation: V verifierLag, S
// signerLag, e clockSkew, and the leeway; L is the largest maxTokenTTL that
// was in force while the key was active.
package lifecycle
