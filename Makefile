# The commands of this project, for people and CI. `make` alone lists them.
#
# Everything is installed into .venv/ of this checkout. Its stamp is newer than pyproject.toml, constraints.txt and
# requirements.lock exactly when the environment is up to date; then `make setup` does nothing.

PYTHON ?= python3
CONFIG ?= field.yaml
ARGS   ?=
# The main job ends with a control beside it: the same training towards a shuffled WordNet. CONTROLS= leaves it out.
CONTROLS ?= $(if $(filter field.yaml lerp.yaml,$(CONFIG)),taxonomy_shuffled)

VENV := .venv
PY   := $(VENV)/bin/python
PIP  := $(PY) -m pip install --quiet --disable-pip-version-check
# Every test uses one thread: one process a core, which take over tests that others have not begun.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 8 --dist worksteal
# First the packages with hashes, without resolving their requirements; then torch, whose builds have different hashes,
# and the project. The second call changes nothing of the first: both use the versions of constraints.txt. It builds with
# the setuptools of the first, so that only torch is installed unchecked.
LOCKED  := $(PIP) --require-hashes --no-deps --requirement requirements.lock
INSTALL := $(PIP) --constraint constraints.txt --no-build-isolation --editable
# Tools that only maintain the project, outside .venv/.
TOOLS   := .venv-tools

.DEFAULT_GOAL := help
.PHONY: help setup fit test test-slow test-faults test-gpu test-weights bench lint format docs lock audit clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

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

$(VENV)/.stamp-weights: $(VENV)/.stamp
	@echo "== setup: adding gguf to $(VENV)/"
	@$(INSTALL) ".[dev,weights]"
	@touch $@

fit: setup  ## train a modulator (CONFIG=lerp.yaml ARGS="--trainer.max_epochs 2")
	$(PY) train.py fit --config $(CONFIG) $(if $(CONTROLS),--controls $(CONTROLS)) $(ARGS)

test: lint  ## all checks, and every test that is not slow
	@echo "== pytest"
	@$(PY) -m pytest -m "not slow" $(SIDE_BY_SIDE) $(ARGS)

test-slow: setup  ## the slow tests alone
	@echo "== pytest (slow)"
	@$(PY) -m pytest -m slow $(ARGS)

test-faults: setup  ## the whole fault suite, most of an hour: kills, signals, full disks …; prints a table
	@echo "== pytest (faults)"
	@FAULTS=all $(PY) -m pytest tests/faults --timeout 1800 $(ARGS)

test-gpu: setup  ## what needs a GPU, on the mini backbone: each way to run, resumes to the bit, no step that waits
	@echo "== pytest (gpu)"
	@TEST_DEVICE=cuda $(PY) -m pytest -m gpu $(SIDE_BY_SIDE) $(ARGS)

test-weights: $(VENV)/.stamp-weights  ## minutes on pretrained weights: SmolLM2-135M, fetched once (93 MB), and all-MiniLM
	@echo "== weights"
	@folder=$$($(PY) scripts/weights.py) && echo "$$folder" && echo "== pytest (weights)" && \
	  TEST_WEIGHTS="$$folder" $(PY) -m pytest -m weights $(ARGS)

bench: setup  ## every benchmark, into docs/results/benchmarks.md (ARGS=--quick: small shapes, no page)
	@$(PY) -m benchmarks $(ARGS)

lint: setup  ## ruff, the words of the pages, mypy and the import contracts
	@echo "== ruff check"
	@$(PY) -m ruff check .
	@echo "== ruff format --check"
	@$(PY) -m ruff format --check .
	@echo "== style"
	@$(PY) scripts/style.py
	@echo "== mypy"
	@$(PY) -m mypy
	@echo "== lint-imports"
	@PYTHONPATH=. $(PY) -c 'from importlinter.cli import lint_imports_command as main; main(["--no-logo"])'

format: setup  ## format the code and apply ruff's fixes
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs: $(VENV)/.stamp-docs  ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

lock: setup $(TOOLS)/.stamp  ## write requirements.lock again, from constraints.txt
	@$(PY) scripts/lock.py $(TOOLS)/bin/uv

audit: $(TOOLS)/.stamp  ## check the pinned packages for known vulnerabilities
	@$(TOOLS)/bin/python scripts/audit.py $(TOOLS)/bin/pip-audit

$(TOOLS)/.stamp: Makefile
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 pip-audit==2.10.1
	@touch $@

clean:  ## remove caches and built pages (not .venv/, not runs/)
	rm -rf build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
