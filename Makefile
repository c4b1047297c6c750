# The two that matter: `make run` and `make test`. `make help` lists all.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export QUICK ONLY
.PHONY: bench help run test-servers test check check-code check-dependencies check-files up coverage chaos chaos-mutations

# Where the tools of scripts/install-tools are.
TOOLS := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/tools/bin
export PATH := $(TOOLS):$(PATH)

SERVERS := --features app/servers,infrastructure/servers,app/full,app/failpoints
CHAOS := cargo test --package app --features servers,full,failpoints --test chaos --

help: ## Lists the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: ## Counts a day of flights on one embedded file, shows the totals, stays up for more; needs no server
	@scripts/run-embedded

test-servers: ## Installs the servers that the tests start: Redis, RabbitMQ, PostgreSQL
	@scripts/install-test-servers

test: test-servers ## Runs all tests, on real servers too
	scripts/install-tools schemathesis
	cargo test --workspace $(SERVERS)

chaos: test-servers ## Kills everything at random and checks the books: ROUNDS=100 or KILLS=1000, SEED=7, FIRST=0
	$(CHAOS) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(FIRST),--first $(FIRST))

chaos-mutations: test-servers ## Breaks each rule of counting in turn, until the harness catches it
	$(CHAOS) --mutations $(if $(SEED),--seed $(SEED))

check: check-files check-dependencies check-code ## Format, lints, docs, dependency arrows, licences, scripts, compose file, alert rules, manifests

check-files:
	cargo fmt --all --check
	scripts/check-arrows
	scripts/test-check-arrows
	scripts/check-failpoints
	scripts/check-scripts
	scripts/check-compose
	scripts/check-links
	scripts/check-observability
	scripts/check-kubernetes

check-dependencies:
	scripts/install-tools cargo-deny cargo-machete
	cargo deny --log-level error check bans licenses sources
	scripts/check-advisories
	cargo machete

check-code:
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --all-features --no-deps --document-private-items

up: ## Builds the image and starts everything with docker compose: RabbitMQ, Redis, PostgreSQL, worker, cron
	docker compose up --build --wait

bench: test-servers ## Every figure beside its physical limit, in one run (docs/speed.md); QUICK=1 for three minutes, ONLY=queue,http for a part
	cargo bench --package app --features bench --bench limits

coverage: test-servers ## Runs all tests and writes what they cover to coverage/html/index.html
	scripts/install-tools cargo-llvm-cov schemathesis
	scripts/coverage $(SERVERS)
