"""Requests that name the same thing, one after the other; all others side by side."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Keeps what is at work by name: a second submit under one key sees what the first has made."""

    def __init__(self) -> None:
        self._busy: set[str] = set()
        self._free = asyncio.Condition()

    @asynccontextmanager
    async def of(self, *names: str) -> AsyncIterator[None]:
        """Wait until nobody is at work on any of `names`, then be at work on all of them."""
        async with self._free:
            await self._free.wait_for(lambda: self._busy.isdisjoint(names))
            self._busy.update(names)
        try:
            yield
        finally:
            self._busy.difference_update(names)
            async with self._free:
                self._free.notify_all()
