# What people and machines do here, by name. `make help` lists it.

.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## format, lints and every test; installs what they need; the last line sums them up
	@tests/setup
	@tests/run

test-all: test ## the same, so far: slower suites go here and not into `test`

bench: ## what deliveries and connections cost, beside a bare epoll loop and two peers, on pinned cores (seven minutes)
	@loadtest/bench

.PHONY: help test test-all bench
