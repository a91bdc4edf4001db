# The two commands of the README are `make demo` and `make test`; both make the environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What is installed: EXTRAS=dev,embed adds the sentence encoder and PyTorch, which are large.
EXTRAS ?= dev
# More arguments for pytest: make test ARGS="-m 'not slow'"
ARGS ?=

# With it every process, and tests start many, would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env demo test whole lint types bench html wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

env: $(VENV)/.installed ## make the environment in .venv; PYTHON=python3.12 chooses another Python

# The stamp stands only while the environment is whole: an interrupted one is made anew.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(not (3, 11) <= v <= (3, 13) and \
	    "cqbayes needs Python 3.11 to 3.13, found %d.%d: try make PYTHON=python3.12" % v)'
	@if [ -e $@ ]; then rm $@; \
	elif [ -e $(VENV)/pyvenv.cfg ]; then $(PYTHON) -m venv --clear $(VENV); \
	else $(PYTHON) -m venv $(VENV); fi
	@echo "installing into $(VENV): a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: env ## the whole loop; the report is out/demo/report.html
	$(BIN)/cqbayes demo --out out/demo

# Compiled programs are kept on disk, small ones too: test modules and processes share many of them.
COMPILED := JAX_COMPILATION_CACHE_DIR=$(abspath $(VENV))/compiled \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=0
# One part of the whole: make whole PART=3/16
PART ?=

test: env ## the tests, on two cores, warnings as errors
	$(COMPILED) $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

whole: env ## what make test leaves out: the longest tests, analyses at their smallest, the wheel
	$(COMPILED) $(BIN)/python -m pytest -n 2 --dist loadgroup -m "long or analysis or wheel" \
	  $(if $(PART),--part $(PART)) $(ARGS)

lint: env ## ruff: lint and format, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env ## pyright
	$(BIN)/pyright

bench: $(VENV)/.bench ## both benchmarks, against rivals that it installs
	$(BIN)/python analyses/benchmarks/simulator.py
	$(BIN)/python analyses/benchmarks/posterior.py

$(VENV)/.bench: $(VENV)/.installed
	@echo "installing the rivals of the benchmarks into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e '.[dev,bench]'
	@touch $@

NAME ?= bursty_arrivals
html: $(VENV)/.notebooks ## an analysis, executed: make html NAME=hmc_or_vi ARGS=--smoke writes out/html/
	$(BIN)/python analyses/export/to_html.py $(NAME) $(ARGS)

$(VENV)/.notebooks: $(VENV)/.installed
	@echo "installing what executes notebooks into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e '.[dev,notebooks]'
	@touch $@

wheel: env ## source distribution and wheel, in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean: ## remove the environment and all that was made
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find cqbayes models data tests analyses -name __pycache__ -prune -exec rm -rf {} +
