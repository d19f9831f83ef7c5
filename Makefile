# What people and machines do here, by name. `make help` lists it.

.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## format, lints and every test; installs what they need; the last line sums them up
	@tests/setup
	@tests/run

test-all: test conformance peers k6 instructions watched deploy ## the same, and what takes a release build, or Go

conformance: ## the Autobahn suite's WebSocket cases 1 to 10 against /echo of a release build (or of TOWNHALL=PATH)
	@tests/autobahn/run

peers: ## the load tester's peers that are written in Go (1.26 or newer; https://go.dev/dl)
	@tests/setup
	@cargo test --package townhall-load --features go-peers --test peers_in_go

k6: ## the scripts for k6, against halls and against what loses, doubles and swaps; installs k6 with Go where it is missing
	@tests/setup
	@loadtest/k6/setup
	@cargo test --package townhall-load --features k6 --test k6

instructions: ## what a message and a delivery cost in instructions (callgrind's), beside the baseline; RENEW=1 makes a new one
	@tests/setup valgrind
	@cargo run --quiet --release --package townhall-instructions -- $(if $(RENEW),renew,compare)

watched: ## a real Prometheus before two halls under load: every panel shows something, every alert fires for its reason (four minutes)
	@tests/setup
	@cargo build --quiet --package townhall --package townhall-load
	@python3 -W error -m unittest discover --verbose --start-directory tests/watched

dist: ## the one binary, static and stripped, with its SHA-256, in dist/; ARCH=arm64 or amd64 for another machine
	@deploy/dist $(ARCH)

deploy: ## what is deployed: kube-score on the manifests, and the image's files run as an image is; a release build; needs Go; deploys nothing
	@tests/setup strace
	@tests/deploy/thorough

fuzz: ## each fuzz target for a minute, or SECONDS; TARGET=NAME for one; needs a nightly compiler and cargo-fuzz
	@fuzz/run $(or $(SECONDS),60) $(TARGET)

compare: ## the hall beside what one would use instead: writes tables and plots for README.md (20 minutes)
	@loadtest/compare

bench: ## what storing in Redis, several halls, a failover and a scrape cost (ten minutes; needs Go)
	@loadtest/bench

scaling: ## what one node costs, checked with two and three, and what a million sockets take: docs/scaling.md (six minutes)
	@loadtest/scaling --check

screenshots: ## the page in web/screenshots, with people who talk in it
	@tests/setup
	@cargo build --quiet
	@node tests/browser/screenshots.mjs

.PHONY: help test test-all conformance peers k6 instructions watched dist deploy fuzz compare bench scaling screenshots
