"""The registry of sealed segments: which there are, where they rest, what became of no use.

It stands in the hot store, so that "the segments are there" and "the partition is gone" are one
transaction. ``place``: local (a file of this controller) or cold (an object of the cold store).
"""

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tshrag_common.errors import Unavailable
from tshrag_controller.store import partitions
from tshrag_controller.store.parquet import Written

SEALED, CACHE = "sealed", "cache"


class SegmentsAway(Unavailable):
    """Segments that a read needs rest in the cold store and have to be fetched first."""

    code = "segments_away"

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__("store", f"{len(self.names)} segments have to be fetched")


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the registry."""

    no: int
    name: str
    org: str
    day: str
    samples: int
    bytes: int
    first_at: int
    last_at: int
    sha256: str
    place: str
    sealed_at: int


def folder_of(db: sqlite3.Connection) -> Path | None:
    """Return the folder of the stores; None where they rest in memory."""
    for _, name, path in db.execute("PRAGMA database_list"):
        if name == "hot":
            return Path(path).parent if path else None
    return None


def segments(db: sqlite3.Connection, where: str = "", *arguments: object) -> list[Segment]:
    """Return segments that a condition of ours holds for, oldest first."""
    sql = f"SELECT * FROM hot.segments {where} ORDER BY day, no"
    cursor = db.execute(sql, arguments)
    names = [column[0] for column in cursor.description]
    rows = (dict(zip(names, row, strict=True)) for row in cursor)
    return [msgspec.convert(row, Segment) for row in rows]


def of_run(db: sqlite3.Connection, run: str) -> list[Segment]:
    """Return the segments that hold samples of a run."""
    return segments(db, "WHERE no IN (SELECT segment FROM hot.segment_runs WHERE run=?)", run)


def path_of(folder: Path, segment: Segment) -> Path:
    """Return where a segment is, or would be, on this disk."""
    return folder / (SEALED if segment.place == "local" else CACHE) / segment.name


def present(folder: Path, wanted: Iterable[Segment]) -> list[Path]:
    """Return the files of segments; raise SegmentsAway with those that are not here."""
    paths = {segment.name: path_of(folder, segment) for segment in wanted}
    away = [name for name, path in paths.items() if not _used(path)]
    if away:
        raise SegmentsAway(away)
    return list(paths.values())


def _used(path: Path) -> bool:
    """Mark a file as used, so that the cache lets others go first; tell whether it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def register(db: sqlite3.Connection, written: Iterable[Written], place: str, at: int) -> None:
    """Make segments part of the store; what is known by name already stays as it is."""
    for each in written:
        row = (
            each.name, each.org, each.day, each.samples, each.bytes, each.first_at, each.last_at,
            each.sha256, place, at,
        )  # fmt: skip
        cursor = db.execute(_REGISTER, row)
        if cursor.rowcount == 1:
            number = cursor.lastrowid
            rows = [(run, number, count) for run, count in each.runs.items()]
            db.executemany("INSERT INTO hot.segment_runs VALUES (?,?,?)", rows)


def seal(db: sqlite3.Connection, no: int, written: Iterable[Written], at: int) -> None:
    """Put segments in the place of a partition: in one transaction, which is the caller's."""
    register(db, written, "local", at)
    partitions.drop(db, no)


def replace(
    db: sqlite3.Connection, old: Iterable[Segment], new: Iterable[Written], at: int
) -> None:
    """Put new segments in the place of old ones; the files of the old become garbage."""
    register(db, new, "local", at)
    for segment in old:
        forget(db, segment, at)


def forget(db: sqlite3.Connection, segment: Segment, at: int) -> None:
    """Take a segment out of the store; what it rested in becomes garbage."""
    db.execute("DELETE FROM hot.segment_runs WHERE segment=?", (segment.no,))
    db.execute("DELETE FROM hot.segments WHERE no=?", (segment.no,))
    discard(db, segment.name, segment.place, at)


def move_to_cold(db: sqlite3.Connection, segment: Segment, at: int) -> None:
    """Take an uploaded segment for the one that counts; its file here becomes garbage."""
    db.execute("UPDATE hot.segments SET place='cold' WHERE no=?", (segment.no,))
    discard(db, segment.name, "local", at)


def discard(db: sqlite3.Connection, name: str, place: str, at: int) -> None:
    db.execute("INSERT OR REPLACE INTO hot.garbage VALUES (?,?,?)", (name, place, at))


def garbage(db: sqlite3.Connection, before: int) -> list[tuple[str, str]]:
    """Return (name, place) of what nobody has needed since `before`."""
    rows = db.execute("SELECT name, place FROM hot.garbage WHERE at < ?", (before,)).fetchall()
    return [(str(name), str(place)) for name, place in rows]


def collected(db: sqlite3.Connection, name: str, place: str) -> None:
    db.execute("DELETE FROM hot.garbage WHERE name=? AND place=?", (name, place))


def store_id(db: sqlite3.Connection) -> str:
    """Return the id of this hot store, which stands in the names of its segments."""
    return str(db.execute("SELECT value FROM hot.facts WHERE key='store'").fetchone()[0])


_REGISTER = (
    "INSERT OR IGNORE INTO hot.segments (name, org, day, samples, bytes, first_at, last_at, "
    "sha256, place, sealed_at) VALUES (?,?,?,?,?,?,?,?,?,?)"
)
