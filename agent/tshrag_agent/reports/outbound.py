"""A spool of the journal -> its stream, until it is stored there.

One message in flight a spool: more load makes larger messages. A publish without an answer is
unknown, so the same message is sent again with the same id. What is stored stays in the journal
until the controller confirms it; what the controller misses is sent once more, from there on.
"""

import asyncio
import logging
from collections.abc import Callable

from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Record, SpoolName
from tshrag_agent.journal.store import SpoolCorrupt
from tshrag_common import subjects, wire
from tshrag_common.bus.jetstream import MESSAGE_ID, JetStream
from tshrag_common.errors import LabError
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import AgentId
from tshrag_common.subjects import AgentSays

logger = logging.getLogger(__name__)

SAYS: dict[SpoolName, AgentSays] = {"reports": "ev", "samples": "met", "output": "logs"}
LINGER_S = 0.002
"""While messages follow each other, the next one waits this long for company."""

_ANSWER_S = 5.0
_RETRY_S = (0.1, 5.0)
_LEAST_BYTES = 8 << 10
_FIRST_BYTES = 32 << 10
_QUICK_S, _SLOW_S = 0.1, 0.5
"""A message that took less makes the next ones larger, one that took more makes them smaller."""

Seal = Callable[[bytes], bytes]


class Outbound:
    """One spool on its way; `pump` is its life."""

    def __init__(
        self, agent: AgentId, spool: SpoolName, *, journal: Journal, stream: JetStream, seal: Seal
    ) -> None:
        self._agent, self._spool, self._journal = agent, spool, journal
        self._stream, self._seal = stream, seal
        self._subject = subjects.said(agent, SAYS[spool])
        self._sent = journal.state(spool).confirmed
        self._round = 0
        self._most_bytes = _FIRST_BYTES
        self._progress = asyncio.Event()
        self.refusal = ""
        """Why the newest message is not stored; empty when all is well."""
        self.messages = 0

    @property
    def sent(self) -> int:
        """Return the last number that its stream has stored."""
        return self._sent

    async def caught_up(self) -> None:
        """Return when its stream has stored all that the spool has now."""
        upto = self._journal.state(self._spool).last
        while self._sent < upto:
            self._progress.clear()
            await self._progress.wait()

    def again(self, from_seq: int) -> None:
        """Send once more from `from_seq` on: the controller has seen a gap."""
        if self._journal.state(self._spool).confirmed < from_seq <= self._sent:
            logger.warning("sent again", extra={"spool": self._spool, "from_seq": from_seq})
            self._sent = from_seq - 1
            self._round += 1
            self._journal.nudge(self._spool)

    async def pump(self) -> None:
        """Send what the spool has, for ever."""
        loop = asyncio.get_running_loop()
        idle_at = 0.0
        while True:
            await self._journal.grown(self._spool, lambda: self._sent)
            if loop.time() - idle_at < LINGER_S:
                await asyncio.sleep(LINGER_S)
            begin = self._sent = max(self._sent, self._journal.state(self._spool).confirmed)
            records = await self._records()
            if records:
                is_stored = await self._deliver(records)
                if is_stored and self._sent == begin:  # no other round was asked for meanwhile
                    self._sent = records[-1].seq
            self._progress.set()
            idle_at = loop.time()

    async def _records(self) -> list[Record]:
        try:
            return await self._journal.read(self._spool, self._sent + 1, self._most_bytes)
        except SpoolCorrupt as error:
            # What is damaged cannot be sent, and what follows must not pretend to be it. The next
            # agent sets the file aside; jobs on the host go on in the shepherd meanwhile.
            self.refusal = error.line
            logger.error("spool is damaged", extra={"spool": self._spool, "reason": error.line})
            raise

    def _suit(self, took_s: float) -> None:
        """Make messages as large as the link takes in a moment: heartbeats wait behind them."""
        if took_s > _SLOW_S:
            self._most_bytes = max(_LEAST_BYTES, self._most_bytes // 2)
        elif took_s < _QUICK_S:
            self._most_bytes = min(wire.MAX_BATCH_BYTES, self._most_bytes * 2)

    async def _deliver(self, records: list[Record]) -> bool:
        """Send one message until its stream has it; false: it is too large for this link.

        Smaller ones tell the same again: who reads counts each record once.
        """
        spool, first = self._journal.state(self._spool).spool, records[0].seq
        bodies = (record.body for record in records)
        data = self._seal(wire.batch(self._agent, spool, first, bodies))
        name = f"{self._agent}-{spool}-{first}-{records[-1].seq}-{self._round}"
        wait_s = _RETRY_S[0]
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._stream.publish(
                    self._subject, data, {MESSAGE_ID: name}, timeout_s=_ANSWER_S
                )
            except LabError as error:
                if self.refusal != error.line:
                    said = {"spool": self._spool, "first": first, "reason": error.line}
                    logger.warning("not stored yet", extra=said)
                self.refusal = error.line
                took_s = loop.time() - began
                if took_s > _SLOW_S and len(records) > 1 and self._most_bytes > _LEAST_BYTES:
                    self._suit(took_s)
                    return False
            else:
                failpoint("outbound.stored")
                self._suit(loop.time() - began)
                self.refusal = ""
                self.messages += 1
                return True
            await asyncio.sleep(wait_s)
            wait_s = min(_RETRY_S[1], 2 * wait_s)
