// Package grpcauth answers Envoy's external authorization over gRPC
// (envoy.service.auth.v3.Authorization) and whoever else asks so: it turns a
// CheckRequest into an authz.Request and an authz.Decision into a
// CheckResponse.
//
// Each field is read from exactly one place and falls back to no other. The
// policy is named by the route's own configuration (context_extensions), never
// by anything that a client sent. An answer always has a status: one without
// counts as allowed. It is never a gRPC error either, which Envoy lets pass
// where it is told to (failure_mode_allow). Nothing is decided here.
package grpcauth
