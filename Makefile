# Everything that is built, tested or tried here starts in this file. `make` alone lists the targets.
# build, test, demo, proto, lint and docs need cargo and nothing else; install-deps brings what the rest needs.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
PYTHON ?= python3
# One directory for everything that is built. Absolute, because the suites run in folders of their own.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export CARGO_TARGET_DIR := $(TARGET)
BIN := $(TARGET)/debug
VENV := $(TARGET)/interop-venv
# With --workspace the features are the same for every target below, so that nothing is built twice.
PROGRAMS := $(addprefix --bin myservice-,gateway backend client demo)
# In the order of their dependencies.
PUBLISHED := grpcrouter-protocol grpcrouter-runtime protoc-gen-grpcrouter grpcrouter
# What is packed is built only to see that it can be: the quickest way.
QUICK_PROFILE := CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
# Schedules of the simulation, the first seed, and the states of a tiny world: some minutes on two cores, all together.
SCHEDULES ?= 200000
SEED ?= 1
STATES ?= 75000
# Schedules of the full stack. Those that fail print how to run them again.
FULL_STACK ?= 2000

.PHONY: help install-deps proto build build-router build-example test clean demo lint fmt docs interop ways-out install \
	consumers package sim exhaustive mutants full-stack chaos speed-gate pick-gate release-check ci

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install-deps: ## Bring what the slower suites need (valgrind, a Python venv, Go modules, npm packages, protoc, buf); safe to repeat
	@PYTHON="$(PYTHON)" .ci/install-deps

proto: ## Generate the checked-in code again from proto/ and examples/ (no protoc needed)
	$(CARGO) run --example regenerate

build: ## Build everything
	$(CARGO) build --workspace

build-router: ## Build the example's generated gateway and print its path
	$(CARGO) build --workspace --bin myservice-gateway
	@echo $(BIN)/myservice-gateway

build-example: ## Build the example's backend and client
	$(CARGO) build --workspace --bin myservice-backend --bin myservice-client

test: ## Run all tests that cargo alone can run
	$(CARGO) test --workspace

clean: ## Remove everything that was built
	$(CARGO) clean
	rm -rf tests/consumers/protoc/src/gen

demo: ## A gateway, three backends that only dial out, and calls of all four kinds, on loopback
	$(CARGO) build --workspace $(PROGRAMS)
	@$(BIN)/myservice-demo

lint: ## Formatting and clippy, where a warning is an error
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

docs: ## Build the API pages, where a warning is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

consumers: ## Build and run crates outside of the workspace: with build.rs, with protoc, over the golden files
	PATH="$(TARGET)/tools/bin:$$PATH" sh tests/consumers/run.sh

package: ## Pack and build the crates as a registry would get them, and the runtime with each end alone
	for feature in gateway backend; do \
		$(CARGO) clippy -p grpcrouter-runtime --no-default-features --features $$feature -- -D warnings || exit; \
	done
	@# In a directory of its own: cargo keeps what it unpacked, by path, name and version, and would build the
	@# runtime against the protocol crate of an earlier run.
	@mkdir -p $(TARGET) && own="$$(mktemp -d $(TARGET)/package-XXXXXX)" && trap 'rm -rf "$$own"' EXIT && \
		$(QUICK_PROFILE) $(CARGO) package --allow-dirty --target-dir "$$own" $(addprefix -p ,$(PUBLISHED))

interop: ## Python, Go and Node: clients, unmodified servers, an instance of its own; docs/DEPLOY.md (needs install-deps)
	@test -x $(VENV)/bin/python || { echo "interop: no Python venv at $(VENV): run 'make install-deps' first" >&2; exit 1; }
	$(CARGO) build --workspace $(PROGRAMS) --bin grpcrouter
	GRPCROUTER_BIN=$(BIN) $(VENV)/bin/python -B -m pytest -c tests/interop/pytest.ini tests/interop

ways-out: ## A backend in a network namespace whose only way out is a real proxy (needs root and install-deps)
	$(CARGO) build --workspace --bin grpcrouter --bin myservice-backend
	bash tests/ways-out.sh $(BIN)

install: ## Put grpcrouter and protoc-gen-grpcrouter on the PATH
	$(CARGO) install --path grpcrouter --locked
	$(CARGO) install --path protoc-gen-grpcrouter --locked

sim: ## Seeded schedules of the tunnel against a naive model: SCHEDULES=n from SEED=s on; prints how to run a failure again
	SCHEDULES=$(SCHEDULES) SEED=$(SEED) $(CARGO) test --workspace --test simulation -- --nocapture

exhaustive: ## Every order of things in a tiny tunnel: cuts, moves, refusals, windows that run out, cancels, drain
	STATES=$(STATES) $(CARGO) test --workspace --test exhaustive -- --nocapture

mutants: ## Faults in the core, one at a time: the simulation must see them
	$(CARGO) test --workspace --features grpcrouter-protocol/mutants --test mutants -- --nocapture

full-stack: ## Real clients, gateways and backends in one process, under 2,000 seeded schedules of faults
	SCHEDULES=$(FULL_STACK) $(CARGO) test --workspace --test full_stack -- --nocapture

chaos: ## Real programs under load: killed, stopped, cut off, behind nginx and a bad line (needs root and install-deps)
	$(CARGO) build --workspace --bin grpcrouter --bin chaos
	@$(BIN)/chaos

speed-gate: ## Instructions and tasks of a unary call at the gateway (needs install-deps)
	bash tests/speed-gate.sh

pick-gate: ## Instructions of one pick among 10 and 10,000 instances (needs install-deps)
	bash tests/pick-gate.sh

release-check: ## The long runs, before a release
	SCHEDULES=10000000 $(CARGO) test --release -p grpcrouter-protocol --test simulation -- --nocapture
	STATES=3000000 $(CARGO) test --release -p grpcrouter-protocol --test exhaustive -- --nocapture
	bash tests/pick-gate.sh
	bash tests/resume-gate.sh
	$(MAKE) full-stack FULL_STACK=100000
	CHAOS_SECONDS=60 CHAOS_CALLS=50000 $(MAKE) chaos
	$(BIN)/chaos --calls 200000 memory
	DEADLINES_BY_THE_CLOCK=1 $(CARGO) test --release -p grpcrouter-tests --test calls deadline

ci: ## All that must pass before a change lands
	bash .ci/run
