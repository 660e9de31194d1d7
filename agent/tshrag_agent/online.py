"""The agent's life on the bus: hear, beat, send; and again, when a connection is closed for good.

Nothing here touches an attempt: without the bus they go on, and the journal keeps what they say.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from tshrag_agent.attempts.roster import Roster
from tshrag_agent.intake import Intake
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import SpoolName
from tshrag_agent.reports.heartbeat import Pulse
from tshrag_agent.reports.outbound import Outbound
from tshrag_common import subjects
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.clock import Clock
from tshrag_common.errors import Refused, Unreachable
from tshrag_common.inventory import AgentFacts
from tshrag_common.keys import Bundle
from tshrag_common.seals import seal_report

logger = logging.getLogger(__name__)

_FLOWS_S = 15.0
"""An answer that is not older: the lab is there."""

_AGAIN_WITHIN_S = 20.0
"""A server that is being started may refuse what it will take in a moment."""
_ONE_TRY_S = 1.0
_KNOCK_S = (15.0, 60.0)
"""Refused credentials are shown again so seldom, the wait doubled up to the second."""
_DENIED = ("authorization", "authentication", "credentials refused", "revoked", "expired")


def knock_s(refusals: int) -> float:
    """Return how long to wait after so many refusals in a row; they may be of weeks."""
    first_s, most_s = _KNOCK_S
    return min(most_s, first_s * 2.0 ** min(refusals, 10))


class Connect(Protocol):
    """What makes a connection, as `tshrag_common.bus.connection.connect` does."""

    async def __call__(
        self,
        url: str,
        *,
        name: str,
        credentials: str | None,
        ca: str | None,
        on_state: Callable[[str], None] | None,
        within_s: float | None,
    ) -> Bus: ...


class Online:
    """What an agent does while it is connected."""

    def __init__(
        self,
        facts: AgentFacts,
        bundle: Bundle,
        *,
        journal: Journal,
        roster: Roster,
        intake: Intake,
        clock: Clock,
        beat_s: float,
        attend: Callable[[Bus], Awaitable[None]] | None = None,
        connect: Connect = connect,
        renew: Callable[[float], None] = lambda sent_at: None,
        jobs: Path | None = None,
    ) -> None:
        self.facts, self._bundle = facts, bundle
        self._journal, self._roster, self._intake = journal, roster, intake
        self._clock, self._beat_s, self._connect = clock, beat_s, connect
        self._attend = attend
        self._renew, self._jobs = renew, jobs
        self.bus: Bus | None = None
        self.outbounds: dict[SpoolName, Outbound] = {}
        self._saw_hello = False
        self._exchanged = asyncio.Event()
        self._refusals = 0  # of these credentials, in a row
        self._refused_at = 0.0  # monotonic, since when; 0: they are not
        self._dark_s = 0.0
        self._pulse: Pulse | None = None
        journal.pressure.serve(lambda: self._flows, self._ask)

    async def stay(self) -> None:
        """Be connected, for ever; without credentials that are good, be there for others.

        Raises:
            Refused: the address or the credentials cannot be understood.

        """
        while True:
            bus = await self._connected()
            try:
                self.bus = bus
                await self._live(bus)
            finally:
                self.bus = None
                await bus.close()
            if self._dark_s:
                dark_s, self._dark_s = self._dark_s, 0.0
                await asyncio.sleep(dark_s)

    @property
    def _flows(self) -> bool:
        """Tell whether the lab takes samples at the moment."""
        if self.bus is None or self._pulse is None or self.outbounds["samples"].refusal:
            return False
        return self._clock.monotonic() - self._pulse.answered_at < _FLOWS_S

    def _ask(self) -> None:
        """Let the next beat come at once: its answer says what is stored."""
        if self._pulse is not None:
            self._pulse.soon()

    async def exchange(self, bundle: Bundle) -> None:
        """Go on with other credentials: the connection is made anew, no attempt notices."""
        self._bundle = bundle
        self._exchanged.set()
        if self.bus is not None:
            await self.bus.close()

    def cut(self, for_s: float) -> None:
        """Be without the bus for so long, as if the cable were pulled: a drill."""
        if self.bus is not None:
            self._dark_s = for_s
            self.bus.closed.set()

    async def told(self, within_s: float) -> bool:
        """Wait until all that the journal has is stored by its streams; false: it is not."""
        try:
            async with asyncio.timeout(within_s):
                for outbound in list(self.outbounds.values()):
                    await outbound.caught_up()
        except TimeoutError:
            return False
        return True

    async def _connected(self) -> Bus:
        """Connect, for as long as it takes; with other credentials as soon as there are."""
        while True:
            self._exchanged.clear()
            dialing = asyncio.get_running_loop().create_task(self._dial(), name="dial")
            exchanged = asyncio.get_running_loop().create_task(self._exchanged.wait())
            try:
                await asyncio.wait({dialing, exchanged}, return_when=asyncio.FIRST_COMPLETED)
                bus = dialing.result() if dialing.done() else None
                self._refusals, self._refused_at = 0, 0.0
                if bus is not None:
                    return bus
            except Unreachable as error:
                if any(word in str(error).lower() for word in _DENIED):
                    await self._refused()
                else:
                    self._refused_at = 0.0
            finally:
                exchanged.cancel()
                dialing.cancel()

    async def _refused(self) -> None:
        """Say that the credentials are refused, and wait: for others, or to show them again.

        What is at work goes on: it needs no bus, and ends by its own limit or its lease. A file
        of good credentials is all that is missing, so nobody has to come and start anything.
        """
        pause_s = knock_s(self._refusals) * random.uniform(0.8, 1.2)
        self._refusals += 1
        fix = f"put new ones in their place: tshrag agent enroll {self.facts.agent}"
        line = Refused("nats", "credentials refused", fix, code="creds_denied").line
        facts = {"attempts": len(self._roster.live), "next_try_s": round(pause_s, 1)}
        logger.error("%s", line, extra=facts)
        try:
            async with asyncio.timeout(pause_s):
                await self._exchanged.wait()
        except TimeoutError:
            return
        self._refusals, self._refused_at = 0, 0.0

    async def _dial(self) -> Bus:
        return await self._connect(
            self._bundle.url,
            name=self.facts.agent,
            credentials=self._bundle.creds or None,
            ca=self._bundle.ca or None,
            on_state=self._note,
            within_s=_ONE_TRY_S if self._refusals or self._is_refused else _AGAIN_WITHIN_S,
        )

    def _note(self, state: str) -> None:
        """Log what a connection says of itself; leave one that is refused for long.

        A client that was connected once tries every few seconds for ever: that is right for a
        server that is away, and too often for one that does not know us any more.
        """
        logger.warning(state)
        if "connected again" in state:
            self._refused_at = 0.0
        elif not self._refused_at and "credentials refused" in state:
            self._refused_at = self._clock.monotonic()
        if self._is_refused and self.bus is not None:
            self.bus.closed.set()

    @property
    def _is_refused(self) -> bool:
        """Tell whether the server has refused our credentials for longer than a start takes."""
        since = self._refused_at
        return since > 0 and self._clock.monotonic() - since > _AGAIN_WITHIN_S

    async def _live(self, bus: Bus) -> None:
        """Serve one connection until it is closed for good."""
        agent, mac = self.facts.agent, self._bundle.mac
        stream = JetStream(bus)
        self.outbounds = {
            "reports": self._outbound("reports", stream, lambda d: seal_report(mac, agent, d)),
            "samples": self._outbound("samples", stream, bytes),
            "output": self._outbound("output", stream, bytes),
        }
        pulse = Pulse(
            lambda: self.facts,
            bus=bus,
            journal=self._journal,
            roster=self._roster,
            intake=self._intake,
            outbounds=self.outbounds,
            clock=self._clock,
            beat_s=self._beat_s,
            renew=self._renew,
            jobs=self._jobs,
        )
        self._pulse = pulse
        bus.on_reconnect(pulse.soon)
        await bus.subscribe(subjects.command(agent), self._intake.hear)
        if self._attend is not None:
            await self._attend(bus)
        await bus.settled()
        if not self._saw_hello:
            await pulse.hello()
            self._saw_hello = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(bus.watch(), name="bus watch")
                group.create_task(pulse.beat(), name="heartbeat")
                for spool, outbound in self.outbounds.items():
                    group.create_task(outbound.pump(), name=f"outbound {spool}")
                await bus.closed.wait()
                raise _Closed
        except* _Closed:
            logger.warning("the connection was closed for good; a new one is made")

    def _outbound(
        self, spool: SpoolName, stream: JetStream, seal: Callable[[bytes], bytes]
    ) -> Outbound:
        return Outbound(self.facts.agent, spool, journal=self._journal, stream=stream, seal=seal)


class _Closed(Exception):
    """Ends the group of one connection from inside."""
