# Needs Python 3.11, pip, make and git; everything else is installed into .venv by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Set SEED=n to repeat a test run with the random choices of an earlier one, which it prints.
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults soak bench bench-growth bench-memory bench-shortage check audit format lock clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Install everything into .venv (pinned, with hashes)

demo: setup ## See the whole pipeline at work: a simulated shop, real Redis, every process
	@$(BIN)/shortpick demo

test: setup ## Run all tests (real Redis, PostgreSQL and SQLite; under 6 minutes)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(if $(SEED),--seed=$(SEED))

faults: setup ## Kill, stop and starve everything, and see that nothing is lost and nothing is done twice (20 minutes)
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(if $(SEED),--seed=$(SEED)) tests/properties/test_pipeline_machine.py tests/faults

soak: setup ## The same all at once, at random, under a steady load (10 minutes; MINUTES=n for others)
	@$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

bench: setup ## Compare four designs, latency against load, what a batch costs (6 minutes)
	@$(BIN)/python -m benchmarks.run

bench-growth: setup ## Measure throughput and latency with up to three million orders in the tables
	@$(BIN)/python -m benchmarks.growth $(ORDERS)

bench-memory: setup ## Measure the memory of each process over a million events
	@$(BIN)/python -m benchmarks.memory $(EVENTS)

bench-shortage: setup ## Measure a SKU that up to a million orders want and that runs short (ORDERS=n for another number)
	@$(BIN)/python -m benchmarks.sku_shortage $(ORDERS)

check: setup ## Lint, types, import rules
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted; run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

audit: setup ## Look for known vulnerabilities of pinned packages
	@$(BIN)/pip --disable-pip-version-check check
	@$(BIN)/python requirements/audit.py

format: setup ## Format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

lock: setup ## Pin the newest versions of what the project depends on
	@$(BIN)/uv pip compile pyproject.toml --extra postgres $(LOCK) -o requirements/runtime.lock
	@$(BIN)/uv pip compile pyproject.toml --all-extras --group dev $(LOCK) -o requirements/dev.lock

LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

clean: ## Remove .venv and what demos left
	rm -rf $(VENV) .shortpick .soak

$(VENV)/.installed: requirements/dev.lock pyproject.toml
	@echo "Installing into $(VENV) (about half a minute) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Shortpick needs Python 3.11 or newer; name one with: make setup PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
