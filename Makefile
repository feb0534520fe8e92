# The two commands a newcomer needs are `make up` and `make test`; both make .venv first if it is missing or outdated.
# `make help` lists the rest. PYTHON chooses the interpreter, ARGS adds arguments to up, test, test-all and bench.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
# One process more than cores, because tests wait for disks and children; no more than their servers leave room for.
PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(PY) -m pytest --numprocesses $(PROCESSES) --maxprocesses 4 --dist worksteal
# --universal: one lock for every supported platform and Python. Neither index nor folder of packages leaves a trace.
COMPILE := $(PY) -m uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help up test test-all bench real-import check format docs lock install clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

up: $(INSTALLED)  ## start orgstead with demo data in ./orgstead-data
	$(PY) -m orgstead up --demo $(ARGS)

test: $(INSTALLED)  ## run the tests; long suites run a sample
	$(PYTEST) $(ARGS)

test-all: export ORGSTEAD_TEST_ALL = 1
test-all: $(INSTALLED)  ## run the tests, long suites whole
	$(PYTEST) $(ARGS)

bench: $(INSTALLED)  ## measure speed: a table, and JSON under bench/results
	$(PY) -m bench $(ARGS)

real-import: $(INSTALLED)  ## import the real lists into a fresh database and hold the result against them
	$(PY) -m bench.real_records $(ARGS)

check: $(INSTALLED)  ## lint, format, types, security and the project's own rules
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy --strict
	$(PY) -m bandit --quiet --configfile pyproject.toml --recursive src
	$(PY) -m pytest --quiet tests/test_project.py tests/test_project_rules.py

format: $(INSTALLED)  ## format the code and mend what the linter can mend
	$(PY) -m ruff check --fix --exit-zero --quiet
	$(PY) -m ruff format

docs: $(INSTALLED)  ## write the reference pages under docs/ from the code
	$(PY) docs/generate.py

lock: $(INSTALLED)  ## write the lock files from pyproject.toml (UPGRADE=--upgrade takes newer versions)
	$(COMPILE) pyproject.toml --all-extras --output-file requirements.lock
	$(COMPILE) pyproject.toml --all-extras --group dev --constraints requirements.lock --output-file requirements-dev.lock
	$(COMPILE) --group build --constraints requirements-dev.lock --output-file requirements-build.lock

install: $(INSTALLED)  ## make or refresh .venv and nothing else

clean:  ## remove .venv and every cache; data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis build dist
	find src tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} +

# A venv whose interpreter is gone is a dangling link, which make sees as missing, and is made anew.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "orgstead needs Python 3.11 or newer: install it, or name one with 'make PYTHON=/path/to/python3'." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python cannot make virtual environments here: run 'apt-get install python3-venv' and try again." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

# Written last, so that an interrupted installation is taken up again.
$(INSTALLED): $(PY) requirements-dev.lock pyproject.toml
	$(PIP_INSTALL) --require-hashes --only-binary :all: --requirement requirements-dev.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(PY) -m compileall -q src  # pip compiles what it copies; where Python may not write, each start would compile
	@touch $@
