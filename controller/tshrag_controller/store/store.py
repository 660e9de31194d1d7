"""Everything that rests on the controller's disk beside the LOG, behind two threads.

One thread writes (projection, samples, output), in the order in which it was asked; another one
reads. Where the database cannot be opened the lab goes on in memory and says so.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tshrag_common.errors import Unavailable
from tshrag_common.reports import OutputBatch, SamplesMessage
from tshrag_controller.log.frames import Frame
from tshrag_controller.store.hot import HotStore, Stored
from tshrag_controller.store.output import OutputStore, Piece, read
from tshrag_controller.store.projection import Projection
from tshrag_controller.store.schema import backup, open_databases, open_for_reading
from tshrag_controller.store.writer import Worker

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """The doors to both threads. ``degraded`` says why it rests in memory; empty: on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.degraded = ""
        connection = self._open(folder)
        self._projection = Projection(connection)
        self._hot = HotStore(connection)
        self._output = OutputStore(folder / "output", self._hot)
        self.applied = self._projection.applied
        self._writer = Worker("store-writer", connection, commit=True)
        self._reader = Worker("store-reader", self._second(connection), commit=False)
        self._moved = asyncio.Condition()

    def _open(self, folder: Path) -> sqlite3.Connection:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return open_databases(folder)
        except (sqlite3.Error, OSError) as error:
            self.degraded = f"{folder} cannot be used ({error}): records rest in memory"
            logger.error("the projection rests in memory", extra={"why": str(error)})
            return open_databases(None)

    def _second(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        if self.degraded:
            return connection  # a database in memory has no second door; SQLite serialises
        return open_for_reading(self.folder)

    async def project(self, frames: Sequence[tuple[int, Frame]]) -> None:
        """Write frames; return when they are committed."""
        applied = await self._writer.call(lambda db: self._apply(db, frames))
        async with self._moved:
            self.applied = applied
            self._moved.notify_all()

    def _apply(self, connection: sqlite3.Connection, frames: Sequence[tuple[int, Frame]]) -> int:
        try:
            return self._projection.apply(connection, frames)
        except sqlite3.Error:
            connection.rollback()
            self._projection.undo(connection)
            self._hot.forget()
            raise

    async def wait_applied(self, sequence: int, within_s: float = 5.0) -> None:
        """Return when frame `sequence` can be read; a read then sees every accepted write."""
        async with asyncio.timeout(within_s), self._moved:
            await self._moved.wait_for(lambda: self.applied >= sequence)

    async def take_samples(self, messages: Sequence[SamplesMessage]) -> list[Stored]:
        """Write messages of one agent or several; what came of each, in order."""
        return await self._writer.call(lambda _: [self._hot.store(each) for each in messages])

    async def take_output(self, batches: Sequence[OutputBatch]) -> list[Stored]:
        return await self._writer.call(lambda _: [self._output.store(each) for each in batches])

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

    async def query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read in the reader's thread."""
        return await self._reader.call(read)

    async def read_output(
        self, job: str, attempt: int, stream: str, offset: int, limit: int
    ) -> Piece:
        folder = self.folder / "output"
        return await asyncio.to_thread(read, folder, job, attempt, stream, offset, limit)

    async def backup(self, path: Path) -> int:
        """Write a copy of the projection to `path`; return the sequence that it is at."""
        if self.degraded:
            raise Unavailable("projection", "it rests in memory", code="storage")
        return await asyncio.to_thread(backup, self.folder, path)

    async def close(self) -> None:
        await self._writer.close()
        if not self.degraded:
            await self._reader.close()
