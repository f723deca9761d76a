# `make run` and `make test` set up their own virtual environment; nothing else is needed but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SEEDS ?= 1000
# 114, 128: our startable functions hand `task_status` on; 124, 9xx: optional rules about checkpoints, off by default in flake8.
ASYNC_RULES_OFF := ASYNC114,ASYNC128,ASYNC124,ASYNC9

.PHONY: run test test-all check format setup e2e-tools simulate mutants bench bench-report soak clean

run: $(VENV)/.runtime
	$(BIN)/vmcp-actors serve $(ARGS)

test: check e2e-tools
	$(BIN)/coverage erase
	BIN=$(BIN) scripts/test.sh $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under=90

test-all: check e2e-tools
	$(BIN)/python -m pytest $(ARGS)
	VMCP_TEST_HTTP=hypercorn $(BIN)/python -m pytest tests/e2e $(ARGS)

# Worlds from seeds, with all that can go wrong in them: docs/explain/simulation.md.
simulate: $(VENV)/.development
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

# Would the simulation notice? The runtime with one defect at a time, until a seed shows it.
mutants: $(VENV)/.development
	$(BIN)/python -m tests.simulation.mutants $(ARGS)

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files "vmcp_actors/*.py" "benchmarks/*.py" "examples/*.py" | xargs $(BIN)/flake8-async --disable $(ASYNC_RULES_OFF)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.development
	$(BIN)/python -m benchmarks $(ARGS)

# The other gateways are installed, everything is measured, and docs/benchmarks.md is written anew: under 20 minutes.
bench-report: $(VENV)/.development
	$(BIN)/python -m benchmarks --install-peers
	$(BIN)/python -m benchmarks --report docs/benchmarks.md $(ARGS)

# Thirty minutes of traffic with faults, and a verdict; ARGS="--minutes 5 --output soak" for others.
soak: $(VENV)/.development
	$(BIN)/python -m benchmarks.soak $(ARGS)

setup: $(VENV)/.development

e2e-tools: $(VENV)/.development
	scripts/install-e2e.sh

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.development: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable . --group test --group quality --group docs --group bench
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) .tools .coverage* .mypy_cache .ruff_cache .hypothesis .import_linter_cache htmlcov dist
