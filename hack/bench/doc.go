// Command bench measures the gate beside its floors: bare net/http servers
// that do only what has to be done in any case.
//
//	bench (not pinned) ── starts, orders, counts, answers as the API server
//	  ├─ server, alone on one core, GOMAXPROCS=1: floor, check or gate
//	  └─ load, on another core, 64 keep-alive connections on loopback
//
// All servers run through the whole of it and are asked in turn, each round in
// another order, so that what disturbs the machine disturbs them alike. What
// counts is the ratio within a round. How fast the machine is fails nothing.
//
// The gate is webhook.Run as "keywright webhook" calls it, which gets its
// objects from informers. Neither it nor the floors speak TLS here.
package main
