"""Samples of a DUT without software of ours: its /proc, read over its transport once a tick.

A DUT that does not answer three times in a row makes the source stale: that is noted for the
report of the attempt, so that no criterion on those keys can pass. Sampling goes on.
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

    def notices(self) -> tuple[MetricNotice, ...]:
        """Say that the source became stale, for the report of the attempt's end."""
        if not self._stale:
            return ()
        return (MetricNotice(self.prefix, self.missed, f"{STALE}: {self._stale}"),)

    async def run(self) -> None:
        """Sample for ever; cancel it to end."""
        ticks = Ticks(self._clock, self._interval_s)
        before: Mapping[str, str] | None = None
        failures, heard_at = 0, self._clock.now()
        while True:
            try:
                after = await self._read()
            except LabError as error:
                failures, before = failures + 1, None
                self.missed += 1
                if failures == TRIES:
                    self._give_up(heard_at, error)
            else:
                failures, heard_at = 0, self._clock.now()
                for reading in readings(self.prefix, before, after):
                    self._source.add(reading.info, heard_at, reading.value)
                before = after
            await asyncio.sleep(ticks.wait_s())

    def _give_up(self, heard_at: int, error: LabError) -> None:
        logger.warning("samples stale", extra={"prefix": self.prefix, "error": str(error)})
        if not self._stale:
            self._stale = f"no answer since {printed_instant(heard_at)}: {error.line}"
