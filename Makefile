# Everything one does with this repository. `make` alone lists it.

CARGO ?= cargo
# The arguments of `make run`, as in: make run ARGS="query BTC-USDT 1h"
ARGS ?= --help

.DEFAULT_GOAL := help
.PHONY: help build check fmt clippy test snippets sim planted crash soak bench audit docs demo run
.PHONY: record install clean

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program: target/release/okx-store
	$(CARGO) build --release --locked

check: fmt clippy docs test snippets ## all that must be clean: format, lints, documentation, tests

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --all-targets --locked -- -D warnings

# As they are read by whoever works on it, and by whoever uses it.
docs: export RUSTDOCFLAGS = -D warnings
docs:
	$(CARGO) doc --no-deps --document-private-items --locked
	$(CARGO) doc --no-deps --locked

test: ## run all tests; they need no network
	$(CARGO) test --locked

# Where pandas and DuckDB are, once they have been fetched.
VENV := $(abspath $(or $(CARGO_TARGET_DIR),target))/python

snippets: ## run the README with its Python, where pandas and DuckDB can be had; tests run the rest
	@python=$(VENV)/bin/python; has() { $$python -c 'import duckdb, pandas' >/dev/null 2>&1; }; \
	has || { python3 -m venv $(VENV) && $$python -m pip install --quiet --retries 0 --timeout 15 \
		--only-binary :all: pandas duckdb; } >/dev/null 2>&1; \
	if has; then OKX_STORE_PYTHON=$$python $(CARGO) test --locked --test suite readme::; \
	else echo "the README's Python was not run: python3 with pandas and DuckDB is not to be had" >&2; fi

# How many runs the simulation makes, from which seed on; or the one seed to see in full.
sim: N ?= 20000
FROM ?= 1

sim: ## 20000 runs of the simulation, in virtual time; SEED=7 shows one of them in full
	OKX_STORE_RUNS=$(N) OKX_STORE_FROM=$(FROM) $(if $(SEED),OKX_STORE_SEED=$(SEED)) \
		$(CARGO) test --release --locked --test sim -- --nocapture \
		--exact runs::the_store_becomes_equal_to_the_exchange_whatever_happens

planted: ## break the code on purpose, in one place after the other, and see it noticed
	tests/sim/planted.sh

# What decides the course of what follows: a seed to repeat, or any.
crash soak: SEED ?= $(shell date +%s)
# How many processes are killed.
crash: N ?= 200
# The length of the soak test in seconds.
SOAK_S ?= 300

crash: ## kill 200 processes at any moment, and hold what they leave against what they told
	OKX_STORE_KILLS=$(N) OKX_STORE_SEED=$(SEED) \
		$(CARGO) test --release --locked --test suite -- --nocapture --exact \
		kills::whatever_is_killed_loses_nothing_that_it_told

soak: ## five minutes of every fault, against 20 instruments; hours by SOAK_S=36000
	OKX_STORE_STORM_S=$(SOAK_S) OKX_STORE_SEED=$(SEED) \
		$(CARGO) test --release --locked --test suite -- --nocapture --exact faults::the_storm

# Which lines to measure, as in: make bench ONLY="upsert query"; all of them unless told.
ONLY ?=

bench: ## measure how fast it is, beside the limits; needs the sqlite3 shell
	@ONLY="$(ONLY)" $(CARGO) bench --locked --bench limits

# An audit that cannot be made fails; one without the list of known holes, which is fetched from the
# network, is made and says what was left out.
DENY := $(CARGO) deny --locked --config .deny.toml

audit: ## hold what the program is made of against .deny.toml; needs cargo-deny
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "nothing was audited, cargo-deny is not \
	installed: cargo install --locked cargo-deny" >&2; exit 1; }
	$(DENY) check licenses bans sources
	@if $(DENY) fetch db >/dev/null 2>&1; then $(DENY) check advisories; else \
		echo "known holes were not looked for: their list cannot be fetched" >&2; fi

demo: ## run the daemon against a made-up exchange, and break its stream; needs no network
	$(CARGO) build --release --locked --bin okx-store --example fixture-exchange
	tests/demo.sh "$${CARGO_TARGET_DIR:-target}/release"

run: ## run the program: make run ARGS="query BTC-USDT 1h"
	$(CARGO) run --release --locked --bin okx-store -- $(ARGS)

record: ## take fresh fixtures from the live exchange; needs the network and curl
	tests/record.sh

install: ## install okx-store for this user
	$(CARGO) install --path . --locked

clean: ## remove what was built
	$(CARGO) clean
