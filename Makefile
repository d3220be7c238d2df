.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# Made anew whenever the pinned versions change.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

setup: .venv/ready  ## make .venv with everything, pinned by requirements.lock

train: .venv/ready  ## train; ARGS="model=pca data=synthetic", by default model=mae data=sliding
	$(BIN)/python train.py $(ARGS)

test: .venv/ready  ## run the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

test-all: .venv/ready  ## run all tests; with TOCSIN_DATA=<folder> those on real data too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope -m "slow or not slow" $(ARGS)

lint: .venv/ready  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready  ## measure speed against peers, as ratios
	@for name in startup metrics images windows training long_series; do \
		echo "benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-gpu: .venv/ready  ## compare bf16-mixed with 32 bit on a GPU; ARGS="--models mae --seeds 1"
	$(BIN)/python benchmarks/gpu.py $(ARGS)

tensorboard: .venv/ready  ## show runs in TensorBoard by name; ARGS=multirun/<time> for one sweep, by default all
	$(BIN)/python -m tocsin.tensorboard $(ARGS)

docs: .venv/ready  ## check that every link and command in the pages exists
	$(BIN)/python -m pytest tests/test_docs.py $(ARGS)

clean:  ## remove .venv and caches, keep runs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache

.PHONY: help setup train test test-all lint bench bench-gpu tensorboard docs clean
