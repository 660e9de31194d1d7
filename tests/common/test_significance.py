"""May a difference be chance? The expected numbers were computed by scipy 1.x."""

import math
import random

import pytest
from hypothesis import given, strategies as st

from tshrag_common.significance import (
    Moments,
    beyond_quantile,
    chance_of,
    interval,
    mann_whitney,
    regularised_beta,
    t_beyond,
    welch,
)

A = [10.1, 10.4, 9.9, 10.2, 10.6, 9.8, 10.0, 10.3, 10.2, 10.1]
B = [10.5, 10.9, 10.3, 10.8, 11.0, 10.4, 10.6, 10.2, 10.7, 10.9, 10.6]
TIED_A = [1.0, 1, 2, 2, 2, 3, 3, 4, 5, 5]
TIED_B = [2.0, 3, 3, 3, 4, 4, 5, 5, 6, 6, 6]

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60)


@pytest.mark.parametrize(
    ("ones", "others", "expected"),
    [(A, B, 0.00038471580880149344), (TIED_A, TIED_B, 0.03153406659847225)],
)
def test_a_difference_of_means_is_judged_as_welch_does(
    ones: list[float], others: list[float], expected: float
) -> None:
    found = welch(ones, others)
    assert found is not None and math.isclose(found, expected, rel_tol=1e-9)
    assert chance_of("avg", ones, others) == found


@pytest.mark.parametrize(
    ("ones", "others", "expected"),
    [(A, B, 0.0016559005509376703), (TIED_A, TIED_B, 0.03794918426112261)],
)
def test_a_difference_of_medians_is_judged_by_ranks_with_ties(
    ones: list[float], others: list[float], expected: float
) -> None:
    found = mann_whitney(ones, others)
    assert found is not None and math.isclose(found, expected, rel_tol=1e-9)
    assert chance_of("median", ones, others) == chance_of("p50", ones, others) == found


@pytest.mark.parametrize(
    ("a", "b", "x", "expected"),
    [
        (0.5, 0.5, 0.3, 0.36901011956554536),
        (2, 3, 0.5, 0.6875),
        (10, 0.5, 0.9, 0.15164090963470994),
        (50, 0.5, 0.99, 0.3173043978741973),
        (2, 3, 0.0, 0.0),
        (2, 3, 1.0, 1.0),
    ],
)
def test_the_incomplete_beta_function(a: float, b: float, x: float, expected: float) -> None:
    assert math.isclose(regularised_beta(a, b, x), expected, rel_tol=1e-10, abs_tol=1e-15)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706204736), (9, 2.262157163), (1000, 1.962339081)]
)
def test_an_interval_is_as_wide_as_the_tables_of_t_say(freedom: int, expected: float) -> None:
    assert math.isclose(t_beyond(0.05, freedom), expected, rel_tol=1e-8)
    found = interval(Moments(freedom + 1, 10.0, 2.0))
    assert found is not None
    assert math.isclose(found[1] - 10, expected * 2 / math.sqrt(freedom + 1), rel_tol=1e-8)
    assert interval(Moments(1, 10.0, 0.0)) is None


def test_a_tail_that_grew_is_seen_and_one_that_did_not_is_not() -> None:
    rng = random.Random(7)
    calm = [rng.gauss(100, 5) for _ in range(4000)]
    same = [rng.gauss(100, 5) for _ in range(4000)]
    spiky = [value + (60 if rng.random() < 0.03 else 0) for value in same]
    found = beyond_quantile(99, calm, spiky)
    assert found is not None and found < 0.001
    by_chance = beyond_quantile(99, calm, same)
    assert by_chance is not None and by_chance > 0.01
    assert beyond_quantile(99, calm[:100], spiky[:100]) is None, "one sample above tells nothing"


@given(values, values)
def test_a_chance_is_a_probability_and_does_not_depend_on_who_comes_first(
    ones: list[float], others: list[float]
) -> None:
    for test in (welch, mann_whitney):
        found, turned = test(ones, others), test(others, ones)
        if found is None:
            assert turned is None
            continue
        assert turned is not None and math.isclose(found, turned, rel_tol=1e-6, abs_tol=1e-9)
        assert -1e-9 <= found <= 1 + 1e-9


@given(values)
def test_a_set_does_not_differ_from_itself(ones: list[float]) -> None:
    for test in (welch, mann_whitney):
        found = test(ones, list(reversed(ones)))
        assert found is None or found > 0.9
