// Package controllers turns SigningKeys into keys. It loads what there is,
// lets package lifecycle plan, and writes the result in an order that makes
// every interruption harmless; it makes key material, and it says in status
// whether an AccessPolicy can be in force.
//
// One pass of a SigningKey:
//
//	load    outputs and SigningKey, then keyring; all live, never from a cache
//	plan    lifecycle.Plan
//	write   keyring            the truth, compare-and-swap; the rest derives from it
//	        keywright-hmac     what the gate needs of HS* keys, before status names them
//	        JWKS ConfigMap     public keys for applications that mount them
//	        signer Secret      the active key, under the resourceVersion that was loaded
//	        status             public keys and times, from which the gate lives
//
// Passes repeat until nothing changes: a plan that chose a new active key is
// followed by one that sees the signer Secret hold it and dates the old key's
// end. What one write cannot do delays no other.
//
// It does not answer requests and it does not know the gate: both meet in
// package api and in what is stored.
package controllers
