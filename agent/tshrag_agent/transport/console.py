"""The broker of a console: it owns the line for ever, records every byte, lets one driver write.

It opens the line when the agent starts and again whenever it comes back; a gap is an event in the
record, never an end. Any number of watchers read. Writing is by fence: who comes with a newer one
takes over, and what an older one types from then on is refused with ``stale_fence``.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import msgspec

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console_records import (
    RING_BYTES,
    WATCHER_BYTES,
    Direction,
    Record,
    Recorder,
    Ring,
    Watcher,
)
from tshrag_agent.transport.line import Line, LineSettings, Lost, Received
from tshrag_agent.transport.serial import open_line
from tshrag_common.clock import Clock, SystemClock
from tshrag_common.errors import Refused, StaleFence
from tshrag_common.ids import Fence
from tshrag_common.rfc2217 import PortState

logger = logging.getLogger(__name__)

HOUSEKEEPING = Fence(0)
"""The fence of the agent itself: it may write where nobody drives."""

RETRY_FIRST_S, RETRY_MOST_S, COMMAND_MOST_S = 0.05, 2.0, 30.0
_STEADY_S = 10.0
_HOPELESS = ("serial_busy", "serial_perm")
LineOpener = Callable[[LineSettings, Received, Lost], Awaitable[Line]]


def after_loss(retry_s: float, was_open_s: float) -> float:
    """Return how long to wait before a line that was lost is opened again.

    One that has held is tried at once; one that ends as soon as it is open, as a command whose
    BMC is away, more and more seldom.
    """
    return RETRY_FIRST_S if was_open_s >= _STEADY_S else retry_s


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast to type: ``chunk_bytes`` at once (0: all), then a rest of ``delay_s``."""

    chunk_bytes: int = 0
    delay_s: float = 0.0


class ConsoleTaken(Refused):
    """Somebody else writes on this console, by the same right."""

    code = "console_taken"

    def __init__(self, console: str, writer: str) -> None:
        super().__init__(console, f"{writer} writes now", "take it over with --take")


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
        self.settings, self._opener = settings, opener
        self._way, self._set_for = settings, HOUSEKEEPING  # whose wish settings are, if they differ
        self._recorder, self._pace, self._clock = recorder, pace or Pace(), clock or SystemClock()
        self._line: Line | None = None
        self._gone = asyncio.Event()
        self._settled = asyncio.Event()  # open, or it is known that waiting will not help
        self._error: TransportFailed | None = None
        self._newest = HOUSEKEEPING
        self._watchers: set[Watcher] = set()
        self.ring = Ring(ring_bytes)
        self.rx_bytes = self.tx_bytes = 0
        self._typing = asyncio.Lock()
        self.breaker: Callable[[], Awaitable[None]] | None = None
        """What sends a break where the line itself cannot."""

    async def run(self) -> None:
        """Hold the line open until this is cancelled."""
        most_s = COMMAND_MOST_S if self.settings.command else RETRY_MOST_S
        retry_s, loop = RETRY_FIRST_S, asyncio.get_running_loop()
        try:
            while True:
                began_at = loop.time()
                if await self._try_to_open():
                    await self._gone.wait()
                    retry_s = after_loss(retry_s, loop.time() - began_at)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, most_s)
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
    def watchers(self) -> int:
        return len(self._watchers)

    @property
    def trouble(self) -> str:
        """Return why the line is not open; empty when it is."""
        return self._error.line if self._error and self._line is None else ""

    @property
    def is_open(self) -> bool:
        return self._line is not None

    def records(self) -> tuple[Record, ...]:
        """Return what the ring still holds, oldest first."""
        return self.ring.records()

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

    def drive(self, fence: Fence, author: str, *, take: bool = False) -> Driver:
        """Take the right to write; whoever had it with an older fence loses it at once.

        Two who share a fence take it from each other by `take`.

        Raises:
            StaleFence: a newer fence has been seen.
            ConsoleTaken: somebody else writes under this fence.

        """
        holder = self.driver
        if holder and fence == holder.fence:
            if author == holder.author:
                return holder
            if not take:
                raise ConsoleTaken(self.name, holder.author)
            self.driver = holder = None
        refused = fence <= holder.fence if holder else HOUSEKEEPING < fence < self._newest
        if refused:
            raise StaleFence(fence, self._newest)
        self._newest = max(self._newest, fence)
        self.driver = Driver(self, fence, author)
        self.note(f"driver fence {fence}", author)
        return self.driver

    def release(self, driver: Driver) -> None:
        if self.driver is driver:
            self.driver = None
            self.note(f"released fence {driver.fence}", driver.author)

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
            line = await self._settled_for(driver)
            self.note("break", driver.author)
            async with asyncio.timeout(duration_s + 5.0):
                await (self.breaker() if self.breaker else line.send_break(duration_s))

    async def configure(self, driver: Driver, state: PortState) -> None:
        """Set the line, for now and whenever it is opened again.

        It is as agent.toml has it again as soon as somebody comes with another fence.
        """
        async with self._typing:
            await self._set(self._line_for(driver), self.settings.having(state), driver.author)
            self._set_for = driver.fence

    async def _settled_for(self, driver: Driver) -> Line:
        """Return the line, as agent.toml has it where somebody else has set it otherwise."""
        line = self._line_for(driver)
        if self.settings != self._way and driver.fence != self._set_for:
            await self._set(line, self._way, driver.author)
        return line

    async def _set(self, line: Line, settings: LineSettings, author: str) -> None:
        changes = [
            f"{name} {getattr(settings, name)}"
            for name in settings.__struct_fields__
            if getattr(settings, name) != getattr(self.settings, name)
        ]
        if changes:
            await line.configure(settings)
            self.settings = settings
            self.note(", ".join(changes), author)

    async def close(self) -> None:
        """Let go of the line; ``run`` does this when it ends."""
        if self._line:
            self._line.close()
            self._ended("closed")

    async def _try_to_open(self) -> bool:
        self._gone.clear()
        try:
            self._line = await self._opener(self.settings, self._received, self._ended)
        except TransportFailed as error:
            if self._error is None or self._error.code != error.code:
                self.note(error.line)
                logger.warning("console not opened", extra={"dut": self.name, "why": error.line})
            self._error = error
            if error.code in _HOPELESS:
                self._settled.set()
            return False
        self._error = None
        self.note("opened")
        self._settled.set()
        return True

    async def _type(self, driver: Driver, chunk: bytes, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._settled_for(driver)
                await line.write(chunk)
        except TimeoutError:
            what = f"the line has taken nothing for {timeout_s:g} s"
            raise TransportFailed("serial_lost", self.name, what, "flow control?") from None

    def _line_for(self, driver: Driver) -> Line:
        if self.driver is not driver:
            if self.driver is not None and self.driver.fence == driver.fence:
                raise ConsoleTaken(self.name, self.driver.author)
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
        self.note(f"lost: {reason}")

    def note(self, text: str, author: str = "") -> None:
        self._record("event", text.encode(), author)

    def _record(self, direction: Direction, data: bytes, author: str = "") -> None:
        if direction == "rx":
            self.rx_bytes += len(data)
        elif direction == "tx":
            self.tx_bytes += len(data)
        record = Record(at=self._clock.now(), direction=direction, data=data, author=author)
        self.ring.add(record)
        for watcher in tuple(self._watchers):
            watcher.push(record)
        if self._recorder:
            self._recorder(record)
