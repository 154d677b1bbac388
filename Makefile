# reidkit: `make demo` shows what it does, `make test` proves that it works. Both install everything first.

PYTHON ?= python3
BIN = .venv/bin
# Threads of one test process; two keep small machines responsive.
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench-losses bench-evaluation docs release check format clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "reidkit needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..."; exit 1; }
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
		uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

demo: .venv/ready  ## from nothing to runs/demo/report.html in minutes
	$(BIN)/reid demo

test: export OMP_NUM_THREADS = 1
test: .venv/ready  ## all tests but the slow ones, two at a time; last, those that want processes of their own
	$(BIN)/pytest -m "not slow and not alone" --numprocesses 2 --dist loadfile --max-worker-restart 0
	$(BIN)/pytest -m "alone and not slow" tests/docs & docs=$$!; trap "kill $$docs" INT TERM; \
		$(BIN)/pytest -m "alone and not slow" tests/unit/encoders; encoders=$$?; \
		wait $$docs && exit $$encoders

test-slow: .venv/ready  ## the slow tests: training killed and resumed many times, ...
	$(BIN)/pytest -m slow --timeout 3600

bench-losses: .venv/ready  ## time and memory of every loss, as multiples of a bare distance pass
	$(BIN)/python benchmarks/losses.py

bench-evaluation: .venv/ready  ## time and memory of evaluation, re-ranking and report
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/reranking.py
	$(BIN)/python benchmarks/report.py

docs: .venv/docs-ready  ## the site, in docs/_build/html/index.html; warnings are errors
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html

.venv/docs-ready: .venv/ready
	@if command -v uv >/dev/null; then \
		uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[docs]'; \
	else \
		$(BIN)/python -m pip install --constraint constraints.txt --editable '.[docs]'; \
	fi
	@touch $@

release: .venv/ready  ## wheel and sdist, installed and tried in an environment of their own
	$(BIN)/pytest -m "slow or not slow" tests/release

check: .venv/ready  ## format, lint, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready  ## rewrite in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was built, not runs/
	rm -rf .venv build dist docs/_build docs/reference/generated .mypy_cache .ruff_cache .pytest_cache src/*.egg-info
