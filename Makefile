# Two commands for a fresh machine (Python 3.11, pip, make): `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP_TEST := $(VENV)/.installed-test
STAMP_DOCS := $(VENV)/.installed-docs

# Compiled files save a second in each of the hundreds of processes that tests start, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-long test-cluster gpu mutants check format docs golden clean
help:            ## what there is to make
	@grep -E '^[a-z-]+: .*##|^[a-z-]+: +##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(STAMP_TEST): $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[pretrained,test]'
	touch $@

$(STAMP_DOCS): $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	touch $@

demo: $(STAMP)  ## install, then teacher, student alone and distilled student on the embedded digits
	$(BIN)/tutelage distill

test: $(STAMP_TEST)  ## install the test extras, then the fast and the slow tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not cluster and not long" $(ARGS)

test-long: $(STAMP_TEST)  ## the tests that take a minute or more, alone or by file
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long $(ARGS)

test-cluster: $(STAMP_TEST)  ## tests on a real SLURM (Debian's slurm-wlm and munge) and a local Ray cluster
	$(BIN)/pip install -q -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -m cluster -v $(ARGS)

gpu:             ## what only a GPU can show: a table in outputs/gpu (docs/gpu.md); needs no .venv
	$(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu_checks.py $(ARGS)

mutants: $(STAMP_TEST)  ## how many small changes of the code the tests notice; hours
	$(BIN)/python benchmarks/mutants.py $(ARGS)

check: $(STAMP_TEST)  ## formatting, lint, docstrings, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_docstrings.py

format: $(STAMP_TEST)  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP_DOCS)  ## the documentation site, in outputs/site; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

golden: $(STAMP_TEST)  ## write the golden curves anew (a change of behaviour)
	$(BIN)/python -m pytest -q tests/golden --write-golden

clean:           ## remove what was built here (not outputs/)
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .mypy_cache
