"""Asks the endpoints of an attempt, each on its ticks, while a step of it runs.

An endpoint may come up after its job: what fails before the first answer counts only where none
ever came. Three failures in a row after it, or no answer at all, make its metrics stale, so that no
criterion on them can pass. Asking goes on.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.reports.dut_sampler import STALE, TRIES
from tshrag_agent.reports.sampler import Ticks
from tshrag_agent.scrape.exposition import parse
from tshrag_agent.scrape.fold import fold
from tshrag_agent.scrape.http import ScrapeFailed, get
from tshrag_agent.transport.streams import ByteReader, ByteWriter
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_common.jobs import JobSpec
from tshrag_common.metrics import metric_key
from tshrag_common.reports import MetricNotice
from tshrag_common.scrapes import Scrape
from tshrag_common.times import printed_instant

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
OVERFLOW = "overflow"

Dial = Callable[[int], AbstractAsyncContextManager[tuple[ByteReader, ByteWriter]]]
"""Connects to a port of 127.0.0.1 where the job runs; raises LabError."""


class Scraper:
    """One endpoint of one attempt."""

    def __init__(
        self, scrape: Scrape, prefix: str, dial: Dial, gate: MetricGate, clock: Clock
    ) -> None:
        self.asked = self.failed = self.skipped = 0
        self._scrape, self.prefix = scrape, prefix
        self._dial, self._gate, self._clock = dial, gate, clock
        self._wanted = frozenset(scrape.keys)
        self._series: set[str] = set()
        self._heard_at = self._in_a_row = 0
        self.last = self._stale = ""

    async def run(self) -> None:
        """Ask for ever; cancel it to end."""
        ticks = Ticks(self._clock, self._scrape.every_s)
        while True:
            await self._ask()
            before = ticks.skipped
            wait_s = ticks.wait_s()
            self.skipped += ticks.skipped - before
            await asyncio.sleep(wait_s)

    def notices(self) -> tuple[MetricNotice, ...]:
        """Say what was missed, for the report of the attempt's end."""
        if not self.asked:
            return ()
        found: list[MetricNotice] = []
        stale = self._stale
        if not self._heard_at:
            stale = f"never answered: {self.last or 'the job was over before it could'}"
        if stale:
            found.append(MetricNotice(self.prefix, max(1, self.failed), f"{STALE}: {stale}"))
        elif self.failed:
            found.append(MetricNotice(self.prefix, self.failed, self.last))
        if self.skipped:
            what = "ticks were skipped: an answer took longer than every_s"
            found.append(MetricNotice(f"{self.prefix}.ticks", self.skipped, what))
        return tuple(found)

    async def _ask(self) -> None:
        self.asked += 1
        at = self._clock.now()
        try:
            data = await self._fetch()
            folded = fold(
                await asyncio.to_thread(parse, data, self._wanted), self._scrape, self.prefix
            )
        except LabError as error:
            self._note_failure(error)
            return
        self._heard_at, self._in_a_row = at, 0
        for key, reason in folded.refused.items():
            self._gate.refuse(key, reason)
        beyond = 0
        for key, (kind, value) in folded.numbers.items():
            if not self._has_room(key):
                beyond += 1
                self._gate.refuse(key, f"metric_series: beyond {self._scrape.most_series} series")
            elif math.isfinite(value):
                self._gate.offer(key, value, "", None, kind=kind, now_us=at)
            else:
                self._gate.refuse(key, f"metric_value: {value} is no finite number")
        if beyond:
            self._gate.offer(f"{self.prefix}.{OVERFLOW}", float(beyond), "", None, now_us=at)

    async def _fetch(self) -> bytes:
        port, path = self._scrape.port, self._scrape.path
        where = f"127.0.0.1:{port}{path}"
        try:
            async with asyncio.timeout(TIMEOUT_S), self._dial(port) as (reader, writer):
                return await get(reader, writer, port, path)
        except TimeoutError:
            raise ScrapeFailed(where, f"no whole answer within {TIMEOUT_S:g} s") from None
        except OSError as error:
            raise ScrapeFailed(where, (error.strerror or str(error)).lower()) from None

    def _has_room(self, key: str) -> bool:
        if key not in self._series and len(self._series) < self._scrape.most_series:
            self._series.add(key)
        return key in self._series

    def _note_failure(self, error: LabError) -> None:
        self.last = error.line
        if not self._heard_at:
            return
        self.failed += 1
        self._in_a_row += 1
        if self._in_a_row == TRIES and not self._stale:
            logger.warning("scrape stale", extra={"prefix": self.prefix, "error": error.line})
            self._stale = f"no answer since {printed_instant(self._heard_at)}: {error.line}"


class Scrapes:
    """All endpoints of one attempt."""

    def __init__(self, spec: JobSpec, dial: Dial, gate: MetricGate, clock: Clock) -> None:
        self.scrapers = [
            Scraper(scrape, _prefix(scrape, spec.namespace), dial, gate, clock)
            for scrape in spec.scrape
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask while the body runs."""
        tasks: Sequence[asyncio.Task[None]] = [
            asyncio.create_task(scraper.run(), name=f"scrape {scraper.prefix}")
            for scraper in self.scrapers
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(ended, asyncio.CancelledError):
                    logger.error("scraping broke", extra={"error": str(ended)})

    def notices(self) -> tuple[MetricNotice, ...]:
        return tuple(notice for scraper in self.scrapers for notice in scraper.notices())


def _prefix(scrape: Scrape, namespace: str) -> str:
    if scrape.prefix:
        return metric_key(scrape.prefix)  # criteria find a notice by its canonical key
    return f"{namespace}.scrape" if namespace else "scrape"
