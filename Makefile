# make help lists what there is.
.DEFAULT_GOAL := help
PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test lint unit servers soak lab bench lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run ## install, serve the sample on 127.0.0.1:$(PORT), print what to ask
	@OSCAR_SERVICE_PORT=$(PORT) exec $(BIN)/python -m examples.run

test: lint servers unit ## everything: linters, types, and all tests on real servers

lint: $(VENV)/.test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

servers: $(VENV)/.test ## build the real servers the tests start (needs Go, Maven, Java; cached by version)
	$(BIN)/python -m tests.servers build

unit: $(VENV)/.test
	$(BIN)/python -m pytest -q

soak: $(VENV)/.test servers ## all toxics before all upstreams, half an hour; faults that come and go, an hour
	OSCAR_TOXICS=full OSCAR_SOAK_SECONDS=$${OSCAR_SOAK_SECONDS:-3600} \
	  OSCAR_SOAK_SEED=$${OSCAR_SOAK_SEED:-$$(date +%s)} \
	  $(BIN)/python -m pytest -q tests/toxics tests/soak

lab: $(VENV)/.test servers ## the real servers, filled with the sample, and ours before them
	@PORT=$(PORT) exec $(BIN)/python -m tests.lab

bench: $(VENV)/.test servers ## every figure, side by side; some twenty minutes
	$(BIN)/python -m bench

# Hashes and no addresses: pip finds the files wherever it is told to look.
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header
lock: $(VENV)/.test ## re-lock the dependencies after a change of pyproject.toml
	$(LOCK) --extra build --extra redis pyproject.toml -o requirements.lock
	$(LOCK) --extra build --extra redis --extra test -c requirements.lock pyproject.toml -o requirements-test.lock

clean: ## remove what was installed here
	rm -rf $(VENV)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	       "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.lock
	@touch $@
