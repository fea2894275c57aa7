// Package buildcache gives the programs that the tests run and that are built
// from source: the control plane, ingress-nginx and Traefik. The scripts
// hack/NAME/build.sh build them, once for each version, into a cache outside
// the repository; this package calls the scripts and owns nothing.
package buildcache
