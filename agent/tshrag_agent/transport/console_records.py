"""What happened on a console: records, the ring of the newest, watchers of the next."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

RING_BYTES = 256 << 10
WATCHER_BYTES = 1 << 20
_RECORD_COST_BYTES = 128  # what a record takes beside its data, so that one-byte ones are bounded

Direction = Literal["rx", "tx", "event"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What happened on the line: bytes of the DUT, bytes typed by `author`, or an event.

    ``at`` is in microseconds UTC, when the agent had the bytes. Events are one line of text:
    ``opened``, ``lost: …``, ``driver …``, ``released …``, ``break``, ``baud …``.
    """

    at: int
    direction: Direction
    data: bytes
    author: str = ""

    @property
    def cost_bytes(self) -> int:
        return len(self.data) + _RECORD_COST_BYTES


Recorder = Callable[[Record], None]
"""Takes every record as it happens; it must not block."""


class Ring:
    """The newest records, in bounded memory."""

    def __init__(self, most_bytes: int = RING_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._records: deque[Record] = deque()

    def add(self, record: Record) -> None:
        self._records.append(record)
        self._bytes += record.cost_bytes
        while self._bytes > self._most:
            self._bytes -= self._records.popleft().cost_bytes

    def records(self) -> tuple[Record, ...]:
        """Return what is still held, oldest first."""
        return tuple(self._records)

    def tail(self, most_bytes: int) -> bytes:
        """Return the last bytes of the DUT, at most so many."""
        parts: list[bytes] = []
        size = 0
        for record in reversed(self._records):
            if size >= most_bytes:
                break
            if record.direction == "rx":
                parts.append(record.data)
                size += len(record.data)
        return b"".join(reversed(parts))[-most_bytes:] if most_bytes > 0 else b""


class Watcher:
    """Records from now on, for one reader; when it is slow it loses the oldest, and counts."""

    def __init__(self, release: Callable[["Watcher"], None], most_bytes: int) -> None:
        self._release, self._most = release, most_bytes
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self.dropped_bytes = 0

    def push(self, record: Record) -> None:
        self._records.append(record)
        self._bytes += record.cost_bytes
        while self._bytes > self._most and len(self._records) > 1:
            oldest = self._records.popleft()
            self._bytes -= oldest.cost_bytes
            self.dropped_bytes += len(oldest.data)
        self._ready.set()

    @property
    def waiting(self) -> int:
        """Return how many records wait to be read."""
        return len(self._records)

    async def next(self) -> Record:
        """Return the oldest record that waits, or the next that happens."""
        while not self._records:
            self._ready.clear()
            await self._ready.wait()
        record = self._records.popleft()
        self._bytes -= record.cost_bytes
        return record

    def close(self) -> None:
        self._release(self)
