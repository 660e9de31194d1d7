"""The broker of a console: it owns the line for ever, records every byte, lets one driver write.

It opens the line when the agent starts and again whenever it comes back; a gap is an event in the
record, never an end. Any number of watchers read. Writing is by fence: who comes with a newer one
takes over, and what an older one types from then on is refused with ``stale_fence``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Literal

import msgspec

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.line import Line, LineSettings, Lost, Received
from tshrag_agent.transport.serial import open_line
from tshrag_common.clock import Clock, SystemClock
from tshrag_common.errors import StaleFence
from tshrag_common.ids import Fence

logger = logging.getLogger(__name__)

RING_BYTES = 1 << 20
WATCHER_BYTES = 1 << 20
HOUSEKEEPING = Fence(0)
"""The fence of the agent itself: it may write where nobody drives."""

_RETRY_FIRST_S, _RETRY_MOST_S = 0.05, 2.0
_HOPELESS = ("serial_busy", "serial_perm")
_RECORD_COST_BYTES = 128  # what a record takes beside its data, so that one-byte ones are bounded

Direction = Literal["rx", "tx", "event"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What happened on the line: bytes of the DUT, bytes typed by `author`, or an event.

    ``at`` is in microseconds UTC, when the agent had the bytes. Events are one line of text:
    ``opened``, ``lost: …``, ``driver …``, ``released …``, ``break``.
    """

    at: int
    direction: Direction
    data: bytes
    author: str = ""


Recorder = Callable[[Record], None]
"""Takes every record as it happens; it must not block."""

