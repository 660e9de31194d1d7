"""The agent's daemon: opens everything, wires it, and holds the loops in one TaskGroup."""

import asyncio
import fcntl
import logging
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tshrag_agent.attempts.attempt import Attempt, Office, Steps
from tshrag_agent.attempts.builtins import BuiltinSteps
from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.roster import Living, Roster
from tshrag_agent.intake import Intake
from tshrag_agent.journal.journal import Journal
from tshrag_agent.online import Online
from tshrag_agent.reports.early import EarlyReports
from tshrag_agent.reports.facts import gather
from tshrag_agent.settings import AgentSettings
from tshrag_agent.slots import Slots
from tshrag_common import wire
from tshrag_common.bus.connection import Bus
from tshrag_common.clock import SystemClock
from tshrag_common.commands import StartAttempt
from tshrag_common.errors import ErrorReport, Refused
from tshrag_common.ids import AgentId
from tshrag_common.jobs import JobSpec
from tshrag_common.keys import Bundle
from tshrag_common.reports import Goodbye
from tshrag_common.seals import CommandVerifier

logger = logging.getLogger(__name__)

VERSION = "0.1.0"

_TELL_WITHIN_S = 5.0
_END_WITHIN_S = 20.0


class AlreadyRunning(Refused):
    """Another agent works in the same state directory."""

    code = "already_running"


class _Stop(Exception):
    """Ends the daemon's group from inside."""


class Daemon:
    """One agent. `serve` is its life; `stop` ends that in order."""

    def __init__(self, settings: AgentSettings, bundle: Bundle, journal: Journal) -> None:
        self._settings, self._bundle, self._journal = settings, bundle, journal
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        self.agent = AgentId(bundle.name)
        self.facts = gather(self.agent, settings, secrets.token_hex(8), VERSION)
        self.roster = Roster(Slots(settings.slots, {dut.id: dut for dut in self.facts.duts}))
        self._early = EarlyReports(journal)
        self._office = Office(journal, self._early, self.roster, self._clock)
        self.intake = Intake(
            self.agent,
            verifier=CommandVerifier(self.agent, bundle.controller_key),
            journal=journal,
            fences=Fences(journal.heard, journal.duts),
            roster=self.roster,
            launch=self._launch,
            clock=self._clock,
        )
        self._online = Online(
            self.facts,
            bundle,
            journal=journal,
            roster=self.roster,
            intake=self.intake,
            clock=self._clock,
            beat_s=settings.agent.beat_s,
            on_bus=self._on_bus,
        )
        self._bus: Bus | None = None
        self._attempts: asyncio.TaskGroup | None = None

    def stop(self) -> None:
        """Take nothing new, end in order."""
        self._stopping.set()

    async def serve(self) -> None:
        """Be the agent until `stop` is called.

        Raises:
            Refused: the bus does not take its credentials, or they cannot be read.

        """
        try:
            async with asyncio.TaskGroup() as group:
                self._attempts = group
                group.create_task(self._early.pump(), name="early reports")
                group.create_task(self._online.stay(), name="online")
                group.create_task(self.intake.obey(), name="intake")
                await self._stopping.wait()
                await self._drain()
                raise _Stop
        except* _Stop:
            logger.info("stopped", extra={"agent": self.agent})

    def _on_bus(self, bus: Bus | None) -> None:
        self._bus = bus

    def _launch(self, start: StartAttempt, spec: JobSpec, older: Living | None) -> Living:
        if self._attempts is None:
            raise AssertionError("attempts are launched while the daemon serves")
        attempt = Attempt(self._office, start, spec, self._steps, older)
        self._attempts.create_task(attempt.conduct(), name=start.job)
        return attempt

    def _steps(self, attempt: Attempt) -> Steps:
        """Choose how an attempt is made."""
        return BuiltinSteps(attempt, self._journal, self._clock)

    async def _drain(self) -> None:
        """Let what lives come to its end, for a while; then end it; tell what came of it."""
        logger.info("draining", extra={"live": len(self.roster.live)})
        self.intake.draining = True
        if not await self._is_idle_within(self._settings.agent.drain_s):
            error = ErrorReport(
                code="agent_stopped", message="its agent was stopped", retryable=True
            )
            for attempt in list(self.roster.live.values()):
                attempt.interrupt(error)
            await self._is_idle_within(_END_WITHIN_S)
        goodbye = Goodbye(at=self._clock.now(), reason="stopped")
        await self._journal.append("reports", wire.body(goodbye))
        if self._bus is not None and self._bus.is_connected:
            await self._online.told(_TELL_WITHIN_S)

    async def _is_idle_within(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                for attempt in list(self.roster.live.values()):
                    await attempt.gone()
        except TimeoutError:
            return False
        return True


async def run(settings: AgentSettings) -> None:
    """Be the agent of `settings` until SIGTERM or SIGINT.

    Raises:
        AlreadyRunning: another one works in the same state directory.
        Refused: the credentials cannot be read, or are not taken any more.

    """
    bundle = settings.bundle()
    with locked(settings.state):
        journal = await Journal.open(settings.state / "journal.db")
        try:
            daemon = Daemon(settings, bundle, journal)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, daemon.stop)
            await daemon.serve()
        finally:
            await journal.close()


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state directory: one agent works in it."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            fix = "stop it, or set [agent] store to another folder"
            raise AlreadyRunning(str(state), f"agent with pid {holder} is here", fix) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
