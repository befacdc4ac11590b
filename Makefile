# `make reproduce`: install, run the default suite, show its tables. `make test`: install, run the tests.
# SUITE=NAME builds another suite. BCD_MIRROR=DIR takes dataset archives from a folder first.
# PYTHON=/path/to/python3 chooses the interpreter; by default it is the newest of 3.11 to 3.14 on PATH.

PYTHON ?=
VENV := .venv
SUITE ?= $(shell sed -n 's/^suite: *//p' params/suite.yaml)

# Not $(abspath ...), which splits a folder's name at its blanks.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export PYTHONUNBUFFERED := 1
# Every job is a process of its own; where bytecode may not be written, each compiles 2000 modules again, for 8 seconds.
unexport PYTHONDONTWRITEBYTECODE

# Snakemake wants a cache even where the home cannot be written.
ifneq ($(shell [ -w "$$HOME" ] && echo yes),yes)
export XDG_CACHE_HOME ?= $(CURDIR)/.snakemake/cache
endif

.PHONY: help install reproduce test docs lint lock ui clean

help:
	@echo 'make reproduce  install, build every table of the default suite (SUITE=$(SUITE)), show them'
	@echo 'make test       install, run the test suite'
	@echo 'make docs       install, build the site of the pages, the API and the reference results in site/'
	@echo 'make ui         open the MLflow UI on 127.0.0.1:5000'
	@echo 'make lint       ruff, snakefmt, snakemake --lint, mypy'
	@echo 'make lock       requirements.lock again after a change of pyproject.toml; pins that still fit stay'
	@echo 'make clean      remove the environment (results and data stay)'

# A changed lock, another Python or a moved folder installs again; nothing else does.
install:
	@workflow/scripts/install.sh '$(VENV)' '$(PYTHON)'

reproduce: install
	@[ -e .snakemake ] || echo "Snakemake's first start is slow, as Python compiles some thousand modules; then each job has a line"
	snakemake --config suite=$(SUITE)
	@bcd tables --suite $(SUITE) --show

test: install
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15 tests

ui: install
	bcd track --ui --suite $(SUITE)

# Material would print a notice about the future of MkDocs, and has this name for not doing so.
docs: install
	NO_MKDOCS_2_WARNING=true mkdocs build --strict
	@echo 'open site/index.html'

# The hooks of .pre-commit-config.yaml are these lines.
lint: install
	ruff check bcd tests benchmarks workflow
	ruff format --check bcd tests benchmarks workflow
	snakefmt --check Snakefile workflow/rules
	snakemake --lint
	mypy bcd

# One lock for every Python and platform, without the name of an index. Pins stay, as uv reads the lock that is there;
# UPGRADE=--upgrade renews all of them, and UPGRADE='--upgrade-package torch' one.
lock: install
	PATH="$$PATH:$(VENV)/bootstrap/bin" uv pip compile pyproject.toml --extra suite --extra dev --extra docs --extra weights \
	    --extra chip --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --quiet $(UPGRADE) -o requirements.lock

clean:
	rm -rf '$(VENV)'
