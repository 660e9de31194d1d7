"""Simulated disks: what was synced survives, a crash decides about the rest.

The databases are the product's own, on real files in memory; the time of an fsync is virtual. A
transaction that was on its way when its process died is on the disk, or not, or in part.
"""

import asyncio
import random
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.simulation.torn import Tears, Torn
from tests.simulation.vloop import VirtualLoop
from tshrag_agent.journal.hands import Hands
from tshrag_agent.journal.journal import Asked, Journal
from tshrag_agent.journal.records import Change
from tshrag_agent.journal.store import Store as JournalStore
from tshrag_controller.store.store import Store
from tshrag_controller.store.writer import Worker, Write, storage_error

Order = TypeVar("Order")
T = TypeVar("T")

_SYNC_S = (0.0005, 0.005)
_SNAPSHOT_S = 8.0
FULL = "database or disk is full"


class Disk:
    """The disk of one machine, and the folder that stands for it."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, folder: Path) -> None:
        self.loop, self.chance, self.folder = loop, chance, folder
        self.is_full = False
        self.slow_s = 0.0
        self.syncs = True
        """False is a mutation: what is reported as synced is not."""
        folder.mkdir(parents=True)
        self.tears = Tears(folder, chance)
        self.torn = 0
        """How often a crash has left a part of a transaction."""
        self._watching: list[asyncio.Future[None]] = []

    def sync_s(self) -> float:
        """Return how long the next fsync takes."""
        return self.chance.uniform(*_SYNC_S) + self.slow_s

    async def writing(self, within_s: float) -> None:
        """Return in the middle of a write; where none comes, after a while."""
        done: asyncio.Future[None] = self.loop.create_future()
        self._watching.append(done)
        await asyncio.wait([done], timeout=within_s)

    def writes(self, for_s: float) -> None:
        """Wake who waits for a write, in the middle of it, whatever becomes of the writer."""
        watching, self._watching = self._watching, []
        for done in watching:
            self.loop.call_later(for_s / 2, _wake, done, context=Context())


def _wake(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


class Queue(Generic[Order]):
    """Serves orders in order, many at once, each batch after the time of an fsync."""

    def __init__(
        self, disk: Disk, serve: Callable[[list[Order]], None], most: int, *, writes: bool = True
    ) -> None:
        self._disk, self._serve, self._most, self._writes = disk, serve, most, writes
        self._waiting: deque[Order] = deque()
        self._batch: list[Order] = []

    def put(self, order: Order, /) -> None:
        self._waiting.append(order)
        if not self._batch:
            self._begin()

    def end(self) -> None:
        """Serve what waits, now."""
        batch, self._batch = [*self._batch, *self._waiting], []
        self._waiting.clear()
        if batch:
            self._serve(batch)

    def crash(self) -> None:
        """End with the process: what was under way was written, was not, or is torn."""
        batch, self._batch = self._batch, []
        self._waiting.clear()
        fate = self._disk.chance.random() if batch else 1.0
        if fate < 0.25:
            self._serve(batch)
        elif fate < 0.75 and self._writes and self._disk.syncs:
            self._disk.torn += self._disk.tears.tear(lambda: self._serve(batch))

    def _begin(self) -> None:
        count = min(self._most, len(self._waiting))
        self._batch = [self._waiting.popleft() for _ in range(count)]
        took_s = self._disk.sync_s()
        self._disk.loop.call_later(took_s, self._done)
        if self._writes:
            self._disk.writes(took_s)

    def _done(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self._serve(batch)
        if self._waiting and not self._batch:
            self._begin()


class _Store(JournalStore):
    """The journal's own store on a disk that may be full."""

    def __init__(self, disk: Disk, path: Path) -> None:
        super().__init__(path)
        self._disk = disk

    def commit(self, changes: Iterable[Change]) -> list[int]:
        if self._disk.is_full:
            raise sqlite3.OperationalError(FULL)
        numbers = super().commit(changes)
        if self._disk.tears.is_dying:
            raise Torn
        return numbers


