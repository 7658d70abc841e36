# The commands of this tree. `make demo` shows the main job, `make test` runs what CI runs.
.POSIX:
.PHONY: help setup page build release demo demo-stop cluster cluster-stop test test-all lint deny clean

help:
	@echo 'make demo [FAIL=1]  push a small C project to a BuildFlow of your own and follow its run (root)'
	@echo 'make demo-stop      stop that BuildFlow and remove what it made'
	@echo 'make cluster        three etcd members, three servers, three agents, S3, PostgreSQL on one machine (root)'
	@echo 'make cluster-stop   stop that cluster and remove what it made'
	@echo 'make test           lint, build and every test that CI runs (root for the container tests)'
	@echo 'make test-all       make test and the longer runs'
	@echo 'make release        build optimised programs to install: target/release/'
	@echo 'make build          build the page and the programs: target/debug/buildflow and buildflow-shim'

setup:
	@scripts/setup build

# The page in the browser, from where the program takes it.
page: setup
	@scripts/page build

build: page
	cargo build -p buildflow -p buildflow-shim

# What is installed on servers and nodes: target/release/buildflow and, linked statically, buildflow-shim.
release: page
	cargo build --release -p buildflow
	cargo rustc --release -p buildflow-shim --bin buildflow-shim -- -C target-feature=+crt-static

demo:
	@scripts/setup demo
	@scripts/page build
	cargo build -p buildflow -p buildflow-shim
	@FAIL=$(FAIL) scripts/demo

demo-stop:
	@scripts/demo stop

cluster:
	@scripts/setup cluster
	@scripts/page build
	cargo build -p buildflow -p buildflow-shim
	@scripts/base-image .cluster/images/base
	@scripts/cluster up

cluster-stop:
	@scripts/cluster down

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test:
	@scripts/setup test
	@scripts/page build
	$(MAKE) lint
	cargo build -p buildflow -p buildflow-shim
	cargo test --workspace --no-fail-fast
	@scripts/page test

test-all: test
	scripts/real-projects
	$(MAKE) deny

# Licences, bans and sources of every dependency. Advisories need the advisory database from the network.
deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

clean:
	cargo clean
