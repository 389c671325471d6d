# Two commands for a new user: `make run` and `make test`. The rest is for those who change things.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-gpu check docs platform train-tiny clean

run: $(VENV)/.runtime
	@$(BIN)/python handler.py

# One thread for each process of the tests, which start servers and workers beside themselves: more stall one another.
test: $(VENV)/.development
	@OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(BIN)/python -m pytest

test-gpu: $(VENV)/.development
	@$(BIN)/python -m pytest tests/gpu -m gpu -rs

check: $(VENV)/.development
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.development
	@$(BIN)/python -m builder.docs

platform: $(VENV)/.development
	@$(BIN)/python -m tests.runpod --workers $(or $(WORKERS),2) --port $(or $(PORT),8000)

train-tiny: $(VENV)/.runtime
	@$(BIN)/python -m builder.flux_tiny.train

clean:
	rm -rf $(VENV) outputs build .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.runtime: builder/requirements.txt builder/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) bash builder/setup.sh builder/requirements.txt
	@touch $@

$(VENV)/.development: $(VENV)/.runtime builder/requirements-dev.txt
	@PYTHON=$(PYTHON) VENV=$(VENV) bash builder/setup.sh builder/requirements-dev.txt
	@touch $@
