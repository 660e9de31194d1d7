"""What is asked of stored samples: keys with their statistics, and the samples themselves."""

import sqlite3
from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import NamedTuple

from tshrag_common import ids
from tshrag_common.errors import NotFound
from tshrag_common.ids import OrgId, RunId
from tshrag_common.metric_requests import GetSeries, ListMetrics, MetricsAnswer, SamplesAnswer
from tshrag_common.metrics import MetricInfo, metric_key
from tshrag_common.statistics import compute
from tshrag_common.views import SeriesView
from tshrag_controller.store.columns import Column, columns, keys
from tshrag_controller.store.queries import number_of

SPARK_WIDTH = 40
MOST_SERIES, MOST_KEYS = 400, 400
"""In one answer, which has to fit into a message."""
MOST_NUMBERS = 10_000
"""Values that ``num`` and ``hist`` answer with; a page of samples brings the rest."""


def list_metrics(db: sqlite3.Connection, org: OrgId, asked: ListMetrics) -> MetricsAnswer:
    """Return the series of a run by key, each job's and each key as a whole."""
    number = number_of(db, org, asked.run)
    serial = ids.serial_of(ids.job_id(asked.job)) if asked.job else 0
    found = columns(db, number, _glob(asked.key), serial)
    run = RunId(asked.run)
    groups = [list(group) for _, group in groupby(found, lambda column: column.key)]
    firsts = [group[0] for group in groups[:MOST_KEYS]]
    return MetricsAnswer(
        series=tuple(_view(run, [column], asked.stats) for column in found[:MOST_SERIES]),
        whole=tuple(_view(run, group, asked.stats) for group in groups[:MOST_KEYS]),
        infos=tuple(MetricInfo(key=each.key, unit=each.unit, type=each.type) for each in firsts),
        more=len(found) > MOST_SERIES or len(groups) > MOST_KEYS,
    )


def get_series(db: sqlite3.Connection, org: OrgId, asked: GetSeries) -> SamplesAnswer:
    """Return a page of the samples of one key, by time."""
    number = number_of(db, org, asked.run)
    key = metric_key(asked.key)
    serial = ids.serial_of(ids.job_id(asked.job)) if asked.job else 0
    found = columns(db, number, key, serial)
    if not found:
        raise NotFound("metric", key, keys(db, number))
    run = RunId(asked.run)
    rows = sorted(
        (at, value, duration, ids.job_of(run, column.serial) if column.serial else "")
        for column in found
        for at, value, duration in zip(column.times, column.values, column.durations, strict=True)
    )
    page = rows[asked.offset : asked.offset + asked.limit]
    return SamplesAnswer(
        at=tuple(row[0] for row in page),
        value=tuple(row[1] for row in page),
        duration_us=tuple(row[2] for row in page),
        job=tuple(row[3] for row in page),
        more=len(rows) > asked.offset + asked.limit,
    )


def _glob(key: str) -> str:
    """Return a GLOB over canonical keys; ``::`` and ``/`` are read as dots."""
    return key.replace("::", ".").replace("/", ".").lower()


def _view(run: RunId, group: list[Column], stats: Sequence[str]) -> SeriesView:
    first = group[0]
    times = [at for column in group for at in column.times]
    values = [value for column in group for value in column.values]
    one = len(group) == 1
    course = slices(times, values)
    return SeriesView(
        key=first.key,
        job=ids.job_of(run, first.serial) if one and first.serial else "",
        attempt=first.attempt if one else 0,
        agent=first.agent if one else "",
        dut=first.dut if one else "",
        unit=first.unit,
        type=first.type,
        count=len(values),
        first_at=min(times, default=0),
        last_at=max(times, default=0),
        stats={name: _statistic(name, first, times, values) for name in stats},
        spark=course.means,
        spark_low=course.lows,
        spark_high=course.highs,
        spark_gaps=course.gaps,
    )


def _statistic(name: str, column: Column, times: Sequence[int], values: Sequence[float]) -> object:
    found = compute(name, times, values, counter=column.type == "counter")
    if isinstance(found, list):
        return found[:MOST_NUMBERS]
    if isinstance(found, dict):
        return dict(list(found.items())[:MOST_NUMBERS])
    return found


class Slices(NamedTuple):
    """The course of a metric over equal slices of time; an empty one repeats the one before."""

    means: tuple[float, ...] = ()
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    gaps: tuple[int, ...] = ()


def slices(times: Sequence[int], values: Sequence[float]) -> Slices:
    """Return means, least and greatest over at most 40 slices, and which of them are gaps.

    An empty slice is a gap where the samples around it are further apart than is usual in this
    series: a sample each second does not fall into each of the slices that are a second long.
    """
    if not values:
        return Slices()
    first, last = min(times), max(times)
    width = min(SPARK_WIDTH, len(values))
    span = max(1, last - first + 1)
    parts: list[list[float]] = [[] for _ in range(width)]
    for at, value in zip(times, values, strict=True):
        parts[(at - first) * width // span].append(value)
    told: list[tuple[float, float, float]] = []
    for part in parts:
        told.append((sum(part) / len(part), min(part), max(part)) if part else told[-1])
    means, lows, highs = zip(*told, strict=True)
    empty = [no for no, part in enumerate(parts) if not part]
    silent = _silences(times) if empty else ()
    gaps = tuple(no for no in empty if _within((no + 0.5) * span / width + first, silent))
    return Slices(means, lows, highs, gaps)


def _silences(times: Sequence[int]) -> list[tuple[int, int]]:
    """Return from when to when nothing came for more than twice the usual time."""
    steps = [(before, after) for before, after in pairwise(sorted(times)) if after > before]
    usual = median(after - before for before, after in steps) if steps else 0
    return [(before, after) for before, after in steps if after - before > 2 * usual]


def _within(at: float, spans: Sequence[tuple[int, int]]) -> bool:
    return any(begin < at < end for begin, end in spans)


def spark(times: Sequence[int], values: Sequence[float]) -> tuple[float, ...]:
    """Return means over at most 40 equal slices of time; an empty slice repeats the one before."""
    return slices(times, values).means