class JournalDisk(Disk):
    """The disk of an agent's host: it holds the journal."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, folder: Path) -> None:
        super().__init__(loop, chance, folder)
        self._path = folder / "journal.db"
        self._store: _Store | None = None
        self._queue: Queue[Asked] | None = None
        self._snapshot_at = 0.0

    def open(self) -> Journal:
        """Return the journal as the disk has it."""
        self._store = _Store(self, self._path)
        self._snapshot()

        def hands(serve: Callable[[list[Asked]], None], most: int) -> Hands[Asked]:
            self._queue = Queue(self, serve, most)
            return self._queue

        return Journal(self._store, hands=hands)

    def sync_s(self) -> float:
        if not self.syncs and self.loop.time() > self._snapshot_at + _SNAPSHOT_S:
            self._snapshot()
        return super().sync_s()

    def crash(self) -> None:
        """Let the process that had the journal open be gone."""
        if self._queue is not None:
            self._queue.crash()
        if self._store is not None:
            self._store.close()
        self.tears.leave()
        if not self.syncs:
            self._copy("", ".synced")
        self._queue = self._store = None

    def _snapshot(self) -> None:
        if not self.syncs:
            self._snapshot_at = self.loop.time()
            self._copy(".synced", "")

    def _copy(self, to: str, of: str) -> None:
        for part in ("", "-wal"):
            source = Path(f"{self._path}{of}{part}")
            target = Path(f"{self._path}{to}{part}")
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copy(source, target)


class StoreDisk(Disk):
    """The disk of a controller: projection, samples and output."""

    def __init__(
        self,
        loop: VirtualLoop,
        chance: random.Random,
        folder: Path,
        on_open: Callable[[Store], None],
    ) -> None:
        super().__init__(loop, chance, folder)
        self._on_open = on_open
        self._workers: list[_Worker] = []
        self._store: Store | None = None

    async def open(self, folder: Path) -> Store:
        disk = self

        class OnThisDisk(_Worker):
            at = disk

        store = await Store.open(folder, OnThisDisk)
        self._on_open(store)
        self._store = store
        return store

    @property
    def applied(self) -> int:
        """Return how far the projection of the process that runs is; 0 where none does."""
        return self._store.applied if self._store is not None else 0

    def upto(self, agent: str, kind: str, spool: str) -> int:
        """Return how far a spool is stored, without a hole, as the disk has it."""
        db = sqlite3.connect(f"file:{self.folder}/store/hot.db?mode=ro", uri=True)
        sql = (
            "SELECT coalesce(a.back, m.upto) FROM marks m "
            "LEFT JOIN ahead a USING (agent, kind, spool) WHERE agent=? AND kind=? AND spool=?"
        )
        row = db.execute(sql, (agent, kind, spool)).fetchone()
        db.close()
        return int(row[0]) if row else 0

    def opened(self, worker: "_Worker") -> None:
        self._workers.append(worker)

    def crash(self) -> None:
        self._store = None
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.crash()
        self.tears.leave()

    def lose_projection(self) -> None:
        """Remove what can be made again from the LOG."""
        for part in ("", "-wal", "-shm"):
            Path(f"{self.folder}/store/projection.db{part}").unlink(missing_ok=True)


class _Worker(Worker):
    """Runs what is written and read in virtual time; transactions are the product's."""

    at: StoreDisk

    def __init__(
        self,
        name: str,
        connection: sqlite3.Connection,
        *,
        commit: bool,
        undone: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection, self._commit, self._undone = connection, commit, undone
        self._queue = Queue(self.at, self._serve, 256, writes=commit)
        self._is_closed = False
        self.at.opened(self)

    async def call(self, write: Write[T]) -> T:
        done: asyncio.Future[T] = self.at.loop.create_future()
        self._queue.put((write, done))
        return await done

    async def close(self) -> None:
        if not self._is_closed:
            self._queue.end()
            self._connection.close()
        self._is_closed = True

    def crash(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.crash()
        self._connection.rollback()
        self._connection.close()

    def _serve(self, batch: list[tuple[Write[Any], asyncio.Future[Any]]]) -> None:
        outcomes: Sequence[tuple[asyncio.Future[Any], Any]]
        if self._commit and self.at.is_full:
            full = storage_error(sqlite3.OperationalError(FULL))
            outcomes = [(done, full) for _, done in batch]
        else:
            outcomes = self._run(batch)
            if self._commit and self.at.tears.is_dying:
                raise Torn
        for done, value in outcomes:
            if done.done():
                continue
            if isinstance(value, Exception):
                done.set_exception(value)
            else:
                done.set_result(value)
