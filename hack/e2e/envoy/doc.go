// Package envoy stands in for Envoy where none can be had: a proxy that asks
// an authorization service over gRPC as Envoy's ext_authz filter does, by its
// published protos and the order of its source (ext_authz.cc,
// ext_authz_grpc_impl.cc, check_request_utils.cc).
package envoy
