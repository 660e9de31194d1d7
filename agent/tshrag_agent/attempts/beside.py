"""What goes on beside the steps of an attempt on its DUT: the clock, ``/proc``, endpoints, sync.

Over a console nothing can be asked while a command executes: there it is read before the first
command, between two of them, and after the last one.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.dut_clock import DutClock
from tshrag_agent.attempts.steps import Site
from tshrag_agent.gang.wire import Wire
from tshrag_agent.reports.clock_watch import ClockWatch
from tshrag_agent.reports.dut_sampler import DutSampler
from tshrag_agent.reports.tap import SampleTap
from tshrag_agent.scrape.dial import dut_dial
from tshrag_agent.scrape.scraper import Scrapes
from tshrag_agent.transport.base import DutTransport
from tshrag_agent.transport.board_time import ClockReading
from tshrag_common.ids import DutId
from tshrag_common.reports import MetricNotice

READ_S = 5.0
CONSOLE_READ_S = 20.0
"""A slow line carries a kilobyte a second."""


class Beside:
    """The clock, the sampler and the endpoints of one attempt."""

    def __init__(
        self, attempt: Attempt, site: Site, dut: DutId, transport: DutTransport, tap: SampleTap
    ) -> None:
        self._attempt, self._transport = attempt, transport
        self._read_s = CONSOLE_READ_S if transport.is_exclusive else READ_S
        self._scrapes = Scrapes(attempt.spec, dut_dial(dut, transport), tap.gate, site.clock)
        clock = tap.dut_clock or DutClock()
        self._watch = ClockWatch(dut, self._read_clock, clock, tap, site.clock, site.clock_s)
        self._clock = clock
        self.wire: Wire | None = None  # of a job of a gang
        self._sampler: DutSampler | None = None
        if site.sample_s:
            self._sampler = DutSampler(tap.source, dut, self._read_proc, site.clock, site.sample_s)

    async def begin(self) -> None:
        """Look before anything runs."""
        await self._watch.begin()
        await self._look_between()

    @asynccontextmanager
    async def running(self, step: str) -> AsyncIterator[None]:
        """Measure while a step executes, and after it where nothing can be asked meanwhile."""
        async with self._scrapes.running(), asyncio.TaskGroup() as group:
            beside = [group.create_task(self._watch.run(), name=f"clock {step}")]
            if self._sampler is not None and not self._transport.is_exclusive:
                beside.append(group.create_task(self._sampler.run(), name=f"samples {step}"))
            if self.wire is not None:
                self.wire.begin()
                beside.append(group.create_task(self.wire.serve(), name=f"sync {step}"))
            try:
                yield
            finally:
                for task in beside:
                    task.cancel()
        await self._look_between()

    async def end(self) -> None:
        """Read the clock once more: what comes back with the files is placed by it too."""
        if self._attempt.record.outcome != "error":
            await self._watch.once()

    def notices(self) -> tuple[MetricNotice, ...]:
        """Say what was missed, and keep the clock with the attempt."""
        self._attempt.record.clock = self._clock.report()
        stale = self._sampler.notices() if self._sampler is not None else ()
        return (*stale, *self._scrapes.notices())

    async def _look_between(self) -> None:
        if self._sampler is not None and self._transport.is_exclusive:
            await self._sampler.once()

    async def _read_proc(self) -> Mapping[str, str]:
        return await self._transport.read_proc(timeout_s=self._read_s)

    async def _read_clock(self) -> ClockReading | None:
        return await self._transport.read_clock(timeout_s=self._read_s)
