"""Samples as they arrive: one blob of columns per series and batch, each batch once.

The high-water mark of (agent, spool) is in the transaction of the rows, so a batch that comes
again changes nothing. Samples outside any run (a host, an idle DUT) belong to run 0.
"""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tshrag_common import ids
from tshrag_common.clock import SystemClock
from tshrag_common.errors import LabError, Refused
from tshrag_common.metrics import (
    MAX_KEY,
    MetricInfo,
    MetricType,
    SampleBatch,
    Series,
    check_series,
    check_size,
    conflict,
)
from tshrag_common.reports import SamplesMessage
from tshrag_controller.store import partitions
from tshrag_controller.store.marks import Marks, fit
from tshrag_controller.store.partitions import Chunk, Partition, day_of

REST = "…"
"""The key of what stands for many: whichever they were, they are missing."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a message: how far its spool is now, what was taken, what was not and why.

    ``gap_from`` > 0: messages from that number on have not come; nothing was taken. ``batches``
    holds what was new, without the series that were refused. ``whole`` < ``upto``: something
    older is still to come.
    """

    upto: int
    whole: int
    samples: int = 0
    refused: tuple[str, ...] = ()
    gap_from: int = 0
    batches: tuple[SampleBatch, ...] = ()


class NotHolder(Refused):
    """Samples or output of an attempt that this agent does not have."""

    code = "not_holder"


class HotLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How large a partition, and how many series of a run (of hosts: of the lab), may become."""

    partition_samples: int = partitions.MOST_SAMPLES
    run_series: int = 20_000
    lab_series: int = 1_000_000


class HotStore:
    """Writes batches; lives in the writer's thread, beside the projection and behind it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: Callable[[], int] | None = None,
        limits: HotLimits | None = None,
    ) -> None:
        self._connection, self._now = connection, now or SystemClock().now
        self.marks = Marks(connection)
        self._limits = limits or HotLimits()
        self._partition: Partition | None = None
        self._counts: dict[int, int] = {}  # run -> its series
        self._series: dict[tuple[object, ...], _Known] = {}
        self._holders: dict[tuple[str, str, int], int] = {}  # (agent, job, attempt) -> run

    def forget(self) -> None:
        """Drop what is remembered, after a transaction was taken back."""
        self._series.clear()
        self._holders.clear()
        self._counts.clear()
        self._partition = None

    def store(self, message: SamplesMessage, *, ahead: bool = False) -> Stored:
        """Take the batches of a message that are new; `ahead`: see `marks.fit`."""
        place = (message.agent, "samples", message.spool)
        before = self.marks.standing(*place)
        now, new, gap_from = fit(before, message.first_seq, len(message.batches), ahead=ahead)
        if gap_from:
            return Stored(upto=before.upto, whole=before.whole, gap_from=gap_from)
        self._open_partition()
        taken, refused, batches = 0, list[str](), list[SampleBatch]()
        for seq in new:
            try:
                batch = message.batches[seq - message.first_seq]
                stored = self._store_batch(message.agent, batch, refused)
                taken += stored.count
                batches.append(stored)
            except LabError as error:
                refused.append(error.line)
        self.marks.put(*place, before, now)
        if taken:
            self._count(taken)
        return Stored(
            upto=now.upto,
            whole=now.whole,
            samples=taken,
            refused=tuple(refused),
            batches=tuple(batches),
        )

    def _open_partition(self) -> Partition:
        """Return the partition that takes samples now; begin another one where it is time."""
        day = day_of(self._now())
        if self._partition is None:
            kept = partitions.partitions(self._connection)
            self._partition = next((each for each in kept if each.state == "open"), None)
        part = self._partition
        if part is None or day > part.day or part.samples >= self._limits.partition_samples:
            part = self._partition = partitions.begin(self._connection, day)
        return part

    def close_partition(self, *, whatever_day: bool = False) -> None:
        """Close the partition that is open where its day is over, or whatever day it is of."""
        kept = partitions.partitions(self._connection)
        part = next((each for each in kept if each.state == "open"), None)
        if part is not None and (whatever_day or part.day < day_of(self._now())):
            sql = "UPDATE hot.partitions SET state='closed' WHERE no=?"
            self._connection.execute(sql, (part.no,))
            self._partition = None

    def _count(self, taken: int) -> None:
        part = self._open_partition()
        self._partition = msgspec.structs.replace(part, samples=part.samples + taken)
        row = (self._partition.samples, part.no)
        self._connection.execute("UPDATE hot.partitions SET samples=? WHERE no=?", row)
        self._connection.execute(_COUNT, ("samples", taken))

    def run_of(self, agent: str, job: str, attempt: int) -> int:
        """Return the short number of the run of an attempt; refuse what `agent` does not hold."""
        known = self._holders.get((agent, job, attempt))
        if known is None:
            name = ids.job_id(job)
            row = self._connection.execute(
                _HOLDER, (ids.run_of(name), ids.serial_of(name), attempt, agent)
            ).fetchone()
            if row is None:
                raise NotHolder(agent, f"attempt {attempt} of {job} is not its own")
            if len(self._holders) > 50_000:
                self._holders.clear()
            known = self._holders[agent, job, attempt] = int(row[0])
        return known

    def _store_batch(self, agent: str, batch: SampleBatch, refused: list[str]) -> SampleBatch:
        """Take the series of a batch, each by itself; return those that were taken.

        What is refused is kept in mind: no criterion on that key may pass without it.
        """
        check_size(batch)
        run = self.run_of(agent, batch.job, batch.attempt) if batch.job else 0
        serial = ids.serial_of(ids.job_id(batch.job)) if batch.job else 0
        taken: list[Series] = []
        for series in batch.series:
            place = (run, series.key, serial, batch.attempt, agent, batch.dut)
            try:
                self._store_series(place, series, *check_series(series))
            except LabError as error:
                refused.append(error.line)
                key = REST if error.code == "series_cap" else series.key[:MAX_KEY]
                row = (run, serial, batch.attempt, key, max(1, len(series)))
                self._connection.execute(_REFUSED, (*row, error.line[:300]))
            else:
                taken.append(series)
        if len(taken) == len(batch.series):
            return batch
        return msgspec.structs.replace(batch, series=tuple(taken))

    def _store_series(
        self, place: tuple[object, ...], series: Series, first_at: int, last_at: int
    ) -> None:
        known = self._series.get(place)
        if known is None:
            known = self._find_series(place, series)
        if (known.unit, known.type) != (series.unit, series.type):
            _refuse_conflict(known, series)
        chunk = Chunk(series.times, series.values, series.durations)
        part = self._partition or self._open_partition()
        partitions.add(self._connection, part.no, known.id, chunk, first_at, last_at)
        if len(self._series) > 50_000:
            self._series.clear()
        self._series[place] = known

    def _find_series(self, place: tuple[object, ...], series: Series) -> "_Known":
        row = self._connection.execute(_FIND, place).fetchone()
        if row is not None:
            return _Known(int(row[0]), str(row[1]), row[2])
        self._check_room(int(str(place[0])), series)
        cursor = self._connection.execute(_SERIES, (*place, series.unit, series.type))
        return _Known(int(cursor.lastrowid or 0), series.unit, series.type)

    def _check_room(self, run: int, series: Series) -> None:
        """Refuse a series beyond what a run may have: its samples are counted, none is kept."""
        if run not in self._counts:
            sql = "SELECT count(*) FROM series WHERE run=?"
            self._counts[run] = int(self._connection.execute(sql, (run,)).fetchone()[0])
        most = self._limits.run_series if run else self._limits.lab_series
        if self._counts[run] >= most:
            self._connection.execute(_COUNT, ("series_overflow", len(series)))
            fix = "fewer keys, or [store] run_series"
            raise Refused(series.key, f"beyond {most} series", fix, code="series_cap")
        self._counts[run] += 1


