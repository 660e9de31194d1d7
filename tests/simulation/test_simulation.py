"""A lab on a virtual clock under everything at once; ``make simulate SEEDS=10000`` does more."""

import os
import subprocess
import sys

import pytest

from tests.simulation.mutations import BREAKS, MUTATIONS, Mutation
from tests.simulation.simulate import simulate

CHUNKS, SEEDS = 12, 300
MUTANT_SEEDS = 50
SHARED_SEEDS = (3, 5, 8, 9)
"""Leases run out in most of them."""


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_befalls_a_lab_it_keeps_its_promises(chunk: int) -> None:
    for seed in range(1 + chunk * SEEDS // CHUNKS, 1 + (chunk + 1) * SEEDS // CHUNKS):
        outcome = simulate(seed)
        assert not outcome.broken, str(outcome)


@pytest.mark.slow
def test_a_board_that_several_agents_reach_is_granted_when_nobody_has_it() -> None:
    for seed in SHARED_SEEDS:
        outcome = simulate(seed, shared=True)
        assert not outcome.broken, str(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_lab_with_a_broken_rule_is_found_out(mutation: Mutation) -> None:
    wanted = BREAKS.get(mutation, "")
    shared = mutation == "early-grant"
    outcomes = (simulate(seed, mutation, shared=shared) for seed in range(1, 1 + MUTANT_SEEDS))
    assert any(said.startswith(wanted) for outcome in outcomes for said in outcome.broken)


@pytest.mark.slow
def test_a_seed_gives_the_same_history_in_every_process() -> None:
    code = "import sys; from tests.simulation.simulate import simulate as s; "
    code += "sys.stdout.write(' '.join(s(seed).digest for seed in (3, 17, 40)))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(said) == 1
    assert said == {" ".join(simulate(seed).digest for seed in (3, 17, 40))}
