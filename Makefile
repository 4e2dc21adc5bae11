# Every target sets up what it needs first; when all is ready, that costs next to nothing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run setup setup-run setup-clients setup-sdks setup-proto setup-test proto proto-check format lint lint-code \
	lint-contract types layers test test-clients test-sdks test-faults test-crashes test-jobs test-live check bench bench-panels \
	bench-clients bench-compare mode-weights lock version release-contract clean

BIN := .venv/bin
SETUP := scripts/setup
RELEASED := protos/released/trunkline-v1.binpb
# Without source locations, so that a comment alone changes nothing. Imports are not ours to keep compatible.
BUF_BUILD := $(BIN)/buf build --path protos/trunkline --exclude-source-info

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup-run  ## Set up and serve, the embedded model included (ARGS='--http 127.0.0.1:9000')
	@exec $(BIN)/trunkline serve $(ARGS)

setup: ## Set up .venv for development
	@$(SETUP) dev

setup-run:
	@$(SETUP) run

setup-clients:  ## Set up what our clients in other languages are built with
	@$(SETUP) clients

setup-sdks:  ## Set up the SDKs and mock servers that tests use
	@$(SETUP) sdks

setup-test:
	@$(SETUP) test

setup-proto:
	@$(SETUP) proto

proto: setup-proto  ## Generate the code of our clients from protos/
	@$(BIN)/python scripts/proto.py

proto-check: setup-proto  ## Fail if `make proto` would change a file
	@$(BIN)/python scripts/proto.py --check

format: setup  ## Format the code and fix what ruff can fix
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: lint-code lint-contract  ## Check format, style, and the contract against its last release

lint-code: setup
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/python scripts/version.py

lint-contract: setup proto-check
	@$(BIN)/buf lint
	@mkdir -p build
	@$(BUF_BUILD) --output build/contract.binpb
	@$(BIN)/buf breaking build/contract.binpb --against $(RELEASED) --exclude-imports

types: setup  ## Check types with mypy --strict
	@$(BIN)/mypy

layers: setup  ## Check which module may import which
	@$(BIN)/lint-imports --no-logo

test: setup-test  ## Set up and run all tests, on every Python from 3.11 to 3.13 that is installed
	@scripts/test $(PYTEST_ARGS)

test-clients: setup-clients  ## Run the conformance cases with our clients in all languages, and print the table
	@$(BIN)/pytest tests/conformance --table $(PYTEST_ARGS)

test-sdks: setup setup-sdks  ## Run the tests with the SDKs that users have
	@$(BIN)/pytest tests/clients $(PYTEST_ARGS)

test-%: setup setup-sdks  ## Run the tests of one folder of tests/ (PYTEST_ARGS='-k name')
	@$(BIN)/pytest tests/$* $(PYTEST_ARGS)

test-faults: setup setup-sdks  ## Break things, at length; broken off, it goes on where it was (PYTEST_ARGS='-k timers')
	@$(BIN)/python -m tests.faults.run $(PYTEST_ARGS)

test-crashes: setup setup-sdks  ## Kill services and fail their disks, at length; goes on where it was (PYTEST_ARGS='-k postgres')
	@$(BIN)/python -m tests.accounts.crash.run $(PYTEST_ARGS)

test-jobs: setup setup-sdks  ## Kill services while they work on jobs, 200 times and more, at length (PYTEST_ARGS='-k postgres')
	@$(BIN)/pytest tests/jobs -m "slow or not slow" -o faulthandler_timeout=0 $(PYTEST_ARGS)

test-live: setup setup-sdks  ## Ask real providers, those whose keys are in the environment
	@$(BIN)/pytest tests/live -m live $(PYTEST_ARGS)

check: lint types layers test  ## Everything that must pass before a change lands

bench: setup  ## Measure CPU, latency and memory under load
	@$(BIN)/python bench/run.py $(ARGS)

bench-panels: setup  ## Measure panels: waits when a proposer hangs, CPU of a member, about three minutes
	@$(BIN)/python bench/panels.py $(ARGS)

bench-clients: setup-clients  ## Measure our clients in all languages beside their raw stubs, about three minutes
	@PYTHONPATH=. $(BIN)/python bench/clients.py $(ARGS)

bench-compare: setup  ## Measure this checkout against another commit (BASE=main)
	@$(BIN)/python bench/compare.py $(or $(BASE),$(error name a commit: make bench-compare BASE=main)) $(ARGS)

mode-weights: setup  ## Learn the classifier of modes anew, and measure it (ARGS=--measure)
	@$(BIN)/python scripts/mode_weights.py $(ARGS)

lock: setup  ## Write locks/ anew from pyproject.toml (ARGS='--upgrade')
	@scripts/lock $(ARGS)

version: setup  ## Say the version of what is published everywhere (VERSION=1.2.3)
	@$(BIN)/python scripts/version.py $(or $(VERSION),$(error name a version: make version VERSION=1.2.3))

release-contract: setup  ## Make the contract as it is the one that later changes must not break
	@$(BUF_BUILD) --output $(RELEASED)

clean:  ## Remove what was set up or built here
	@rm -rf .venv .venv-* build dist node_modules tests/clients/node/node_modules tests/faults/mocks/node_modules \
		clients/typescript/node_modules clients/typescript/build clients/go/build clients/java/target \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