class _Known(NamedTuple):
    """A series that is in the database."""

    id: int
    unit: str
    type: MetricType


def _refuse_conflict(known: _Known, series: Series) -> None:
    """Raise where both cannot be the same metric; the same unit may have two names."""
    told = MetricInfo(key=series.key, unit=known.unit, type=known.type)
    new = MetricInfo(key=series.key, unit=series.unit, type=series.type)
    trouble = conflict(told, new)
    if trouble:
        raise Refused(series.key, trouble, code="metric_conflict")


_COUNT = (
    "INSERT INTO hot.totals VALUES (?,?) "
    "ON CONFLICT (name) DO UPDATE SET value=value+excluded.value"
)
_REFUSED = (
    "INSERT INTO hot.refused VALUES (?,?,?,?,?,?) ON CONFLICT (run, serial, attempt, key) "
    "DO UPDATE SET count=count+excluded.count"
)
_HOLDER = (
    "SELECT r.no FROM attempts a JOIN runs r ON a.run=r.no "
    "WHERE r.id=? AND a.serial=? AND a.number=? AND a.agent=?"
)
_FIND = (
    "SELECT id, unit, type FROM series "
    "WHERE run=? AND key=? AND serial=? AND attempt=? AND agent=? AND dut=?"
)
_SERIES = (
    "INSERT INTO series (run, key, serial, attempt, agent, dut, unit, type) "
    "VALUES (?,?,?,?,?,?,?,?)"
)
