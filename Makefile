# reproduce: install and run the default experiment.  test: install and run the tests.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed

.PHONY: reproduce test lint clean

reproduce: $(INSTALLED)
	$(VENV)/bin/snakemake --cores all

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(PYTEST_OPTIONS)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check scripts tests benchmarks
	$(VENV)/bin/ruff format --check scripts tests benchmarks
	$(VENV)/bin/snakefmt --check workflow
	$(VENV)/bin/snakemake --lint

# torch first: the others must find the pinned one installed.
$(INSTALLED): pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint envs/constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --constraint envs/constraints.txt --editable ".[test,cluster]"
	touch $@

clean:
	rm -rf $(VENV)
