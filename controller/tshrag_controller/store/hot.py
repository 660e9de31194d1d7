"""Samples of the last days: one blob of columns per series and batch, each batch once.

The high-water mark of (agent, spool) is in the transaction of the rows, so a batch that comes
again changes nothing. Samples outside any run (a host, an idle DUT) belong to run 0.
"""

import sqlite3
from array import array
from typing import NamedTuple

import msgspec

from tshrag_common import ids
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
    unpack_floats,
    unpack_ints,
)
from tshrag_common.reports import SamplesMessage


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a message: how far its spool is now, what was taken, what was not and why.

    ``gap_from`` > 0: messages from that number on have not come; nothing was taken.
    """

    upto: int
    samples: int = 0
    refused: tuple[str, ...] = ()
    gap_from: int = 0


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one series, by time of arrival."""

    key: str
    unit: str
    type: MetricType
    serial: int
    attempt: int
    agent: str
    dut: str
    times: "array[int]"
    values: "array[float]"
    durations: "array[int]"


class NotHolder(Refused):
    """Samples or output of an attempt that this agent does not have."""

    code = "not_holder"


class HotStore:
    """Writes batches; lives in the writer's thread, beside the projection and behind it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._series: dict[tuple[object, ...], _Known] = {}
        self._holders: dict[tuple[str, str, int], int] = {}  # (agent, job, attempt) -> run

    def forget(self) -> None:
        """Drop what is remembered, after a transaction was taken back."""
        self._series.clear()
        self._holders.clear()

    def mark(self, agent: str, kind: str) -> tuple[str, int]:
        """Return spool and high-water mark of an agent's samples or output."""
        found = self._connection.execute(_MARK, (agent, kind)).fetchone()
        return (str(found[0]), int(found[1])) if found else ("", 0)

    def upto(self, agent: str, kind: str, spool: str) -> int:
        """Return how far `spool` of an agent is stored; spools that it had before count too."""
        newest, upto = self.mark(agent, kind)
        if newest in (spool, ""):
            return upto
        self._connection.execute(_KEEP_MARK, (agent, kind, newest, upto))
        row = self._connection.execute(_OLD_MARK, (agent, kind, spool)).fetchone()
        return int(row[0]) if row else 0

    def set_mark(self, agent: str, kind: str, spool: str, upto: int) -> None:
        self._connection.execute(_SET_MARK, (agent, kind, spool, upto))

    def store(self, message: SamplesMessage) -> Stored:
        """Take the batches of a message that are new."""
        upto = self.upto(message.agent, "samples", message.spool)
        if message.first_seq > upto + 1:
            return Stored(upto=upto, gap_from=upto + 1)
        taken, refused = 0, list[str]()
        for seq, batch in enumerate(message.batches, message.first_seq):
            if seq <= upto:
                continue
            try:
                taken += self._store_batch(message.agent, batch, refused)
            except LabError as error:
                refused.append(error.line)
            upto = seq
        self.set_mark(message.agent, "samples", message.spool, upto)
        if taken:
            self._connection.execute(_COUNT, ("samples", taken))
        return Stored(upto=upto, samples=taken, refused=tuple(refused))

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

    def _store_batch(self, agent: str, batch: SampleBatch, refused: list[str]) -> int:
        """Take the series of a batch, each by itself; return how many samples were taken.

        What is refused is kept in mind: no criterion on that key may pass without it.
        """
        check_size(batch)
        run = self.run_of(agent, batch.job, batch.attempt) if batch.job else 0
        serial = ids.serial_of(ids.job_id(batch.job)) if batch.job else 0
        taken = 0
        for series in batch.series:
            place = (run, series.key, serial, batch.attempt, agent, batch.dut)
            try:
                check_series(series)
                self._store_series(place, series)
            except LabError as error:
                refused.append(error.line)
                row = (run, serial, batch.attempt, series.key[:MAX_KEY], max(1, len(series)))
                self._connection.execute(_REFUSED, (*row, error.line[:300]))
            else:
                taken += len(series)
        return taken

    def _store_series(self, place: tuple[object, ...], series: Series) -> None:
        known = self._series.get(place)
        if known is None:
            known = self._find_series(place, series)
        if (known.unit, known.type) != (series.unit, series.type):
            _refuse_conflict(known, series)
        number, chunk = known.id, known.next_chunk
        times = unpack_ints(series.times)
        self._connection.execute(
            _CHUNK,
            (
                number, chunk, len(times), min(times), max(times),
                series.times, series.values, series.durations or None,
            ),
        )  # fmt: skip
        if len(self._series) > 50_000:
            self._series.clear()
        self._series[place] = known._replace(next_chunk=chunk + 1)

    def _find_series(self, place: tuple[object, ...], series: Series) -> "_Known":
        row = self._connection.execute(_FIND, place).fetchone()
        if row is None:
            cursor = self._connection.execute(_SERIES, (*place, series.unit, series.type))
            return _Known(int(cursor.lastrowid or 0), 0, series.unit, series.type)
        last = self._connection.execute(_LAST_CHUNK, (row[0],)).fetchone()[0]
        return _Known(int(row[0]), int(last) + 1, str(row[1]), row[2])


