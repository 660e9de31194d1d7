"""The one thread that writes to SQLite: what gathers while it works is one transaction.

SQLite blocks, so it never runs on the event loop. A write is a function of the connection; those
that wait together share a commit, and every caller hears of its own when all of it is on disk.
"""

import asyncio
import errno
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from tshrag_common.errors import LabError, StorageFull, Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], T]
MOST_PER_COMMIT = 256


class StorageFault(Unavailable):
    """SQLite cannot write or read for a reason other than space."""

    code = "storage"


def storage_error(error: sqlite3.Error | OSError) -> LabError:
    """Return what a fault of SQLite or of a file means to the lab."""
    no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if no_space or "full" in str(error):
        return StorageFull("store", str(error), "free some space; nothing was lost")
    return StorageFault("store", str(error))


class Worker:
    """A thread with a connection of its own; `call` runs a function there.

    With ``commit`` each batch of calls is a transaction: a call that fails takes its batch back,
    and the calls of that batch are then tried one by one. After each time `undone` is called, in
    the thread: what the calls remembered of their writes is not true any more.
    """

    def __init__(
        self,
        name: str,
        connection: sqlite3.Connection,
        *,
        commit: bool,
        undone: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection, self._commit, self._undone = connection, commit, undone
        self._waiting: queue.SimpleQueue[tuple[Write[Any], asyncio.Future[Any]] | None]
        self._waiting = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def call(self, write: Write[T]) -> T:
        """Run `write(connection)` in the thread; return its value when it is committed.

        Raises:
            StorageFull, StorageFault: nothing of it was written.

        """
        done: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put((write, done))
        return await done

    async def close(self) -> None:
        """Let the thread finish what waits, and end."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _work(self) -> None:
        while True:
            first = self._waiting.get()
            if first is None:
                return
            batch, ends = [first], False
            while len(batch) < MOST_PER_COMMIT:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ends = True
                    break
                batch.append(more)
            outcomes = self._run(batch)
            self._loop.call_soon_threadsafe(_tell, outcomes)
            if ends:
                return

    def _run(
        self, batch: list[tuple[Write[Any], asyncio.Future[Any]]]
    ) -> list[tuple[asyncio.Future[Any], Any]]:
        try:
            values = [write(self._connection) for write, _ in batch]
            if self._commit:
                self._connection.commit()
        except Exception as error:  # a fault of one must not take the thread along
            self._connection.rollback()
            self._undone()
            if len(batch) > 1:
                return [outcome for entry in batch for outcome in self._run([entry])]
            return [(batch[0][1], _fault(error))]
        return [(future, value) for (_, future), value in zip(batch, values, strict=True)]


def _fault(error: Exception) -> Exception:
    return storage_error(error) if isinstance(error, sqlite3.Error | OSError) else error


def _tell(outcomes: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, value in outcomes:
        if future.done():
            continue
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)
