"""Accepted and Started wait a moment: what comes next of an attempt makes them needless.

While few attempts start, Started waits a millisecond or two. Accepted waits longer: most attempts
run by then, and its way (two fsyncs, a frame) would hold up the very start that it announces.
Under load the moment grows to the time that the journal takes for the batch before, and short
attempts tell of their end only.
"""

import asyncio
from contextlib import suppress

from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append, Change, Launched
from tshrag_common import wire
from tshrag_common.ids import Fence
from tshrag_common.reports import Accepted, Started

LINGER_S = 0.001
ACCEPTED_S = 0.03
"""How long Accepted waits for Started, beyond that."""


class EarlyReports:
    """The last early report of every attempt, until it is in the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: dict[Fence, Accepted | Started] = {}
        self._some, self._runs = asyncio.Event(), asyncio.Event()

    def tell(self, report: Accepted | Started) -> None:
        """Say this soon, unless the attempt gets further before."""
        self._waiting[report.fence] = report
        self._some.set()
        if isinstance(report, Started):
            self._runs.set()

    def withdraw(self, fence: Fence) -> None:
        """Say nothing early of this attempt any more: it has ended."""
        self._waiting.pop(fence, None)

    async def pump(self) -> None:
        """Write what waits into the journal, for ever."""
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(ACCEPTED_S):
                    await self._runs.wait()
            await asyncio.sleep(LINGER_S)
            self._some.clear()
            self._runs.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits, now."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        bodies = tuple(wire.body(report) for report in waiting.values())
        launched: list[Change] = [
            Launched(report.fence, report.at)
            for report in waiting.values()
            if isinstance(report, Started)
        ]
        await self._journal.write(Append("reports", bodies), *launched)
