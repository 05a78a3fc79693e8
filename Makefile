# make demo   set everything up and run up, probe, bench, report on the embedded engine
# make test   set everything up and run the tests
# make check  format, lint and types
# make bench  the client's own overhead, measured against plain Locust and asyncio (tests/overhead)
# make fault-table  what each fault does, anew into docs/reliability.md
# make chaos  random faults, commands and signals for ten minutes (tests/chaos; SEED=N repeats one)
# make test-all   the tests on every Python found here, the larger container tests, and chaos

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Test processes side by side; most tests wait for a service or for a clock, so one more than a small machine has cores.
JOBS   ?= 3

.PHONY: install demo test check bench fault-table chaos test-all clean

install: $(VENV)/.installed

# What the tool itself needs is enough for the demo, and there sooner.
$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "harness needs Python 3.10 or newer; name one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.runtime
	$(BIN)/harness demo

test: install
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m tests.overhead

# What each fault does, anew into docs/reliability.md: some ten minutes.
fault-table: install
	$(BIN)/python -m tests.chaos --table docs/reliability.md

chaos: install
	HARNESS_FUZZ=4 $(BIN)/python -m pytest -n $(JOBS) tests/test_broken_files.py tests/test_broken_books.py \
		tests/engines/test_hostile_answers.py tests/catalog/test_hub_damage.py
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --minutes 7
	$(BIN)/python -m tests.chaos.signals $(if $(SEED),--seed $(SEED)) --minutes 2

test-all: install
	$(BIN)/python -m tests.matrix
	$(MAKE) chaos

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
