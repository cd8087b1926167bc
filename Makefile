# make demo      degradation and its cure, on your machine, in about two minutes
# make test      linter, types and all tests but those that take longest
# make test-long those: what pages and --help tell, learned detectors, processes of torchrun; CI runs both
# make test-slow the long checks (some need CIFAR-10: CIFAR10_DIR=folder)
# make test-gpu  the checks that need a GPU
# make docs      the documentation as a website in site/; a dead link or a missing docstring fails
# make check     linter, formatter's check, type checker
# make install   the virtual environment alone

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long test-slow test-gpu check docs install clean

demo: .venv/installed
	$(BIN)/residual reproduce degradation

# A process a core, each with one thread: several threads of several processes get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: check
	$(PYTEST) -m 'not slow and not long'

test-long: .venv/installed
	$(PYTEST) -m 'long and not slow'

test-slow: .venv/installed
	$(BIN)/pytest -m slow --timeout 3600

test-gpu: .venv/installed
	$(BIN)/pytest -m gpu

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The documentation is in site/index.html"

install: .venv/installed

# Made again when pyproject.toml changes; later calls find it up to date and start at once.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "residual needs Python 3.11.4 or newer; name one with: make PYTHON=python3.12 install")'
	@echo "Setting up .venv (PyTorch is large: a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
