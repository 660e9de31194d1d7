"""Statistics of a stream are those of all samples; quantiles within their error."""

import math

import pytest
from hypothesis import given, strategies as st

from tshrag_common.sketch import ERROR, MOST_BUCKETS, Sketch
from tshrag_common.statistics import one_number
from tshrag_controller.core.measured import statistic_of
from tshrag_controller.core.running import Running, needs_quantiles, together
from tshrag_controller.core.source import NoVerdict, Source

AT = 1_790_000_000_000_000
EXACT = ("count", "sum", "avg", "min", "max", "first", "last", "spread", "stdev", "rate", "slope")
QUANTILES = ("median", "p50", "p90", "p99", "p99.9", "p0", "p100")

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
streams = st.lists(st.lists(numbers, min_size=1, max_size=40), min_size=1, max_size=4)


def fed(values: list[float], begin: int, counter: bool, statistic: str) -> Running:
    running = Running(counter, needs_quantiles(statistic))
    for n, value in enumerate(values):
        running.add(begin + n * 1_000_000, value)
    return running


def sources_of(streams: list[list[float]], kind: str) -> list[Source]:
    return [
        Source(
            key="k",
            times=[AT + number * 500_000 + n * 1_000_000 for n in range(len(values))],
            values=values,
            type=kind,  # type: ignore[arg-type]  # a word in tests
            job=f"j{number}",
        )
        for number, values in enumerate(streams)
    ]


@pytest.mark.parametrize("statistic", EXACT)
@pytest.mark.parametrize("kind", ["gauge", "counter"])
@given(streams=streams)
def test_a_stream_tells_what_all_of_its_samples_do(
    statistic: str, kind: str, streams: list[list[float]]
) -> None:
    found = together(
        statistic,
        [
            fed(values, AT + number * 500_000, kind == "counter", statistic)
            for number, values in enumerate(streams)
        ],
    )
    try:
        expected: float | None = statistic_of(statistic, sources_of(streams, kind))
    except NoVerdict:
        expected = None
    if expected is None or found is None:
        assert expected == found or kind == "counter"
        return
    assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-3)


@pytest.mark.parametrize("statistic", QUANTILES)
@given(streams=streams)
def test_a_quantile_lies_within_its_error_of_a_sample(
    statistic: str, streams: list[list[float]]
) -> None:
    found = together(
        statistic, [fed(values, AT + n, False, statistic) for n, values in enumerate(streams)]
    )
    values = sorted(value for each in streams for value in each)
    rank = {"median": 50.0}.get(statistic, float(statistic.strip("pmedian") or 50)) / 100
    place = rank * (len(values) - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    assert found is not None
    slack = ERROR * max(abs(below), abs(above)) + 1e-9
    assert below - slack <= found <= above + slack


def test_a_sketch_stays_bounded_and_keeps_the_tail() -> None:
    sketch = Sketch()
    for n in range(1, 60_000):
        sketch.add(1e-150 * 1.01**n if n < 30_000 else float(n))
    assert len(sketch._plus) <= MOST_BUCKETS
    exact = one_number("p99", range(59_999), [*range(30_000, 60_000)] + [0.0] * 29_999)
    found = sketch.quantile(99)
    assert found is not None and exact is not None
    assert math.isclose(found, exact, rel_tol=2 * ERROR)


def test_nothing_has_no_quantile() -> None:
    assert Sketch().quantile(50) is None
    assert Running().value("avg") is None
    assert Running().value("count") == 0
