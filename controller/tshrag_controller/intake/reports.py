"""Reports from stream EV: opened, checked, handed to the engine, acknowledged once in a frame.

A report counts only from the agent under whose subject it came and whose key sealed it. What
cannot be read is set aside with its reason, and the reader goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from tshrag_common import subjects
from tshrag_common.errors import LabError, Refused, shown
from tshrag_common.ids import AgentId
from tshrag_common.reports import Goodbye, ReportBatch
from tshrag_common.seals import open_report
from tshrag_common.wire import REPORTS, BadMessage
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.on_agent import GapError, on_reports
from tshrag_controller.engine import Engine
from tshrag_controller.intake.checks import MOST_REPORTS_BYTES, check_reports
from tshrag_controller.intake.spools import Spools

logger = logging.getLogger(__name__)

SetAside = Callable[[str, str, bytes], None]
"""(subject, reason, bytes): keep what could not be read."""


class NotHolder(Refused):
    """An agent that speaks for another."""

    code = "not_holder"


class ReportIntake:
    """Takes messages of EV in order."""

    def __init__(
        self,
        engine: Engine,
        mac_key: Callable[[AgentId], bytes | tuple[bytes, ...]],
        set_aside: SetAside,
        spools: Spools,
        is_foreign: Callable[[AgentId, str], bool] = lambda agent, spool: False,
        leave: Callable[[AgentId], None] = lambda agent: None,
    ) -> None:
        self._engine, self._mac_key = engine, mac_key
        self._set_aside, self._spools = set_aside, spools
        self._is_foreign, self._leave = is_foreign, leave
        self.gaps = self.foreign = 0

    async def take(self, messages: Sequence[tuple[str, int, bytes]]) -> None:
        """Apply messages ``(subject, sequence in EV, bytes)``; return when that is in the LOG."""
        answers = [self._one(*message) for message in messages]
        waiting = [answer for answer in answers if answer is not None]
        if waiting:
            await asyncio.wait([asyncio.ensure_future(answer) for answer in waiting])

    def _one(self, subject: str, sequence: int, data: bytes) -> Awaitable[None] | None:
        try:
            batch = self.open(subject, data)
        except LabError as error:
            self._set_aside(subject, error.line, data)
            return None
        return self._engine.ask(lambda decision: self._apply(decision, batch, sequence))

    def open(self, subject: str, data: bytes) -> ReportBatch:
        """Return the batch in a message; raise a LabError with the reason it cannot count."""
        agent, _ = subjects.agent_of(subject)
        if len(data) > MOST_REPORTS_BYTES:
            raise BadMessage(subject, f"{len(data)} > {MOST_REPORTS_BYTES} bytes")
        batch = REPORTS.decode(open_report(self._mac_key(agent), agent, data))
        if batch.agent != agent:
            raise NotHolder(subject, f"a report of {shown(batch.agent)}")
        check_reports(batch)
        return batch

    def _apply(self, decision: Decision, batch: ReportBatch, sequence: int) -> None:
        """Let a batch count, in the turn: a goodbye before it in EV has freed the name by then."""
        if self._is_foreign(batch.agent, batch.spool):
            self.foreign += 1  # its journal keeps it until it may speak
        else:
            self._count(decision, batch)
        self._engine.ev_applied(sequence)

    def _count(self, decision: Decision, batch: ReportBatch) -> None:
        confirmed = self._spools.confirmed(batch.agent, "reports", batch.spool)
        try:
            on_reports(decision, batch, confirmed)
        except GapError as gap:
            self.gaps += 1
            missing = f"gap {gap.again_from}..{batch.first_seq - 1} requested"
            logger.warning("reports are missing", extra={"agent": gap.agent, "what": missing})
            self._spools.gap(gap.agent, "reports", gap.again_from)
        if any(isinstance(report, Goodbye) for report in batch.reports):
            self._leave(batch.agent)
