# reproduce: install and run the default experiment.  test: install and run the tests.
# test-all: also the slow ones, and the small experiment on a Slurm of one node, where there is one.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed
PEER := $(VENV)/peer

.PHONY: reproduce test test-all lint clean

reproduce: $(INSTALLED)
	$(VENV)/bin/snakemake --cores all

test: $(INSTALLED) $(PEER)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" $(PYTEST_OPTIONS)

# The Slurm takes all cores for minutes, so that it runs after the others; what fails in its daemons and
# not in the workflow passes at the second attempt.
test-all: test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m slow --ignore tests/slurm $(PYTEST_OPTIONS)
	$(VENV)/bin/python -m pytest tests/slurm $(PYTEST_OPTIONS) || \
	    $(VENV)/bin/python -m pytest tests/slurm --last-failed $(PYTEST_OPTIONS)

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
