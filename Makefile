# Two commands matter: `make demo` and `make test`. Everything else is what they are made of.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMP := tests/node/node_modules/.installed
PYTEST := $(BIN)/python -m pytest

.PHONY: setup demo test test-fast test-all lint bench binary node example clean lock

setup: $(STAMP)

$(STAMP): requirements/dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "moonxd needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(BIN)/moonxd demo

# Real Node programs for the interop tests; without npm those tests are skipped (or fail, where all is required).
node: $(NODE_STAMP)

$(NODE_STAMP): tests/node/package-lock.json
	@if command -v npm >/dev/null; then \
		cd tests/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.installed; \
	else echo "npm is not installed: the Node interop tests will be skipped"; fi

test: setup node lint
	$(PYTEST) -n 2 --dist loadgroup tests

test-fast: setup
	$(PYTEST) -n 2 -m "not slow and not chaos and not node and not anvil" tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config .importlinter

binary: setup
	$(BIN)/pyinstaller --noconfirm --clean --log-level WARN --distpath dist --workpath build packaging/moonxd.spec

bench: setup node
	$(BIN)/python -m benchmarks

example: setup
	$(BIN)/moonxd config example > config.example.toml

# Pins every dependency with its hashes. No index is named: the lock says what, your pip knows where.
lock:
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-emit-options -o requirements/runtime.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-emit-options --extra dev -o requirements/dev.lock pyproject.toml

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
