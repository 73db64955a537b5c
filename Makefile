# make run    the proxy in front of a demo model server, until Ctrl-C
# make test   all tests; what needs a program that is not installed is left out, and named at the end
# make lint   ruff, mypy, hadolint
# make bench  what the proxy costs, compared with nginx
# make clean  remove what these made
#
# Everything is installed into .venv, and again only when pyproject.toml has changed.

PYTHON ?= python3
PYTEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --editable
SOURCES := proxy policies bench scripts tests

.PHONY: help run test lint bench clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make /make /p' Makefile

run: $(VENV)/.run
	@exec $(BIN)/python scripts/run_demo.py config.example.toml

test: $(VENV)/.test
	$(BIN)/python -m pytest -rs $(PYTEST_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy proxy policies bench scripts
	$(BIN)/hadolint Dockerfile

bench: $(VENV)/.bench
	$(BIN)/python -m bench.redaction
	$(BIN)/python -m bench.chain
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

# Stamps: .made once the environment exists, one more for each set of extras that was installed into it.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Penstock needs Python 3.11 or newer, which $(PYTHON) is not. Name one: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: pyproject.toml $(VENV)/.made
	$(PIP) ".[fast]"
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.made
	$(PIP) ".[fast,test]"
	@touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.made
	$(PIP) ".[bench,fast]"
	@touch $@

$(VENV)/.lint: pyproject.toml $(VENV)/.made
	$(PIP) ".[bench,fast,test,lint]"
	@touch $@
