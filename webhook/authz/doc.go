// Package authz decides whether a request may pass. It is the only place that
// decides and the only place that fails closed: whatever goes wrong while
// deciding is a denial.
//
// A Store holds what decisions are made from: the keys of SigningKeys, compiled
// policies, labels of namespaces. A change of one object publishes a new
// immutable snapshot that shares all else with the one before, so that each
// decision sees one state and never waits.
//
//	SigningKey ─ Keys ──┐
//	AccessPolicy ───────┼─► Store ─► snapshot ─┐
//	Namespace labels ───┘                      ▼
//	callers ─ Request ──────────────────► Gate.Check ─► Decision ─► callers
//
// It knows no protocol: httpauth and its siblings make Requests and write
// Decisions. It reads nothing from the cluster.
package authz
