# Humans and CI call the same targets; `make` alone lists them.

PYTHON ?= python3
PORT ?= 8000
ARGS ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help install serve test check bench
.DELETE_ON_ERROR:

help:
	@echo 'make install   Pagoda and its built-in models, in .venv and PAGODA_HOME'
	@echo 'make serve     the API and the chat page on http://127.0.0.1:$(PORT); PORT=9000 chooses another port'
	@echo 'make test      all tests; ARGS="tests/unit -k chat" chooses some, PAGODA_REQUIRE=all forbids skipping,'
	@echo '               WORKERS=0 runs them in one process'
	@echo 'make check     formatting, lint, types, and that each storey stands only on those below'
	@echo 'make bench     the benchmarks; ARGS="--help" lists them'
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter that .venv is made with.'

# The models are looked at every time: a file that was lost or broken is fetched again, the rest takes two seconds.
install: $(VENV)/.serving
	@$(BIN)/pagoda models pull --builtin

serve: install
	@$(BIN)/pagoda serve --port $(PORT) $(ARGS)

test: install $(VENV)/.development
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/.development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install $(VENV)/.development
	$(BIN)/python -m benchmarks $(ARGS)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Pagoda needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	@touch $@

$(VENV)/.serving: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing Pagoda into $(VENV); this takes a minute.'
	$(PIP) -e .
	@touch $@

$(VENV)/.development: $(VENV)/.serving pyproject.toml constraints.txt
	@echo 'Installing what tests and training need, PyTorch among it; this takes some minutes.'
	$(PIP) -e '.[dev,train]'
	@touch $@