class _Known(NamedTuple):
    """A series that is in the database."""

    id: int
    next_chunk: int
    unit: str
    type: MetricType


def _refuse_conflict(known: _Known, series: Series) -> None:
    """Raise where both cannot be the same metric; the same unit may have two names."""
    told = MetricInfo(key=series.key, unit=known.unit, type=known.type)
    new = MetricInfo(key=series.key, unit=series.unit, type=series.type)
    trouble = conflict(told, new)
    if trouble:
        raise Refused(series.key, trouble, code="metric_conflict")


def columns(
    connection: sqlite3.Connection, run: int, key_glob: str = "*", serial: int = 0
) -> list[Column]:
    """Return the series of a run whose keys match a GLOB, by key, job, attempt."""
    sql = _COLUMNS + (" AND serial=?" if serial else "") + _BY_KEY
    arguments = (run, key_glob, serial) if serial else (run, key_glob)
    return [_column(connection, row) for row in connection.execute(sql, arguments).fetchall()]


def _column(connection: sqlite3.Connection, row: tuple[object, ...]) -> Column:
    times, values, durations = array("q"), array("d"), array("q")
    for at, value, duration in connection.execute(_READ, (row[0],)):
        times.extend(unpack_ints(at))
        values.extend(unpack_floats(value))
        durations.extend(unpack_ints(duration) if duration else [0] * (len(at) // 8))
    return Column(
        key=str(row[1]),
        serial=int(str(row[2])),
        attempt=int(str(row[3])),
        agent=str(row[4]),
        dut=str(row[5]),
        unit=str(row[6]),
        type=row[7],  # type: ignore[arg-type]  # written by us from a MetricType
        times=times,
        values=values,
        durations=durations,
    )


_MARK = "SELECT spool, upto FROM hot.marks WHERE agent=? AND kind=?"
_SET_MARK = "INSERT OR REPLACE INTO hot.marks VALUES (?,?,?,?)"
_KEEP_MARK = "INSERT OR REPLACE INTO hot.old_marks VALUES (?,?,?,?)"
_OLD_MARK = "SELECT upto FROM hot.old_marks WHERE agent=? AND kind=? AND spool=?"
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
_LAST_CHUNK = "SELECT coalesce(max(no), -1) FROM chunks WHERE series=?"
_CHUNK = "INSERT INTO chunks VALUES (?,?,?,?,?,?,?,?)"
_COLUMNS = (
    "SELECT id, key, serial, attempt, agent, dut, unit, type FROM series WHERE run=? AND key GLOB ?"
)
_BY_KEY = " ORDER BY key, serial, attempt, agent, dut"
_READ = "SELECT at, value, duration FROM chunks WHERE series=? ORDER BY no"
