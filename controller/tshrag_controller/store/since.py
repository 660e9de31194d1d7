"""The samples behind a place in the hot store, in the order in which they were stored.

Whoever copies samples elsewhere keeps such a place; as long as it is behind, `Keeper` neither
joins nor seals what has not been copied.
"""

import sqlite3

import msgspec

from tshrag_common.metrics import MetricType
from tshrag_controller.store import partitions
from tshrag_controller.store.partitions import Chunk


class Place(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Behind which chunk of which partition."""

    partition: int = 0
    chunk: int = 0


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk with what it is of; ``profile`` is the name of its run's profile."""

    org: str
    profile: str
    key: str
    agent: str
    dut: str
    type: MetricType
    chunk: Chunk


def since(
    db: sqlite3.Connection, place: Place, least_at: int, most_samples: int
) -> tuple[list[Piece], Place]:
    """Return chunks behind `place` that reach beyond `least_at`, and the place behind them."""
    found: list[Piece] = []
    samples = 0
    for part in partitions.partitions(db):
        if part.no < place.partition:
            continue
        behind = place.chunk if part.no == place.partition else 0
        for row in db.execute(_READ.format(part.no), (behind,)):
            number, last_at, labels, data = int(row[0]), int(row[1]), row[2:8], row[8:]
            place = Place(part.no, number)
            if last_at < least_at:
                continue
            org, profile, key, agent, dut, kind = labels
            chunk = partitions.chunk_of(*data)
            found.append(
                Piece(
                    org=org or "", profile=profile or "", key=key, agent=agent, dut=dut,
                    type=kind, chunk=chunk,
                )
            )  # fmt: skip
            samples += chunk.count
            if samples >= most_samples:
                return found, place
        place = max(place, Place(part.no, 0))
    return found, place


def newest(db: sqlite3.Connection) -> Place:
    """Return the place behind everything."""
    parts = partitions.partitions(db)
    if not parts:
        return Place()
    no = parts[-1].no
    row = db.execute(f"SELECT coalesce(max(id), 0) FROM hot.{partitions.table_of(no)}").fetchone()
    return Place(no, int(row[0]))


def saved(db: sqlite3.Connection, name: str) -> Place | None:
    """Return the place that was kept under `name`."""
    row = db.execute("SELECT value FROM hot.facts WHERE key=?", (name,)).fetchone()
    return msgspec.json.decode(row[0], type=Place) if row else None


def save(db: sqlite3.Connection, name: str, place: Place) -> None:
    value = msgspec.json.encode(place).decode()
    db.execute("INSERT OR REPLACE INTO hot.facts VALUES (?,?)", (name, value))


_READ = (
    "SELECT c.id, c.last_at, r.org, r.name, s.key, s.agent, s.dut, s.type, c.at, c.value, "
    "c.duration FROM hot.chunks_{} c JOIN series s ON s.id = c.series "
    "LEFT JOIN runs r ON r.no = s.run WHERE c.id > ? ORDER BY c.id"
)
