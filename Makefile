# make demo    train and compare six families of processes on real data; the report is runs/demo/report.html
# make bench   measure genmatch beside its peers
# make gallery draw the pictures of docs/gallery that are out of date
# make test    lint, types, layers, all tests, documentation
#
# PYTHON picks the interpreter that makes the environment (3.11 or later), VENV where it goes, OUT where the demo writes,
# FAMILIES what it compares (`genmatch list` knows all).

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
BIN := $(VENV)/bin
JOBS ?= 2
FAMILIES ?= flow diffusion jump flow+jump mask uniform

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1


.DEFAULT_GOAL := help
.PHONY: help demo test lint docs gallery bench clean

help:
	@echo 'make demo    train and compare processes on real data; writes $(OUT)'
	@echo 'make test    lint, types, layers, all tests, documentation'
	@echo 'make lint    ruff, mypy and import-linter only'
	@echo 'make bench   measure genmatch beside its peers; writes docs/_data, which docs/benchmarks.md shows'
	@echo 'make gallery draw the pictures of the documentation that are out of date'
	@echo 'make docs    build the documentation into docs/_build/html'
	@echo 'make clean   remove what the other targets made, but not $(VENV) and runs/'

# Set-up. A stamp file for each set of extras: nothing is installed again before pyproject.toml or constraints.txt changes.

$(BIN)/python:
	@echo '== environment in $(VENV)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or later is needed; pass make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.%-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo '== installing genmatch[$*] (minutes the first time: torch is large)'
	@$(BIN)/python -m pip install -qq --progress-bar off -c constraints.txt torch -e '.[$*]'
	@touch $@

SETUP_DEMO := $(VENV)/.plot,data-installed
SETUP_DEV := $(VENV)/.dev-installed

# The main job.

demo: $(SETUP_DEMO)
	@echo '== comparing $(FAMILIES); stop it at any time, the same command goes on'
	@$(BIN)/genmatch compare --out $(OUT) $(foreach family,$(FAMILIES),--process $(family))

# Checks.

lint: $(SETUP_DEV)
	@echo '== ruff'
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo '== mypy'
	@$(BIN)/mypy --no-error-summary
	@echo '== import-linter'
	@$(BIN)/lint-imports

test: lint
	@echo '== tests, slow ones too'
	@$(BIN)/pytest -q -n $(JOBS)
	@$(MAKE) --no-print-directory docs
	@echo '== all passed'

docs: $(SETUP_DEV)
	@echo '== documentation'
	@$(BIN)/sphinx-build -q -n -W --keep-going -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

gallery: $(SETUP_DEV)
	@$(BIN)/python docs/gallery/make.py

# Benchmarks: each script alone does the same, and writes nothing without --json.

BENCHMARKS := quality_continuous quality_discrete overhead stiff likelihood couplings endpoints few_step

bench: $(VENV)/.bench-installed
	@for name in $(BENCHMARKS); do echo "== $$name"; OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$name.py --json docs/_data/$$name.json || exit 1; done

clean:
	rm -rf docs/_build build dist *.egg-info .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find genmatch tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
