# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

# a worker a core; each takes files in a row, for which fixtures of a file are made once
PARALLEL = -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow lint format docs bench clean

demo: $(STAMP)
	$(BIN)/python pipelines/demo.py --output demo $(if $(MODEL),--model $(MODEL))

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow"

lint: $(STAMP)
	$(BIN)/black --check --quiet r2d2_kapture tests pipelines benchmarks docs bin/*
	$(BIN)/isort --check --quiet r2d2_kapture tests pipelines benchmarks docs bin/*
	$(BIN)/flake8 r2d2_kapture tests pipelines benchmarks docs bin/*
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/isort --quiet r2d2_kapture tests pipelines benchmarks docs bin/*
	$(BIN)/black --quiet r2d2_kapture tests pipelines benchmarks docs bin/*

# no network is needed: fonts and scripts come with the theme
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml
	@echo "open build/docs/index.html"

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

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@
