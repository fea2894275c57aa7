// Package webhook is the gate's process: it follows SigningKeys,
// AccessPolicies, Namespaces and the Secret with HS* secrets into an
// authz.Store, serves the callers' questions and the public keys on one
// listener, Envoy's questions over gRPC on another, health, readiness and
// metrics on a third, and tells the controller on a fourth what it has loaded.
//
// It decides nothing: authz does. It lets requests through to it (admission):
// as many as it can bear, from callers that it knows. It writes nothing to the
// cluster, and reads no Secret but that one and the one with the certificate
// of the controller's listener.
//
//	API server ─ followers ─ feed ─ LoadKeys, policy.Compile ─► authz.Store
//	                                                               │
//	proxy ─ TLS ─ /auth/… ─ httpauth ─ authz.Gate ◄────────────────┤
//	Envoy ─ TLS ─ gRPC ──── grpcauth ─ authz.Gate ◄────────────────┤
//	verifier ─── /keys/… ─ JWKS, discovery ◄───────────────────────┤
//	controller ─ mutual TLS ─ /keysets/… ─ keyset.Report ◄─────────┘
//
// It starts not ready, becomes ready when every follower has synced, and stays
// so without the API server, unless it is told how stale it may be: keys end by
// their own times. On a signal it turns
// not ready, goes on answering for a while, then finishes what is open.
package webhook
