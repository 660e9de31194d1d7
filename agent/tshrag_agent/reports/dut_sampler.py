"""Samples of a DUT without software of ours: its /proc, read over its transport once a tick.

Over a console it is read between commands: what is said of CPU then holds for the command in
between. A DUT that does not answer three times in a row makes the source stale: that is noted for
the report of the attempt, so that no criterion on those keys can pass. Sampling goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from tshrag_agent.reports.batcher import BatchSource
from tshrag_agent.reports.proc_stats import readings, segment
from tshrag_agent.reports.sampler import Ticks
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_common.reports import MetricNotice
from tshrag_common.times import printed_instant

logger = logging.getLogger(__name__)

ReadProc = Callable[[], Awaitable[Mapping[str, str]]]
"""Reads the texts by path, with a deadline of its own; raises LabError."""

TRIES = 3
STALE = "metric_stale"


class DutSampler:
    """Samples one DUT into `source` while an attempt uses it."""

    def __init__(
        self, source: BatchSource, dut: str, read: ReadProc, clock: Clock, interval_s: float = 1.0
    ) -> None:
        self.prefix = f"dut.{segment(dut)}"
        self.missed = 0
        self._source, self._read = source, read
        self._clock, self._interval_s = clock, interval_s
        self._stale = ""
        self._before: Mapping[str, str] | None = None
        self._failures, self._heard_at = 0, clock.now()

    def notices(self) -> tuple[MetricNotice, ...]:
        """Say that the source became stale, for the report of the attempt's end."""
        if not self._stale:
            return ()
        return (MetricNotice(self.prefix, self.missed, f"{STALE}: {self._stale}"),)

    async def run(self) -> None:
        """Sample for ever; cancel it to end."""
        ticks = Ticks(self._clock, self._interval_s)
        while True:
            await self.once()
            await asyncio.sleep(ticks.wait_s())

    async def once(self) -> None:
        """Read once; a DUT that is busy with something else says nothing."""
        try:
            after = await self._read()
        except LabError as error:
            self._failures, self._before = self._failures + 1, None
            self.missed += 1
            if self._failures == TRIES:
                self._give_up(self._heard_at, error)
            return
        if not after:
            return
        self._failures, self._heard_at = 0, self._clock.now()
        for reading in readings(self.prefix, self._before, after):
            self._source.add(reading.info, self._heard_at, reading.value)
        self._before = after

    def _give_up(self, heard_at: int, error: LabError) -> None:
        logger.warning("samples stale", extra={"prefix": self.prefix, "error": str(error)})
        if not self._stale:
            self._stale = f"no answer since {printed_instant(heard_at)}: {error.line}"
