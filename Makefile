# Every target sets up what it needs; a second call skips the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Hundreds of short processes import the same modules: without bytecode each compiles them again.
unexport PYTHONDONTWRITEBYTECODE
BASE ?= HEAD
UNIT_TESTS := $(addprefix tests/, test_architecture.py test_changed_cases.py test_codec.py test_doors.py test_manifests.py \
	test_proof_table.py test_protocol.py test_settings_file.py test_tampering.py test_tokenizer.py units \
	memory/test_rooms.py memory/test_memory_allocator.py memory/test_memory_budget.py memory/test_memory_replay.py \
	memory/test_memory_verdict.py trainers/test_imports.py)
# `make outside PATH=folder` would take the search path for programs from every recipe: it is that of make's own start.
ifeq ($(origin PATH),command line)
FOLDER := $(PATH)
override PATH := $(or $(shell /bin/sed -z -n 's/^PATH=//p' /proc/$$PPID/environ),/usr/local/bin:/usr/bin:/bin)
endif

.PHONY: preflight test check coverage lint bench proof catalogue docs torch-versions pytest-versions outside clean

preflight: $(READY)  ## the catalogue and the post-mortem's pre-launch checks against the repository's own trainers, and whether they fit an A100
	$(BIN)/pytest -n 2 -m preflight --gpu-budget a100-40gb tests/prelaunch

test: $(READY)  ## the project's own tests
	$(BIN)/pytest -n 2 --dist worksteal

check: lint  ## for the minutes between: style, types, quick tests, the proof of the cases that differ from BASE
	$(BIN)/pytest -n 2 -q $(UNIT_TESTS)
	$(BIN)/pytest -n 2 -q tests/test_proof.py -k "$$($(BIN)/python -m tests.changed_cases $(BASE))" || test $$? -eq 5

coverage: $(READY)  ## the tests again, with branch coverage of the forked runs too (slow)
	$(BIN)/pytest -n 2 --cov --cov-config=tests/children.coveragerc --cov-report=term

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proof: $(READY)  ## every case against its saboteurs and the sound programs; a table of them at the end
	$(BIN)/pytest -n 2 tests/test_proof.py

catalogue: $(READY)  ## edge_cases/README.md and docs/cases/ anew, from the cases
	$(BIN)/python -m pytest_trainguard.catalog > edge_cases/README.md
	$(BIN)/python -m pytest_trainguard.case_pages docs/cases

docs: $(READY)  ## the documentation, into site/; a broken link is an error
	$(BIN)/zensical build --clean --strict

bench: $(READY)  ## the project's figures, as ratios in one run
	$(BIN)/python -m benchmarks.bench

torch-versions: $(READY)  ## the memory prediction on the oldest and the newest torch (downloads gigabytes)
	$(BIN)/python -m tests.torch_versions

pytest-versions: $(READY)  ## the plugin on the oldest and the newest pytest, beside common plugins
	$(BIN)/python -m tests.pytest_versions

outside: $(READY)  ## the trainers of a checkout that you have, PATH=folder, through the whole catalogue; a table of them
	$(BIN)/python -m tests.outside "$(FOLDER)"

clean:
	rm -rf $(VENV) build dist site .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

# Dependency groups need a pip of 25.1 or newer.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@
