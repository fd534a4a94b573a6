# The commands of a contributor; `make` alone lists them.
# Everything is installed into .venv from the lock files in requirements/; PYTHON=... picks another interpreter.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
KUBE_VERSION ?= v1.37.2
KUBE_TOOLS ?= $(HOME)/.cache/podidentity/kube/$(KUBE_VERSION)
.DEFAULT_GOAL := help
.PHONY: help demo test test-kube check fix lock kube-tools clean

help:  ## List the commands.
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: .venv/demo  ## Show the main job end to end on this machine (DEMO="--keep" and the like are passed on).
	@$(BIN)/podidentity demo $(DEMO)

test: .venv/test  ## Run all tests but those that need a real kube-apiserver (T="-k informer" and the like are passed on).
	$(PYTEST) -m "not kube" $(T)

test-kube: .venv/test kube-tools  ## Run the tests that need a real kube-apiserver.
	PODIDENTITY_KUBE_ASSETS=$(KUBE_TOOLS) $(PYTEST) -m kube $(T)

check: .venv/test  ## Lint, format check, types, architecture.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: .venv/test  ## Mend what ruff can mend, and format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/test  ## Pin the newest versions of all dependencies anew.
	$(BIN)/pip install --quiet uv
	for extra in demo test; do $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
	    --extra $$extra pyproject.toml requirements/build.in -o requirements/$$extra.txt; done

kube-tools:  ## Build etcd, kube-apiserver and kubectl into a cache outside the clone, once (needs Go).
	@tests/tools/kube-tools.sh $(KUBE_VERSION) $(KUBE_TOOLS) etcd kube-apiserver kubectl

clean:  ## Remove what the other commands made inside the clone.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

.venv/demo .venv/test: .venv/%: requirements/%.txt pyproject.toml | .venv/bin/python
	@echo "Installing what is needed for '$*' into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$*.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "Python 3.11 or newer is needed; $(PYTHON) is not (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "$(PYTHON) cannot make environments here: install its venv module (Debian: apt install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv .venv
