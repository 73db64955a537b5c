# make run    the proxy in front of a demo model server, until Ctrl-C
# make test   all tests; what needs a program that is not installed is left out, and named at the end
# make lint   ruff, mypy, hadolint
# make bench  what the proxy costs, compared with nginx and the peers that are installed; docs/bench.md
# make bench-check      whether it costs more than the reference, bench/reference.json, says
# make bench-reference  make a new reference, and the plot of the README
# make bench-peers      install the peers that Debian does not have, into bench/.cache
# make clean  remove what these made
#
# Everything is installed into .venv, and again only when pyproject.toml has changed.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --editable
SOURCES := proxy policies bench scripts tests

PEERS := bench/.cache

.PHONY: help run test lint bench bench-check bench-reference bench-peers clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make /make /p' Makefile

run: $(VENV)/.run
	@exec $(BIN)/python scripts/run_demo.py config.example.toml

test: $(VENV)/.test
	$(BIN)/python -m pytest -rs --numprocesses logical --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy proxy policies bench scripts
	$(BIN)/hadolint Dockerfile

bench: $(VENV)/.bench
	$(BIN)/python -m bench.redaction
	$(BIN)/python -m bench.chain
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-check: $(VENV)/.bench
	$(BIN)/python -m bench --check $(BENCH_ARGS)

bench-reference: $(VENV)/.bench
	$(BIN)/python -m bench --save-reference $(BENCH_ARGS)

bench-peers: $(PEERS)/litellm/.made $(PEERS)/envoy/.made $(PEERS)/portkey/.made

$(PEERS)/litellm/.made $(PEERS)/envoy/.made: $(PEERS)/%/.made: bench/peers-%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet -r $<
	@touch $@

$(PEERS)/portkey/.made: bench/peers-portkey.json
	mkdir -p $(@D)
	cp $< $(@D)/package.json
	npm install --prefix $(@D) --no-audit --no-fund --ignore-scripts
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info $(PEERS) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
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

$(VENV)/.bench: pyproject.toml $(VENV)/.made
	$(PIP) ".[bench,fast,redis]"
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.made
	$(PIP) ".[fast,test]"
	@touch $@

$(VENV)/.lint: pyproject.toml $(VENV)/.made
	$(PIP) ".[bench,fast,test,lint]"
	@touch $@
