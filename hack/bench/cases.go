package main

import (
	"context"

	"github.com/keywright/keywright/api/keyset"
)

// measured is one case: what is asked of the gate and of its floor.
type measured struct {
	name  string
	floor string // the role of the floor
	talk  string // how the load speaks to both
	// algorithm of the tokens.
	algorithm keyset.Algorithm
	// fresh tokens come once to each server. Otherwise each connection's worth
	// of them comes again and again.
	fresh bool
	// bar is the least ratio that is aimed at.
	bar float64
}

var cases = []measured{
	{"HTTP, token seen before", roleFloor, talkHTTP, keyset.ES256, false, 0.85},
	{"HTTP, token seen before, new connections", roleFloor, talkHTTPOnce, keyset.ES256, false, 0.90},
	{"HTTP, every token new, ES256", roleCheck, talkHTTP, keyset.ES256, true, 0.90},
	{"HTTP, every token new, EdDSA", roleCheck, talkHTTP, keyset.EdDSA, true, 0.90},
	{"HTTP, every token new, RS256", roleCheck, talkHTTP, keyset.RS256, true, 0.90},
	{"gRPC, token seen before", roleFloorGRPC, talkGRPC, keyset.ES256, false, 0.85},
}

// limited is what has no floor, but figures with limits.
type limited struct {
	name    string
	measure func(*bench, context.Context) ([]figure, error)
	// note says in the report what the figures do not.
	note string
}

var limits = []limited{
	{"authz.Check on a hit, one rule, one header", (*bench).check, ""},
	{"10,000 SigningKeys and 10,000 policies", (*bench).scale,
		"The many objects come from a stand-in for the API server. Of memory, low is what was resident at the end."},
}

// sizes of a run.
type sizes struct {
	// fill is how many tokens fill a gate's cache before it is measured.
	fill int
	// pilot is how many requests find out how many fit into the time.
	pilot int
	// objects is how many SigningKeys and AccessPolicies are many, and
	// revocations how many keys of theirs are revoked.
	objects, revocations int
}

var full = sizes{fill: cacheSize * 3 / 2, pilot: 5000, objects: 10_000, revocations: 200}

// maxFresh bounds how many tokens a round makes: an RS256 one takes a
// millisecond.
const maxFresh = 20_000

// The roles in which this program starts itself.
const (
	roleFloor     = "floor"
	roleFloorGRPC = "floor-grpc"
	roleCheck     = "check"
	roleGate      = "gate"
	roleLoad      = "load"
)

// How a load speaks.
const (
	talkHTTP     = "http"      // keep-alive
	talkHTTPOnce = "http-once" // a new connection for each request
	talkGRPC     = "grpc"
)
