# `make help` lists what there is. bin/ holds what is built here; the caches
# (control plane, ingress-nginx, Traefik) lie outside the repository, by version.

# Histories that the model test walks.
HISTORIES ?= 10000
# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 1m
# Test binaries that run at once. They start real control planes; the longest of
# them mostly wait for what takes real time.
PARALLEL ?= 3

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

export HISTORIES
export PATH := $(CURDIR)/bin:$(PATH)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z\/-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: deps controlplane bin/helm ## Show a rotation under load in a real control plane; KEEP=1 stays up
	go run ./hack/demo $(if $(KEEP),-keep)

.PHONY: controlplane
controlplane: ## Fill the cache with etcd, kube-apiserver, kube-controller-manager and kubectl
	@hack/controlplane/build.sh

.PHONY: controlplane-up
controlplane-up: controlplane ## Run a control plane with RBAC on until Ctrl-C and print its kubeconfig
	@go build -o bin/controlplane ./hack/e2e/controlplane/cmd
	@exec bin/controlplane

##@ Build

.PHONY: build
build: ## Build bin/keywright
	CGO_ENABLED=0 go build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/keywright ./cmd/keywright

.PHONY: generate
generate: bin/controller-gen bin/helm ## Write deep copies, CRDs, their reference, the picture of a rotation, and what chart and config share
	bin/controller-gen object paths=./api/...
	bin/controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	go run ./hack/refdocs
	go run ./hack/timeline >docs/rotation.svg
	$(if $(wildcard hack/sync-chart.sh),hack/sync-chart.sh)

.PHONY: fmt
fmt: bin/golangci-lint ## Format the Go files
	bin/golangci-lint fmt ./...

##@ Test

.PHONY: test
test: deps controlplane ingress-nginx traefik lint verify bin/gotestsum bin/helm ## Everything; HISTORIES=N sets the model test's histories
	bin/gotestsum --format pkgname-and-test-fails -- -p $(PARALLEL) -parallel 4 -ldflags='-s -w' -timeout 30m ./...

.PHONY: test-unit
test-unit: ## The quick part
	go test -p $(PARALLEL) ./api/... ./controllers/... ./webhook/... ./cmd/...

.PHONY: lint
lint: bin/golangci-lint ## Lint; holds the import directions and the ban on reading the clock
	bin/golangci-lint run --allow-parallel-runners --concurrency $(PARALLEL) ./...

.PHONY: verify
verify: bin/controller-gen bin/helm ## Fail when generated files or go.mod are not what the sources give
	hack/verify.sh
	go mod tidy -diff

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (1m)
	hack/fuzz.sh $(FUZZTIME)

.PHONY: soak
soak: controlplane bin/helm ## Break the world around Keywright for MINUTES (10), from a SEED if given
	go run ./hack/soak -minutes $(or $(MINUTES),10) $(if $(SEED),-seed $(SEED))

.PHONY: bench
bench: bin/benchstat ## Measure the gate beside its floors; bin/bench.svg shows it, bin/bench.md tells it
	go run ./hack/bench -svg bin/bench.svg -markdown bin/bench.md

.PHONY: vuln
vuln: bin/govulncheck ## Look for known vulnerabilities that the code reaches
	bin/govulncheck ./...

##@ What the tests need

.PHONY: deps
deps: ## Install the proxies and JWT libraries that the tests use, where missing
	hack/deps.sh

.PHONY: ingress-nginx
ingress-nginx: ## Fill the cache with the real ingress-nginx controller
	hack/ingress-nginx/build.sh

.PHONY: traefik
traefik: ## Fill the cache with Traefik
	hack/traefik/build.sh

# The tools, each pinned by the go.mod that lists it. golangci-lint and Helm
# have their own, because their many dependencies would move the others'.
tool = cd $(dir $<) && GOWORK=off GOFLAGS=-buildvcs=false go build -o $(CURDIR)/$@ $(1) && touch $(CURDIR)/$@

bin/controller-gen: hack/tools/go.mod hack/tools/go.sum
	$(call tool,sigs.k8s.io/controller-tools/cmd/controller-gen)

bin/gotestsum: hack/tools/go.mod hack/tools/go.sum
	$(call tool,gotest.tools/gotestsum)

bin/benchstat: hack/tools/go.mod hack/tools/go.sum
	$(call tool,golang.org/x/perf/cmd/benchstat)

bin/govulncheck: hack/tools/go.mod hack/tools/go.sum
	$(call tool,golang.org/x/vuln/cmd/govulncheck)

bin/golangci-lint: hack/tools/golangci-lint/go.mod hack/tools/golangci-lint/go.sum
	$(call tool,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)

bin/helm: hack/tools/helm/go.mod hack/tools/helm/go.sum
	$(call tool,helm.sh/helm/v4/cmd/helm)
