"""Samples of many attempts become batches: by size at once, by age when `flush_due` is called.

Times and values are trusted here: the gate (``attempts/metric_gate.py``) or a sampler of our own
has seen to them. Cost: about 0.3 us a sample by `add`, a tenth of that by `add_many`.
"""

import asyncio
from array import array
from collections.abc import Callable, Sequence

from tshrag_common.clock import Clock
from tshrag_common.metrics import MetricInfo, SampleBatch, Series, pack

MOST_SAMPLES = 1000
MOST_AGE_S = 0.5

HandOver = Callable[[SampleBatch], None]
"""Takes a finished batch; called on the event loop, it must not block."""


class _Columns:
    """Samples of one key that wait."""

    __slots__ = ("durations", "info", "times", "values")

    def __init__(self, info: MetricInfo) -> None:
        self.info = info
        self.times = array("q")
        self.values = array("d")
        self.durations = array("q")

    def series(self) -> Series:
        return pack(self.info, self.times, self.values, self.durations)


class BatchSource:
    """Where one attempt (or a host, with an empty run) puts its samples."""

    def __init__(self, batcher: "Batcher", run: str, job: str, attempt: int, dut: str) -> None:
        self.batches = self.samples = 0  # handed over
        self._batcher = batcher
        self._owner = (run, job, attempt, dut)
        self._columns: dict[str, _Columns] = {}
        self._waiting = 0
        self._since = 0.0

    def add(self, info: MetricInfo, at_us: int, value: float, duration_us: int = 0) -> None:
        """Take one sample; this is what a `MetricGate` wants for its `take`."""
        columns = self._columns.get(info.key)
        if columns is None or columns.info is not info:
            columns = self._for(info)
        columns.times.append(at_us)
        columns.values.append(value)
        columns.durations.append(duration_us)
        self._waiting += 1
        if self._waiting >= self._batcher.most_samples:
            self.flush()

    def add_many(
        self,
        info: MetricInfo,
        times: Sequence[int],
        values: Sequence[float],
        durations: Sequence[int] = (),
    ) -> None:
        """Take samples in bulk, in base units; durations are all given or none."""
        if len(times) != len(values) or (durations and len(durations) != len(times)):
            raise ValueError(f"columns of {len(times)}, {len(values)}, {len(durations)}")
        start = 0
        while start < len(times):
            columns = self._for(info)
            end = min(start + self._batcher.most_samples - self._waiting, len(times))
            columns.times.extend(times[start:end])
            columns.values.extend(values[start:end])
            columns.durations.extend(durations[start:end] or (0,) * (end - start))
            self._waiting += end - start
            start = end
            if self._waiting >= self._batcher.most_samples:
                self.flush()

    def flush(self) -> None:
        """Hand over what waits."""
        if not self._waiting:
            return
        run, job, attempt, dut = self._owner
        series = tuple(columns.series() for columns in self._columns.values())
        self.batches += 1
        self.samples += self._waiting
        self._columns, self._waiting = {}, 0
        self._batcher.hand_over(
            SampleBatch(run=run, job=job, attempt=attempt, dut=dut, series=series)
        )

    def close(self) -> None:
        """Hand over the rest; nothing may be added afterwards."""
        self.flush()
        self._batcher.forget(self)

    def is_due(self, now: float) -> bool:
        return self._waiting > 0 and now - self._since >= self._batcher.most_age_s

    def _for(self, info: MetricInfo) -> _Columns:
        """Return the columns of `info`; another unit or type of its key begins a new batch."""
        columns = self._columns.get(info.key)
        if columns is not None and columns.info != info:
            self.flush()
            columns = None
        if not self._waiting:
            self._since = self._batcher.clock.monotonic()
        if columns is None:
            columns = self._columns[info.key] = _Columns(info)
        columns.info = info
        return columns


class Batcher:
    """All sources of one agent."""

    def __init__(
        self,
        clock: Clock,
        hand_over: HandOver,
        *,
        most_samples: int = MOST_SAMPLES,
        most_age_s: float = MOST_AGE_S,
    ) -> None:
        self.clock, self.hand_over = clock, hand_over
        self.most_samples, self.most_age_s = most_samples, most_age_s
        self._sources: dict[BatchSource, None] = {}

    def source(self, run: str = "", job: str = "", attempt: int = 0, dut: str = "") -> BatchSource:
        """Open a source; close it when its attempt has ended."""
        source = BatchSource(self, run, job, attempt, dut)
        self._sources[source] = None
        return source

    def forget(self, source: BatchSource) -> None:
        self._sources.pop(source, None)

    def flush_due(self) -> None:
        """Hand over every batch that is old enough."""
        now = self.clock.monotonic()
        for source in list(self._sources):
            if source.is_due(now):
                source.flush()

    async def run(self) -> None:
        """Hand over old batches for ever; cancel it to end, then close the sources."""
        while True:
            await asyncio.sleep(self.most_age_s / 4)
            self.flush_due()
