// Package ext stands in for the module of this name, which Traefik replaces by
// a folder of its repository that its Go module does not contain. There it
// holds two empty structs for others to fill in.
package ext

// HTTP is embedded in the dynamic configuration.
type HTTP struct{}

// Router is embedded in each router.
type Router struct{}
