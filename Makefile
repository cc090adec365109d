# make demo | make test: each sets up all it needs on a fresh Debian or Ubuntu machine; a second call does no work twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LEAN := $(VENV)/.demo-installed
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard csrc/*)

.PHONY: demo test docs mutations faults fuzz sanitize lint format results wheels clean compiler system

demo: $(LEAN)
	$(BIN)/dualfast demo

test: $(STAMP)
	$(BIN)/python -m pytest -q

docs: $(STAMP)  # the site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q
	@echo "site/index.html; $(BIN)/mkdocs serve shows it and follows changes"

mutations: $(STAMP)
	$(BIN)/python tests/mutations.py

faults: $(STAMP)  # every point at which a file or memory may fail: an hour
	DUALFAST_ALL_FAULT_POINTS=1 $(BIN)/python -m pytest -q -s tests/test_fault_points.py

fuzz: $(STAMP)  # make fuzz SECONDS=60
	tests/fuzz/run.sh $(or $(SECONDS),60)

sanitize: $(STAMP)  # three minutes
	tests/sanitize/run.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror csrc/*.h csrc/*.cpp

results: $(STAMP)
	$(BIN)/python benchmarks/accuracy/plot.py

wheels:
	@bash .ci/wheels

format: $(STAMP)
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	$(BIN)/clang-format -i csrc/*.h csrc/*.cpp

INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

$(LEAN): $(SOURCES) | compiler
	@test -x $(BIN)/python || { echo "make: creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "make: installing dualfast[data,report] into $(VENV): torch, which is large, and fifteen small packages"
	$(INSTALL) -e '.[data,report]'
	@touch $@

$(STAMP): $(SOURCES) | system
	@test -x $(BIN)/python || { echo "make: creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "make: installing dualfast[all,dev] into $(VENV): all that the tests and benchmarks use, some 120 packages, 4 GB"
	$(INSTALL) -e '.[all,dev]'
	@touch $(LEAN) $@

compiler:
	@PYTHON=$(PYTHON) sh .ci/system-packages compiler

system:
	@PYTHON=$(PYTHON) sh .ci/system-packages compiler ffcv

clean:
	rm -rf $(VENV) build dist dualfast.egg-info dualfast/_C*.so
