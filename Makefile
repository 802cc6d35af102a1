# `make demo` runs the main job, `make test` proves the project; both set everything up by themselves.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: demo test check lint types contract lengths docs docs-check lock clean crash corruption signals

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

lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra dev pyproject.toml -o requirements.lock

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist demo
