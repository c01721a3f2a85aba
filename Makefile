PYTHON ?= python3
BIN := .venv/bin
CONSTRAINTS := $(shell $(PYTHON) -c 'import sys; print("constraints.txt" if sys.version_info < (3, 12) else "constraints-3.12.txt")')
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable

.PHONY: demo test clean

demo: .venv/installed
	@out=runs/demo; n=2; \
	while [ -e "$$out" ]; do out=runs/demo-$$n; n=$$((n + 1)); done; \
	$(BIN)/foretrace train copy --out "$$out"

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest -n auto --dist loadfile

# The stamps make a second `make` reinstall nothing unless what is required has changed.
.venv/installed: pyproject.toml $(CONSTRAINTS)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(INSTALL) .
	@touch $@

.venv/installed-test: pyproject.toml $(CONSTRAINTS)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(INSTALL) '.[test]'
	@touch .venv/installed $@

clean:
	rm -rf .venv build src/foretrace.egg-info .pytest_cache .ruff_cache
