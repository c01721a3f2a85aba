# `make PYTHON=/path/to/python VENV=.venv-other test` uses another Python, in an environment of its own.
VENV ?= .venv
BIN := $(VENV)/bin
# What the environment was made with, once there is one.
ifndef PYTHON
PYTHON := $(or $(wildcard $(BIN)/python),$(shell tools/find-python))
endif
CONSTRAINTS := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; print("constraints-3.12.txt" if sys.version_info >= (3, 12) else "constraints.txt")'))
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable

# About one file of tests per room, those that touch JAX's edges among them, within 90 seconds on two cores.
# (The checks of River and of the command that forecasts take about as long by themselves.)
QUICK := layout types jacobian cells right_factors recommend copy checkpoint plotting writers

# Run with a wheel on every Python: what loads and runs from an installed file, its data among them.
WHEEL := cells recommend citation plotting writers

.PHONY: demo test quick docs docs-open release clean python

demo: $(VENV)/installed
	@out=runs/demo; n=2; \
	while [ -e "$$out" ]; do out=runs/demo-$$n; n=$$((n + 1)); done; \
	$(BIN)/foretrace train copy --out "$$out"

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest -n auto --dist loadfile --durations=25

quick: $(VENV)/installed-test
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest -n auto --dist loadfile $(QUICK:%=tests/test_%.py)

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees docs build/site
	@echo "build/site/index.html"

docs-open: docs
	$(BIN)/python -m webbrowser build/site/index.html

# The environments that try the wheel have nothing else in them.
release: $(VENV)/installed-release
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	tools/try-wheel dist/*.whl $(WHEEL:%=tests/test_%.py)

python:
	@$(or $(PYTHON),exit 1;) -c 'import sys; print("Python", sys.version.split()[0], "in $(VENV)")'

# The stamps make a second `make` reinstall nothing unless what is required has changed.
$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | python
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[cli]'
	@touch $@

$(VENV)/installed-docs: pyproject.toml $(CONSTRAINTS) | python
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[docs]'
	@touch $(VENV)/installed $@

$(VENV)/installed-release: pyproject.toml $(CONSTRAINTS) | python
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[release]'
	@touch $@

$(VENV)/installed-test: pyproject.toml $(CONSTRAINTS) | python
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[test]'
	@touch $(VENV)/installed $(VENV)/installed-docs $@

clean:
	rm -rf .venv .venv-* build dist docs/api docs/learners docs/refusals src/foretrace.egg-info .pytest_cache .ruff_cache
