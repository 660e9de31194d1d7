"""Whole series of a run, wherever their samples rest: the live tail and the sealed segments.

This is what judges read. A read that needs segments of the cold store raises `SegmentsAway`;
`Store.query` fetches them and reads again.
"""

import sqlite3
from array import array

import msgspec

from tshrag_common import ids
from tshrag_common.ids import RunId
from tshrag_common.metrics import MetricType, unpack_floats, unpack_ints
from tshrag_controller.store import parquet, partitions, segments


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one series, in no promised order."""

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


def columns(db: sqlite3.Connection, run: int, key_glob: str = "*", serial: int = 0) -> list[Column]:
    """Return the series of a run whose keys match a GLOB, by key, job, attempt.

    Raises:
        SegmentsAway: some of it has to be fetched first.

    """
    found = _sealed(db, run, key_glob, serial)
    sql = _SERIES + (" AND serial=?" if serial else "")
    arguments = (run, key_glob, serial) if serial else (run, key_glob)
    numbers = [part.no for part in partitions.partitions(db)]
    for row in db.execute(sql, arguments).fetchall():
        column = _column(row)
        column = found.setdefault(_place(column), column)
        for number in numbers:
            _extend(column, db, number, int(row[0]))
    return [found[place] for place in sorted(found) if len(found[place].times)]


def keys(db: sqlite3.Connection, run: int) -> list[str]:
    """Return the keys that a run has samples of."""
    rows = db.execute("SELECT DISTINCT key FROM series WHERE run=?", (run,))
    return [str(row[0]) for row in rows]


_Place = tuple[str, int, int, str, str]


def _place(column: Column) -> _Place:
    return column.key, column.serial, column.attempt, column.agent, column.dut


def _column(row: tuple[object, ...]) -> Column:
    return Column(
        key=str(row[1]),
        serial=int(str(row[2])),
        attempt=int(str(row[3])),
        agent=str(row[4]),
        dut=str(row[5]),
        unit=str(row[6]),
        type=row[7],  # type: ignore[arg-type]  # written by us from a MetricType
        times=array("q"),
        values=array("d"),
        durations=array("q"),
    )


def _extend(column: Column, db: sqlite3.Connection, partition: int, series: int) -> None:
    for chunk in partitions.chunks(db, partition, series):
        column.times.extend(unpack_ints(chunk.times))
        column.values.extend(unpack_floats(chunk.values))
        spans = unpack_ints(chunk.durations) if chunk.durations else array("q", [0]) * chunk.count
        column.durations.extend(spans)


def _sealed(db: sqlite3.Connection, run: int, key_glob: str, serial: int) -> dict[_Place, Column]:
    name = str(db.execute(_NAME, (run,)).fetchone()[0]) if run else ""
    wanted = segments.of_run(db, name)
    folder = segments.folder_of(db)
    if not wanted or folder is None:
        return {}
    paths = segments.present(folder, wanted)
    job = ids.job_of(RunId(name), serial) if serial else ""
    found = dict[_Place, Column]()
    for each in parquet.read(paths, name, key_glob, job):
        label = each.label
        column = Column(
            key=label.key,
            serial=ids.serial_of(ids.job_id(label.job)) if label.job else 0,
            attempt=label.attempt,
            agent=label.agent,
            dut=label.dut,
            unit=label.unit,
            type=label.type,  # type: ignore[arg-type]  # written by us from a MetricType
            times=each.times,
            values=each.values,
            durations=each.durations,
        )
        found[_place(column)] = column
    return found


_NAME = "SELECT id FROM runs WHERE no=?"
_SERIES = (
    "SELECT id, key, serial, attempt, agent, dut, unit, type FROM series WHERE run=? AND key GLOB ?"
)
