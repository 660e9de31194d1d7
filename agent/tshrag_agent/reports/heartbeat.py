"""Hello, then a beat every few seconds; the answer confirms spools and tells what is amiss."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from tshrag_agent.attempts.roster import Roster
from tshrag_agent.attempts.workdir import free_bytes
from tshrag_agent.intake import Intake
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import SPOOLS, Append, Confirm, Heard, SpoolName
from tshrag_agent.reports.outbound import Outbound
from tshrag_common import subjects, wire
from tshrag_common.bus.connection import Bus
from tshrag_common.clock import Clock
from tshrag_common.errors import ErrorReport, LabError, Refused, StorageFull
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import Epoch
from tshrag_common.inventory import AgentFacts
from tshrag_common.reports import Heartbeat, HeartbeatAnswer, Hello

logger = logging.getLogger(__name__)

BEAT_S = 5.0
_JITTER_RATIO = 0.1
_ANSWER_S = 3.0
_AGAIN_S = 0.5
_OBEY_S = 3.0
"""How long a beat waits for the journal: who is silent because of a full disk would be lost."""
_IN_USE_S = 20.0
"""An agent that lost its journal is let in when the old one has been silent for 15 s."""
_TROUBLE_MOST = 300
_LEAST_FREE_BYTES = 4 << 20


class Pulse:
    """The heart of an agent."""

    def __init__(
        self,
        facts: Callable[[], AgentFacts],
        *,
        bus: Bus,
        journal: Journal,
        roster: Roster,
        intake: Intake,
        outbounds: Mapping[SpoolName, Outbound],
        clock: Clock,
        beat_s: float = BEAT_S,
        renew: Callable[[float], None] = lambda sent_at: None,
        jobs: Path | None = None,
    ) -> None:
        self._facts = facts
        self._bus, self._journal, self._roster = bus, journal, roster
        self._intake, self._outbounds, self._clock = intake, outbounds, clock
        self._beat_s, self._renew, self._jobs = beat_s, renew, jobs
        self._soon = asyncio.Event()
        self._epoch = 0
        self._refused_at = 0.0  # since when another agent has our name, monotonic
        self.answered_at = 0.0
        """When the last answered beat was sent, monotonic; 0: never."""

    def soon(self) -> None:
        """Let the next beat come at once: after a reconnect, after news."""
        self._soon.set()

    async def hello(self) -> None:
        """Say who is here, and what it holds when the journal takes it, not before."""
        while True:
            holds = tuple(self._roster.live)
            report = Hello(at=self._clock.now(), facts=self._facts(), holds=holds)
            try:
                await self._journal.write(Append("reports", (wire.body(report),)), patient=False)
                break
            except StorageFull:
                await asyncio.sleep(_AGAIN_S)
        self.soon()

    async def beat(self) -> None:
        """Beat for ever."""
        while True:
            self._soon.clear()
            await self.beat_once()
            jitter = 1 + random.uniform(-_JITTER_RATIO, _JITTER_RATIO)
            try:
                async with asyncio.timeout(self._beat_s * jitter):
                    await self._soon.wait()
            except TimeoutError:
                continue

    async def beat_once(self) -> None:
        """Send one beat and obey its answer; without one, the next beat tries again."""
        sent_at = self._clock.monotonic()
        subject = subjects.said(self._facts().agent, "hb")
        data = wire.HEARTBEAT.encode(self._heartbeat())
        try:
            message = await self._bus.request(subject, data, _ANSWER_S)
            answer = wire.HEARTBEAT_ANSWER.decode(message.data)
        except LabError as error:
            logger.debug("a beat was not answered", extra={"reason": error.line})
            return
        if answer.refused is not None:
            self._refused(answer.refused)
            return
        self._refused_at = 0.0
        if answer.epoch < max(self._epoch, self._intake.heard[0]):
            return  # a deposed leader: what it renews may be another's
        self._epoch, self.answered_at = Epoch(answer.epoch), sent_at
        failpoint("beat.answered")
        self._renew(sent_at)
        try:
            async with asyncio.timeout(_OBEY_S):
                await self._obey(answer)
        except TimeoutError:  # a full disk or spool: the next answer says it again
            logger.warning("the journal holds up the beat", extra={"reason": self._journal.fault})

    def _refused(self, error: ErrorReport) -> None:
        """Wait a while for the other one to leave; then end, and say why."""
        logger.error("not let in", extra={"why": f"{error.code}: {error.message}"})
        now = self._clock.monotonic()
        self._refused_at = self._refused_at or now
        if now - self._refused_at >= _IN_USE_S:
            raise Refused("", error.message, code=error.code)

    async def _obey(self, answer: HeartbeatAnswer) -> None:
        confirmed: dict[SpoolName, int] = {
            "reports": answer.reports_upto,
            "samples": answer.samples_upto,
            "output": answer.output_upto,
        }
        for spool, upto in confirmed.items():
            state = self._journal.state(spool)
            if min(upto, state.last) > state.confirmed:
                await self._confirm(answer, spool, min(upto, state.last))
        self._roster.confirm(self._journal.state("reports").confirmed)
        again: dict[SpoolName, int] = {
            "reports": answer.again_from,
            "samples": answer.samples_again,
            "output": answer.output_again,
        }
        for spool, from_seq in again.items():
            if from_seq:
                self._outbounds[spool].again(from_seq)
        if not answer.known:
            await self.hello()

    async def _confirm(self, answer: HeartbeatAnswer, spool: SpoolName, upto: int) -> None:
        """Forget records; with an end goes what was sent before it: it may start that again."""
        if spool == "reports":
            heard = await self._intake.outdate(answer.epoch, answer.sent)
            await self._journal.write(Heard(*heard), Confirm(spool, upto))
        else:
            await self._journal.confirm(spool, upto)

    def _heartbeat(self) -> Heartbeat:
        states = {spool: self._journal.state(spool) for spool in SPOOLS}
        epoch, n = self._intake.heard
        return Heartbeat(
            agent=self._facts().agent,
            boot=self._facts().boot,
            at=self._clock.now(),
            digest=self._roster.digest ^ self._roster.leases.digest,
            heard=(Epoch(epoch), n),
            free_slots=max(0, self._roster.slots.free),
            draining=self._intake.draining,
            reports=states["reports"],
            samples=states["samples"],
            output=states["output"],
            spool_bytes=self._journal.size_bytes,
            counters=self._counters(),
            used=self._roster.leases.used(),
            trouble=self._trouble(),
        )

    def _trouble(self) -> str:
        """Say what keeps us from storing, else from telling; empty when all is well."""
        if self._journal.fault:
            return f"storage_full: {self._journal.fault}"[:_TROUBLE_MOST]
        if self._journal.free_bytes() < _LEAST_FREE_BYTES:
            return "storage_full: the disk of the journal; make room on it"
        if self._jobs is not None and free_bytes(self._jobs) < _LEAST_FREE_BYTES:
            return "storage_full: the disk of the folders of jobs; make room on it"
        refusals = (outbound.refusal for outbound in self._outbounds.values())
        said = next((refusal for refusal in refusals if refusal), "") or self._journal.damage
        return said[:_TROUBLE_MOST]

    def _counters(self) -> dict[str, int]:
        counters = dict(self._intake.counters)
        if self._journal.samples_dropped:
            counters["samples_dropped"] = self._journal.samples_dropped
        if stuck := self._roster.stuck.count():
            counters["unkillable"] = stuck
        if self._journal.fault:
            counters["storage_full"] = counters.get("storage_full", 0) + 1
        return counters
