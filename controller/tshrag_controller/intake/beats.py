"""Heartbeats: each is answered with what is confirmed; silence is noticed here.

Liveness is no part of the Lab: it is measured by this controller's monotonic clock, and counts
from its own start, so that nobody is lost before they had the time to speak.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from tshrag_common import history
from tshrag_common.clock import Clock
from tshrag_common.digest import digest, lease_mark
from tshrag_common.errors import ErrorReport
from tshrag_common.ids import AgentId, Epoch
from tshrag_common.reports import Heartbeat, HeartbeatAnswer
from tshrag_common.states import AgentCause, AgentState
from tshrag_common.times import printed_instant
from tshrag_controller.core.decision import Decision, SendSync
from tshrag_controller.core.leases import marks_of, note_activity
from tshrag_controller.core.on_agent import on_beat, on_silence
from tshrag_controller.core.on_lease import on_leases_over
from tshrag_controller.core.stopping import to_end
from tshrag_controller.engine import Engine
from tshrag_controller.intake.spools import Spools

logger = logging.getLogger(__name__)

SUSPECT_S = 15.0
LOST_S = 30.0
DEAF_S = 2.0
"""When a look at who is silent took longer, the bus was away or we were: nobody was heard."""
SKEW_S = 60.0
COMMAND_FLIGHT_S = 1.0
"""A command younger than this may still be on its way: no Sync because of it."""


class Confirmed(msgspec.Struct, frozen=True):
    """How far an agent's spools rest in our stores: it may forget them up to there.

    The newest of what we ``have_`` is ahead of it while a new store is filled from behind.
    """

    reports: int = 0
    samples: int = 0
    output: int = 0
    have_samples: int = 0
    have_output: int = 0


class Stores(Protocol):
    """What tells how far spools are stored."""

    def confirmed(self, beat: Heartbeat) -> Confirmed: ...


class Beats:
    """Answers heartbeats and watches for silence."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        stores: Stores,
        sent: Callable[[AgentId], int],
        spools: Spools,
    ) -> None:
        self._engine, self._clock, self._stores, self._sent = engine, clock, stores, sent
        self._spools = spools
        self._heard: dict[AgentId, float] = {}
        self._began = self._listens_since = clock.monotonic()
        self.last: dict[AgentId, Heartbeat] = {}
        self._since: dict[AgentId, int] = {}
        self._hosts: dict[AgentId, str] = {}
        self.skews: dict[AgentId, float] = {}  # seconds, of hosts whose clock is off
        self._differs_since: dict[AgentId, float] = {}

    async def on_heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Return what the agent may forget, and whether it must say hello first."""
        if self.is_foreign(beat.agent, beat.reports.spool):
            return self._in_use(beat)
        self.note(beat)
        self._witness("renewed", beat)
        # Both at one time: a later command knows of every end that is confirmed here.
        stored, sent = self._stores.confirmed(beat), self._sent(beat.agent)
        known, epoch, applied = await self._engine.ask(lambda decision: self._look(decision, beat))
        self._witness("answered", beat)
        again = partial(self._spools.again, beat.agent)
        return HeartbeatAnswer(
            epoch=epoch,
            at=self._clock.now(),
            known=known,
            reports_upto=stored.reports,
            samples_upto=stored.samples,
            output_upto=stored.output,
            again_from=again("reports", applied),
            samples_again=again("samples", stored.have_samples, stored.samples),
            output_again=again("output", stored.have_output, stored.output),
            sent=sent,
        )

    def note(self, beat: Heartbeat) -> None:
        """Keep what an agent says of itself; a standby does no more with it."""
        self._heard[beat.agent] = self._clock.monotonic()
        if beat.agent not in self.last or self.last[beat.agent].boot != beat.boot:
            self._since[beat.agent] = self._clock.now()
        self.last[beat.agent] = beat
        self._note_skew(beat)
        self._spools.hear(beat)

    def _witness(self, ev: str, beat: Heartbeat) -> None:
        """Tell the history of a test that a beat was heard, or is about to be answered."""
        if history.IS_ON:
            dropped = beat.counters.get("samples_dropped", 0)
            facts = {"life": beat.boot, "dropped": dropped, "draining": beat.draining}
            history.note(ev, agent=beat.agent, epoch=self._engine.epoch, **facts)

    def listen_anew(self) -> None:
        """Count silence from now on: nobody is doubted before they had the time to speak."""
        self._listens_since = self._clock.monotonic()

    def told(self) -> list[str]:
        """Return what agents have said of their hosts that somebody must look after."""
        said: list[str] = []
        for agent, beat in sorted(self.last.items()):
            if count := beat.counters.get("unkillable", 0):
                what = f"{count} processes of ended attempts cannot be ended"
                said.append(f"unkillable: {agent}: {what}; reboot the host")
        return said

    def _note_skew(self, beat: Heartbeat) -> None:
        """Say it when the clock of a host is off: nothing is decided by it, but people read it."""
        skew_s = (beat.at - self._clock.now()) / 1e6
        if abs(skew_s) < SKEW_S:
            self.skews.pop(beat.agent, None)
            return
        if beat.agent not in self.skews:
            facts = {"agent": beat.agent, "why": f"clock_skew: {skew_s:+.0f}s"}
            logger.warning("the clock of a host is off", extra=facts)
        self.skews[beat.agent] = skew_s

    @property
    def troubles(self) -> dict[AgentId, str]:
        """Return what agents say of a full disk or a stream that takes nothing."""
        return {agent: beat.trouble for agent, beat in self.last.items() if beat.trouble}

    def is_foreign(self, agent: AgentId, spool: str) -> bool:
        """Tell whether another agent of this name, with another journal, was heard just now.

        An agent that starts again has its journal still; one that lost it is let in when the old
        journal has been silent for as long as makes an agent suspect.
        """
        last = self.last.get(agent)
        if last is None or last.reports.spool == spool:
            return False
        return self._clock.monotonic() - self.heard_at(agent) < SUSPECT_S

    def leave(self, agent: AgentId) -> None:
        """Free a name at once whose agent said goodbye."""
        self.last.pop(agent, None)

    def _in_use(self, beat: Heartbeat) -> HeartbeatAnswer:
        since = printed_instant(self._since[beat.agent])
        host = self._hosts.get(beat.agent, "unknown")
        what = f"{beat.agent}: since {since}, host {host}; give this agent another name"
        error = ErrorReport(code="agent_name_in_use", message=what)
        return HeartbeatAnswer(epoch=self._engine.epoch, at=self._clock.now(), refused=error)

    def _look(self, decision: Decision, beat: Heartbeat) -> tuple[bool, Epoch, int]:
        """Return whether the agent is known, our epoch, and how far its reports are applied."""
        agent = decision.lab.agents.get(beat.agent)
        applied = agent.applied if agent and agent.spool == beat.reports.spool else 0
        if agent is None or agent.facts.boot != beat.boot:
            behind = agent is not None and applied < beat.reports.last
            return behind, decision.lab.epoch, applied  # its hello may still be on its way
        self._hosts[beat.agent] = agent.facts.hostname
        on_beat(decision, beat.agent, beat.draining)
        note_activity(decision.lab, beat.agent, beat.used, decision.now)
        self._compare(decision, beat)
        return True, decision.lab.epoch, applied

    def _compare(self, decision: Decision, beat: Heartbeat) -> None:
        """Bring an agent into step whose attempts differ from ours, with nothing on its way."""
        agent = decision.lab.agents[beat.agent]
        ours = digest(agent.fences)
        for fence, rev in marks_of(decision.lab, beat.agent):
            ours ^= lease_mark(fence, rev)
        is_in_step = ours == beat.digest and not to_end(decision.lab, beat.agent)
        if is_in_step or agent.applied < beat.reports.last:
            self._differs_since.pop(beat.agent, None)
            return
        now = self._clock.monotonic()
        since = self._differs_since.setdefault(beat.agent, now)
        if beat.heard[1] == self._sent(beat.agent) or now - since >= COMMAND_FLIGHT_S:
            self._differs_since.pop(beat.agent, None)
            decision.then(SendSync(beat.agent))

    def heard_at(self, agent: AgentId) -> float:
        return self._heard.get(agent, self._began)

    async def watch(self, tick_s: float = 0.5) -> None:
        """Doubt agents after 15 s of silence, lose them after 30 s.

        While we cannot hear, nobody is silent: after it everybody has all the time to speak.
        """
        looked_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(tick_s)
            now = self._clock.monotonic()
            if now - looked_at > tick_s + DEAF_S:
                self._listens_since = now
            looked_at = now
            await self._engine.ask(self._look_for_silence)

    def _look_for_silence(self, decision: Decision) -> None:
        now = self._clock.monotonic()
        for name, agent in list(decision.lab.agents.items()):
            silent = now - max(self.heard_at(name), self._listens_since)
            if silent >= LOST_S and agent.state in (AgentState.SUSPECT, AgentState.DRAINING):
                on_silence(decision, name, AgentCause.LOSE)
            elif silent >= SUSPECT_S and agent.state is AgentState.ONLINE:
                on_silence(decision, name, AgentCause.DOUBT)
            if silent >= LOST_S and agent.fences:
                on_leases_over(decision, name, silent)
