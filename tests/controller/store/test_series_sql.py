import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tshrag_common.errors import Refused
from tshrag_common.statistics import UnknownStatistic, one_number
from tshrag_controller.reports.series_sql import BY, Grouping, samples_sql, statistics_sql
from tshrag_controller.store import guard, parquet

STATS = ("avg", "sum", "min", "max", "count", "median", "p0", "p50", "p99.9", "p100", "stdev")
T0 = 1_800_000_000_000_000
NUMBER = st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 6))
SAMPLES = st.lists(
    st.tuples(st.integers(0, 10**9), NUMBER), min_size=1, max_size=60, unique_by=lambda s: s[0]
)


def answered(rows: list[tuple[Any, ...]], sql: str) -> list[tuple[Any, ...]]:
    """Carry a query out over (time, value, key, type, job, agent, dut)."""
    connection = parquet.open_duckdb()
    connection.execute(
        "CREATE TABLE samples (time TIMESTAMP, value DOUBLE, key VARCHAR, type VARCHAR, "
        "job VARCHAR, agent VARCHAR, dut VARCHAR, unit VARCHAR, run VARCHAR, attempt INTEGER, "
        "duration_us BIGINT)"
    )
    for at, *rest in rows:
        connection.execute(
            "INSERT INTO samples VALUES (make_timestamp(?), ?, ?, ?, ?, ?, ?, 'ms', 'run', 1, 0)",
            [at, *rest],
        )
    found: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
    connection.close()
    return found


def series(
    samples: list[tuple[int, float]], kind: str = "gauge", job: str = "j1"
) -> list[tuple[Any, ...]]:
    return [(T0 + at, value, "k", kind, job, "a1", "") for at, value in samples]


@settings(max_examples=40, deadline=None)
@given(SAMPLES, st.sampled_from(["gauge", "counter"]))
def test_statistics_of_sql_are_those_of_verdicts_and_of_numpy(
    samples: list[tuple[int, float]], kind: str
) -> None:
    stats = (*STATS, "first", "last", "rate")
    ((_, _, *found),) = answered(series(samples, kind=kind), statistics_sql(Grouping(stats=stats)))
    times, values = [at for at, _ in samples], [value for _, value in samples]
    told = dict(zip(stats, found, strict=True))
    for name in stats:
        wanted = one_number(name, times, values, counter=kind == "counter")
        if wanted is None:
            assert told[name] is None
        else:
            assert told[name] == pytest.approx(wanted, rel=1e-9, abs=1e-6), name
    assert told["avg"] == pytest.approx(float(np.mean(values)), rel=1e-9, abs=1e-6)
    assert told["p99.9"] == pytest.approx(float(np.percentile(values, 99.9)), rel=1e-9, abs=1e-6)
    if len(values) > 1:
        assert told["stdev"] == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-5)


def test_a_counter_that_was_reset_goes_on_series_by_series() -> None:
    rows = series([(0, 5.0), (10**6, 9.0), (2 * 10**6, 1.0)], kind="counter", job="j1")
    rows += series([(0, 100.0), (2 * 10**6, 140.0)], kind="counter", job="j2")
    ((_, _, rate),) = answered(rows, statistics_sql(Grouping(stats=("rate",))))
    assert rate == pytest.approx((4 + 1 + 40) / 2)
    steps = answered(rows, statistics_sql(Grouping(stats=("rate",), step_us=10**6)))
    assert [row[-1] for row in steps] == [None, 4.0, 41.0]


def test_rows_are_grouped_and_stepped_as_asked() -> None:
    rows = series([(0, 1.0), (1_500_000, 3.0)], job="j1") + series([(100, 5.0)], job="j2")
    grouping = Grouping(stats=("avg", "count"), by=("job", "host"), step_us=1_000_000)
    found = answered(rows, statistics_sql(grouping))
    assert grouping.heads == ("time", "key", "job", "host")
    assert [(row[2], row[3], *row[5:]) for row in found] == [
        ("j1", "a1", 1.0, 1), ("j2", "a1", 5.0, 1), ("j1", "a1", 3.0, 1),
    ]  # fmt: skip


def test_what_is_no_single_number_is_refused() -> None:
    for name in ("hist", "num"):
        with pytest.raises(Refused, match="no single number"):
            statistics_sql(Grouping(stats=(name,)))
    for name in ("p101", "x"):
        with pytest.raises(UnknownStatistic):
            statistics_sql(Grouping(stats=(name,)))
    with pytest.raises(Refused):
        statistics_sql(Grouping(stats=("avg",), by=("key; DROP TABLE samples",)))


@pytest.mark.parametrize(
    "grouping",
    [
        Grouping(stats=(*STATS, "first", "last", "rate"), by=BY, step_us=5, job=True),
        Grouping(stats=("avg",)),
    ],
)
def test_what_is_asked_passes_the_guard(grouping: Grouping) -> None:
    connection = parquet.open_duckdb()
    for sql in (statistics_sql(grouping), samples_sql(job=grouping.job)):
        tree = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0]
        assert guard.checked(tree.encode()) == {"samples"}
    connection.close()
