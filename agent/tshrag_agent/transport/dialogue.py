"""One talk on a console: what is typed, what is heard, and for how long nothing is."""

import asyncio
from types import TracebackType

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.console import Driver, Pace, SerialConsole
from tshrag_agent.transport.console_records import Watcher
from tshrag_agent.transport.expect import Match, Matcher

WRITE_TIMEOUT_S = 30.0
_TAIL_BYTES = 256


class Dialogue:
    """Hears everything from its making on. ``tail`` is the line that is not ended yet.

    With a `watcher` of somebody else it goes on where that one stands, and leaves it open.
    """

    def __init__(
        self,
        console: SerialConsole,
        driver: Driver,
        pace: Pace | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.where = console.name
        self.tail = b""
        self._driver, self._pace = driver, pace
        self._watcher = watcher or console.follow()
        self._is_own = watcher is None

    def __enter__(self) -> "Dialogue":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_own:
            self._watcher.close()

    async def type(self, data: bytes, *, hidden: bool = False) -> None:
        await self._driver.write(data, timeout_s=WRITE_TIMEOUT_S, pace=self._pace, hidden=hidden)

    async def send_break(self) -> None:
        await self._driver.send_break()

    async def hear(self, silence_s: float) -> bytes | None:
        """Return the next bytes of the DUT; None when it says nothing for `silence_s`.

        Raises:
            TransportFailed: serial_lost, when the line has gone away.

        """
        try:
            async with asyncio.timeout(silence_s):
                while True:
                    record = await self._watcher.next()
                    if record.direction == "rx":
                        self.tail = (self.tail + record.data)[-_TAIL_BYTES:].rpartition(b"\n")[2]
                        return record.data
                    if record.direction == "event" and record.data.startswith(b"lost"):
                        what = record.data.decode("utf-8", "replace")
                        raise TransportFailed("serial_lost", self.where, what)
        except TimeoutError:
            return None

    async def expect(self, matcher: Matcher, silence_s: float) -> Match | None:
        """Return the first match; None when nothing comes for `silence_s`."""
        match = matcher.feed()
        while match is None:
            data = await self.hear(silence_s)
            if data is None:
                return None
            match = matcher.feed(data)
        return match
