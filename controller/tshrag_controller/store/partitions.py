"""The hot store's live tail: one table of chunks a day of arrival, each begun, closed, sealed.

A partition is a table and not a file: SQLite commits one file at a time, and what seals a
partition (its segments are told, its chunks are gone) has to be one transaction, as has what
stores a batch (its chunks, the mark of its spool).
"""

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from tshrag_controller.store.chunks import pack_column, unpack_column

MOST_SAMPLES = 8_000_000
"""Of a partition: what a query may have to hold of the live tail."""
SMALL, FEW, MOST_MERGED = 1000, 16, 20_000
"""Chunks of fewer than `SMALL` samples are merged where a series has `FEW` of them."""


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """One table of chunks; ``state`` is open or closed."""

    no: int
    day: str
    samples: int
    state: str


def day_of(at: int) -> str:
    """Return the day (UTC) of an instant."""
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d")


def partitions(db: sqlite3.Connection) -> list[Partition]:
    """Return what is not sealed yet, oldest first."""
    rows = db.execute("SELECT no, day, samples, state FROM partitions ORDER BY no").fetchall()
    return [Partition(no=no, day=day, samples=n, state=state) for no, day, n, state in rows]


def table_of(no: int) -> str:
    return f"chunks_{no}"


def begin(db: sqlite3.Connection, day: str) -> Partition:
    """Close what is open and make the partition of `day`."""
    db.execute("UPDATE hot.partitions SET state='closed' WHERE state='open'")
    db.execute("INSERT INTO hot.partitions (day, samples, state) VALUES (?, 0, 'open')", (day,))
    no = int(db.execute("SELECT max(no) FROM hot.partitions").fetchone()[0])
    db.execute(_TABLE.format(no))
    db.execute(_INDEX.format(no))
    return Partition(no=no, day=day, samples=0, state="open")


def drop(db: sqlite3.Connection, no: int) -> None:
    """Remove a partition with its chunks."""
    db.execute(f"DROP TABLE hot.{table_of(no)}")
    db.execute("DELETE FROM hot.partitions WHERE no=?", (no,))


def count(db: sqlite3.Connection, no: int) -> int:
    """Return how many samples a partition holds."""
    sql = f"SELECT coalesce(sum(count), 0) FROM hot.{table_of(no)}"
    return int(db.execute(sql).fetchone()[0])


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Plain columns of one series; without durations all of them are 0."""

    times: bytes
    values: bytes
    durations: bytes

    @property
    def count(self) -> int:
        return len(self.times) // 8


def add(
    db: sqlite3.Connection, no: int, series: int, chunk: Chunk, first_at: int, last_at: int
) -> None:
    """Write a chunk behind those that the series has."""
    row = (
        series, chunk.count, first_at, last_at, pack_column(chunk.times),
        pack_column(chunk.values), pack_column(chunk.durations) if chunk.durations else None,
    )  # fmt: skip
    db.execute(_INSERT.format(no), row)


def chunks(db: sqlite3.Connection, no: int, series: int) -> Iterable[Chunk]:
    """Yield the chunks of a series in the order in which they came."""
    for row in db.execute(_READ.format(no), (series,)):
        yield chunk_of(*row)


def chunk_of(at: bytes, value: bytes, duration: bytes | None) -> Chunk:
    """Return a row of a table of chunks as plain columns."""
    spans = unpack_column(duration) if duration else b""
    return Chunk(unpack_column(at), unpack_column(value), spans)


def merge_small(db: sqlite3.Connection, no: int, most: int, upto: int) -> int:
    """Join small chunks up to number `upto` of at most `most` series; return of how many.

    Their samples keep their order; a reader sees all of them before and after.
    """
    found = db.execute(_SMALL.format(no), (SMALL, upto, FEW, most)).fetchall()
    for (series,) in found:
        _merge(db, no, int(series), upto)
    return len(found)


def _merge(db: sqlite3.Connection, no: int, series: int, upto: int) -> None:
    """Join runs of neighbours: a large chunk between small ones keeps its place."""
    rows = db.execute(_ALL.format(no), (series, upto)).fetchall()
    run: list[tuple[int, int, int, int]] = []
    for row in [*rows, None]:
        fits = row is not None and row[1] < SMALL
        if fits and row is not None and sum(each[1] for each in run) + row[1] <= MOST_MERGED:
            run.append(row)
            continue
        _join(db, no, series, run)
        run = [row] if fits and row is not None else []


def _join(
    db: sqlite3.Connection, no: int, series: int, run: list[tuple[int, int, int, int]]
) -> None:
    if len(run) < 2:
        return
    first, last = run[0][0], run[-1][0]
    parts = [chunk_of(*row) for row in db.execute(_RANGE.format(no), (series, first, last))]
    spans = b""
    if any(part.durations for part in parts):
        spans = b"".join(part.durations or bytes(len(part.times)) for part in parts)
    whole = Chunk(b"".join(p.times for p in parts), b"".join(p.values for p in parts), spans)
    db.execute(_REMOVE.format(no), (series, first, last))
    row = (
        first, series, whole.count, min(each[2] for each in run), max(each[3] for each in run),
        pack_column(whole.times), pack_column(whole.values),
        pack_column(whole.durations) if whole.durations else None,
    )  # fmt: skip
    db.execute(_PUT.format(no), row)


_TABLE = (
    "CREATE TABLE hot.chunks_{} (id INTEGER PRIMARY KEY, series INTEGER NOT NULL, "
    "count INTEGER NOT NULL, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, "
    "at BLOB NOT NULL, value BLOB NOT NULL, duration BLOB)"
)
_INDEX = "CREATE INDEX hot.chunks_{0}_series ON chunks_{0} (series, id, count)"
_COLUMNS = "(series, count, first_at, last_at, at, value, duration)"
_INSERT = f"INSERT INTO hot.chunks_{{}} {_COLUMNS} VALUES (?,?,?,?,?,?,?)"
_PUT = "INSERT INTO hot.chunks_{} VALUES (?,?,?,?,?,?,?,?)"
_READ = "SELECT at, value, duration FROM hot.chunks_{} WHERE series=? ORDER BY id"
_SMALL = (
    "SELECT series FROM hot.chunks_{} WHERE count < ? AND id <= ? "
    "GROUP BY series HAVING count(*) >= ? LIMIT ?"
)
_ALL = (
    "SELECT id, count, first_at, last_at FROM hot.chunks_{} WHERE series=? AND id <= ? ORDER BY id"
)
_RANGE = (
    "SELECT at, value, duration FROM hot.chunks_{} "
    "WHERE series=? AND id BETWEEN ? AND ? ORDER BY id"
)
_REMOVE = "DELETE FROM hot.chunks_{} WHERE series=? AND id BETWEEN ? AND ?"
