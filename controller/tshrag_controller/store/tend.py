"""Looks after the store on demand: how it stands, is every segment whole, which are unknown."""

import asyncio
import hashlib
import sqlite3
from functools import partial
from pathlib import Path

from tshrag_common.errors import LabError
from tshrag_common.store_requests import PlaceFacts
from tshrag_controller.store import parquet, partitions, segments
from tshrag_controller.store.keep import Keeper
from tshrag_controller.store.parquet import Written
from tshrag_controller.store.schema import HOT
from tshrag_controller.store.segments import CACHE, SEALED, Segment
from tshrag_controller.store.store import Store


def places(db: sqlite3.Connection) -> tuple[PlaceFacts, ...]:
    """Return what rests where."""
    parts = partitions.partitions(db)
    folder = segments.folder_of(db)
    tail = PlaceFacts(
        place="tail",
        parts=len(parts),
        samples=sum(each.samples for each in parts),
        bytes=sum(path.stat().st_size for path in folder.glob(f"{HOT}*")) if folder else 0,
        first_day=parts[0].day if parts else "",
        last_day=parts[-1].day if parts else "",
    )
    known = segments.segments(db)
    return (tail, _facts("local", known), _facts("cold", known), _cached(folder))


def _facts(place: str, known: list[Segment]) -> PlaceFacts:
    there = [each for each in known if each.place == place]
    return PlaceFacts(
        place=place,
        parts=len(there),
        samples=sum(each.samples for each in there),
        bytes=sum(each.bytes for each in there),
        first_day=min((each.day for each in there), default=""),
        last_day=max((each.day for each in there), default=""),
    )


def _cached(folder: Path | None) -> PlaceFacts:
    found = list((folder / CACHE).glob("*/*/*.parquet")) if folder else []
    size = sum(path.stat().st_size for path in found)
    return PlaceFacts(place="cache", parts=len(found), samples=0, bytes=size)


async def verify(store: Store, keeper: Keeper) -> tuple[int, list[str]]:
    """Read every segment where it rests; return how many are whole, and what is wrong."""
    whole, problems = 0, list[str]()
    for segment in await store.query(segments.segments):
        try:
            found = await _digest(store, keeper, segment)
        except (LabError, OSError) as error:
            said = error.line if isinstance(error, LabError) else str(error)
            problems.append(f"{segment.name} ({segment.place}): {said}")
            continue
        if found == (segment.bytes, segment.sha256):
            whole += 1
        else:
            problems.append(f"{segment.name} ({segment.place}): it is not what was stored")
    return whole, problems


async def _digest(store: Store, keeper: Keeper, segment: Segment) -> tuple[int, str]:
    if segment.place == "cold":
        return await keeper.cold.sha256(segment.name)
    path = segments.path_of(store.folder, segment)
    return await asyncio.to_thread(_file_digest, path)


def _file_digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


async def take_up(store: Store, keeper: Keeper) -> tuple[int, int, list[str]]:
    """Register segments that nobody knows here: those of a hot store that was lost.

    Return how many, with how many samples, and what could not be taken.
    """
    known = {each.name for each in await store.query(segments.segments)}
    known |= {name for name, _ in await store.query(lambda db: segments.garbage(db, 1 << 62))}
    own = await store.query(segments.store_id)
    here = await asyncio.to_thread(_files_of_others, store.folder, own)
    there = [(name, "cold") for name, _ in await keeper.cold.names()]
    taken, samples, problems = 0, 0, list[str]()
    for name, place in [*((name, "local") for name in here), *there]:
        if name in known:
            continue
        known.add(name)
        try:
            written = await _known(store, keeper, name, place)
        except LabError as error:
            problems.append(error.line)
            continue
        await store.change(partial(_register, written=written, place=place, at=store.now()))
        taken, samples = taken + 1, samples + written.samples
    return taken, samples, problems


def _files_of_others(folder: Path, own: str) -> list[str]:
    """Return the sealed files here that this store did not make: it may be making one now."""
    found = sorted((folder / SEALED).glob("*/*/*.parquet"))
    names = [path.relative_to(folder / SEALED).as_posix() for path in found]
    return [name for name in names if not name.rsplit("/", 1)[1].startswith(f"{own}-")]


async def _known(store: Store, keeper: Keeper, name: str, place: str) -> Written:
    """Look into a segment; one of the cold store is fetched into the cache for it."""
    path = store.folder / (SEALED if place == "local" else CACHE) / name
    if place == "cold":
        await keeper.cold.get(name, path, "")
    return await asyncio.to_thread(_described, path, name)


def _register(db: sqlite3.Connection, *, written: Written, place: str, at: int) -> None:
    segments.register(db, [written], place, at)


def _described(path: Path, name: str) -> Written:
    size, digest = _file_digest(path)
    facts = parquet.facts_of(path)
    return Written(
        name=name, org=facts.org, day=name.split("/")[1], samples=facts.samples, bytes=size,
        first_at=facts.first_at, last_at=facts.last_at, sha256=digest, runs=facts.runs,
    )  # fmt: skip
