# Everything a checkout needs. Set-up happens by itself, once, and again when pyproject.toml changes.
#
# The main job needs python3 (3.11 or later) and make; the tests bring the real Faktory, Redis, Toxiproxy and the
# clients of other languages by themselves (tests/real/parts.py) and cache them for all checkouts of a user.

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
SOURCE := sidecar bench tests

# Another commit of this repository: `make bench BESIDE=HEAD~3` measures both in turn.
BESIDE :=
# Further arguments: `make demo ARGS='--rtt 100ms'`, `make test ARGS='-k tunnel'`.
ARGS :=
# Kills of `make kill-test`; minutes of `make soak`.
CYCLES := 200
MINUTES := 30

.DEFAULT_GOAL := help
.PHONY: help demo bench check lint format test fast-test soak parts image clean

help: ## list what there is
	@echo 'make TARGET, where TARGET is one of:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1#\2/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "%-12s %s\n", $$1, $$2 }'

demo: $(READY) ## the main job in half a minute: producers, a simulated WAN, a worker, before and after
	@$(BIN)/python -m sidecar demo $(ARGS)

bench: $(DEV) ## everything side by side, some 15 minutes (ARGS=--quick: one); BESIDE=REV: this beside another commit
	@$(BIN)/python -m bench $(if $(BESIDE),--beside $(BESIDE)) $(ARGS)

check: lint fast-test ## formatting, lint, types and the fast tests: under two minutes

test: lint parts ## everything, against the real Faktory too
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not alone' $(ARGS)
	@$(BIN)/python -m pytest -m alone $(ARGS) || [ $$? -eq 5 ] # 5: ARGS chose none of them

fast-test: $(DEV) ## the tests that need neither the real Faktory nor much time
	@MODEL_EXAMPLES=10 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow and not real and not alone' $(ARGS)

kill-test: $(DEV) ## kill -9 the sidecar CYCLES times beneath load; what was acknowledged and lost must be nothing
	@$(BIN)/python -m tests.ledger --cycles $(CYCLES) $(ARGS)

soak: $(DEV) ## honest clients beside hostile ones, and troubles, for MINUTES; nothing lost, memory flat, no neighbour hurt
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

speed-test: $(DEV) ## cost of a long backlog, draining, start, memory and disk use, with a million jobs
	@$(BIN)/python -m tests.ledger.speed $(ARGS)

lint: $(DEV) ## formatting, lint and types
	@$(BIN)/ruff format --check $(SOURCE)
	@$(BIN)/ruff check $(SOURCE)
	@$(BIN)/mypy

format: $(DEV) ## format the code and sort its imports
	@$(BIN)/ruff check --select I --fix --quiet $(SOURCE)
	@$(BIN)/ruff format $(SOURCE)

parts: $(DEV) ## bring the real Faktory, Redis, Toxiproxy and clients that the tests use
	@echo 'Bringing the real parts (built once, then cached):'
	@$(BIN)/python -m tests.real.parts || [ -z "$$CI" ]

image: ## build the container image without an engine, and run it (Linux, root, buildah, debootstrap)
	@deploy/image/check

clean: ## remove the virtual environment and what tools leave behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find $(SOURCE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@tools/set-up $(VENV) .
	@touch $@

$(DEV): pyproject.toml $(READY)
	@tools/set-up $(VENV) '.[dev]'
	@touch $@
