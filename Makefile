# What a person, or a CI, does with this project. `make` alone lists it.
#
# Everything lives in .venv/ of this checkout. The stamp in it is younger than pyproject.toml, constraints.txt and
# requirements.lock exactly when the environment is up to date, so `make setup` costs nothing when there is nothing to do.

PYTHON ?= python3
CONFIG ?= field.yaml
ARGS   ?=

VENV := .venv
PY   := $(VENV)/bin/python
PIP  := $(PY) -m pip install --quiet --disable-pip-version-check
# Every test takes one thread: a process a core, each taking from the others what they have not begun.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 8 --dist worksteal
# First what has hashes to be checked, without asking anybody what it needs; then torch, whose builds have different
# ones, and the project. The second call moves nothing of the first: both have the versions of constraints.txt. It builds
# with the setuptools of the first, so that nothing but torch is taken on trust.
LOCKED  := $(PIP) --require-hashes --no-deps --requirement requirements.lock
INSTALL := $(PIP) --constraint constraints.txt --no-build-isolation --editable
# What only maintains the project; never in .venv/.
TOOLS   := .venv-tools

.DEFAULT_GOAL := help
.PHONY: help setup fit test test-slow test-faults bench lint format docs lock audit clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.stamp  ## fill .venv/ (PYTHON=python3.12 chooses an interpreter)

$(VENV)/.stamp: pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "modulant needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make setup PYTHON=python3.12" % sys.version_info[:2])'
	@echo "== setup: filling $(VENV)/ (minutes the first time: torch is large)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(LOCKED)
	@$(INSTALL) ".[dev]"
	@touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp
	@echo "== setup: adding mkdocs to $(VENV)/"
	@$(INSTALL) ".[dev,docs]"
	@touch $@

fit: setup  ## train a modulator (CONFIG=lerp.yaml ARGS="--trainer.max_epochs 2")
	$(PY) train.py fit --config $(CONFIG) $(ARGS)

test: lint  ## all checks, and every test that is not slow
	@echo "== pytest"
	@$(PY) -m pytest -m "not slow" $(SIDE_BY_SIDE) $(ARGS)

test-slow: setup  ## the slow tests alone
	@echo "== pytest (slow)"
	@$(PY) -m pytest -m slow $(ARGS)

test-faults: setup  ## the whole fault suite, most of an hour: kills, signals, full disks …; ends with a table
	@echo "== pytest (faults)"
	@FAULTS=all $(PY) -m pytest tests/faults --timeout 1800 $(ARGS)

bench: setup  ## every benchmark, into docs/benchmarks.md (ARGS=--quick for a look)
	@$(PY) -m benchmarks $(ARGS)

lint: setup  ## ruff, mypy and the import contracts
	@echo "== ruff check"
	@$(PY) -m ruff check .
	@echo "== ruff format --check"
	@$(PY) -m ruff format --check .
	@echo "== mypy"
	@$(PY) -m mypy
	@echo "== lint-imports"
	@PYTHONPATH=. $(PY) -c 'from importlinter.cli import lint_imports_command as main; main(["--no-logo"])'

format: setup  ## rewrite the code in ruff's format, and mend what ruff can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs: $(VENV)/.stamp-docs  ## build the pages into site/
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

lock: setup $(TOOLS)/.stamp  ## write requirements.lock again, from constraints.txt
	@$(PY) scripts/lock.py $(TOOLS)/bin/uv

audit: $(TOOLS)/.stamp  ## ask what is known against the pinned packages
	@$(TOOLS)/bin/python scripts/audit.py $(TOOLS)/bin/pip-audit

$(TOOLS)/.stamp: Makefile
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 pip-audit==2.10.1
	@touch $@

clean:  ## remove caches and built pages (not .venv/, not runs/)
	rm -rf build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
