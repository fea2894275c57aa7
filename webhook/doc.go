// Package webhook is the gate's process: it follows SigningKeys,
// AccessPolicies, Namespaces and the Secret with HS* secrets into an
// authz.Store, serves the callers' questions and the public keys on one
// listener, health, readiness and metrics on another, and tells the controller
// on a third what it has loaded.
//
// It decides nothing: authz does. It writes nothing to the cluster, and reads
// no Secret but that one and the one with the third listener's certificate.
//
//	API server ─ followers ─ feed ─ LoadKeys, policy.Compile ─► authz.Store
//	                                                               │
//	proxy ─ TLS ─ /auth/… ─ httpauth ─ authz.Gate ◄────────────────┤
//	verifier ─── /keys/… ─ JWKS, discovery ◄───────────────────────┤
//	controller ─ mutual TLS ─ /keysets/… ─ keyset.Report ◄─────────┘
//
// It starts not ready, becomes ready when every follower has synced, and stays
// so without the API server: keys end by their own times. On a signal it turns
// not ready, goes on answering for a while, then finishes what is open.
package webhook
