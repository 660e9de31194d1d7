"""Keeps the samples: hot becomes sealed, sealed becomes cold, cold grows old; nothing twice.

Every step is: make the new, see that it is whole, say so in one transaction, and only then let
the old go. A crash between two of them leaves the old, or both and a registry that names one.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tshrag_common.errors import LabError, Refused
from tshrag_controller.store import partitions, seal, segments
from tshrag_controller.store.objects import ColdStore
from tshrag_controller.store.parquet import SEGMENT_SAMPLES, SegmentDamaged
from tshrag_controller.store.partitions import Partition, day_of
from tshrag_controller.store.segments import CACHE, SEALED, Segment
from tshrag_controller.store.since import Place
from tshrag_controller.store.store import Store

logger = logging.getLogger(__name__)

DAY_US = 86_400_000_000
EVERY_S = 30.0
GRACE_US = 120_000_000
"""A reader may have learnt of a file just before it was replaced."""
MERGED_AT_ONCE, PAGES_AT_ONCE = 50, 500
EVERYWHERE = Place(1 << 62, 0)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """For how long samples stay where; 0 days of ``cold_days``: for ever."""

    hot_days: int = 7
    cold_days: int = 0
    cache_bytes: int = 10 << 30


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What one round has done, in segments and samples."""

    merged: int = 0
    sealed: int = 0
    samples: int = 0
    compacted: int = 0
    uploaded: int = 0
    expired: int = 0
    collected: int = 0


