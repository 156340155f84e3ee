# Everything that a machine needs is set up by the targets themselves (testing/setup.sh): Debian 12, root, Go and git.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Go as it is installed: no other toolchain is downloaded, and nothing outside the repository changes what is built.
export GOTOOLCHAIN := local
export GOWORK := off

BIN     := $(CURDIR)/bin
VERSION := $(shell packaging/version.sh)
LDFLAGS := -s -w -X faena.dev/faena/internal/buildinfo.version=$(VERSION)
BUILD   := go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what tests and demo need, and start a Docker Engine if none answers
	@testing/setup.sh

.PHONY: build
build: ## build the programs into bin/
	@mkdir -p $(BIN)
	cd src && CGO_ENABLED=0 $(BUILD) -o $(BIN)/ ./cmd/...

.PHONY: generate
generate: ## write the generated files again: REST types and routes, docs/settings.md, packaging/etc/*.env
	cd src && go generate ./...

.PHONY: lint
lint: lint-format lint-schema lint-rules lint-generated lint-vet lint-staticcheck ## format, schemas, rules of the repository, generated files, vet, staticcheck

.PHONY: lint-format lint-schema lint-rules lint-generated lint-vet lint-staticcheck
lint-format:
	@bad=$$(gofmt -l src); if [[ -n $$bad ]]; then printf 'not formatted with gofmt:\n%s\n' "$$bad"; exit 1; fi

lint-schema:
	@testing/schema.sh

lint-rules:
	cd src && go test -count=1 ./internal/rules

# In a copy, so that it can be run on a tree with changes that are not committed.
lint-generated:
	@copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; cp -r src docs packaging "$$copy"; \
	(cd "$$copy/src" && go generate ./...); \
	diff -ru src "$$copy/src" && diff -ru docs "$$copy/docs" && diff -ru packaging "$$copy/packaging" || { echo 'generated files are not up to date: run make generate'; exit 1; }

lint-vet:
	cd src && go vet ./...
	cd src && go vet -tags failpoints ./...
	cd src && go vet -tags manual ./cmd/faena
	cd src && go vet -tags packages ./internal/endtoend/packages
	cd src && GOARCH=arm64 CGO_ENABLED=0 go vet ./cmd/faena-init

lint-staticcheck:
	cd src && go tool -modfile=tools/go.mod staticcheck ./...
	cd src && go tool -modfile=tools/go.mod staticcheck -tags packages ./internal/endtoend/packages

.PHONY: test
test: setup ## run every test with the race detector; a skipped test fails the run
	cd src && go run ./internal/tools/gotest -p 2 -timeout 11m ./...

# make fuzz DURATION=10m is of each target for so long. What fails is kept below the package's testdata/fuzz, and is part of make test from then on.
.PHONY: fuzz
fuzz: setup ## run every fuzz target for a while, 1m or DURATION
	cd src && for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(go test -list '^Fuzz' "$$dir" | grep '^Fuzz'); do \
			echo "$$dir $$target"; nice -n 19 go test -run '^$$' -fuzz "^$$target\$$" -fuzztime '$(or $(DURATION),1m)' -fuzzminimizetime 100x "$$dir"; \
		done; \
	done

.PHONY: bench
bench: build setup ## measure an activation beside fork+exec, docker run and the Engine's API
	cd src && go run ./internal/tools/bench

.PHONY: bench-cluster
bench-cluster: build setup ## measure the daemons apart: three NATS servers, several APIs and workers
	cd src && go run ./internal/tools/bench cluster

.PHONY: bench-queue
bench-queue: build setup ## queue 100,000 activations while there is no worker, then run them with one
	cd src && go run ./internal/tools/bench queue

# make chaos DURATION=30m SEED=7 goes on for so long; without, each fault happens once, in less than 8 minutes.
.PHONY: chaos
chaos: setup ## break one part after the other under load: nothing is lost (DURATION=30m SEED=7)
	cd src && go run ./internal/tools/chaos -report $(BIN)/chaos $(if $(DURATION),-duration $(DURATION)) $(if $(SEED),-seed $(SEED))

.PHONY: kills
kills: setup ## kill every program between any two of its steps, and see what becomes of it
	cd src && go test -count=1 -timeout 12m ./internal/endtoend/kills -every

# Hosts are containers with systemd as process 1. Their image and the packages are made at the same time, and are kept until something changes.
.PHONY: test-packages
test-packages: setup ## install, break, upgrade and purge the packages on hosts with systemd
	@testing/setup.sh packages
	@testing/hosts.sh >/dev/null & hosts=$$!; testing/packages.sh $(BIN)/packages; wait $$hosts
	cd src && go run ./internal/tools/gotest -timeout 10m -- -tags packages ./internal/endtoend/packages

.PHONY: bench-backlog
bench-backlog: build setup ## the same of 20 users: nearly all wait in the backlog
	cd src && go run ./internal/tools/bench backlog

.PHONY: bench-fairness
bench-fairness: build setup ## measure what a user's flood costs another user
	cd src && go run ./internal/tools/bench fairness

.PHONY: demo
demo: build ## run unmodified images as functions, through the whole path
	@testing/setup.sh demo
	cd src && go run ./internal/tools/demo

.PHONY: up
up: build setup ## run the whole appliance until Ctrl-C
	$(BIN)/faena up

# Of other architectures: make deb ARCHES=amd64. PROGRAMS=DIR packs the programs of another tree, VERSION=… under another version.
DIST   := $(CURDIR)/dist
ARCHES := amd64 arm64
export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git -c safe.directory='$(CURDIR)' log -1 --format=%ct 2>/dev/null))

.PHONY: deb
deb: ## build the Debian packages into dist/, with what is in each (CycloneDX) beside it
	@rm -f $(DIST)/*.deb $(DIST)/*.cdx.json
	@VERSION='$(VERSION)' PROGRAMS='$(PROGRAMS)' packaging/build.sh $(DIST) $(ARCHES)

.PHONY: lint-packages
lint-packages: ## check the packages in dist/ with lintian; what it says is mended, or has an override with its reason
	@testing/setup.sh packages
	lintian --allow-root --fail-on error,warning $(DIST)/*.deb

.PHONY: lint-reproducible
lint-reproducible: ## build the packages in dist/ again, elsewhere, and compare every byte
	@VERSION='$(VERSION)' packaging/reproduce.sh $(DIST) $(ARCHES)

# Signed where APT_KEY names a key of gpg's keyring.
.PHONY: apt-repo
apt-repo: deb ## make dist/apt, a repository that apt installs from (APT_KEY=… signs it)
	@testing/setup.sh packages
	@rm -rf $(DIST)/apt && mkdir -p $(DIST)/apt && cp $(DIST)/*.deb $(DIST)/apt/
	@packaging/repository.sh $(DIST)/apt

.PHONY: release
release: apt-repo ## everything of a release, in dist/: packages, lists of their parts, changelog, offline bundles, checksums
	@rm -f $(DIST)/*.tar $(DIST)/CHANGELOG.md $(DIST)/SHA256SUMS
	@packaging/changelog.sh markdown '$(VERSION)' "$$(date -ud @$(SOURCE_DATE_EPOCH) +%F)" >$(DIST)/CHANGELOG.md
	@for arch in $(ARCHES); do packaging/bundle.sh $$arch '$(VERSION)' $(DIST)/faena-bundle-$(VERSION)-$$arch.tar $(DIST)/*_$$arch.deb || exit; done
	@cd $(DIST) && sha256sum -- *.deb *.cdx.json *.tar CHANGELOG.md >SHA256SUMS
	@ls -l $(DIST)

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) dist
