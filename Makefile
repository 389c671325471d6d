# Two commands for a new user: `make run` and `make test`. The rest is for those who change things.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests mostly wait for processes of their own, so two of them share a core.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 4 ? 8 : 2 * n)))

.PHONY: run test test-slow test-gpu images-test bench check docs serve platform train-tiny clean

run: $(VENV)/.runtime
	@$(BIN)/python handler.py

# Files of tests are spread over JOBS processes. One thread for each, since they start servers and workers beside
# themselves: more stall one another. Hundreds of processes read the compiled modules that the first ones write.
test: $(VENV)/.development clients/typescript/node_modules/.ready
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow"

# Minutes each: the page in Chromium, Celery workers, kills at random, compiled code across processes. A quiet machine.
test-slow: $(VENV)/.development
	@OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/.development
	@$(BIN)/python -m pytest tests/gpu -m gpu -rs -o faulthandler_timeout=0

# Both Dockerfiles built and run without a container daemon. As root, with Debian's buildah and debootstrap.
images-test: $(VENV)/.development
	@$(BIN)/python -m builder.images

# Against the plain worker of benchmarks/plain/: twenty minutes on two quiet cores. SECTIONS="hits gateway"; or
# SECTIONS=--missing, to go on where a run was broken off.
bench: $(VENV)/.development
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.suite $(SECTIONS)

check: $(VENV)/.development
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.development
	@$(BIN)/python -m builder.docs

# A gateway with a worker behind it on this machine: PORT=8080, QUEUE=celery
serve: $(VENV)/.gateway
	@exec $(BIN)/python -m local_platform.serve

platform: $(VENV)/.development
	@$(BIN)/python -m local_platform --workers $(or $(WORKERS),2) --port $(or $(PORT),8000)

train-tiny: $(VENV)/.runtime
	@$(BIN)/python -m builder.flux_tiny.train

clean:
	rm -rf $(VENV) outputs build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.runtime: builder/requirements.txt builder/requirements-bare.txt builder/requirements-gateway.txt builder/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) bash builder/setup.sh builder/requirements.txt builder/requirements-bare.txt \
		builder/requirements-gateway.txt
	@touch $@

$(VENV)/.gateway: $(VENV)/.runtime builder/requirements-gateway.txt
	@PYTHON=$(PYTHON) VENV=$(VENV) bash builder/setup.sh builder/requirements-gateway.txt
	@touch $@

$(VENV)/.development: $(VENV)/.gateway builder/requirements-dev.txt
	@PYTHON=$(PYTHON) VENV=$(VENV) bash builder/setup.sh builder/requirements-dev.txt
	@touch $@

# The TypeScript client's compiler. Without npm its tests are skipped.
clients/typescript/node_modules/.ready: clients/typescript/package-lock.json
	@if command -v npm >/dev/null; then npm ci --silent --prefix clients/typescript && touch $@; fi
