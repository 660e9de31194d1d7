"""Reads the clock of an attempt's DUT: at its start, now and again, and when a sample asks for it.

What it reads goes to the `DutClock` that places samples, and into two series of the attempt, so
that the offset is kept and can be looked at.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tshrag_agent.attempts.dut_clock import DutClock
from tshrag_agent.reports.proc_stats import info, segment
from tshrag_agent.reports.tap import SampleTap
from tshrag_agent.transport.board_time import ClockReading
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError

logger = logging.getLogger(__name__)

Read = Callable[[], Awaitable[ClockReading | None]]

FIRST = 3
"""Readings at the start, the first one before anything runs: bounds that meet are narrower."""

LOOK_S = 0.5
"""How soon it is seen that samples wait for a reading; also the least time between two."""


class ClockWatch:
    """The clock of one DUT while an attempt has it."""

    def __init__(
        self, dut: str, read: Read, known: DutClock, tap: SampleTap, clock: Clock, every_s: float
    ) -> None:
        prefix = f"dut.{segment(dut)}.clock"
        self._offset, self._error = info(f"{prefix}.offset", "s"), info(f"{prefix}.error", "s")
        self._read, self._known, self._tap = read, known, tap
        self._clock, self._every_s = clock, every_s
        self._said = False

    async def begin(self) -> None:
        """Read it before anything runs."""
        await self.once()

    async def run(self) -> None:
        """Read it for ever; cancel it to end."""
        for _ in range(FIRST - 1):
            await self.once()
        due = self._clock.monotonic() + self._every_s
        while True:
            await asyncio.sleep(min(LOOK_S, self._every_s))
            if self._tap.gate.held or self._clock.monotonic() >= due:
                await self.once()
                due = self._clock.monotonic() + self._every_s

    async def once(self) -> None:
        """Read it, where the DUT answers; what was held is placed then."""
        try:
            found = await self._read()
        except LabError as error:
            if not self._said:
                logger.warning("the clock of a DUT was not read", extra={"why": error.line})
                self._said = True
            return
        if found is None:
            return
        now, mono = self._clock.now(), self._clock.monotonic()
        sent_us = now - round((mono - found.sent) * 1e6)
        heard_us = now - round((mono - found.heard) * 1e6)
        self._known.read(found.board_us, found.resolution_us, sent_us, heard_us)
        offset_us, error_us = self._known.bounds_us
        self._tap.source.add(self._offset, now, offset_us / 1e6)
        self._tap.source.add(self._error, now, error_us / 1e6)
        self._tap.gate.settle(now)
