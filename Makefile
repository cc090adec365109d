# make demo | make test: each sets up all it needs on a fresh Debian or Ubuntu machine; a second call does no work twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard csrc/*)

.PHONY: demo test mutations lint format results clean system

demo: $(STAMP)
	$(BIN)/dualfast run

test: $(STAMP)
	$(BIN)/python -m pytest -q

mutations: $(STAMP)
	$(BIN)/python tests/mutations.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror csrc/*.h csrc/*.cpp

results: $(STAMP)
	$(BIN)/python benchmarks/accuracy/plot.py

format: $(STAMP)
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	$(BIN)/clang-format -i csrc/*.h csrc/*.cpp

$(STAMP): $(SOURCES) | system
	@test -x $(BIN)/python || { echo "make: creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "make: installing dualfast and what constraints.txt pins into $(VENV) (torch is the large one)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

system:
	@PYTHON=$(PYTHON) sh .ci/system-packages

clean:
	rm -rf $(VENV) build dist dualfast.egg-info dualfast/_C*.so
