// Command soak lets Keywright run while the world around it breaks: a real API
// server and etcd, three gates and two controllers, each a process of its own
// under the chart's service account, and several SigningKeys that rotate every
// few seconds. Applications sign, late; clients hold tokens until their last
// moment and ask each gate; thieves try what must not pass. From a seed it
// kills, pauses, delays, cuts off, overwrites, deletes, revokes, and restores
// etcd from an earlier copy.
//
//	go run ./hack/soak -minutes 10 -seed 1
//
// Of each answer it knows whether it had to be yes or no, or might be either:
//
//	etcd ──watch──► history ──facts──► judge ──► must pass | must be refused | either
//	                   ▲ who signed what when, what was revoked, what gates have heard
//
// The truth is etcd's own history, read beside the API server, and the clock of
// this process; those of controllers and gates are set wrong by at most half of
// clockSkew. The rules are in judge.go, with every reason for "either".
//
// It ends in exit 0 only when no valid token was refused and none was accepted
// that must not be.
package main