class Keeper:
    """The one who moves samples; `at` is called between the steps, by their names."""

    def __init__(
        self,
        store: Store,
        cold_url: str,
        cold_options: Mapping[str, str],
        rules: Rules,
        at: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self.rules, self._at = store, rules, at
        self.cold_url, self._cold_options = cold_url, cold_options
        self._cold: ColdStore | None = None
        self.copied: Callable[[], Place] = lambda: EVERYWHERE
        """Up to where somebody has copied samples elsewhere; what is behind stays as it is."""
        self._turn = asyncio.Lock()
        self.trouble = ""
        store.fetch = self.fetch

    async def keep(self) -> None:
        """Go round for ever; what fails is told by ``trouble`` and tried again."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.round()
                self.trouble = ""
            except (LabError, OSError) as error:
                self.trouble = error.line if isinstance(error, LabError) else str(error)
                logger.warning("the samples were not moved", extra={"why": self.trouble})

    async def round(self, *, everything: bool = False) -> Moved:
        """Do all that is due; with `everything` what is open is sealed too."""
        if self._store.in_memory:
            return Moved()
        async with self._turn:
            merged = await self._merge()
            await self._store.close_partition(whatever_day=everything)
            sealed = await self._seal()
            return Moved(
                merged=merged,
                sealed=sealed[0],
                samples=sealed[1],
                compacted=await self._compact(),
                uploaded=await self._upload(),
                expired=await self._expire(),
                collected=await self._collect(),
            )

    @property
    def cold(self) -> ColdStore:
        """The cold store, opened when it is first needed."""
        if self._cold is None:
            self._cold = ColdStore(self.cold_url, self._cold_options)
        return self._cold

    async def _merge(self) -> int:
        """Join small chunks, a few series at a time: samples that arrive go in between."""
        merged = 0
        for part in await self._store.query(partitions.partitions):
            upto = self._copied_of(part)
            merge = partial(partitions.merge_small, no=part.no, most=MERGED_AT_ONCE, upto=upto)
            more = part.state == "open"
            while more:
                done = await self._store.change(merge)
                merged, more = merged + done, done == MERGED_AT_ONCE
        return merged

    def _copied_of(self, part: Partition) -> int:
        """Return up to which chunk of a partition nobody will ask for single ones any more."""
        place = self.copied()
        return place.chunk if place.partition == part.no else (place.partition > part.no) << 62

    def _is_wanted(self, part: Partition) -> bool:
        """Tell whether somebody still copies a partition; after a day nobody would take it."""
        return self.copied().partition <= part.no

    async def _seal(self) -> tuple[int, int]:
        count, samples, yesterday = 0, 0, day_of(self._store.now() - DAY_US)
        for part in await self._store.query(partitions.partitions):
            if part.state == "open" or (self._is_wanted(part) and part.day >= yesterday):
                continue
            day = day_of(self._store.now())
            written = await asyncio.to_thread(seal.seal, self._store.folder, part, day)
            self._at("written")
            no, now = part.no, self._store.now()
            await self._store.change(lambda db: segments.seal(db, no, written, now))  # noqa: B023
            self._at("sealed")
            count, samples = count + len(written), samples + sum(each.samples for each in written)
            await self._shrink()
        return count, samples

    async def _shrink(self) -> None:
        """Give the pages of a dropped partition back, some at a time."""
        sql = f"PRAGMA hot.incremental_vacuum({PAGES_AT_ONCE})"
        free = PAGES_AT_ONCE
        while free >= PAGES_AT_ONCE:
            await self._store.change(lambda db: db.execute(sql).fetchall())
            count = await self._store.change(
                lambda db: int(db.execute("PRAGMA hot.freelist_count").fetchone()[0])
            )
            if count >= free and free != PAGES_AT_ONCE:
                return  # a file of an earlier build cannot shrink
            free = count

    async def _compact(self) -> int:
        """Join the small segments of days that are over, before they leave."""
        today = day_of(self._store.now())
        local = await self._store.query(lambda db: segments.segments(db, "WHERE place='local'"))
        own, done = await self._store.query(segments.store_id), 0
        for group in _small_ones([each for each in local if each.day < today]):
            stem = f"{own}-c{group[-1].no:09d}"
            written = await asyncio.to_thread(seal.compact, self._store.folder, group, stem)
            self._at("compacted")
            now = self._store.now()
            await self._store.change(lambda db: segments.replace(db, group, [written], now))  # noqa: B023
            self._at("replaced")
            done += 1
        return done

    async def _upload(self) -> int:
        before = day_of(self._store.now() - self.rules.hot_days * DAY_US)
        due = await self._store.query(
            lambda db: segments.segments(db, "WHERE place='local' AND day < ?", before)
        )
        for segment in due:
            await self.upload(segment)
        return len(due)

    async def upload(self, segment: Segment) -> None:
        """Bring a segment to the cold store; it counts there once it was read back whole."""
        path = segments.path_of(self._store.folder, segment)
        await self.cold.put(segment.name, path)
        self._at("uploaded")
        if await self.cold.sha256(segment.name) != (segment.bytes, segment.sha256):
            raise SegmentDamaged(segment.name, f"{self.cold.url} does not return what it was given")
        self._at("verified")
        now = self._store.now()
        await self._store.change(lambda db: segments.move_to_cold(db, segment, now))
        self._at("moved")

    async def _expire(self) -> int:
        if not self.rules.cold_days:
            return 0
        now = self._store.now()
        before = day_of(now - self.rules.cold_days * DAY_US)
        old = await self._store.query(lambda db: segments.segments(db, "WHERE day < ?", before))
        for segment in old:
            await self._store.change(lambda db, s=segment: segments.forget(db, s, now))  # type: ignore[misc]
            self._at("expired")
        return len(old)

    async def _collect(self) -> int:
        """Remove what nobody needs any more, some time after it was let go."""
        before = self._store.now() - GRACE_US
        found = await self._store.query(lambda db: segments.garbage(db, before))
        for name, place in found:
            if place == "cold":
                await self.cold.delete(name)
                path = self._store.folder / CACHE / name
            else:
                path = self._store.folder / SEALED / name
            await asyncio.to_thread(path.unlink, missing_ok=True)
            self._at("removed")
            await self._store.change(
                lambda db, n=name, p=place: segments.collected(db, n, p)  # type: ignore[misc]
            )
        return len(found)

    async def fetch(self, names: Sequence[str]) -> None:
        """Bring segments of the cold store into the cache of this disk.

        Raises:
            Refused: they are more than the cache may hold.

        """
        known = await self._store.query(
            lambda db: {each.name: each for each in segments.segments(db) if each.name in names}
        )
        wanted = [known[name] for name in names if name in known]
        lost = [each.name for each in wanted if each.place == "local"]
        if lost or len(wanted) < len(set(names)):
            fix = "see 'tshrag store verify'"
            raise SegmentDamaged((lost or list(names))[0], "its file is gone", fix)
        size = sum(each.bytes for each in wanted)
        if size > self.rules.cache_bytes:
            fix = "ask for a shorter time, or raise [store] cache_bytes"
            said = f"{size} bytes of the cold store for a cache of {self.rules.cache_bytes}"
            raise Refused("store", said, fix, code="cache_full")
        folder = self._store.folder / CACHE
        await asyncio.to_thread(_make_room, folder, self.rules.cache_bytes - size)
        for segment in wanted:
            await self.cold.get(segment.name, folder / segment.name, segment.sha256)


def _small_ones(local: Sequence[Segment]) -> list[list[Segment]]:
    """Return groups of segments of one org and day that fit into one."""
    groups: list[list[Segment]] = []
    for segment in sorted(local, key=lambda each: (each.org, each.day, each.samples)):
        group = groups[-1] if groups else []
        together = sum(each.samples for each in group) + segment.samples
        same = bool(group) and (group[0].org, group[0].day) == (segment.org, segment.day)
        if same and together <= SEGMENT_SAMPLES:
            group.append(segment)
        else:
            groups.append([segment])
    return [group for group in groups if len(group) > 1]


def _make_room(folder: Path, most_bytes: int) -> None:
    """Remove the files of the cache that nobody has used for longest, until the rest fits."""
    found = sorted(
        ((path.stat().st_mtime, path) for path in folder.glob("*/*/*.parquet")), reverse=True
    )
    kept = 0
    for _, path in found:
        kept += path.stat().st_size
        if kept > most_bytes:
            path.unlink(missing_ok=True)
