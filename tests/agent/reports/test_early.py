"""Accepted and Started on their way into the journal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.waiting import wait_until
from tshrag_agent.journal.journal import Journal
from tshrag_agent.reports.early import EarlyReports
from tshrag_common import wire
from tshrag_common.ids import Fence
from tshrag_common.reports import Accepted, Started

FENCE = Fence(7)


@asynccontextmanager
async def pumping(folder: Path) -> AsyncIterator[tuple[EarlyReports, Journal]]:
    journal = await Journal.open(folder / "journal.db")
    reports = EarlyReports(journal)
    pump = asyncio.create_task(reports.pump())
    try:
        yield reports, journal
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        await journal.close()


async def told(journal: Journal, count: int) -> list[bytes]:
    """Return what the journal holds once it is so much."""
    await wait_until(lambda: journal.state("reports").last >= count)
    return [record.body for record in await journal.read("reports", 1, 1 << 20)]


async def test_an_attempt_that_runs_soon_tells_of_that_alone(tmp_path: Path) -> None:
    accepted, started = Accepted(at=1, fence=FENCE), Started(at=2, fence=FENCE)
    async with pumping(tmp_path) as (reports, journal):
        reports.tell(accepted)
        await asyncio.sleep(0)
        reports.tell(started)
        assert await told(journal, 1) == [wire.body(started)]


async def test_an_attempt_that_takes_its_time_tells_that_it_is_accepted(tmp_path: Path) -> None:
    accepted, started = Accepted(at=1, fence=FENCE), Started(at=2, fence=FENCE)
    async with pumping(tmp_path) as (reports, journal):
        reports.tell(accepted)
        assert await told(journal, 1) == [wire.body(accepted)]
        reports.tell(started)
        assert await told(journal, 2) == [wire.body(accepted), wire.body(started)]


async def test_who_runs_takes_along_who_is_only_accepted(tmp_path: Path) -> None:
    waits, runs = Accepted(at=1, fence=Fence(8)), Started(at=2, fence=FENCE)
    async with pumping(tmp_path) as (reports, journal):
        reports.tell(waits)
        reports.tell(runs)
        assert await told(journal, 2) == [wire.body(waits), wire.body(runs)]


async def test_an_attempt_that_has_ended_tells_nothing_early(tmp_path: Path) -> None:
    async with pumping(tmp_path) as (reports, journal):
        reports.tell(Accepted(at=1, fence=Fence(8)))
        reports.withdraw(Fence(8))
        reports.tell(Started(at=2, fence=FENCE))
        assert await told(journal, 1) == [wire.body(Started(at=2, fence=FENCE))]
