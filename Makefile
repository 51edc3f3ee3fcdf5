# Every target makes .venv first, where it is missing or pyproject.toml changed. `make` alone lists the targets.
#   DATASET=name or path   data: mnist_5k, mnist, fashion_mnist, cifar10, photos, or a folder of pictures
#   SEEDS=n                seeds 0 to n-1
#   ARGS="..."             any settings, as run.py takes them
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/.made
PY := .venv/bin/python
SETTINGS = $(if $(DATASET),dataset=$(DATASET)) $(if $(SEEDS),'seed=range($(SEEDS))') $(ARGS)
RUN = $(PY) run.py

.DEFAULT_GOAL := help
.PHONY: help ablation-xvar ablation-labels table-beta claims sweep train evaluate report browse test test-all torture bench lint clean

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18
	@echo; sed -n '2,4s/^# *//p' $(MAKEFILE_LIST)

$(VENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed and $(PYTHON) is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making .venv (about two minutes, 5 GB)" >&2
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

ablation-xvar: $(VENV) ## study A: the decoder's variance, 5 values x 10 seeds, and its report
	@$(RUN) xvar $(SETTINGS)

ablation-labels: $(VENV) ## study A: where the label joins, and how often it is repeated
	@$(RUN) labels $(SETTINGS)

table-beta: $(VENV) ## study B: beta and z_dim on CIFAR-10 (DATASET=photos needs no files)
	@$(RUN) beta $(SETTINGS)

claims: $(VENV) ## each claim of the two studies held against the runs (DATASET=mnist,cifar10: the studies' own data)
	@$(PY) -m experiments.claims $(SETTINGS)

sweep: $(VENV) ## the quick tour of study A, in a few minutes
	@$(RUN) -m sweep $(SETTINGS)

train: $(VENV) ## one run
	@$(RUN) $(if $(DATASET),dataset=$(DATASET)) $(ARGS)

evaluate: $(VENV) ## computes missing or outdated metrics (ARGS="REPORT or RUN ...", all runs without)
	@$(PY) -m experiments.evaluate $(ARGS)

report: $(VENV) ## makes the report of EXPERIMENT again from its runs
	@$(PY) -m experiments.collect $(or $(EXPERIMENT),xvar)

browse: $(VENV) ## the page of all experiments and runs: outputs/index.html
	@$(PY) -m experiments.browse

test: $(VENV) ## the tests, under five minutes
	@$(PY) -m pytest -q -n 2 --dist loadfile

test-all: $(VENV) ## the slow tests too
	@$(PY) -m pytest -q -n 2 --dist loadfile -m ''

torture: $(VENV) ## kills a sweep a hundred times and compares it with an unbroken one
	@$(PY) -m pytest -q -s -m slow tests/test_torture.py

bench: $(VENV) ## speed, as ratios within one run: outputs/reports/benchmark/
	@$(PY) -m experiments.bench $(ARGS)

lint: $(VENV) ## ruff and pyright
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright

clean: ## removes caches, not results
	@rm -rf .pytest_cache .ruff_cache build *.egg-info outputs/.cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
