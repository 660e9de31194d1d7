import random
from itertools import pairwise

from hypothesis import given, strategies as st

from tshrag_common.changepoints import LEAST, change_points


def noisy(*levels: tuple[int, float], seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(level, 1.0) for count, level in levels for _ in range(count)]


def test_a_step_is_found_where_it_is() -> None:
    (at,) = change_points(noisy((30, 100.0), (30, 110.0)))
    assert at == 30


def test_two_steps_are_found_in_order() -> None:
    assert change_points(noisy((20, 10.0), (20, 20.0), (20, 5.0))) == [20, 40]


def test_noise_and_one_bad_run_are_no_change() -> None:
    for seed in range(20):
        assert change_points(noisy((60, 100.0), seed=seed)) == []
    values = noisy((40, 100.0))
    values[20] = 180.0
    assert change_points(values) == []


@given(st.lists(st.floats(-1e6, 1e6), max_size=60))
def test_levels_are_long_enough_and_in_order(values: list[float]) -> None:
    found = [0, *change_points(values), len(values)]
    assert found == sorted(found)
    if len(found) > 2:
        assert all(end - begin >= LEAST for begin, end in pairwise(found))


def test_a_constant_row_has_none_and_an_exact_step_has_one() -> None:
    assert change_points([5.0] * 40) == []
    assert change_points([5.0] * 10 + [6.0] * 10) == [10]
