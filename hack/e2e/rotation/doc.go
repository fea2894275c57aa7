// Package rotation holds the failure table of a SigningKey against a real API
// server with RBAC on: one subtest for each event that a rotation must survive,
// with the outcome that is promised for it, and a second one where real
// processes have to survive it too.
//
//	go test -v -run TestFailureTable ./hack/e2e/rotation
//	go test -v -run TestTwoControllers ./hack/e2e/rotation -chaos 2m
//	go test -v -run TestRevocationLatency ./hack/e2e/rotation -revocations 100
//
// Where time passes in minutes or a fault has to hit between two writes, the
// real reconciler runs in this process under the chart's service account, on a
// clock that the test moves; gates are the real loading of key sets and the
// real verification of tokens, each with a clock of its own. Where the event is
// one of processes, the real processes run. What is stored is always read from
// the API server.
//
// Nothing here is part of the product.
package rotation
