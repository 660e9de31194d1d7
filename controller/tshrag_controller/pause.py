"""Work that several do side by side, and a moment in which none of it is under way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pause:
    """Many may be at work; who wants a pause waits until all are done, and holds up the next."""

    def __init__(self) -> None:
        self._open, self._idle = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._idle.set()
        self._count = 0

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        while not self._open.is_set():
            await self._open.wait()
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Let nobody be at work inside; one pause at a time."""
        self._open.clear()
        try:
            while self._count:
                await self._idle.wait()
            yield
        finally:
            self._open.set()
