"""What people opened and closed here, on its way to the record of the lab.

It goes through the journal, like every report: an agent that is cut off tells of it later.
"""

import asyncio
import logging

from tshrag_agent.journal.journal import Journal
from tshrag_common import wire
from tshrag_common.channel.channel import Channel
from tshrag_common.channel.wants import detail_of, name_of
from tshrag_common.clock import Clock
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import ErrorReport, StorageFull
from tshrag_common.reports import ChannelTold

logger = logging.getLogger(__name__)

WAITING_MOST = 4096
DETAIL_MOST = 300


class Audit:
    """Tells of channels; `run` must be alive for it to reach anybody."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._waiting: asyncio.Queue[ChannelTold] = asyncio.Queue(WAITING_MOST)
        self.dropped = 0

    def opened(self, command: ServeChannel) -> None:
        self._tell(command, "opened", 0, 0, "")

    def closed(self, command: ServeChannel, channel: Channel, error: ErrorReport | None) -> None:
        is_hung_up = channel.is_over and channel.end is None  # by the person, and all is well
        why = None if is_hung_up else (error or channel.end)
        code = "" if why is None else why.code
        self._tell(command, "closed", channel.heard_bytes, channel.said_bytes, code)

    async def run(self) -> None:
        """Write what is told into the journal, for ever."""
        while True:
            told = await self._waiting.get()
            try:
                await self._journal.append("reports", wire.body(told))
            except StorageFull as error:
                logger.error("an act is not on record", extra={"why": error.line})

    def _tell(self, command: ServeChannel, phase: str, up: int, down: int, end: str) -> None:
        told = ChannelTold(
            at=self._clock.now(),
            org=command.org,
            by=command.person,
            session=command.session,
            what=name_of(command.want),
            detail=detail_of(command.want)[:DETAIL_MOST],
            dut=command.dut,
            fence=command.fence,
            phase=phase,
            up_bytes=up,
            down_bytes=down,
            end=end,
        )
        try:
            self._waiting.put_nowait(told)
        except asyncio.QueueFull:
            self.dropped += 1
            logger.error("an act is not on record", extra={"what": told.what, "by": told.by})
