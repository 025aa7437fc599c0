# Everything runs in one virtual environment, .venv, made from deploy/requirements.lock on first use: what the demo
# needs and what the checks need are locked together, so there is one set of versions to think about.
# Needs python3 (3.11 or later) and make. Another Python: make PYTHON=python3.12 VENV=.venv312 test

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
LOCK   := deploy/requirements.lock
PIP    := $(BIN)/python -m pip --disable-pip-version-check
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-once test check format bench plans soak soak-short sweep delays takeover handovers model schema lock wheel clean
.DELETE_ON_ERROR:

help: ## Show this
	@echo "make TARGET [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## Run the demonstration in the browser; it needs nothing else
	$(BIN)/pgsig demo $(ARGS)

demo-once: $(READY) ## Run the demonstration once from start to end, without a browser
	$(BIN)/pgsig demo --once $(ARGS)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

check: $(READY) ## Check format, lint and types, then test: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 $(ARGS)

format: $(READY) ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(READY) ## Measure throughput and latency in five minutes; ARGS=--publish makes docs/bench anew, in about half an hour
	$(BIN)/python -m tests.bench $(ARGS)

plans: $(READY) ## The tests of plans with ten million signals, some minutes; ROWS=1000000 for less
	PGSIG_PLAN_ROWS=$(or $(ROWS),10000000) $(BIN)/python -m pytest tests/store/test_plans.py --durations=3 $(ARGS)

soak: $(READY) ## 1,000 faults over 50,000 signals in half an hour, judged; ARGS='--seed 7 --minutes 60'
	$(BIN)/python -m tests.soak $(ARGS)

soak-short: $(READY) ## The same in two minutes, then one kill at each failpoint: what CI runs
	$(BIN)/python -m tests.soak --seed 1 --faults 40 --signals 2500 --minutes 0.6 --json /dev/null $(ARGS)
	$(BIN)/python -m tests.soak.sweep --times 1 --minutes 0.8 --partial --json /dev/null

sweep: $(READY) ## Kill at each failpoint a hundred times, about an hour; ARGS='--times 10'
	$(BIN)/python -m tests.soak.sweep $(ARGS)

delays: $(READY) ## The tests with each process held up at random, five minutes; SECONDS=1 for longer moments
	PGSIG_FAILPOINTS_DELAY=$(or $(SECONDS),0.3) $(BIN)/python -m pytest -n 4 -m "not timed" $(ARGS)

takeover: $(READY) ## Measure how long others need when a worker or a runner dies
	$(BIN)/python -m tests.soak.takeover $(ARGS)

handovers: $(READY) ## Restart an HTTP service fifty times under load; TIMES=200 for more
	PGSIG_HANDOVERS=$(or $(TIMES),50) $(BIN)/python -m pytest -s tests/flow/test_handover.py $(ARGS)

model: $(READY) ## The random model of the whole, for long; EXAMPLES=2000 for more
	PGSIG_MODEL_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest tests/flow/test_model.py $(ARGS)

schema: $(READY) ## Regenerate sql/schema.sql from the migrations
	$(BIN)/python -m pgsig.store.schema --write

lock: $(READY) ## Lock the dependencies anew; ARGS=--upgrade takes later versions
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --no-config --quiet --universal \
	    --generate-hashes --python-version 3.11 --all-extras $(ARGS) --output-file $(LOCK) pyproject.toml

wheel: $(READY) ## Build the source archive and the wheel into dist/
	$(BIN)/python -m build --no-isolation

clean: ## Remove what was built, the virtual environment too
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find pgsig tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	    f"pgsig needs Python 3.11 or later; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV), about half a minute the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r $(LOCK)
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
