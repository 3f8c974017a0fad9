# Every target sets up .venv by itself when it is missing or when the dependencies changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
PEERS ?=

.PHONY: run test check format docs bench bench-gateway bench-adapters bench-state soak soak-adapters soak-state clean

run: $(STAMP)
	$(BIN)/openworks serve $(RUN_ARGS)

test: $(STAMP)
	$(BIN)/pytest --numprocesses=2 --dist=loadfile $(TEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python -m tools.generate_docs

bench: $(STAMP)
	$(BIN)/python -m benchmarks.serving

# Peers that are not there are left out: `make bench-gateway PEERS=install` fetches them before.
bench-gateway: $(STAMP)
	$(BIN)/python -m benchmarks.gateway $(PEERS) load faults $(BENCH_ARGS)

bench-adapters: $(STAMP)
	$(BIN)/python -m benchmarks.adapters $(BENCH_ARGS)

bench-state: $(STAMP)
	$(BIN)/python -m benchmarks.state speed $(BENCH_ARGS)

soak: $(STAMP)
	$(BIN)/python -m benchmarks.gateway soak $(BENCH_ARGS)

soak-adapters: $(STAMP)
	$(BIN)/python -m benchmarks.adapters.soak $(BENCH_ARGS)

soak-state: $(STAMP)
	$(BIN)/python -m benchmarks.state faults $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# It wants an older websockets than the server has, for voice alone: hence without what it asks for.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps openai-agents
	touch $@
