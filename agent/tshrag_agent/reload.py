"""SIGHUP: `agent.toml` is read again and what changed applies, under running attempts and consoles.

A board that is in use keeps its old settings until it is free; all others change at once. What
an agent only takes at its start (name, folders, bundle) is said to need one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from tshrag_agent.attempts.roster import Roster
from tshrag_agent.boards.boards import Boards
from tshrag_agent.duts import Duts
from tshrag_agent.settings import AgentSettings, DutTable
from tshrag_common.errors import LabError
from tshrag_common.ids import DutId

logger = logging.getLogger(__name__)

AGAIN_S = 2.0
_AT_START = (
    "name", "store", "cache", "cache_bytes", "http", "beat_s", "keep_s", "sample_s", "clock_s",
    "ahead_s", "drills",
)  # fmt: skip

Reread = Callable[[], AgentSettings]
Tell = Callable[[AgentSettings, tuple[DutTable, ...]], Awaitable[None]]
"""Tell the lab what this host has now; the DUTs as they are, which may lag behind."""


class Reloads:
    """Brings DUTs to what the settings say, one reload after the other."""

    def __init__(
        self, settings: AgentSettings, duts: Duts, boards: Boards, roster: Roster, tell: Tell
    ) -> None:
        self._settings, self._tell = settings, tell
        self._duts, self._boards, self._roster = duts, boards, roster
        self._asked = asyncio.Event()
        self.reread: Reread = lambda: settings

    def soon(self) -> None:
        """Read again as soon as possible; safe in a signal handler of the loop."""
        self._asked.set()

    async def run(self) -> None:
        """Apply what is asked for, and what had to wait, for ever."""
        while True:
            waiting = self._waiting()
            try:
                async with asyncio.timeout(AGAIN_S if waiting else None):
                    await self._asked.wait()
            except TimeoutError:
                if any(not self._in_use(dut) for dut in waiting):
                    await self._apply()
                continue
            self._asked.clear()
            try:
                read = await asyncio.to_thread(self.reread)
            except LabError as error:
                logger.error("settings are not taken", extra={"why": error.line})
                continue
            self._say_what_waits_for_a_start(read)
            self._settings = read
            await self._apply()

    async def _apply(self) -> None:
        """Change every DUT that is not in use, then tell the lab."""
        for dut, table in self._differing().items():
            if self._in_use(dut):
                logger.warning("a DUT changes when it is free", extra={"dut": dut})
                continue
            await self._boards.replace(dut, table)
            await self._duts.replace(dut, table)
            logger.info("a DUT has new settings" if table else "a DUT is gone", extra={"dut": dut})
        await self._tell(self._settings, self._duts.tables)

    def _differing(self) -> Mapping[DutId, DutTable | None]:
        """Return what a DUT should become, of all that are not so; None: it goes."""
        wanted = {DutId(table.id): table for table in self._settings.dut}
        have = {DutId(table.id): table for table in self._duts.tables}
        names = dict.fromkeys((*have, *wanted))
        return {dut: wanted.get(dut) for dut in names if have.get(dut) != wanted.get(dut)}

    def _waiting(self) -> tuple[DutId, ...]:
        return tuple(self._differing())

    def _in_use(self, dut: DutId) -> bool:
        slots = self._roster.slots
        return slots.holder(dut) is not None or self._roster.leases.of(dut) is not None

    def _say_what_waits_for_a_start(self, read: AgentSettings) -> None:
        old, new = self._settings, read
        names = [each for each in _AT_START if getattr(old.agent, each) != getattr(new.agent, each)]
        names += ["nats"] if old.nats != new.nats else []
        if names:
            logger.warning("these settings need a start of the agent", extra={"settings": names})
