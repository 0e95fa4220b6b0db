# Two commands do everything: `make demo` and `make test`. Each one makes its own environment first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The first Python on the path that will do; failing that python3, and setup.py says what is wrong with it.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(or $(shell for name in python3 python3.12 python3.13 python3.11; do \
	"$$name" -c '$(FITS)' 2>/dev/null && echo "$$name" && break; done),python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help demo test chaos chaos-long check format docs lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.ready ## the whole pipeline on this machine: devices, modules, storage, faults, a verdict
	@$(BIN)/edgeweir demo $(ARGS)

test: $(VENV)/.ready ## every test, on two processes; ARGS="-n 0 tests/scorer" for a part of them
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

chaos: $(VENV)/.ready ## ten minutes of breaking everything, judged row by row; ARGS="--only uploader --seed 7"
	@$(BIN)/python -m tests.chaos $(ARGS)

chaos-long: $(VENV)/.ready ## the same for two hours, then every system call and every sync; ARGS="--minutes 600"
	@$(BIN)/python -m tests.chaos --minutes 120 $(ARGS)
	@$(BIN)/python -m tests.chaos.syscalls
	@$(BIN)/python -m tests.chaos.power_cuts --seeds 200

check: $(VENV)/.ready ## format, lint, types, and each distribution imported alone
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python requirements/import_alone.py

format: $(VENV)/.ready ## let ruff lay out the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.ready ## write the generated pages again
	@$(BIN)/python requirements/reasons_page.py
	@$(BIN)/python -m tests.chaos.page $(ARGS)

lock: ## write the hash-pinned requirements again, with the newest versions allowed
	@rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip -q install uv
	@build/lock/bin/python requirements/lock.py

$(VENV)/.ready: pyproject.toml requirements/dev.txt requirements/setup.py $(wildcard */pyproject.toml */*/pyproject.toml) simulator/azurite/package-lock.json
	@command -v $(PYTHON) >/dev/null || { echo "edgeweir: no $(PYTHON) here; install Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@$(PYTHON) requirements/setup.py $(VENV)

clean: ## remove everything that was made here
	rm -rf $(VENV) build .work .mypy_cache .ruff_cache .pytest_cache .hypothesis config
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
