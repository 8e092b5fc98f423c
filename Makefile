# `make app` and `make test` install what they need into .venv at the versions of constraints.txt; Python 3.11 or newer is all they expect.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: app test verify browser bench bench-browser lint clean

app: $(VENV)/installed
	$(BIN)/ocr-flops app

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

verify: $(VENV)/installed-test
	$(BIN)/python -m pytest -m verification -n 2

browser: $(VENV)/installed-test
	$(BIN)/python -m pytest -m browser

bench: $(VENV)/installed-bench
	$(BIN)/python -m pytest -o addopts= tests/benchmarks --benchmark-only --benchmark-quiet

bench-browser: $(VENV)/installed-test
	$(BIN)/python tests/benchmarks/browser/measure.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/marimo check --strict notebooks/*.py

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[test]'
	touch $(VENV)/installed $@

$(VENV)/installed-bench: $(VENV)/installed-test
	$(PIP) -e '.[test,bench]'
	touch $@
