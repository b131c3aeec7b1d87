# Everything a fresh machine needs: Python 3.11 with venv and pip, make, git. See CONTRIBUTING.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO ?=
RUN ?= .demo
# Processes that share the test suite.
WORKERS ?= 2
# Small recurrent networks train several times faster on one thread; see docs/recording.md.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo data test test-all oracle lint types format bench bench-quick pictures docs chromium check-python clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hiddenscope needs Python 3.11 or newer as '$(PYTHON)', found: $$($(PYTHON) --version 2>&1 || echo none). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(BIN)/python: | check-python
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-demo: setup.cfg constraints.txt pyproject.toml | $(BIN)/python
	@echo "Installing hiddenscope and what it needs (once, 2 to 4 minutes) ..."
	@$(PIP) --editable '.[data]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-demo
	@echo "Installing what the tests need (once) ..."
	@$(PIP) --editable '.[data,files,analyses,baselines,pictures,test]'
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready-demo
	@$(PIP) --editable '.[docs]'
	@touch $@

setup: $(VENV)/.ready-demo ## install into .venv, once

demo: $(VENV)/.ready-demo ## train an LSTM on real data and watch it live
	@$(BIN)/hiddenscope demo $(DEMO)

data: $(VENV)/.ready-demo ## fetch the texts of the experiments sentiment and shakespeare, once
	@$(BIN)/python -m hiddenscope.experiments.datasets.fetch

chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
	  run=; [ "$$(id -u)" = 0 ] || run="sudo -n"; \
	  command -v apt-get >/dev/null && { echo "Installing Chromium for the browser tests ..."; \
	    $$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends chromium; } >/dev/null \
	  || echo "No Chromium here, and none could be installed: the browser tests will be skipped." >&2; }

test: $(VENV)/.ready-test chromium ## the test suite, browser tests included
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-all: $(VENV)/.ready-test chromium ## also the slow tests, and the GPU's where there is one
	@$(BIN)/python -m pytest -m 'not oracle' --timeout 3600

lint: $(VENV)/.ready-test ## ruff: rules and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.ready-test ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.ready-test ## mypy, strict
	@$(BIN)/mypy

.venv-oracle/.ready: setup.cfg constraints.txt | check-python
	@echo "Installing m-phate in an environment of its own (once) ..."
	@$(PYTHON) -m venv .venv-oracle
	@.venv-oracle/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  numpy scipy scikit-learn xarray numba graphtools phate hypothesis pytest pytest-timeout 'setuptools>=77'
	@.venv-oracle/bin/python -m pip install --quiet --disable-pip-version-check --no-deps m-phate==0.1.6
	@touch $@

oracle: .venv-oracle/.ready ## compare kernel and pictures with m-phate itself
	@PYTHONPATH=src .venv-oracle/bin/python -m pytest tests/oracle -m oracle

bench-quick: $(VENV)/.ready-test .venv-oracle/.ready ## the benchmarks that take minutes
	@$(BIN)/python -m benchmarks --quick

bench: $(VENV)/.ready-test .venv-oracle/.ready ## all benchmarks, against m-phate, openTSNE and UMAP
	@$(BIN)/python -m benchmarks

pictures: $(VENV)/.ready-test chromium ## screenshots of the demo run into docs/images
	@test -d $(RUN) || for seed in 1 0; do $(BIN)/hiddenscope demo --exit --logdir $(RUN) --seed $$seed || exit 1; done
	@$(BIN)/python -m hiddenscope.dashboard.pictures $(RUN) --out docs/images

docs: $(VENV)/.ready-docs ## build the documentation into build/docs
	@$(BIN)/mkdocs build --strict --site-dir build/docs

clean: ## remove what make made, runs excepted
	@rm -rf $(VENV) .venv-oracle build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