LineOpener = Callable[[LineSettings, Received, Lost], Awaitable[Line]]


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast to type: ``chunk_bytes`` at once (0: all), then a rest of ``delay_s``."""

    chunk_bytes: int = 0
    delay_s: float = 0.0


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
        self._bytes += _cost(record)
        while self._bytes > self._most and len(self._records) > 1:
            oldest = self._records.popleft()
            self._bytes -= _cost(oldest)
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
        self._bytes -= _cost(record)
        return record

    def close(self) -> None:
        self._release(self)


class Driver:
    """The right to write, as long as nobody comes with a newer fence."""

    def __init__(self, console: "SerialConsole", fence: Fence, author: str) -> None:
        self._console = console
        self.fence, self.author = fence, author

    @property
    def drives(self) -> bool:
        return self._console.driver is self

    async def write(
        self, data: bytes, *, timeout_s: float, pace: Pace | None = None, hidden: bool = False
    ) -> None:
        """Type `data`; a `hidden` text (a password) is recorded as such, without its bytes.

        Raises:
            StaleFence: somebody has taken over; what was not typed yet is not typed.
            TransportFailed: serial_lost, or the line took nothing for `timeout_s`.

        """
        await self._console.type_for(self, data, timeout_s=timeout_s, pace=pace, hidden=hidden)

    async def send_break(self, duration_s: float = 0.3) -> None:
        await self._console.break_for(self, duration_s)

    def release(self) -> None:
        """Give the console back; a second time does nothing."""
        self._console.release(self)


class SerialConsole:
    """The one owner of a line. ``run`` is its life; everything else only asks."""

    def __init__(
        self,
        name: str,
        settings: LineSettings,
        *,
        recorder: Recorder | None = None,
        pace: Pace | None = None,
        clock: Clock | None = None,
        opener: LineOpener = open_line,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        self.name = name
        self.driver: Driver | None = None
        self._settings, self._opener = settings, opener
        self._recorder, self._pace, self._clock = recorder, pace or Pace(), clock or SystemClock()
        self._line: Line | None = None
        self._gone = asyncio.Event()
        self._settled = asyncio.Event()  # open, or it is known that waiting will not help
        self._error: TransportFailed | None = None
        self._newest = HOUSEKEEPING
        self._watchers: set[Watcher] = set()
        self._ring: deque[Record] = deque()
        self._ring_most, self._ring_bytes = ring_bytes, 0
        self._typing = asyncio.Lock()

    async def run(self) -> None:
        """Hold the line open until this is cancelled."""
        retry_s = _RETRY_FIRST_S
        try:
            while True:
                if await self._try_to_open():
                    retry_s = _RETRY_FIRST_S
                    await self._gone.wait()
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _RETRY_MOST_S)
        finally:
            await self.close()

    async def opened(self, timeout_s: float) -> None:
        """Return when the line is open; raise why it is not once `timeout_s` has passed.

        A line that is busy or forbidden is not waited for.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        if self._line is None:
            what = "the line has not been opened"
            raise self._error or TransportFailed("serial_missing", self.name, what)

    @property
    def is_open(self) -> bool:
        return self._line is not None

    def records(self) -> tuple[Record, ...]:
        """Return what the ring still holds, oldest first."""
        return tuple(self._ring)

    def follow(self, most_bytes: int = WATCHER_BYTES) -> Watcher:
        """Return every record from now on; close it when it is no longer read."""
        watcher = Watcher(self._watchers.discard, most_bytes)
        self._watchers.add(watcher)
        return watcher

    async def watch(self) -> AsyncIterator[bytes]:
        watcher = self.follow()
        try:
            while True:
                record = await watcher.next()
                if record.direction == "rx":
                    yield record.data
        finally:
            watcher.close()

    def drive(self, fence: Fence, author: str) -> Driver:
        """Take the right to write; whoever had it with an older fence loses it at once.

        Raises:
            StaleFence: a newer fence has been seen, or this one from somebody else.

        """
        holder = self.driver
        if holder and fence == holder.fence and author == holder.author:
            return holder
        refused = fence <= holder.fence if holder else HOUSEKEEPING < fence < self._newest
        if refused:
            raise StaleFence(fence, self._newest)
        self._newest = max(self._newest, fence)
        self.driver = Driver(self, fence, author)
        self._note(f"driver fence {fence}", author)
        return self.driver

    def release(self, driver: Driver) -> None:
        if self.driver is driver:
            self.driver = None
            self._note(f"released fence {driver.fence}", driver.author)

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        driver = self.drive(HOUSEKEEPING, "agent")
        try:
            await driver.write(data, timeout_s=timeout_s)
        finally:
            driver.release()

    async def type_for(
        self, driver: Driver, data: bytes, *, timeout_s: float, pace: Pace | None, hidden: bool
    ) -> None:
        """Type `data` for `driver`; its fence is looked at before every chunk."""
        pace = pace or self._pace
        size = pace.chunk_bytes or len(data) or 1
        async with self._typing:
            for start in range(0, len(data), size):
                chunk = data[start : start + size]
                await self._type(driver, chunk, timeout_s)
                if not hidden:
                    self._record("tx", chunk, driver.author)
                elif start == 0:  # once, so that its length is not told either
                    self._record("tx", b"<hidden>", driver.author)
                if pace.delay_s:
                    await asyncio.sleep(pace.delay_s)

    async def break_for(self, driver: Driver, duration_s: float) -> None:
        async with self._typing:
            line = self._line_for(driver)
            self._note("break", driver.author)
            async with asyncio.timeout(duration_s + 5.0):
                await line.send_break(duration_s)

    async def close(self) -> None:
        """Let go of the line; ``run`` does this when it ends."""
        if self._line:
            self._line.close()
            self._ended("closed")

    async def _try_to_open(self) -> bool:
        self._gone.clear()
        try:
            self._line = await self._opener(self._settings, self._received, self._ended)
        except TransportFailed as error:
            if self._error is None or self._error.code != error.code:
                self._note(error.line)
                logger.warning("console not opened", extra={"dut": self.name, "why": error.line})
            self._error = error
            if error.code in _HOPELESS:
                self._settled.set()
            return False
        self._error = None
        self._note("opened")
        self._settled.set()
        return True

    async def _type(self, driver: Driver, chunk: bytes, timeout_s: float) -> None:
        line = self._line_for(driver)
        try:
            async with asyncio.timeout(timeout_s):
                await line.write(chunk)
        except TimeoutError:
            what = f"the line has taken nothing for {timeout_s:g} s"
            raise TransportFailed("serial_lost", self.name, what, "flow control?") from None

    def _line_for(self, driver: Driver) -> Line:
        if self.driver is not driver:
            raise StaleFence(driver.fence, self._newest)
        if self._line is None:
            raise self._error or TransportFailed("serial_lost", self.name, "the device is away")
        return self._line

    def _received(self, data: bytes) -> None:
        self._record("rx", data)

    def _ended(self, reason: str) -> None:
        self._line = None
        self._settled.clear()
        self._gone.set()
        self._note(f"lost: {reason}")

    def _note(self, text: str, author: str = "") -> None:
        self._record("event", text.encode(), author)

    def _record(self, direction: Direction, data: bytes, author: str = "") -> None:
        record = Record(at=self._clock.now(), direction=direction, data=data, author=author)
        self._ring.append(record)
        self._ring_bytes += _cost(record)
        while self._ring_bytes > self._ring_most:
            self._ring_bytes -= _cost(self._ring.popleft())
        for watcher in tuple(self._watchers):
            watcher.push(record)
        if self._recorder:
            self._recorder(record)


def _cost(record: Record) -> int:
    return len(record.data) + _RECORD_COST_BYTES
