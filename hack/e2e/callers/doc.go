// Package callers runs the proxies that ask the gate, other than those of
// packages nginx and ingressnginx: Caddy and HAProxy from Debian, Traefik built
// by hack/traefik/build.sh, and stand-ins for Envoy that do what the
// documentation of its ext_authz filter says, over HTTP and over gRPC.
//
// It owns their processes and configurations: the templates here serve many
// sites, and page.go runs what docs/callers.md shows, as it is shown. It does
// not own what they are asked to do: package gate runs one table of scenarios
// through all of them.
package callers
