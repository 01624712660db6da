# Two commands matter: `make demo` and `make test`. Everything else is what they are made of.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMP := tests/node/node_modules/.installed
KAFKA_POM := tests/kafka/pom.xml
KAFKA_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/moonxd-tests/kafka-$(shell sed -n 's,.*<kafka.version>\(.*\)</kafka.version>.*,\1,p' $(KAFKA_POM))
KAFKA_STAMP := $(KAFKA_CACHE)/libs/.complete
BINARY := dist/moonxd/moonxd
SOURCES := $(shell find moonxd tui packaging -type f ! -path '*/__pycache__/*')
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
# Tests that share a server go to one worker; more workers than CI has cores because most of them wait.
PYTEST := $(BIN)/python -m pytest -n 4 --dist loadgroup --durations 12

.PHONY: setup demo test test-fast lint bench binary node kafka example schemas clean lock

setup: $(STAMP)

$(STAMP): requirements/dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "moonxd needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements/dev.lock
	$(PIP_INSTALL) --no-build-isolation -e .
	touch $@

demo: setup
	$(BIN)/moonxd demo

# Real Node programs for the interop tests; without npm those tests are skipped (or fail, where all is required).
node: $(NODE_STAMP)

$(NODE_STAMP): tests/node/package-lock.json
	@if command -v npm >/dev/null; then \
		cd tests/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.installed; \
	else echo "npm is not installed: the Node interop tests will be skipped"; fi

# A real Apache Kafka for the tests, cached outside the repository; without mvn or Maven Central they are skipped.
kafka: $(KAFKA_STAMP)

$(KAFKA_STAMP): $(KAFKA_POM)
	@if command -v mvn >/dev/null; then \
		mvn -B -q -f $(KAFKA_POM) dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(@D) && touch $@ \
		|| echo "Maven could not fetch Apache Kafka: its tests will be skipped"; \
	else echo "mvn is not installed: the Kafka tests will be skipped"; fi

# A machine that cannot build the binary (a Python without its shared library) skips its tests, or fails where all is required.
test: setup node kafka lint
	-@$(MAKE) --no-print-directory binary
	$(PYTEST) tests

test-fast: setup
	$(PYTEST) -m "not slow and not chaos and not node and not anvil and not binary and not kafka" tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

binary: $(BINARY)

$(BINARY): $(STAMP) $(SOURCES)
	$(BIN)/pyinstaller --noconfirm --clean --log-level ERROR --distpath dist --workpath build packaging/moonxd.spec
	touch $@

bench: setup node
	$(BIN)/python -m benchmarks

example: setup
	$(BIN)/moonxd config example > config.example.toml

schemas: setup
	$(BIN)/moonxd events schema --out docs/events

# Pins every dependency with its hashes. No index is named: the lock says what, your pip knows where.
# Asked for by metadata, but never imported at run time (docs/dependencies.md): not in runtime.lock.
UNUSED := redis msgpack semver croniter python-dateutil pytz tzdata psutil setuptools
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-options

lock: setup
	$(COMPILE) --no-allow-unsafe $(UNUSED:%=--unsafe-package %) -o requirements/runtime.lock pyproject.toml 2>/dev/null
	sed '/^# WARNING: The following/,$$d' requirements/runtime.lock > build.lock && mv build.lock requirements/runtime.lock
	$(COMPILE) --allow-unsafe --extra dev -o requirements/dev.lock pyproject.toml

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
