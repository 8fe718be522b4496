# reproduce: install and run the default experiment.  test: install and run the tests.
# test-all: also the slow ones, and the small experiment on a Slurm of one node, where there is one.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed
PEER := $(VENV)/peer
PYTEST := $(VENV)/bin/python -m pytest

.PHONY: reproduce test test-all lint clean

reproduce: $(INSTALLED)
	$(VENV)/bin/snakemake --cores all

test: $(INSTALLED) $(PEER)
	$(PYTEST) -n 2 --dist loadfile -m "not slow" $(PYTEST_OPTIONS)

# The Slurm takes all cores for minutes, so that it runs after the others; what fails in its daemons and
# not in the workflow passes at the second attempt. All share one finished run.
test-all: $(INSTALLED) $(PEER)
	finished=$$(mktemp -d) && trap 'rm -rf "$$finished"' EXIT && export IFGUIDE_FINISHED="$$finished" && \
	$(PYTEST) -n 2 --dist loadfile --ignore tests/slurm $(PYTEST_OPTIONS) && \
	{ $(PYTEST) tests/slurm $(PYTEST_OPTIONS) || $(PYTEST) tests/slurm --last-failed $(PYTEST_OPTIONS); }

lint: $(INSTALLED)
	$(VENV)/bin/ruff check benchmarks scripts tests
	$(VENV)/bin/ruff format --check benchmarks scripts tests
	$(VENV)/bin/snakefmt --check workflow
	$(VENV)/bin/snakemake --lint

# torch first: the others must find the pinned one installed.
$(INSTALLED): pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint envs/constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --constraint envs/constraints.txt --editable ".[test,cluster]"
	touch $@

# What the tests and benchmarks compare with; it demands torchvision, which it never imports.
$(PEER): $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --constraint envs/constraints.txt --editable ".[benchmark]"
	$(VENV)/bin/python -m pip install --quiet --constraint envs/constraints.txt --no-deps kronfluence
	touch $@

clean:
	rm -rf $(VENV)
