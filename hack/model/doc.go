// Package model holds the model test of the whole product: the real planner,
// reconciler, outputs and gate key sets run through random histories on one
// simulated clock, beside signers and verifiers whose clocks differ and whose
// view of the cluster is late. At each step it asks what the promise says: is
// every token that a correct signer could hold accepted by each gate, and is
// none accepted that must not be? And at each write: do the invariants hold?
//
//	go test ./hack/model -run Model -histories 20000 -seed 1
//
// A history that fails is cut down to the steps that it fails with, and the
// failure says how to run those again:
//
//	go test ./hack/model -run Model -seed 4711 -history -steps 3,17,22
//
// It also shows that it would notice: TestPlantedFaults changes the source of
// the product in one place at a time and demands that the model fails.
//
// Nothing here is part of the product.
package model
