// Package readme holds what the documentation says against what there is.
//
// Every fenced block of README.md, docs/ and the other pages at the top has a
// kind, by its info string, and there are no others:
//
//	sh        is run by bash, in the order of the pages, all in one folder and with
//	          the variables and functions that blocks before it have set
//	yaml      is applied with kubectl
//	text      is what the block above it prints, when a comment before it says so
//	console   is not run
//
// A block that is none of what is run or compared has to be named, with the
// reason, in the test; one that is named has to be there.
//
// The commands run against a real control plane, from which the chart has been
// taken away so that the page's own helm command installs it, and the real
// ingress-nginx. There is no node, so the test is one in three places: it runs
// the two processes as the Deployments say, with the service accounts, the
// certificate and the arguments that are there, and reports the Deployments as
// rolled out; it lists the processes' addresses behind their Services, which the
// API server's proxy then uses; and "kubectl logs" gives the process's log.
// Cluster DNS is missing too: the gate's name in the one auth-url is replaced by
// its address, and the test holds that it is one.
//
// The lists in docs/reference are compared with the sources, with what the
// program prints, and with what both processes expose.
package readme
