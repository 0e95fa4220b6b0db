# Two commands do everything: `make demo` and `make test`. Each one makes its own environment first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach name,python3.12 python3.13 python3.11 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help demo test check format lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.ready ## the whole pipeline on this machine: devices, modules, storage, faults, a verdict
	@$(BIN)/edgeweir demo $(ARGS)

test: $(VENV)/.ready ## every test
	@$(BIN)/pytest $(ARGS)

check: $(VENV)/.ready ## format, lint, types, and each distribution imported alone
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python requirements/import_alone.py

format: $(VENV)/.ready ## let ruff lay out the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: ## write the hash-pinned requirements again, with the newest versions allowed
	@rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip -q install uv
	@build/lock/bin/python requirements/lock.py

$(VENV)/.ready: pyproject.toml requirements/dev.txt requirements/setup.py $(wildcard */pyproject.toml */*/pyproject.toml) simulator/azurite/package-lock.json
	@if [ -z "$(PYTHON)" ]; then echo "edgeweir: no Python found; install Python 3.11, 3.12 or 3.13 and run make again" >&2; exit 1; fi
	@$(PYTHON) requirements/setup.py $(VENV)

clean: ## remove everything that was made here
	rm -rf $(VENV) build .work .mypy_cache .ruff_cache .pytest_cache .hypothesis config
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
