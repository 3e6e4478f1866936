# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

# a worker a core; each takes files in a row, for which fixtures of a file are made once
PARALLEL = -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow lint format bench clean

demo: $(STAMP)
	$(BIN)/python pipelines/demo.py --output demo $(if $(MODEL),--model $(MODEL))

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow"

lint: $(STAMP)
	$(BIN)/black --check --quiet r2d2_kapture tests pipelines benchmarks bin/*
	$(BIN)/isort --check --quiet r2d2_kapture tests pipelines benchmarks bin/*
	$(BIN)/flake8 r2d2_kapture tests pipelines benchmarks bin/*
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/isort --quiet r2d2_kapture tests pipelines benchmarks bin/*
	$(BIN)/black --quiet r2d2_kapture tests pipelines benchmarks bin/*

bench: $(STAMP)
	$(BIN)/python benchmarks/extract_speed.py

clean:
	rm -rf $(VENV) demo build *.egg-info

# torch comes first and alone: the constraint names the build that was tested
$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,lint]'
	touch $(STAMP)
