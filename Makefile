# `make reproduce`: install, run the default suite, show its tables. `make test`: install, run the tests.
# SUITE=NAME builds another suite. BCD_MIRROR=DIR takes dataset archives from a folder first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SUITE ?= $(shell sed -n 's/^suite: *//p' params/suite.yaml)

export PATH := $(abspath $(BIN)):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export PYTHONUNBUFFERED := 1
# Every job is a process of its own; where bytecode may not be written, each compiles 2000 modules again, for 8 seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install reproduce test lint ui clean

help:
	@echo 'make reproduce  install, build every table of the default suite (SUITE=$(SUITE)), show them'
	@echo 'make test       install, run the test suite'
	@echo 'make ui         open the MLflow UI on 127.0.0.1:5000'
	@echo 'make lint       ruff, snakefmt, snakemake --lint'
	@echo 'make clean      remove the environment (results and data stay)'

# The stamp holds the lock's hash, so a changed lock, and nothing else, installs again.
install:
	@workflow/scripts/install.sh $(PYTHON) $(VENV)

reproduce: install
	snakemake --config suite=$(SUITE)
	@bcd tables --suite $(SUITE) --show

test: install
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15 tests

ui: install
	bcd track --ui

lint: install
	ruff check bcd tests benchmarks
	ruff format --check bcd tests benchmarks
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

clean:
	rm -rf $(VENV)
