# Everything runs from .venv, which the first target that needs it creates. Needs Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Servers and workers are started again and again; without compiled modules each start takes several times as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-edges test-compat compat-constraints test-pgbouncer test-browser screenshots dist faults soak bench bench-quick bench-scale reference docs lint format hashes clean
.DEFAULT_GOAL := help

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## Run the demo: three callers ask a person, on real servers. HUMAN=1: you answer
	@$(BIN)/python -m examples.demo $(if $(HUMAN),--human)

test: $(READY) ## Run the whole test suite (real servers, free ports, nothing left running). ARGS="-k name" to choose
	@$(BIN)/python -m pytest $(ARGS)

test-edges: $(READY) ## Run the fault tests: kills, deleted files, clock steps, wrong settings, on real servers (seven minutes). ARGS="-k name" to choose
	@$(BIN)/python -m pytest -m edges --numprocesses=4 $(ARGS)

test-compat: $(READY) ## Test the lowest and newest versions, and each extra alone, on every Python from 3.11 on PATH (two minutes; the first run takes longer). ARGS="--only lowest", ARGS=--write
	@$(BIN)/python -m tests.compat $(ARGS)

dist: $(READY) ## Build wheel and sdist into dist/, check them, and install them into new environments (two minutes)
	@$(BIN)/python -m tests.release

compat-constraints: $(READY) ## Update the versions that test-compat uses: constraints-lowest.txt and constraints-newest.txt
	@$(BIN)/python -m tests.compat --constraints

test-pgbouncer: $(READY) ## Test two relays behind a real PgBouncer in transaction mode (seconds). Requires Debian's package pgbouncer
	@$(BIN)/python -m tests.pgbouncer

test-browser: $(READY) ## Test the reviewer's way in headless Chromium: forms, rows, mails (two minutes). Requires Debian's package chromium
	@$(BIN)/python -m tests.browser $(ARGS)

screenshots: $(READY) ## Take the pictures in the documentation from real servers, in headless Chromium (a minute). Requires Debian's package chromium
	@$(BIN)/python -m tests.browser.pictures

faults: $(READY) ## Run every fault scenario with real processes and kills, and write docs/reliability.md (15 minutes). ARGS=--short, ARGS="--only relay"
	@$(BIN)/python -m tests.faults $(ARGS)

soak: $(READY) ## Run the soak test: 2,000 waits, two relays killed at random, hostile requests; checks every effect and the memory (minutes). ARGS="--waits 200 --seed 7"
	@$(BIN)/python -m tests.soak $(ARGS)

bench: $(READY) ## Measure every row of every benchmark (at most 40 minutes) and write docs/performance.md. ARGS="--only relay", ARGS=--help
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(READY) ## Run every benchmark in a small size, to see that each works (three minutes). Writes nothing to docs
	@$(BIN)/python -m benchmarks --quick $(ARGS)

bench-scale: $(READY) ## Measure 20,000 waits on a server that keeps 200,000 tasks, and simulate 100,000 for a day (30 minutes). ARGS="--waits 500 --kept 2000 --seconds 60 --simulated 10000"
	@$(BIN)/python -m benchmarks.scale $(ARGS)

reference: $(READY) ## Write what follows from the code into docs/reference: settings, commands, endpoints, metrics
	@$(BIN)/python -m tests.docs.reference

docs: $(READY) ## Build the documentation site into site/, strictly and without a network, and check the built pages
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@$(BIN)/python -m tests.docs

lint: $(READY) ## Check format, style, types (mypy and pyright, both strict) and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/lint-imports

format: $(READY) ## Format the code and apply automatic fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

hashes: $(READY) ## Update the hashed versions that the container installs, from pyproject.toml and constraints.txt
	@echo hatchling | $(BIN)/uv pip compile pyproject.toml - --quiet --extra relay --extra postgres --extra temporal \
		--constraint constraints.txt --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--python-version 3.12 --python-platform linux --output-file examples/deploy/requirements.txt

clean: ## Remove .venv and everything generated
	rm -rf $(VENV) .compat dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Python 3.11 or later is needed, $(PYTHON) is {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@
