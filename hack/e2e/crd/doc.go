// Package crd tests the schemas and rules of the custom resources against a
// real API server, through the real kubectl where something is refused: what
// is asserted is what a person at a terminal reads.
package crd
