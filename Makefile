# Opentailr. `make` alone lists the targets.
#
# All tools live in .venv, which needs only a python3 of 3.11 or later with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two workers suit two cores; each has a platform of its own.
PYTEST_ARGS ?= -n 2
SEEDS ?= 0:5000
MINUTES ?= 60

.DEFAULT_GOAL := help
.PHONY: help venv demo up test test-slow lint types protos check-protos bench docs sim soak clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

venv: $(STAMP) ## Make .venv with everything installed

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or later is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: venv ## Run the example workflow from end to end on real data
	@$(BIN)/python examples/demo.py

up: venv ## Start the platform in the foreground
	$(BIN)/datatailr up

test: lint types check-protos ## Quick checks and tests (a few minutes)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: venv ## Tests with real servers, chaos and large data
	$(BIN)/python -m pytest -m slow --timeout 900 $(PYTEST_ARGS)

lint: venv ## ruff and buf lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint protos

types: venv ## mypy, strict
	$(BIN)/mypy

protos: venv ## Make the stubs anew after a change of the protos
	$(BIN)/python tools/protos.py
	$(BIN)/buf lint protos

check-protos: venv ## Prove that the committed stubs are fresh
	$(BIN)/python tools/protos.py --check

bench: venv ## Run the benchmarks; each prints a ratio against a limit of the same run
	$(BIN)/python -m benchmarks

docs: venv ## Build the documentation into build/docs, warnings as errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

sim: venv ## Simulate with faults: make sim SEEDS=0:5000
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

soak: venv ## Random work and random faults on real processes: make soak MINUTES=60
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES)

clean: ## Remove everything that was made
	rm -rf $(VENV) .venv-protos .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
