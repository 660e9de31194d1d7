"""Everything that rests on the controller's disk beside the LOG, behind two threads.

One thread writes (projection, samples, output), in the order in which it was asked; another one
reads. Where the database cannot be opened the lab goes on in memory and says so.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from tshrag_common.clock import SystemClock
from tshrag_common.console_requests import ConsoleAnswer, GetConsole
from tshrag_common.errors import Unavailable
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import OutputBatch, SamplesMessage
from tshrag_controller.log.frames import Frame
from tshrag_controller.store.console_reading import page
from tshrag_controller.store.consoles import ConsoleStore, Kept, folder_of
from tshrag_controller.store.hot import HotLimits, HotStore, Stored
from tshrag_controller.store.marks import TwoParts, two_parts
from tshrag_controller.store.output import OutputStore, Piece, read
from tshrag_controller.store.projection import Projection
from tshrag_controller.store.schema import (
    HOT,
    backup,
    open_databases,
    open_for_reading,
    set_aside,
    usable,
)
from tshrag_controller.store.seal import sweep
from tshrag_controller.store.segments import SegmentsAway
from tshrag_controller.store.writer import Worker, storage_error

logger = logging.getLogger(__name__)

T = TypeVar("T")
FETCHES = 4
"""Of one read: others may let go what it has just fetched."""
Part = Literal["all", "newest", "rest"]
"""Of a stream, in order; or, where a store is new, its end first and then what was before."""
Tap = Callable[[str, tuple[SampleBatch, ...]], None]
"""(agent, batches) of what has just been stored"""


class Store:
    """The doors to both threads; `open` makes one. ``degraded``: what is amiss; empty: nothing."""

    def __init__(
        self,
        folder: Path,
        opened: "_Opened",
        worker: type[Worker] = Worker,
        options: "StoreOptions | None" = None,
    ) -> None:
        options = options or StoreOptions()
        self.folder = folder
        self.degraded, self._in_memory = opened.trouble, opened.reader is None
        self._connection = opened.writer
        self._projection = Projection(opened.writer)
        self._hot = HotStore(opened.writer, options.now, options.limits)
        consoles = ConsoleStore(folder / "consoles", options.consoles)
        self._output = OutputStore(folder / "output", self._hot, consoles)
        self.applied = self._projection.applied
        self._writer = worker("store-writer", opened.writer, commit=True, undone=self._forget)
        self._reader = self._writer  # a database in memory has no second door
        if opened.reader is not None:
            self._reader = worker("store-reader", opened.reader, commit=False)
        self._moved = asyncio.Condition()
        self.now = options.now
        self._taps: list[Tap] = []
        self.fetch: Callable[[Sequence[str]], Awaitable[None]] | None = None
        """Brings segments of the cold store to this disk; who keeps the store sets it."""

    @classmethod
    async def open(
        cls, folder: Path, worker: type[Worker] = Worker, options: "StoreOptions | None" = None
    ) -> "Store":
        """Open or make the databases below `folder`; a `worker` runs what is written and read.

        Raises:
            SchemaTooNew: a newer build has written them.

        """
        return cls(folder, await asyncio.to_thread(_opened, folder), worker, options)

    def _forget(self) -> None:
        """Forget, in the writer's thread, what a transaction had written that was taken back."""
        self._projection.undo(self._connection)
        self._hot.forget()

    async def project(self, frames: Sequence[tuple[int, Frame]]) -> None:
        """Write frames; return when they are committed."""
        applied = await self._writer.call(lambda db: self._projection.apply(db, frames))
        async with self._moved:
            self.applied = applied
            self._moved.notify_all()

    async def wait_applied(self, sequence: int, within_s: float = 5.0) -> None:
        """Return when frame `sequence` can be read; a read then sees every accepted write."""
        async with asyncio.timeout(within_s), self._moved:
            await self._moved.wait_for(lambda: self.applied >= sequence)

    async def take_samples(
        self, messages: Sequence[SamplesMessage], part: Part = "all"
    ) -> list[Stored]:
        """Write messages of one agent or several; what came of each, in order."""
        ahead = part == "newest"
        stored = await self._writer.call(
            lambda _: [self._hot.store(each, ahead=ahead) for each in messages]
        )
        for message, outcome in zip(messages, stored, strict=True):
            for tap in self._taps if outcome.batches and part != "rest" else ():
                tap(message.agent, outcome.batches)
        return stored

    def tap(self, hear: Tap) -> None:
        """Let `hear` be told of every batch that is new, once it is committed.

        It is called on the event loop with the agent and its batches, each once and in order, and
        must not block. What was stored before a start is not told again: read `columns` first. Nor
        is what a new store is filled with from behind.
        """
        self._taps.append(hear)

    async def take_output(self, batches: Sequence[OutputBatch], part: Part = "all") -> list[Stored]:
        ahead = part == "newest"
        return await self._writer.call(lambda _: self._output.store_all(batches, ahead=ahead))

    async def skip(self, agent: str, kind: str, spool: str, gap_from: int, upto: int) -> None:
        """Take what is missing of a spool for stored, up to a number: it will never come."""
        await self._writer.call(lambda _: self._hot.marks.skip(agent, kind, spool, gap_from, upto))

    async def set_aside(self, at: int, subject: str, reason: str, data: bytes) -> None:
        """Keep a message that could not be read, the newest 1,000 of them."""

        def write(db: sqlite3.Connection) -> None:
            row = (at, subject[:256], reason[:500], data[:65536])
            db.execute("INSERT INTO set_aside (at, subject, reason, data) VALUES (?,?,?,?)", row)
            db.execute("DELETE FROM set_aside WHERE no <= (SELECT max(no) FROM set_aside) - 1000")
            db.execute(
                "INSERT INTO counters VALUES ('set_aside', 1) "
                "ON CONFLICT (name) DO UPDATE SET value=value+1"
            )

        await self._writer.call(write)

    async def marks(self) -> list[tuple[str, str, str, int]]:
        """Return (agent, kind, spool, upto) of every spool."""
        sql = (
            "SELECT agent, kind, spool, upto FROM spools "
            "UNION ALL SELECT agent, kind, spool, upto FROM hot.marks"
        )
        return await self._writer.call(lambda db: db.execute(sql).fetchall())

    async def two_parts(self) -> list[TwoParts]:
        """Return the spools whose newer part is stored before all of the older one."""
        return await self._writer.call(two_parts)

    async def change(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Run a write in the writer's thread; return when it is committed."""
        return await self._writer.call(write)

    async def close_partition(self, *, whatever_day: bool = False) -> None:
        """Let samples go into another partition from now on."""
        await self._writer.call(lambda _: self._hot.close_partition(whatever_day=whatever_day))

    async def query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read in the reader's thread; what it needs of the cold store is fetched first."""
        for _ in range(FETCHES):
            try:
                return await self._reader.call(read)
            except SegmentsAway as away:
                if self.fetch is None:
                    raise
                await self.fetch(away.names)
        return await self._reader.call(read)

    async def read_output(
        self, job: str, attempt: int, stream: str, offset: int, limit: int
    ) -> Piece:
        folder = self.folder / "output"
        return await asyncio.to_thread(read, folder, job, attempt, stream, offset, limit)

    @property
    def in_memory(self) -> bool:
        return self._in_memory

    async def read_console(
        self, asked: GetConsole, windows: tuple[tuple[int, int], ...] | None
    ) -> ConsoleAnswer:
        return await asyncio.to_thread(page, self.folder / "consoles", asked, windows)

    async def has_console(self, dut: str) -> bool:
        return await asyncio.to_thread(folder_of(self.folder / "consoles", dut).is_dir)

    async def backup(self, path: Path) -> int:
        """Write a copy of the projection to `path`; return the sequence that it is at."""
        if self._in_memory:
            raise Unavailable("projection", "it rests in memory", code="storage")
        try:
            return await asyncio.to_thread(backup, self.folder, path)
        except sqlite3.Error as error:
            raise storage_error(error) from None

    async def close(self) -> None:
        await self._writer.close()
        if self._reader is not self._writer:
            await self._reader.close()


class StoreOptions(NamedTuple):
    """What tells the store which day it is, and how much it may hold."""

    now: Callable[[], int] = SystemClock().now
    limits: HotLimits = HotLimits()
    consoles: Kept = Kept()


class _Opened(NamedTuple):
    """The connections of both threads; without a reader all of it rests in memory."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection | None
    trouble: str


def _opened(folder: Path) -> _Opened:
    """Open the databases; where that fails, others in memory. Blocks: for a thread."""
    trouble = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if usable(folder / HOT) is None:
            kept = set_aside(folder / HOT)
            trouble = f"{folder / HOT} was damaged: samples before today are in {kept.name} only"
            logger.error("the samples were damaged", extra={"kept": str(kept)})
        writer = open_databases(folder)
        sweep(writer, folder)
        return _Opened(writer, open_for_reading(folder), trouble)
    except (sqlite3.Error, OSError) as error:
        logger.error("the projection rests in memory", extra={"why": str(error)})
        trouble = f"{folder} cannot be used ({error}): records rest in memory"
        return _Opened(open_databases(None), None, trouble)
