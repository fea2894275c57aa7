//go:build linux

package gate

import (
	"maps"
	"net/http"
	"strings"
)

// differences are what a caller gives in place of a scenario's answer, by the
// group and the name of the scenario. All are refusals, or the same request
// under the path that the application gets.
var differences = map[string]map[string]answer{
	// It cleans the path first: rules and application see the same clean one.
	"Traefik": {
		"tokens: two Authorization headers are refused":                        severalSent,
		"hosts: an absolute-form target with another Host":                     forbidden("access_denied"),
		"hosts: the same the other way round":                                  anonymous, // the host that it routes by is the one it names
		"hosts: an auth-url without the host denies":                           forbidden("access_denied"),
		"paths: NUL is refused":                                                {status: http.StatusOK, target: "/public/admin"},
		"paths: above the root is refused":                                     forbidden("claim_mismatch"),
		"paths: an admin's ambiguous path is denied too":                       {status: http.StatusOK, subject: "root-1", roles: "admin,ops", target: "/admin"},
		"paths: without a rule for paths none is ambiguous":                    {status: http.StatusOK, target: "/admin"},
		"normalized paths: up into an open path is open":                       {status: http.StatusOK, target: "/public/x"},
		"normalized paths: up out of an open path with the role":               {status: http.StatusOK, target: "/admin"},
		"paths: a token without the role asks for /admin/..":                   {status: http.StatusOK, subject: "u-17", roles: "customer", target: "/"},
		"paths: no token asks for /admin/..":                                   noToken,
		"paths: a token without the role asks for /public#/../admin":           proxyRefuses,
		"paths: no token asks for /public#/../admin":                           proxyRefuses,
		"paths: no token asks for /public/%ef%bc%8e./../admin":                 {status: http.StatusOK, target: "/public/admin"},
		"paths: a token without the role asks for /public/%ef%bc%8e./../admin": {status: http.StatusOK, target: "/public/admin"},
	},
	"Caddy": {
		"tokens: two Authorization headers are refused":              severalSent,
		"hosts: an absolute-form target with another Host":           forbidden("access_denied"),
		"hosts: the same the other way round":                        anonymous,
		"hosts: an auth-url without the host denies":                 forbidden("access_denied"),
		"hosts: in any letters, with a dot and a port":               {status: http.StatusNotFound, reason: notAsked},
		"paths: NUL is refused":                                      forbidden("path_invalid"),
		"paths: above the root is refused":                           forbidden("path_ambiguous"),
		"paths: a token without the role asks for /public#/../admin": forbidden("path_ambiguous"),
		"paths: no token asks for /public#/../admin":                 forbidden("path_ambiguous"),
		// It takes off what Connection names, the gate's too: the application
		// is told nothing, which is less than it should be and not more.
		"identity: Connection does not take it off":               anonymous,
		"a policy without rules: Connection does not take it off": anonymous,
	},
	"HAProxy": {
		"tokens: two Authorization headers are refused":              forbidden("path_unknown"),
		"hosts: an absolute-form target with another Host":           proxyRefuses,
		"hosts: the same the other way round":                        proxyRefuses,
		"hosts: without host rules the host does not count":          proxyRefuses,
		"hosts: and a token is still asked for":                      proxyRefuses,
		"paths: NUL is refused":                                      forbidden("path_unknown"),
		"paths: a bad escape is refused":                             forbidden("path_unknown"),
		"paths: above the root is refused":                           forbidden("path_unknown"),
		"paths: a token without the role asks for /public#/../admin": proxyRefuses,
		"paths: no token asks for /public#/../admin":                 proxyRefuses,
	},
	"Envoy HTTP": {
		"tokens: two Authorization headers are refused":              severalSent,
		"hosts: an absolute-form target with another Host":           forbidden("access_denied"),
		"hosts: the same the other way round":                        anonymous,
		"hosts: an auth-url without the host denies":                 forbidden("access_denied"),
		"paths: NUL is refused":                                      forbidden("path_invalid"),
		"paths: above the root is refused":                           forbidden("path_ambiguous"),
		"paths: a token without the role asks for /public#/../admin": proxyRefuses,
		"paths: no token asks for /public#/../admin":                 proxyRefuses,
	},
}

// cleanedToAdmin are the tricky paths that lead to /admin once they are clean.
var cleanedToAdmin = []string{
	"/%61dmin", "/./admin", "//admin", "/adm%69n/x", "/public/%23/../../admin", "/public/%2E./admin", "/public/%2e%2e/admin",
	"/public/%3f/../../admin", "/public/../admin", "/public/./../admin", "/public//../admin", "/public;x/../admin",
}

func init() {
	differences["Envoy gRPC"] = differences["Envoy HTTP"]
	for _, path := range cleanedToAdmin {
		differences["Traefik"]["paths: no token asks for "+path] = noToken
		differences["Traefik"]["paths: a token without the role asks for "+path] = forbidden("claim_mismatch")
	}
	differences["Traefik Ingress"] = maps.Clone(differences["Traefik"])
}

// challenge403 is the WWW-Authenticate that goes with a 403. Both nginx drop it.
func (c *caller) challenge403(reason, policy string) string {
	challenge := `Bearer realm="` + policy + `", error="insufficient_scope"`
	switch {
	case strings.HasSuffix(c.name, "nginx") || c.blind:
		return ""
	case reason == "insufficient_scope":
		return challenge + `, scope="orders:read orders:report"`
	case reason == "claim_mismatch" || reason == "expression_false":
		return challenge
	}
	return ""
}
