# make demo   a whole lab on this machine, from nothing, in under a minute after set-up
# make test   everything a change must pass; CI calls the same
# make check  the quick half of it: lint, format, types, house rules
# make simulate SEEDS=10000   a lab on a virtual clock under faults, seed by seed (FROM=1)
# make chaos  real processes under real faults, in ten minutes; chaos-full: all of them, REPEAT=n FAULTS="F1 F3"
# make soak   hours of short jobs and faults, the slope of memory and descriptors: HOURS=n
# make boards the tests on real boards: a Linux kernel and U-Boot under QEMU
# make cluster three nats-servers, two controllers, each server killed once while runs go on
# make bench  the benchmarks, results into benchmarks/results/

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.synced

.PHONY: again packages demo demo-qemu test check simulate boards chaos chaos-full soak bench docs clean setup

setup: $(STAMP)

$(STAMP): uv.lock pyproject.toml common/pyproject.toml agent/pyproject.toml controller/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tshrag needs Python >= 3.11; set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet 'uv>=0.13,<1'
	$(BIN)/uv sync --quiet --locked --inexact
	@touch $(STAMP)

demo: setup
	$(BIN)/tshrag demo

# the same with a virtual board more: installs QEMU and U-Boot where they are not (Debian, root)
demo-qemu: packages demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_house.py

packages:
	@tests/support/packages.sh

test: check packages
	$(BIN)/pytest -q -n 4 --dist loadgroup || $(MAKE) --no-print-directory again

# What failed beside others must hold alone; both answers stand in the output, so that a race is seen.
again:
	@echo "== again, one at a time: what failed beside the others; see CONTRIBUTING, Tests =="
	$(BIN)/pytest -q -n 0 --last-failed --last-failed-no-failures none

SEEDS ?= 1000
FROM ?= 1

simulate: setup
	@$(BIN)/python -m tests.simulation.simulate $(FROM) $$(($(FROM) + $(SEEDS) - 1))

chaos: setup packages
	$(BIN)/python -m tests.chaos.run --set quick --out benchmarks/results/chaos
	$(BIN)/python -m tests.chaos.run --unsafe kill-parent-only cancel
	$(BIN)/python -m tests.chaos.run --unsafe no-fsync F11
	$(BIN)/python -m tests.chaos.run --unsafe no-cap+leak+silent-full cap 'F16 spool: disk full for 8 s'

# goes on where an earlier one was cut: remove the file to begin anew; FAULTS="F1 F3" for some
KEPT ?= benchmarks/results/chaos/full.jsonl

chaos-full: setup packages
	$(BIN)/python -m tests.chaos.run --set full $(if $(REPEAT),--repeat $(REPEAT)) --into $(KEPT) $(FAULTS)

# short jobs without end, a fault every minute: does anything grow? HOURS=24 before a release
HOURS ?= 24

soak: setup packages
	$(BIN)/python -m tests.chaos.soak $(HOURS) --out benchmarks/results/chaos

# real boards: a Linux kernel and U-Boot under QEMU, pdudaemon; minutes, and 100 MB of packages once
boards: setup
	TSHRAG_BOARDS=1 $(BIN)/pytest -q -n0 tests/boards tests/agent/boards

cluster: setup
	TSHRAG_KILL_ALL=1 $(BIN)/pytest -q -n0 tests/e2e/test_cluster.py

bench: setup
	$(BIN)/python -m benchmarks.run

docs: setup
	$(BIN)/python -m tests.support.draw_docs

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist out
