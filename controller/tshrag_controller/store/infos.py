"""What the metrics of a run are: unit, type, writers, labels, how many samples, what was left out.

Nothing is decoded for it: chunks know their counts and instants, and Parquet counts by key.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from tshrag_common.ids import OrgId
from tshrag_common.jobs import JobSpec
from tshrag_common.metric_requests import InfosAnswer, InfoView, ListInfos
from tshrag_common.metrics import RESERVED, MetricInfo, metric_key
from tshrag_common.reports import Ended
from tshrag_controller.store import parquet, partitions, segments
from tshrag_controller.store.queries import number_of

MOST_INFOS = 1000
OVERFLOW = ".overflow"
_BEYOND = ("metric_series", "series_cap", "metric_key: more than")
"""How the reasons begin why a sample was beyond a cap."""

_ENDED = msgspec.json.Decoder(Ended)
_SPEC = msgspec.json.Decoder(JobSpec)


@dataclass
class _Found:
    """What is gathered of one key."""

    unit: str = ""
    type: str = "gauge"
    series: set[tuple[object, ...]] = field(default_factory=set[tuple[object, ...]])
    serials: set[int] = field(default_factory=set[int])
    count: int = 0
    first_at: int = 0
    last_at: int = 0
    overflow: int = 0
    refused: int = 0

    def add(self, count: int, first_at: int, last_at: int) -> None:
        if count:
            self.first_at = min(self.first_at or first_at, first_at)
            self.last_at = max(self.last_at, last_at)
            self.count += count


def list_infos(db: sqlite3.Connection, org: OrgId, asked: ListInfos) -> InfosAnswer:
    """Return the metrics of a run, by key.

    Raises:
        SegmentsAway: some of it has to be fetched first.

    """
    number = number_of(db, org, asked.run)
    glob = asked.key.replace("::", ".").replace("/", ".").lower()
    specs = _specs(db, number)
    found: dict[str, _Found] = {}
    _live(db, number, glob, found)
    _sealed(db, asked.run, glob, found)
    _left_out(db, number, glob, found)
    declared = {info.key: info for spec in specs.values() for info in spec.metrics}
    for key in _matching(db, glob, declared):
        found.setdefault(key, _Found(declared[key].unit, declared[key].type))
    keys = sorted(found)
    views = (_view(key, found[key], declared, specs) for key in keys[:MOST_INFOS])
    return InfosAnswer(infos=tuple(views), more=len(keys) > MOST_INFOS)


def _specs(db: sqlite3.Connection, number: int) -> dict[int, JobSpec]:
    """Return the spec of each job, by serial."""
    specs = {
        int(no): _SPEC.decode(blob)
        for no, blob in db.execute("SELECT no, spec FROM specs WHERE run=?", (number,))
    }
    rows = db.execute("SELECT serial, spec FROM jobs WHERE run=?", (number,))
    return {int(serial): specs[int(no)] for serial, no in rows}


def _live(db: sqlite3.Connection, number: int, glob: str, found: dict[str, _Found]) -> None:
    """Add what is in the series and their chunks; an old series may have been sealed since."""
    rows = db.execute(_SERIES, (number, glob)).fetchall()
    keys: dict[int, _Found] = {}
    for no, key, serial, attempt, agent, dut, unit, kind in rows:
        each = found.setdefault(str(key), _Found(str(unit), str(kind)))
        each.series.add((serial, attempt, agent, dut))
        each.serials.add(int(serial))
        keys[int(no)] = each
    for part in partitions.partitions(db):
        sql = _COUNTS.format(partitions.table_of(part.no))
        for series, count, first, last in db.execute(sql, (number, glob)):
            keys[int(series)].add(int(count), int(first), int(last))


def _sealed(db: sqlite3.Connection, run: str, glob: str, found: dict[str, _Found]) -> None:
    wanted = segments.of_run(db, run)
    folder = segments.folder_of(db)
    if not wanted or folder is None:
        return
    source = parquet.files(segments.present(folder, wanted))
    connection = parquet.open_duckdb()
    try:
        rows = connection.execute(_PARQUET.format(source), [run, glob]).fetchall()
    except parquet.duckdb().Error as error:
        raise parquet.SegmentDamaged("segments", str(error)[:300]) from None
    finally:
        connection.close()
    for key, unit, kind, count, first, last in rows:
        found.setdefault(key, _Found(unit, kind)).add(count, first, last)


def _left_out(db: sqlite3.Connection, number: int, glob: str, found: dict[str, _Found]) -> None:
    """Count what agents did not take, and what this store did not."""
    rows = db.execute("SELECT key, count, reason FROM refused WHERE run=?", (number,))
    refused = [(str(key), int(count), str(reason)) for key, count, reason in rows]
    for (blob,) in db.execute(_ENDS, (number,)):
        for notice in _ENDED.decode(blob).notices:
            key = notice.key.replace("::", ".").replace("/", ".").lower()
            refused.append((key, notice.count, notice.reason))
    for key in _matching(db, glob, {key for key, _, _ in refused}):
        each = found.setdefault(key, _Found())
        for _, count, reason in (row for row in refused if row[0] == key):
            each.refused += count
            each.overflow += count if _is_beyond(reason) else 0


def _is_beyond(reason: str) -> bool:
    return any(reason.startswith(word) or f": {word}" in reason for word in _BEYOND)


def _matching(db: sqlite3.Connection, glob: str, keys: Iterable[str]) -> list[str]:
    """Return the keys that match as SQLite reads a GLOB."""
    return [key for key in keys if db.execute("SELECT ? GLOB ?", (key, glob)).fetchone()[0]]


def _view(
    key: str, found: _Found, declared: Mapping[str, MetricInfo], specs: Mapping[int, JobSpec]
) -> InfoView:
    info = declared.get(key) or _parent(key, declared)
    labels = info.labels if info is not None else _scraped(key, specs)
    description = info.description if info is not None else ""
    if info is None and key.endswith(OVERFLOW):
        description = "samples beyond a cap of series"
    return InfoView(
        key=key,
        unit=found.unit,
        type=found.type,  # type: ignore[arg-type]  # written by us from a MetricType
        description=description,
        declared=key in declared,
        writers=_writers(key, found, specs),
        labels=labels,
        series=len(found.series),
        count=found.count,
        first_at=found.first_at,
        last_at=found.last_at,
        overflow=found.overflow,
        refused=found.refused,
    )


def _parent(key: str, declared: Mapping[str, MetricInfo]) -> MetricInfo | None:
    """Return the declaration whose labels have made `key`."""
    head = key
    while "." in head:
        head = head.rpartition(".")[0]
        info = declared.get(head)
        if info is not None:
            return info if info.labels else None
    return None


def _scraped(key: str, specs: Mapping[int, JobSpec]) -> tuple[str, ...]:
    """Return the labels that an endpoint is allowed, where the key is one of its."""
    for spec in specs.values():
        for scrape in spec.scrape:
            prefix = scrape.prefix or (f"{spec.namespace}.scrape" if spec.namespace else "scrape")
            if key.startswith(f"{metric_key(prefix)}."):
                return scrape.labels
    return ()


def _writers(key: str, found: _Found, specs: Mapping[int, JobSpec]) -> tuple[str, ...]:
    first = key.partition(".")[0]
    if first in RESERVED:
        return ("agent",)
    wrote = [specs[serial] for serial in sorted(found.serials) if serial in specs]
    wrote = wrote or [
        spec for spec in specs.values() if any(info.key == key for info in spec.metrics)
    ]
    return tuple(dict.fromkeys(map(_name, wrote)))[:10]


def _name(spec: JobSpec) -> str:
    if spec.load is not None:
        return spec.load.name
    return spec.argv[0] if spec.argv else spec.kind


_ENDS = "SELECT ended FROM attempts WHERE run=? AND ended IS NOT NULL"
_SERIES = (
    "SELECT id, key, serial, attempt, agent, dut, unit, type FROM series WHERE run=? AND key GLOB ?"
)
_COUNTS = (
    "SELECT c.series, sum(c.count), min(c.first_at), max(c.last_at) FROM hot.{} c "
    "JOIN series s ON s.id=c.series WHERE s.run=? AND s.key GLOB ? GROUP BY c.series"
)
_PARQUET = (
    "SELECT key, any_value(unit), any_value(type), count(*), epoch_us(min(time)), "
    "epoch_us(max(time)) FROM {} WHERE run = ? AND key GLOB ? GROUP BY key"
)
