"""A mailbox that lives: one change at a time, each in its file before anybody knows of it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tshrag_agent.gang.book import Book
from tshrag_agent.gang.mailbox import Mailbox
from tshrag_agent.gang.records import Heard, Record
from tshrag_common.clock import Clock
from tshrag_common.gang_messages import Over

GRACE_S = 5.0
"""A mate that did not pass takes the others along: the lab stops them before they notice."""
RATE = 200
"""Calls a second of one job, after a burst of as many; what is faster waits."""

R = TypeVar("R", tuple[Record, ...], tuple[Record, ...] | None)


class Box:
    """The mailbox of one attempt, with its file and those who wait for a change."""

    def __init__(self, mailbox: Mailbox, book: Book, clock: Clock) -> None:
        self.mailbox, self.book, self._clock = mailbox, book, clock
        self._turn = asyncio.Lock()
        self._event = asyncio.Event()
        self._over_at: dict[str, float] = {}
        self._next_at = 0.0

    async def do(self, decide: Callable[[Mailbox], R]) -> R:
        """Decide, write down, let it have happened; what a decision raises is its answer."""
        async with self._turn:
            records = decide(self.mailbox)
            if records:
                await self.book.write(records)
                for record in records:
                    self._apply(record)
        if records:
            self.stir()
        return records

    def stir(self) -> None:
        """Have everybody who waits look again."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    def next_change(self) -> asyncio.Event:
        """Return what will be set at the next change; take it before you look."""
        return self._event

    @property
    def ended(self) -> frozenset[str]:
        """Return the roles that have ended, and of which the lab has not made an end by itself."""
        now = self._clock.monotonic()
        lines = self.mailbox.lines
        return frozenset(
            mate.role
            for fence, mate in self.mailbox.mates.items()
            if (over := lines[fence].over)
            and (over == "passed" or now - self._over_at.get(mate.role, 0.0) >= GRACE_S)
        )

    @property
    def has_ending(self) -> bool:
        """Tell whether time alone may change `ended`."""
        return any(line.over for line in self.mailbox.lines.values())

    async def keep_pace(self) -> None:
        """Wait where the job calls faster than it may."""
        now = self._clock.monotonic()
        self._next_at = max(self._next_at, now - 1.0) + 1 / RATE
        if self._next_at > now:
            await asyncio.sleep(self._next_at - now)

    def _apply(self, record: Record) -> None:
        self.mailbox.apply(record)
        if isinstance(record, Heard) and isinstance(record.item, Over):
            self._over_at[self.mailbox.mates[record.of].role] = self._clock.monotonic()
