# The front door. `make demo` and `make test` need only Python 3.11+ (with venv and headers) and a C compiler;
# everything they install goes into .venv. Another interpreter: make test PYTHON=python3.13 (after make clean).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test interop bench lint format types build clean dist tsan freethreaded

demo: build
	$(BIN)/python -m fastfeed demo

test: build
	$(BIN)/python -m pytest

interop: build $(VENV)/interop
	$(BIN)/python bench/prepare.py nautilus
	$(BIN)/python -m pytest tests/test_interop.py tests/test_interop_equities.py

bench: build $(VENV)/bench
	$(BIN)/python bench/run.py $(ARGS)
	$(BIN)/python -m pytest bench --timeout=600 --benchmark-json=bench/rooms.json

lint: export PATH := $(CURDIR)/$(BIN):$(PATH)
lint: $(VENV)/lint
	ruff check .
	ruff format --check .
	cython-lint ext fastfeed/_core.pxd

format: $(VENV)/lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: build $(VENV)/types
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fastfeed._core fastfeed._wire --concise --allowlist tests/stubtest.allow --mypy-config-file pyproject.toml

build: $(VENV)/fastfeed

# The lock-free parts under ThreadSanitizer (gcc, Linux): about two minutes.
tsan: build
	$(BIN)/python tests/tsan.py

# Threads on an interpreter without its lock: make freethreaded FREETHREADED=/path/to/python3.13t
# orjson and hypothesis have no build for it, so what needs them stays out: dependencies are named, not resolved.
FREETHREADED ?= python3.13t
FREE := .venv-freethreaded/bin/python
freethreaded:
	$(FREETHREADED) -c 'import sys; sys._is_gil_enabled() and sys.exit("$(FREETHREADED) has the interpreter lock: name another with FREETHREADED=")'
	$(FREETHREADED) -m venv .venv-freethreaded
	$(PYTHON) .ci/requirements.py build | $(FREE) -m pip install --quiet --disable-pip-version-check -r /dev/stdin
	$(FREE) -m pip install --quiet --disable-pip-version-check 'numpy>=2.0' aiohttp msgpack pytest pytest-asyncio pytest-timeout websockets
	$(FREE) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	$(FREE) -X gil=0 -m pytest tests/test_threads.py tests/test_threaded.py tests/test_feed.py tests/test_wire.py

dist: $(VENV)/fastfeed
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) .venv-freethreaded build dist *.egg-info $(COMPILED) fastfeed/*.so ext/*.html .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ---
# Stamps in .venv. What depends on pyproject.toml is brought up to date when that changes, compiled modules when any
# source of theirs changes. One editable install without isolation does both: `build_ext --inplace` has a build tree of
# its own and would compile everything a second time.

COMPILED := ext/_core.c ext/_wire.c
SOURCES := setup.py $(filter-out $(COMPILED),$(wildcard ext/* fastfeed/*.pxd fastfeed/include/*))

$(VENV)/tools: pyproject.toml .ci/requirements.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"fastfeed needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}: make $(MAKECMDGOALS) PYTHON=python3.13")'
	$(PYTHON) -m venv $(VENV)
	rm -rf build $(COMPILED) fastfeed/*.so
	$(BIN)/python .ci/requirements.py build | $(PIP) -r /dev/stdin
	@touch $@

$(VENV)/fastfeed: $(VENV)/tools $(SOURCES)
	$(PIP) --no-build-isolation -e '.[cli,test]'
	@touch $@

$(VENV)/bench $(VENV)/interop $(VENV)/lint $(VENV)/types: $(VENV)/tools
	$(BIN)/python .ci/requirements.py $(@F) | $(PIP) -r /dev/stdin
	@touch $@
