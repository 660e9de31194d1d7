"""The record of every console, attended or not: what happens goes into blocks, those to the spool.

A console whose records the spool does not take (its disk or its quota is full) keeps a bounded
number of them; what is beyond is cut, and a mark in its place says how much. Nothing waits here
but the pump: the line is read on.
"""

import asyncio
import logging
from collections.abc import Callable

from tshrag_agent.journal.journal import Journal
from tshrag_agent.transport.console_records import Record
from tshrag_agent.transport.signs import Sign, Signs
from tshrag_common import wire
from tshrag_common.clock import Clock
from tshrag_common.console_log import ConsoleRecord, packed
from tshrag_common.ids import DutId
from tshrag_common.reports import OutputChunk

logger = logging.getLogger(__name__)

EVERY_S = 0.25
"""How long a record waits for company on its way to the spool."""
BLOCK_BYTES = 64 << 10
WAITING_MOST_BYTES = 1 << 20

OnSign = Callable[[DutId, Sign], None]


class ConsolePage:
    """The record of one console: hears all of it, keeps what waits for the spool."""

    def __init__(self, dut: DutId, clock: Clock, on_sign: OnSign) -> None:
        self._dut, self._clock, self._on_sign = dut, clock, on_sign
        self._signs = Signs()
        self._waiting: list[ConsoleRecord] = []
        self._bytes = self._cut = 0
        self._number = 0
        self.last = ""
        self.cut_bytes = 0
        """How much was never recorded, since this agent began."""

    @property
    def boot(self) -> int:
        return self._signs.boot

    def take(self, record: Record) -> None:
        """Record what happened, and look what it tells; never waits."""
        cost = record.cost_bytes
        if self._bytes + cost > WAITING_MOST_BYTES:
            self._cut += len(record.data)
            self.cut_bytes += len(record.data)
        else:
            self._mark_cut(record.at)
            self._waiting.append(
                ConsoleRecord(record.at, record.direction, record.data, record.author)
            )
            self._bytes += cost
        if record.direction == "rx":
            for sign in self._signs.feed(record.data):
                self.last = f"{sign.kind}: {sign.text}"
                self._on_sign(self._dut, sign)

    def block(self) -> OutputChunk | None:
        """Return the next block, None where nothing waits."""
        if not self._waiting:
            return None
        size = count = 0
        for record in self._waiting:
            size += len(record.data)
            count += 1
            if size >= BLOCK_BYTES:
                break
        records, self._waiting = self._waiting[:count], self._waiting[count:]
        self._bytes = max(0, self._bytes - sum(len(each.data) + 128 for each in records))
        if not self._waiting:
            self._bytes = 0
            self._mark_cut(self._clock.now())
        number, self._number = self._number, self._number + count
        return OutputChunk(
            run="", job="", attempt=0, stream="console", offset=number, data=packed(records),
            at=records[0].at, dut=self._dut,
        )  # fmt: skip

    def _mark_cut(self, at: int) -> None:
        if self._cut:
            text = f"cut {self._cut} bytes: the spool of this agent is full"
            self._waiting.append(ConsoleRecord(at, "event", text.encode()))
            self._cut = 0


class ConsoleBook:
    """All pages; one pump."""

    def __init__(self, journal: Journal, clock: Clock, on_sign: OnSign) -> None:
        self._journal, self._clock, self._on_sign = journal, clock, on_sign
        self._pages: dict[DutId, ConsolePage] = {}

    def page(self, dut: DutId) -> ConsolePage:
        """Return the page of a console; a new one at first."""
        if dut not in self._pages:
            self._pages[dut] = ConsolePage(dut, self._clock, self._on_sign)
        return self._pages[dut]

    async def run(self) -> None:
        """Move what waits into the spool, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Move all that waits now into the spool, in one transaction as far as it is one batch."""
        while chunks := [chunk for page in self._pages.values() if (chunk := page.block())]:
            await self._journal.append("output", *map(wire.body, chunks))
