# make run | test | faults | check | audit | bench | install | clean | help
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough; `make PYTHON=/path/to/python3.12 …` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v $$p; break; }; done)
PYTEST_ARGS ?=
# Processes that run tests side by side: one for each processor, four at most; one on a cluster that they would share.
TESTERS ?= $(if $(FHIR_SCHED_TEST_URL),1,$(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 4 ? 4 : n))))

.PHONY: help install run test faults check audit format bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

install: $(VENV)/installed ## create .venv and install (again only when pyproject.toml or constraints.txt changed)

# What tests and checks need besides is installed by the first of them.
$(VENV)/installed $(VENV)/installed-dev: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "fhir-sched needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(if $(filter %-dev,$@),[dev])'
	@touch $(VENV)/installed $@

run: install ## serve on http://127.0.0.1:8080 with an embedded PostgreSQL and demo data; EVENTS=1 prints events
	@FHIR_SCHED_AUTH=$${FHIR_SCHED_AUTH:-open} $(if $(EVENTS),FHIR_SCHED_SINKS=$${FHIR_SCHED_SINKS:-stdout:}) exec $(BIN)/fhir-sched serve --demo

test: $(VENV)/installed-dev ## the whole test suite; PYTEST_ARGS="tests/sql -k overlap" runs a part of it
ifeq ($(strip $(PYTEST_ARGS)),)
	@received=$$(mktemp -d); trap 'rm -rf "$$received"' EXIT; export RECEIVED_ANSWERS="$$received"; failed=0; \
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile -m "not alone" || failed=$$?; \
	$(BIN)/python -m pytest -m alone || failed=$$?; \
	exit $$failed
else
	$(BIN)/python -m pytest $(PYTEST_ARGS)
endif

faults: $(VENV)/installed-dev ## kill server, PostgreSQL and relays hundreds of times under load, and more; an hour
	FHIR_SCHED_FAULTS=long $(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

check: $(VENV)/installed-dev ## format, lint, types, import layers, security, generated files current
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	$(BIN)/python tools/audit.py --if-reachable
	@for generator in tools/generated.py tools/documents.py tools/database.py; do test ! -e $$generator || $(BIN)/python $$generator --check || exit 1; done

audit: $(VENV)/installed-dev ## known vulnerabilities of the pinned dependencies; fails where nobody can be asked
	$(BIN)/python tools/audit.py

format: $(VENV)/installed-dev ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed-dev ## benchmarks, each figure beside the same SQL in pgbench
	$(BIN)/python -m bench
	$(BIN)/python -m bench.events

clean: ## remove .venv and everything that was made here (not the data of the embedded PostgreSQL)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
