import pytest

from tests.simulation.simulate import simulate

CHUNKS, SEEDS = 12, 300


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_befalls_a_lab_it_keeps_its_promises(chunk: int) -> None:
    for seed in range(1 + chunk * SEEDS // CHUNKS, 1 + (chunk + 1) * SEEDS // CHUNKS):
        outcome = simulate(seed)
        assert not outcome.broken, str(outcome)


def test_a_seed_gives_the_same_history_each_time() -> None:
    assert simulate(1001).digest == simulate(1001).digest
