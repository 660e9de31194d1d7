"""The live tail as arrays: what a query reads beside the segments. For the query's process.

One read transaction holds the tail and the registry of segments, so that a sample is in exactly
one of them. Chunks are unpacked into place: a sample costs 20 bytes, 28 with a duration.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from tshrag_common import ids
from tshrag_common.ids import RunId
from tshrag_controller.store import partitions, segments
from tshrag_controller.store.chunks import planes_of
from tshrag_controller.store.parquet import Label
from tshrag_controller.store.segments import Segment

FAR = 1 << 62
MOST_CACHED = 4_000_000


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What of the samples is asked for: by org, time, key, run; empty: all."""

    org: str
    since: int = 0
    until: int = FAR
    key: str = ""  # a GLOB
    run: str = ""


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """The samples that are not sealed: arrays by column, and the labels that they point to."""

    arrays: dict[str, Any]
    labels: list[Label]
    segments: list[Segment]


def read_tail(db: sqlite3.Connection, scope: Scope, cache: "Unpacked") -> Tail:
    """Return the tail and the segments of one instant."""
    db.execute("BEGIN")
    try:
        parts = partitions.partitions(db)
        labels = _labels(db, scope)
        arrays = _arrays(db, [part.no for part in parts], labels, scope, cache)
        known = segments.segments(
            db,
            "WHERE org IN ('', ?) AND first_at < ? AND last_at >= ?",
            scope.org, scope.until, scope.since,
        )  # fmt: skip
        if scope.run:
            of_run = {each.no for each in segments.of_run(db, scope.run)}
            known = [each for each in known if each.no in of_run]
    finally:
        db.rollback()
    return Tail(arrays=arrays, labels=list(labels.values()), segments=known)


def _labels(db: sqlite3.Connection, scope: Scope) -> dict[int, Label]:
    sql, arguments = _LABELS, [scope.org]
    if scope.run:
        sql, arguments = sql + " AND r.id = ?", [*arguments, scope.run]
    if scope.key:
        sql, arguments = sql + " AND s.key GLOB ?", [*arguments, scope.key]
    found = dict[int, Label]()
    for series, run, org, key, serial, attempt, agent, dut, unit, kind in db.execute(
        sql, arguments
    ):
        job = ids.job_of(RunId(run), serial) if run and serial else ""
        found[series] = Label(org or "", run or "", key, job, attempt, agent, dut, unit, kind)
    return found


def _arrays(
    db: sqlite3.Connection,
    parts: Sequence[int],
    labels: dict[int, Label],
    scope: Scope,
    cache: "Unpacked",
) -> dict[str, Any]:
    import numpy as np

    places = {series: place for place, series in enumerate(labels)}
    window = (scope.until, scope.since)
    count, spans = 0, False
    for no in parts:
        for series, samples, has in db.execute(_COUNT.format(no), window):
            if series in places:
                count, spans = count + samples, spans or bool(has)
    arrays = {
        "label": np.empty(count, "<i4"),
        "time": np.empty(count, "<i8"),
        "value": np.empty(count, "<f8"),
        **({"duration": np.zeros(count, "<i8")} if spans else {}),
    }
    start = 0
    for no in parts:
        for number, series, samples in db.execute(_CHUNKS.format(no), window):
            place = places.get(series)
            if place is None:
                continue
            end = start + samples
            times, values, durations = cache.read(db, no, number, samples)
            arrays["label"][start:end] = place
            arrays["time"][start:end] = times
            arrays["value"][start:end] = values
            if durations is not None:
                arrays["duration"][start:end] = durations
            start = end
    return arrays


class Unpacked:
    """The arrays of chunks of the newest few million samples that were read.

    A chunk never changes but when it is joined with others, and then it holds more samples: the
    key is (partition, chunk, samples) of the one store that its process reads.
    """

    def __init__(self, most_samples: int = MOST_CACHED) -> None:
        self._most, self._samples = most_samples, 0
        self._kept: OrderedDict[tuple[int, int, int], tuple[Any, Any, Any]] = OrderedDict()

    def read(
        self, db: sqlite3.Connection, no: int, number: int, samples: int
    ) -> tuple[Any, Any, Any]:
        """Return times, values and durations (None: all 0) of a chunk."""
        key = (no, number, samples)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        at, value, duration = db.execute(_BLOBS.format(no), (number,)).fetchone()
        spans = _plain(duration, "<i8") if duration else None
        found = self._kept[key] = (_plain(at, "<i8"), _plain(value, "<f8"), spans)
        self._samples += samples
        while self._samples > self._most and len(self._kept) > 1:
            (_, _, fewer), _ = self._kept.popitem(last=False)
            self._samples -= fewer
        return found


def _plain(data: bytes, kind: str) -> Any:
    import numpy as np

    planes = planes_of(data)
    if planes is None:
        return np.frombuffer(data, kind, offset=1)
    shuffled = np.frombuffer(planes, "u1").reshape(8, -1)
    return np.ascontiguousarray(shuffled.T).view(kind)[:, 0]


_LABELS = (
    "SELECT s.id, r.id, r.org, s.key, s.serial, s.attempt, s.agent, s.dut, s.unit, s.type "
    "FROM series s LEFT JOIN runs r ON r.no = s.run WHERE (r.org = ? OR s.run = 0)"
)
_WINDOW = "FROM hot.chunks_{} WHERE first_at < ? AND last_at >= ?"
_COUNT = f"SELECT series, sum(count), max(duration IS NOT NULL) {_WINDOW} GROUP BY series"
_CHUNKS = f"SELECT id, series, count {_WINDOW}"
_BLOBS = "SELECT at, value, duration FROM hot.chunks_{} WHERE id=?"
