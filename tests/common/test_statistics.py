import math
import statistics as oracle
import time
from array import array
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from tshrag_common.statistics import (
    NAMES,
    UnknownStatistic,
    compute,
    is_one_number,
    is_statistic,
    one_number,
    unit_of,
)

numbers = st.floats(min_value=-(2.0**63), max_value=2.0**63, allow_nan=False)
columns = st.lists(st.tuples(st.integers(0, 10**6), numbers), min_size=1, max_size=60)
Rows = list[tuple[int, float]]


def of(name: str, rows: Rows, *, counter: bool = False) -> float | None:
    return one_number(name, [at for at, _ in rows], [value for _, value in rows], counter=counter)


def near(found: float | None, expected: float) -> bool:
    return found is not None and math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6)


@given(columns)
def test_statistics_are_those_of_the_standard_library(rows: Rows) -> None:
    values = [value for _, value in rows]
    exact = [Fraction(value) for value in values]
    assert of("sum", rows) == float(sum(exact))
    assert near(of("avg", rows), float(sum(exact) / len(exact)))
    assert of("min", rows) == min(values)
    assert of("max", rows) == max(values)
    assert of("count", rows) == len(values)
    assert near(of("median", rows), oracle.median(values))
    if len(values) > 1:
        assert near(of("stdev", rows), oracle.stdev(values))


@given(columns, st.integers(1, 99))
def test_a_quantile_is_linear_between_its_neighbours(rows: Rows, percent: int) -> None:
    values = [value for _, value in rows]
    found = of(f"p{percent}", rows)
    if len(values) > 1:
        expected = oracle.quantiles(values, n=100, method="inclusive")[percent - 1]
        scale = max(map(abs, values))
        assert found is not None
        assert abs(found - expected) <= 1e-9 * scale + 1e-9
    assert found is not None and min(values) <= found <= max(values)
    assert of("p0", rows) == min(values) and of("p100", rows) == max(values)


@given(columns)
def test_quantiles_never_go_down(rows: Rows) -> None:
    found = [of(name, rows) or 0.0 for name in ("p1", "p50", "p95", "p99", "p99.9", "p99.99")]
    assert found == sorted(found)


@given(columns)
def test_first_and_last_go_by_time_and_ties_by_order(rows: Rows) -> None:
    by_time = sorted(rows, key=lambda row: row[0])
    assert of("first", rows) == by_time[0][1]
    assert of("last", rows) == by_time[-1][1]


@given(columns)
def test_order_does_not_matter_where_times_differ(rows: Rows) -> None:
    unique = list({at: (at, value) for at, value in rows}.values())
    for name in (*(name for name in NAMES if is_one_number(name)), "p99.9"):
        for counter in (False, True):
            turned = of(name, unique[::-1], counter=counter)
            straight = of(name, unique, counter=counter)
            assert turned == straight or near(turned, straight or 0.0)


@given(
    st.lists(st.integers(0, 1000), min_size=2, max_size=40), st.sets(st.integers(1, 39), max_size=5)
)
def test_the_rate_of_a_counter_goes_on_over_resets(steps: list[int], resets: set[int]) -> None:
    shown, total = 0, 0
    rows: Rows = []
    for second, step in enumerate(steps):
        # A reset that the counter itself outgrows within one step cannot be seen by anybody.
        if second in resets and step < shown:
            shown = 0
        shown += step
        total += step if second else 0
        rows.append((second * 1_000_000, float(shown)))
    assert near(of("rate", rows, counter=True), total / (len(steps) - 1))


def test_the_deviation_of_large_numbers_that_hardly_differ_is_right() -> None:
    large = [6.014740971345947e16, 6.014740971345947e16, 6.014740971345266e16]
    assert near(of("stdev", list(enumerate(large))), oracle.stdev(large))


def test_the_rate_of_a_gauge_is_from_end_to_end() -> None:
    assert of("rate", [(0, 10.0), (1_000_000, 4.0), (4_000_000, 2.0)]) == -2.0


def test_no_samples_give_nothing() -> None:
    for name in NAMES:
        expected: object = {"num": [], "hist": {}}.get(name)
        assert compute(name, [], []) == expected
    assert compute("p99", [], []) is None


def test_too_few_samples_give_nothing() -> None:
    assert of("stdev", [(1, 5.0)]) is None
    assert of("rate", [(1, 5.0), (1, 6.0)]) is None


@given(columns)
def test_num_and_hist_hold_every_number(rows: Rows) -> None:
    times, values = [at for at, _ in rows], [value for _, value in rows]
    assert compute("num", times, values) == values
    histogram = compute("hist", times, values)
    assert isinstance(histogram, dict)
    expected = Counter(f"{value:.15g}" for value in set(values))
    assert set(histogram) == set(expected)


@pytest.mark.parametrize("name", ["average", "p101", "p", "p99.999", "P50", "p-1", "", "p\uff150"])
def test_an_unknown_statistic_is_refused_with_the_list(name: str) -> None:
    assert not is_statistic(name)
    with pytest.raises(UnknownStatistic, match=r"known: num sum avg min max count .* p99\.9"):
        one_number(name, [1], [1.0])


@pytest.mark.parametrize(
    ("name", "unit", "printed_in"),
    [
        ("avg", "ms", "ms"),
        ("count", "ms", ""),
        ("rate", "MB", "MB/s"),
        ("rate", "", "/s"),
        ("rate", "ms", "ratio"),
        ("rate", "J", "W"),
        ("rate", "C", "C/s"),
        ("rate", "bogo", "bogo/s"),
    ],
)
def test_a_statistic_has_a_unit_of_its_own(name: str, unit: str, printed_in: str) -> None:
    assert unit_of(name, unit) == printed_in


def test_a_million_samples_are_no_trouble() -> None:
    values = array("d", range(1_000_000))
    times = array("q", range(1_000_000))
    began = time.process_time()
    for name in ("avg", "stdev", "p99.9", "rate", "hist"):
        compute(name, times, values, counter=True)
    assert time.process_time() - began < 30  # a limit against something quadratic, no more
