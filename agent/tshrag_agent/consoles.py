"""The consoles of this agent as its daemon has them: recorded always, served to people."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.roster import Roster
from tshrag_agent.channels import Channels
from tshrag_agent.console_book import ConsoleBook
from tshrag_agent.console_server import ConsoleServer
from tshrag_agent.duts import Duts
from tshrag_agent.journal.journal import Journal
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.base import PowerSwitch
from tshrag_agent.transport.console_records import Recorder
from tshrag_agent.transport.power import power_switch
from tshrag_agent.transport.signs import Sign
from tshrag_common import wire
from tshrag_common.channel.wants import ConsoleWant
from tshrag_common.clock import Clock
from tshrag_common.ids import DutId, Fence, OrgId
from tshrag_common.reports import ConsoleSigned

logger = logging.getLogger(__name__)

SIGNS_WAITING_MOST = 256
_BURST, _AGAIN_S = 20, 10.0


def _no_switch(dut: DutId) -> PowerSwitch:
    return power_switch(dut, None)


class Consoles:
    """Book, server and signs of all consoles."""

    def __init__(self, journal: Journal, clock: Clock, roster: Roster) -> None:
        self._journal, self._clock, self._roster = journal, clock, roster
        self.book = ConsoleBook(journal, clock, self._on_sign)
        self._signs: asyncio.Queue[ConsoleSigned] = asyncio.Queue(SIGNS_WAITING_MOST)
        self._allowed: dict[DutId, tuple[float, float]] = {}  # a bucket: tokens, and since when
        self.power: Callable[[DutId], PowerSwitch] = _no_switch
        self.server: ConsoleServer | None = None
        self.signs_dropped = 0

    def recorder(self, dut: DutId) -> Recorder:
        return self.book.page(dut).take

    def duts(self, tables: Iterable[DutTable], channels: Channels) -> Duts:
        """Return the DUTs, their consoles recorded and served to whoever opens a channel."""
        duts = Duts(tables, self.recorder)

        consoles: Mapping[DutId, object] = duts.consoles
        self.server = ConsoleServer(
            duts.consoles,
            self._roster.leases,
            holder=self._holder,
            signs=lambda dut: self.book.page(dut) if dut in consoles else None,
            power=lambda dut: self.power(dut),
        )
        channels.serve(ConsoleWant, self.server.serve)
        return duts

    async def run(self) -> None:
        """Write the record and tell of signs, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.book.run(), name="console book")
            group.create_task(self._tell(), name="console signs")

    def _holder(self, dut: DutId) -> OrgId | None:
        """Return the org whose attempt has the DUT."""
        fence = self._roster.slots.holder(dut)
        living = self._roster.live.get(fence) if fence is not None else None
        return living.start.org if living is not None else None

    def _on_sign(self, dut: DutId, sign: Sign) -> None:
        """Tell the attempt that has the DUT, and queue the sign for the controller.

        A board that cries without end is heard every 10 s, and counted.
        """
        living = self._roster.live.get(self._roster.slots.holder(dut) or Fence(0))
        if isinstance(living, Attempt):
            living.saw(sign)
        if not self._may_tell(dut) or self._signs.full():
            self.signs_dropped += 1
            return
        facts = {"dut": dut, "sign": sign.kind, "text": sign.text, "boot": sign.boot}
        logger.info("a console tells", extra=facts)
        self._signs.put_nowait(
            ConsoleSigned(
                at=self._clock.now(),
                dut=dut,
                sign=sign.kind,
                text=sign.text,
                boot=sign.boot,
                fence=self._roster.slots.holder(dut) or 0,
            )
        )

    def _may_tell(self, dut: DutId) -> bool:
        now = self._clock.monotonic()
        tokens, since = self._allowed.get(dut, (float(_BURST), now))
        tokens = min(float(_BURST), tokens + (now - since) / _AGAIN_S)
        self._allowed[dut] = (tokens - 1 if tokens >= 1 else tokens, now)
        return tokens >= 1

    async def _tell(self) -> None:
        while True:
            signed = await self._signs.get()
            await self._journal.append("reports", wire.body(signed))
