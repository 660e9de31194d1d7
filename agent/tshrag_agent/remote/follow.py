"""To be woken by the keeper of a process: a FIFO in its folder, into which it writes a byte."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

LOOK_S = 2.0
"""Who is not woken looks by himself: a keeper that was killed wakes nobody."""


class Wake:
    """Set from the moment on at which something has happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def clear(self) -> None:
        """Begin anew; to be done before one looks."""
        self._event.clear()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Return when something has happened, or it is time to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._event.wait()


@asynccontextmanager
async def woken(room: Path) -> AsyncIterator[Wake]:
    """Be told while the block lasts that the process of `room` has said something, or ended."""
    wake, loop = Wake(), asyncio.get_running_loop()
    path, fd = await asyncio.to_thread(_made, room)

    def heard() -> None:
        os.read(fd, 4096)
        wake.set()

    loop.add_reader(fd, heard)
    try:
        yield wake
    finally:
        loop.remove_reader(fd)
        os.close(fd)
        await asyncio.to_thread(path.unlink, missing_ok=True)


def _made(room: Path) -> tuple[Path, int]:
    """Make a FIFO that is being read from the moment on at which it can be found."""
    name = secrets.token_hex(6)
    fresh = room / f"new.{name}"
    os.mkfifo(fresh, 0o600)
    fd = os.open(fresh, os.O_RDWR | os.O_NONBLOCK)  # also a writer: else the last one ends it
    return fresh.replace(room / f"follow.{name}"), fd
