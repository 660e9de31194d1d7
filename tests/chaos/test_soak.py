"""The slope that a soak is judged by."""

import pytest

from tests.chaos.soak import slope


@pytest.mark.parametrize("growth", [0.0, 2.0, -1.5])
def test_a_slope_is_percent_of_the_mean_an_hour(growth: float) -> None:
    values = [(hour / 10, 100.0 + growth * (hour / 10 - 6.0)) for hour in range(101)]
    found = slope(values)
    assert found.mean == pytest.approx(100.0)
    assert found.percent_h == pytest.approx(growth)


def test_what_happens_at_the_beginning_counts_for_nothing() -> None:
    assert slope([(0.0, 10.0), (0.1, 90.0), *[(hour, 100.0) for hour in range(1, 10)]]) == (100, 0)


def test_too_few_looks_have_no_slope() -> None:
    assert slope([(0.0, 5.0)]).percent_h == 0.0
