// Command bench measures the gate beside its floors: bare servers of net/http
// and grpc-go that do only what has to be done in any case.
//
//	bench (not pinned) ── starts, orders, makes tokens, answers as the API server
//	  ├─ server, alone on one core, GOMAXPROCS=1: floor, floor-grpc, check or gate
//	  └─ load, on another core, 64 requests at once on loopback
//
// All servers run through the whole of it and are asked in turn, each round in
// another order, so that what disturbs the machine disturbs them alike. What
// counts is the ratio within a round. How fast the machine is fails nothing.
//
// The gate is webhook.Run as "keywright webhook" calls it, which gets its
// objects by watching. Neither it nor the floors speak TLS here.
//
// What has no floor is measured after that and held against limits: the
// benchmark of authz.Check, and a gate with many objects.
//
// A case is an entry in cases.go.
package main
