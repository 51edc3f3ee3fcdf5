# Every target first creates .venv if it is missing, or updates it if pyproject.toml has changed. `make` alone lists the targets.
#   DATASET=name or path   data: mnist_5k, mnist, fashion_mnist, cifar10, photos, or a folder of pictures
#   SEEDS=n                run the seeds 0 to n-1
#   ARGS="..."             any other settings, as for run.py
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/.made
PY := .venv/bin/python
DATA = $(if $(DATASET),dataset="$$DATASET")
SETTINGS = $(DATA) $(if $(SEEDS),'seed=range($(SEEDS))') $(ARGS)
RUN_PY = $(PY) run.py

.DEFAULT_GOAL := help
.PHONY: help ablation-xvar ablation-labels table-beta bugs claims sweep train evaluate report browse docs texts \
	test test-all torture bench lint clean

help: ## shows this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18
	@echo; sed -n '2,4s/^# *//p' $(MAKEFILE_LIST)

$(VENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13. Name one that is: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "creating .venv (about two minutes, 5 GB)" >&2
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

ablation-xvar: $(VENV) ## study A: the decoder's variance, 5 values and a learned one x 10 seeds
	@$(RUN_PY) xvar $(SETTINGS)

ablation-labels: $(VENV) ## study A: which networks receive the label, and how often it is repeated
	@$(RUN_PY) labels $(SETTINGS)

table-beta: $(VENV) ## study B: beta and z_dim on CIFAR-10 (DATASET=photos needs no download)
	@$(RUN_PY) beta $(SETTINGS)

bugs: $(VENV) ## what a VAE with each of the classic bugs looks like, on digits and on photographs
	@$(RUN_PY) bugs $(SETTINGS)
	@$(RUN_PY) bugs_photos $(SETTINGS)

claims: $(VENV) ## checks each claim of the two studies (DATASET=mnist,cifar10 for the studies' own data)
	@$(PY) -m experiments.claims $(SETTINGS)

sweep: $(VENV) ## a quick tour of study A, in a few minutes
	@$(RUN_PY) -m sweep $(SETTINGS)

train: $(VENV) ## trains one model
	@$(RUN_PY) $(DATA) $(ARGS)

evaluate: $(VENV) ## computes metrics that are missing or outdated; with RUN= and DATASET=, tests a model on other data
	@$(PY) -m $(if $(RUN),experiments.launch.measure "$$RUN" $(DATA),experiments.evaluate) $(ARGS)

report: $(VENV) ## builds the report of EXPERIMENT (or xvar) from the runs that exist
	@$(PY) -m experiments.collect $(or $(EXPERIMENT),xvar) $(ARGS)

browse: $(VENV) ## writes the page of all experiments and runs, outputs/index.html
	@$(PY) -m experiments.browse

docs: $(VENV) ## regenerates docs/settings.md, docs/metrics.md and docs/parts.md
	@$(PY) -m experiments.docs

texts: $(VENV) ## writes every text that the project can produce to build/texts.md, to be read in one go
	@$(PY) -m pytest -q -n 2 --dist loadfile -p tests.texts

test: $(VENV) ## runs the tests, under five minutes
	@$(PY) -m pytest -q -n 2 --dist worksteal

test-all: $(VENV) ## runs all tests, the slow ones too
	@$(PY) -m pytest -q -n 2 --dist worksteal -m ''

torture: $(VENV) ## kills a sweep a hundred times and compares it with an uninterrupted one
	@$(PY) -m pytest -q -s -m slow tests/test_torture.py

bench: $(VENV) ## measures speed: outputs/reports/benchmark/report.md
	@$(PY) -m experiments.bench $(ARGS)

lint: $(VENV) ## checks style (ruff), types (pyright) and the direction of imports
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright && .venv/bin/lint-imports --no-logo

clean: ## removes caches, not results
	@rm -rf .pytest_cache .ruff_cache build *.egg-info outputs/.cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
