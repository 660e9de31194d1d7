"""Long work on files, off the event loop, and yet it can be cancelled; one at a time a key."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from tshrag_common.errors import LabError

T = TypeVar("T")
Check = Callable[[], None]
"""Called now and then by long work; raises when it has to end."""


class Stopped(Exception):
    """Nobody waits for this work any more."""


def never() -> None:
    """Check nothing: for work that nobody cancels."""


def until(seconds: float, error: LabError, check: Check = never) -> Check:
    """Return a check that raises `error` once `seconds` have passed."""
    ends = time.monotonic() + seconds

    def still() -> None:
        check()
        if time.monotonic() > ends:
            raise error

    return still


async def in_thread(work: Callable[[Check], T], on_stop: Callable[[], object] = never) -> T:
    """Return what `work` returns. Cancelled, it tells the work and waits for its end.

    `work` gets a check that it calls often: after the cancellation it raises, so that no thread
    still writes into a directory that is being removed. `on_stop` wakes one that waits (for a
    socket).
    """
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped

    future = asyncio.get_running_loop().run_in_executor(None, work, check)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        on_stop()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen: it is Stopped, or came too late to matter
        raise


class Locks:
    """A lock for each key that somebody holds or waits for."""

    def __init__(self) -> None:
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    def of(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())
