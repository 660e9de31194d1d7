import asyncio
from array import array

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.support.waiting import wait_until
from tshrag_agent.reports.batcher import Batcher
from tshrag_common.clock import SystemClock
from tshrag_common.metrics import MAX_SERIES, MetricInfo, SampleBatch, check_batch
from tshrag_common.wire import MAX_BATCH_BYTES

AT = 1_790_000_000_000_000
A, B = MetricInfo(key="a", unit="ms"), MetricInfo(key="b", type="counter")


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return AT

    def monotonic(self) -> float:
        return self.seconds


class Bench:
    """A batcher, its clock and what it handed over."""

    def __init__(self, most_samples: int = 10) -> None:
        self.batches: list[SampleBatch] = []
        self.clock = HandClock()
        self.batcher = Batcher(self.clock, self.batches.append, most_samples=most_samples)
        self.source = self.batcher.source("run-1", "job-1", 2, "rpi4")

    def flat(self) -> list[tuple[str, int, float, int]]:
        return [
            (series.key, *sample)
            for batch in self.batches
            for series in batch.series
            for sample in series.samples()
        ]


def test_a_batch_is_handed_over_when_it_is_full() -> None:
    bench = Bench()
    for n in range(25):
        bench.source.add((A, B)[n % 2], AT + n, float(n), n % 3)
    assert [batch.count for batch in bench.batches] == [10, 10]
    first = bench.batches[0]
    assert (first.run, first.job, first.attempt, first.dut) == ("run-1", "job-1", 2, "rpi4")
    assert [(each.key, each.unit, each.type) for each in first.series] == [
        ("a", "ms", "gauge"),
        ("b", "", "counter"),
    ]
    bench.source.close()
    assert sorted(bench.flat()) == sorted(
        (("a", "b")[n % 2], AT + n, float(n), n % 3) for n in range(25)
    )
    assert (bench.source.batches, bench.source.samples) == (3, 25)


def test_a_batch_is_handed_over_when_it_is_old() -> None:
    bench = Bench()
    bench.clock.seconds = 100.0
    bench.source.add(A, AT, 1.0)
    bench.clock.seconds = 100.4
    bench.source.add(A, AT, 2.0)
    bench.batcher.flush_due()
    assert bench.batches == []
    bench.clock.seconds = 100.5
    bench.batcher.flush_due()
    assert [batch.count for batch in bench.batches] == [2]
    bench.clock.seconds = 200
    bench.batcher.flush_due()
    assert len(bench.batches) == 1  # nothing waits: nothing is sent


def test_another_unit_of_a_key_begins_another_batch() -> None:
    bench = Bench()
    bench.source.add(A, AT, 1.0)
    bench.source.add(MetricInfo(key="a", unit="ms"), AT, 2.0)  # equal: the same series
    bench.source.add(MetricInfo(key="a", unit="s"), AT, 3.0)
    bench.source.close()
    assert [[each.unit for each in batch.series] for batch in bench.batches] == [["ms"], ["s"]]


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 35), st.booleans()), max_size=12))
def test_nothing_is_lost_and_order_is_kept(calls: list[tuple[MetricInfo, int, bool]]) -> None:
    bench, expected, at = Bench(), dict[str, list[tuple[int, float, int]]](), AT
    for info, count, with_durations in calls:
        times = array("q", range(at, at + count))
        durations = [5] * count if with_durations else []
        bench.source.add_many(info, times, [float(n) for n in range(count)], durations)
        rows = expected.setdefault(info.key, [])
        rows.extend((at + n, float(n), 5 * with_durations) for n in range(count))
        at += count
    bench.source.close()
    for key, rows in expected.items():
        assert [row[1:] for row in bench.flat() if row[0] == key] == rows
    assert all(0 < batch.count <= 10 for batch in bench.batches)
    for batch in bench.batches:
        check_batch(batch)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="columns of 2, 1, 0"):
        Bench().source.add_many(A, [AT, AT], [1.0])


def test_the_largest_batch_fits_its_message() -> None:
    bench = Bench(most_samples=1000)
    for n in range(MAX_SERIES):
        info = MetricInfo(key=f"{'k' * 196}{n:04d}", unit="ms")
        bench.source.add(info, AT, 1.0, 5)
    (batch,) = bench.batches
    check_batch(batch)
    assert len(msgspec.msgpack.encode(batch)) < MAX_BATCH_BYTES


async def test_old_batches_leave_by_themselves() -> None:
    batches: list[SampleBatch] = []
    batcher = Batcher(SystemClock(), batches.append, most_age_s=0.05)
    source = batcher.source("run-1")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        source.add(A, AT, 1.0)
        await wait_until(lambda: batches, 5)
        running.cancel()
    source.close()
    assert [batch.count for batch in batches] == [1]
