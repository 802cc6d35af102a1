# `make demo` runs the main job, `make test` proves the project; both set everything up by themselves.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

# archives for an installation without a network: gigabytes, outside of the repository
WHEELS ?= ../plusx-wheels
# what proves the lowest versions that pyproject.toml allows
LOWEST ?= tests/floor0 tests/images tests/training tests/models tests/engines tests/export tests/trust tests/test_metrics.py

# of bandit: addresses of the catalogue, text escaped just before, XML of our own; the lines give their reasons to ruff
EXPLAINED := B310,B314,B704

.PHONY: demo test check lint types contract lengths docs docs-check lock offline lowest audit twice bill clean crash corruption signals ranks fuzz resume

demo: .venv/ready
	$(BIN)/plusx demo

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

# what breaks runs, at length: killed processes and refusing disks, damaged checkpoints, signals (minutes each)
crash: .venv/ready
	$(BIN)/python campaigns/crash.py --workers $(WORKERS)
	$(BIN)/python campaigns/disk.py

corruption: .venv/ready
	$(BIN)/python campaigns/corruption.py

signals: .venv/ready
	$(BIN)/python campaigns/signals.py

# loses one of two processes that train together, a hundred times (half an hour)
ranks: .venv/ready
	$(BIN)/python campaigns/ranks.py

check: lint types contract lengths docs-check

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

contract: .venv/ready
	$(BIN)/lint-imports

lengths: .venv/ready
	$(BIN)/python tools/function_lengths.py plusx

# the command-line reference is generated from --help, the benchmarks page from its lines; the check fails when stale
docs: .venv/ready
	$(BIN)/python tools/cli_reference.py docs/cli.md
	$(BIN)/python benchmarks/report.py

docs-check: .venv/ready
	$(BIN)/python tools/cli_reference.py --check docs/cli.md
	$(BIN)/python benchmarks/report.py --check
	$(BIN)/python tools/lab_docs.py --check docs/lab

# what damaged pictures do to the processes that decode; ten minutes
fuzz: .venv/ready
	$(BIN)/python campaigns/fuzz.py --trials 100000

# stops a training at every moment, goes on, and compares every bit
resume: .venv/ready
	$(BIN)/python campaigns/resume.py

lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra dev pyproject.toml -o requirements.lock

# the supply chain: each is slow or needs a network, and none is part of `make test`
offline: .venv/ready
	$(BIN)/python tools/offline.py $(WHEELS) --download

lowest: .venv/ready
	mkdir -p build
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --no-header --extra dev pyproject.toml -o build/lowest.txt
	$(BIN)/uv venv --quiet --clear build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python -r build/lowest.txt
	OMP_NUM_THREADS=1 PYTHONPATH=. build/lowest/bin/python -m pytest -q -p no:cacheprovider $(LOWEST)

audit: .venv/ready
	$(BIN)/python -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit bandit
	build/audit/bin/bandit --quiet --recursive --severity-level medium --skip $(EXPLAINED) plusx tools
	build/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

twice: .venv/ready
	$(BIN)/python tools/twice_built.py dist

bill: .venv/ready
	$(BIN)/python tools/lock.py dist/plusx.cdx.json

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist demo
