// Package storm lets many SigningKeys rotate at the same minute, under one real
// controller and a real API server with RBAC on, and checks each key
// afterwards.
//
//	go test -v ./hack/e2e/storm -keys 2000 -timeout 1h
//
// They rotate twice: once because all are triggered at once, and once by the
// minute of a common schedule. What it took is logged and never judged, for it
// says as much of the machine: how late the last switch came, how many writes
// the API server counted for each rotation, and memory and CPU of the
// controller. What has to hold on any machine is demanded.
//
// Nothing here is part of the product.
package storm
