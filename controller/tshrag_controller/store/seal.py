"""A closed partition -> segments; small segments of a day -> larger ones. Blocks: for a thread.

Nothing here is part of the store before the registry says so; a file that a crash left behind
without a row is removed at the next start.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from tshrag_common import ids
from tshrag_common.errors import Unavailable
from tshrag_common.ids import RunId
from tshrag_controller.store import parquet, partitions, segments
from tshrag_controller.store.parquet import Label, SegmentDamaged, SegmentWriter, Written
from tshrag_controller.store.partitions import Partition
from tshrag_controller.store.schema import open_for_reading
from tshrag_controller.store.segments import CACHE, SEALED, Segment


def seal(folder: Path, part: Partition, day: str) -> list[Written]:
    """Write all samples of a partition into segments, and see that none is missing.

    Raises:
        Unavailable: a run of theirs is not in the projection yet.
        SegmentDamaged: what was written is not what was read.

    """
    db = open_for_reading(folder)
    try:
        written = _seal(db, folder / SEALED, part, part.day or day)
        wanted = db.execute(
            f"SELECT coalesce(sum(count), 0) FROM hot.{partitions.table_of(part.no)}"
        )
        count, found = int(wanted.fetchone()[0]), sum(each.samples for each in written)
    finally:
        db.close()
    found = sum(each.samples for each in written)
    if count != found:
        raise SegmentDamaged(f"partition {part.no}", f"{found} of {count} samples were written")
    return written


def _seal(db: sqlite3.Connection, folder: Path, part: Partition, day: str) -> list[Written]:
    stem = f"{segments.store_id(db)}-{part.no:06d}"
    written: list[Written] = []
    for org, group in groupby(_labels(db, part.no), lambda each: each[1].org):
        writer = SegmentWriter(folder, org, day, stem)
        for series, label in group:
            writer.add(label, partitions.chunks(db, part.no, series))
        writer.flush()
        written += writer.written
    return written


def _labels(db: sqlite3.Connection, no: int) -> list[tuple[int, Label]]:
    """Return (series, label) of all that a partition holds, in the order of a segment."""
    found: list[tuple[int, Label]] = []
    for series, number, run, org, key, serial, attempt, agent, dut, unit, kind in db.execute(
        _LABELS.format(partitions.table_of(no))
    ):
        if number and not run:
            raise Unavailable("store", f"run {number} is not projected yet", code="storage")
        job = ids.job_of(RunId(run), serial) if run and serial else ""
        label = Label(org or "", run or "", key, job, attempt, agent, dut, unit, kind)
        found.append((int(series), label))
    return sorted(found, key=lambda each: each[1].row)


def compact(folder: Path, old: Sequence[Segment], stem: str) -> Written:
    """Write the samples of some segments of one org and day into a single one."""
    paths = segments.present(folder, old)
    name = f"{old[0].org or '_lab'}/{old[0].day}/{stem}.parquet"
    path = folder / SEALED / name
    parquet.join(paths, path)
    size, digest = parquet.sync_and_digest(path)
    facts = parquet.facts_of(path)
    if facts.samples != sum(each.samples for each in old):
        raise SegmentDamaged(name, "samples were lost in a compaction")
    return Written(
        name=name, org=old[0].org, day=old[0].day, samples=facts.samples, bytes=size,
        first_at=facts.first_at, last_at=facts.last_at, sha256=digest, runs=facts.runs,
    )  # fmt: skip


def sweep(db: sqlite3.Connection, folder: Path) -> int:
    """Remove the files that no row tells of: of a sealing that a crash has cut; tell how many."""
    own = segments.store_id(db)
    known = {each.name for each in segments.segments(db, "WHERE place='local'")}
    known |= {str(row[0]) for row in db.execute("SELECT name FROM hot.garbage")}
    removed = 0
    for path in _files(folder / SEALED):
        name = path.relative_to(folder / SEALED).as_posix()
        if name not in known and path.name.startswith((own, ".")):
            path.unlink()
            removed += 1
    for path in _files(folder / CACHE):
        if path.name.startswith("."):
            path.unlink()
    return removed


def _files(folder: Path) -> Iterable[Path]:
    return [path for path in folder.glob("*/*/*") if path.is_file()] if folder.exists() else []


_LABELS = (
    "SELECT s.id, s.run, r.id, r.org, s.key, s.serial, s.attempt, s.agent, s.dut, s.unit, s.type "
    "FROM series s LEFT JOIN runs r ON r.no = s.run "
    "WHERE s.id IN (SELECT DISTINCT series FROM hot.{})"
)
