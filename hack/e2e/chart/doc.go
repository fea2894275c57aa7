// Package chart tests charts/keywright, config and config/samples: rendered by
// Helm itself, and installed into a real control plane with RBAC and admission
// on. It starts no process of Keywright: what those do under the chart's
// service accounts is tested where they are.
//
// It needs bin/helm (make bin/helm).
package chart
