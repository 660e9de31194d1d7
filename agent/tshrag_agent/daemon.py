"""The agent's daemon: opens everything, wires it, and holds the loops in one TaskGroup."""

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from tshrag_agent.attempts.attempt import Attempt, Office
from tshrag_agent.attempts.choose import Ways
from tshrag_agent.attempts.contact import Contact
from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.frozen import Frozen
from tshrag_agent.attempts.host import Shepherd
from tshrag_agent.attempts.prepare import Kit
from tshrag_agent.attempts.recover import Found, look, poisonous, why_ended
from tshrag_agent.attempts.roster import Living, Roster
from tshrag_agent.attempts.setups import Setups
from tshrag_agent.attempts.steps import Exits, Site
from tshrag_agent.attempts.workdir import expire
from tshrag_agent.audit import Audit
from tshrag_agent.blobs import BlobClient
from tshrag_agent.boards.boards import Boards
from tshrag_agent.boards.files import Files
from tshrag_agent.boards.server import BoardServer
from tshrag_agent.channels import Channels
from tshrag_agent.consoles import Consoles
from tshrag_agent.drill import Drills
from tshrag_agent.exchanged import exchanged
from tshrag_agent.gang.address import address_of
from tshrag_agent.gang.gangs import Gangs
from tshrag_agent.holding import kept_leases
from tshrag_agent.intake import Intake
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import HandedOver
from tshrag_agent.leases import Leases
from tshrag_agent.loads.cache import LoadCache
from tshrag_agent.online import Online
from tshrag_agent.reload import Reloads
from tshrag_agent.remote.server import remote_of
from tshrag_agent.reports.early import EarlyReports
from tshrag_agent.reports.facts import gather, with_carried
from tshrag_agent.reports.metric_sockets import MetricSockets
from tshrag_agent.reports.sampler import Sampler
from tshrag_agent.reports.tap import HostTap
from tshrag_agent.settings import AgentSettings, DutTable
from tshrag_agent.slots import Slots
from tshrag_common import wire
from tshrag_common.bus.connection import Bus
from tshrag_common.clock import SystemClock
from tshrag_common.commands import StartAttempt
from tshrag_common.errors import ErrorReport
from tshrag_common.failpoints import failpoint
from tshrag_common.ids import AgentId, DutId, Fence
from tshrag_common.inventory import AgentFacts
from tshrag_common.jobs import JobSpec
from tshrag_common.keys import Bundle
from tshrag_common.reports import DutChanged, Goodbye, Hello
from tshrag_common.seals import CommandVerifier

logger = logging.getLogger(__name__)

VERSION = "0.1.0"

_TELL_WITHIN_S = 5.0
_END_WITHIN_S = 20.0
_EXPIRE_EVERY_S = 3600.0


class _Stop(Exception):
    """Ends the daemon's group from inside."""


def slots_of(settings: AgentSettings, facts: AgentFacts) -> Slots:
    """Return what the host and its DUTs have to give."""
    return Slots(settings.slots, {dut.id: dut for dut in facts.duts})


class Daemon:
    """One agent. `serve` is its life; `stop` ends that in order."""

    def __init__(
        self, settings: AgentSettings, bundle: Bundle, journal: Journal, shepherd: Shepherd
    ) -> None:
        self._settings, self._journal, self._shepherd = settings, journal, shepherd
        self._bundle = bundle
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        self._handover = False
        self.agent = AgentId(bundle.name)
        self.facts = gather(self.agent, settings, secrets.token_hex(8), VERSION)
        self.leases = Leases(self._clock, kept_leases(journal))
        self.setups = Setups(journal, self._clock, self._carry)
        self.facts = with_carried(self.facts, self.setups.digests, self.setups.owed)
        self.leases.on_take(self.setups.distrust)
        self.roster = Roster(slots_of(settings, self.facts), self.leases)
        self._contact = Contact(self.roster.live, shepherd, self._clock)
        self._early = EarlyReports(journal)
        self._office = Office(journal, self._early, self.roster, self._clock)
        audit = Audit(journal, self._clock)
        self.channels = Channels(self.agent, lambda: self._online.bus, self._spawn, audit=audit)
        self.intake = Intake(
            self.agent,
            verifier=CommandVerifier(self.agent, bundle.controller_key),
            journal=journal,
            fences=Fences(journal.heard, journal.duts),
            roster=self.roster,
            launch=self._launch,
            clock=self._clock,
            open_channel=self.channels.open,
            drill=Drills(settings.agent.drills, lambda for_s: self._online.cut(for_s)).suffer,
        )
        self._online = Online(
            self.facts,
            bundle,
            journal=journal,
            roster=self.roster,
            intake=self.intake,
            clock=self._clock,
            beat_s=settings.agent.beat_s,
            attend=self._attend,
            renew=self._contact.renew,
            jobs=settings.store / "jobs",
        )
        blobs = BlobClient(self.agent, lambda: self._online.bus)
        self._loads = LoadCache(
            settings.cache / "loads", blobs.get, max_bytes=settings.agent.cache_bytes
        )
        self.consoles = Consoles(journal, self._clock, self.roster)
        self._duts = self.consoles.duts(settings.dut, self.channels)
        self._boards = self._new_boards(settings)
        address = address_of(bundle.url, self._duts)
        self._gangs = Gangs(self.agent, settings, self._clock, lambda: self._online.bus, address)
        self.reloads = Reloads(settings, self._duts, self._boards, self.roster, self._changed)
        self._host_tap = HostTap(journal, self._clock)
        self._sampler = self._new_sampler(settings.agent.sample_s)
        self._site = self._made_site()
        self._ways = Ways(self._site, self._duts, self._boards)
        self._frozen = Frozen(settings.store, self.leases, self._boards, self._spawn)
        self.leases.on_take(self._frozen.taken)
        self._attempts: asyncio.TaskGroup | None = None

    def _made_site(self) -> Site:
        settings = self._settings
        return Site(
            agent=self.agent,
            store=settings.store,
            cache=settings.cache,
            http=settings.agent.http,
            journal=self._journal,
            clock=self._clock,
            kit=Kit(self._loads, self.facts.os, self.facts.arch),
            shepherd=self._shepherd,
            exits=Exits(self._shepherd),
            setups=self.setups,
            sockets=MetricSockets(settings.store / "sockets", self._clock, self._journal.pressure),
            spawn=self._spawn,
            sampler=self._sampler,
            sample_s=settings.agent.sample_s,
            clock_s=settings.agent.clock_s,
            ahead_s=settings.agent.ahead_s,
            blame=self._blame,
            contact=self._contact,
            stuck=self.roster.stuck,
            gangs=self._gangs,
        )

    def _new_boards(self, settings: AgentSettings) -> Boards:
        inrush_s = settings.agent.inrush_s
        boards = Boards(settings.dut, self._duts, settings.boards, self._shepherd, inrush_s)
        self.consoles.power = boards.power
        files = Files(settings.state / "transfers")
        remote_of(settings.state / "exec", settings.agent.exec).open_to(self.channels)
        BoardServer(boards, self._duts, self.leases, files).open_to(self.channels)
        return boards

    def stop(self, handover: bool = False) -> None:
        """Take nothing new, end in order; with `handover` leave what the next agent can adopt."""
        self._handover = handover
        self._stopping.set()

    def _new_sampler(self, sample_s: float) -> Sampler | None:
        if not sample_s:
            return None
        return Sampler(self._host_tap.source, self.agent, self._clock, sample_s)

    async def serve(self) -> None:
        """Be the agent until `stop` is called.

        Raises:
            Refused: the bus does not take its credentials, or they cannot be read.

        """
        await self._loads.open()
        poison = await poisonous(self._journal)
        known = self._boards.processes
        is_host = self._duts.is_host
        found = await look(self._journal.attempts, self._shepherd, is_host, poison, known)
        try:
            async with asyncio.TaskGroup() as group:
                self._attempts = group
                group.create_task(self._shepherd.run(), name="shepherd")
                group.create_task(self._site.exits.run(), name="exits")
                group.create_task(self._expire(), name="expire")
                group.create_task(self._contact.run(), name="contact")
                group.create_task(self._exchange(), name="credentials")
                group.create_task(self._early.pump(), name="early reports")
                group.create_task(self._duts.run(), name="consoles")
                group.create_task(self.leases.watch(), name="leases")
                group.create_task(self.channels.run(), name="channels")
                group.create_task(self._gangs.run(), name="gangs")
                group.create_task(self.consoles.run(), name="console records")
                group.create_task(self.reloads.run(), name="reloads")
                if self._sampler is not None:
                    group.create_task(self._sampler.run(), name="sampler")
                    sample_s = self._settings.agent.sample_s
                    group.create_task(self._host_tap.run(5 * sample_s), name="host samples")
                await self._recover(found, poison)
                self._frozen.resume()
                group.create_task(self._online.stay(), name="online")
                group.create_task(self.intake.obey(), name="intake")
                await self._stopping.wait()
                await self._drain()
                raise _Stop
        except* _Stop:
            logger.info("stopped", extra={"agent": self.agent})
        finally:
            await self._duts.close()
            if not self._handover:
                await self._boards.close()
            await self._site.sockets.close()

    async def _attend(self, bus: Bus) -> None:
        await self.channels.attend(bus)
        await self._gangs.attend(bus)

    async def _exchange(self) -> None:
        """Take other credentials when the file holds them, for ever."""
        async for bundle in exchanged(self._settings.bundle, self._bundle):
            self.intake.trust(bundle.controller_key)
            await self._online.exchange(bundle)

    async def _recover(self, found: Found, poison: frozenset[Fence]) -> None:
        """Adopt or end what an earlier agent has left."""
        failpoint("recover.found")
        await self._gangs.load({left.row.fence for left in found.left})
        for fence, seq in found.ended:
            self.roster.end(fence, seq)
        for left in found.left:
            self.roster.slots.take(left.start, left.spec)
            attempt = Attempt(self._office, left.start, left.spec, self._ways.steps, left=left)
            self.roster.enter(attempt)
            logger.info("adopted" if left.adoptable else "ended by a restart", extra=attempt.facts)
            if not left.adoptable:
                attempt.interrupt(why_ended(left.row.fence in poison))
            self._begin(attempt)

    def _launch(self, start: StartAttempt, spec: JobSpec, older: Living | None) -> Living:
        attempt = Attempt(self._office, start, spec, self._ways.steps, older)
        self._begin(attempt)
        return attempt

    def _begin(self, attempt: Attempt) -> None:
        self._contact.entered()
        self._group.create_task(attempt.conduct(), name=attempt.start.job)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._group.create_task(work, name=name)

    @property
    def _group(self) -> asyncio.TaskGroup:
        if self._attempts is None:
            raise AssertionError("attempts are made while the daemon serves")
        return self._attempts

    def _carry(self, carried: Mapping[DutId, str], owed: Mapping[DutId, str]) -> None:
        """Say in the next hello what the DUTs carry; until then the end of each attempt does."""
        self.facts = with_carried(self.facts, carried, owed)
        self._online.facts = self.facts

    async def _blame(self, dut: DutId, reason: str) -> None:
        """Take a DUT out of service, and tell.

        It is refused here until the controller has that for good; from then on it is the
        controller that gives it to nobody, until a person or a health check says that it is well.
        """
        if not self.roster.slots.blame(dut, reason):
            return
        logger.error("a DUT is out of service", extra={"dut": dut, "reason": reason})
        report = DutChanged(at=self._clock.now(), dut=dut, faulty=reason)
        self.roster.blame(dut, await self._journal.append("reports", wire.body(report)))

    async def _changed(self, settings: AgentSettings, duts: tuple[DutTable, ...]) -> None:
        """Say what this host has now, as at the start; attempts go on."""
        now = msgspec.structs.replace(settings, dut=duts)
        facts = await asyncio.to_thread(gather, self.agent, now, self.facts.boot, VERSION)
        self.roster.slots.become(facts.slots, {dut.id: dut for dut in facts.duts})
        self.facts = facts
        self._online.facts = self.facts
        holds = tuple(self.roster.live)
        report = Hello(at=self._clock.now(), facts=self.facts, holds=holds)
        await self._journal.append("reports", wire.body(report))

    async def _expire(self) -> None:
        """Remove job directories that are old, for ever."""
        while True:
            keep = {attempt.start.run for attempt in self.roster.live.values()}
            removed = await asyncio.to_thread(
                expire, self._settings.store, keep, self._settings.agent.keep_s, time.time()
            )
            if removed:
                logger.info("old job directories removed", extra={"runs": removed})
            await asyncio.sleep(_EXPIRE_EVERY_S)

    async def _drain(self) -> None:
        """Let what lives come to its end, for a while; then end it; tell what came of it."""
        logger.info("draining", extra={"live": len(self.roster.live)})
        self.intake.draining = True
        if self._handover:
            await self._early.flush()
            await self._journal.write(HandedOver(True))
            return
        if not await self._is_idle_within(self._settings.agent.drain_s):
            error = ErrorReport(
                code="agent_stopped", message="its agent was stopped", retryable=True
            )
            for attempt in list(self.roster.live.values()):
                attempt.interrupt(error)
            await self._is_idle_within(_END_WITHIN_S)
        goodbye = Goodbye(at=self._clock.now(), reason="stopped")
        await self._journal.append("reports", wire.body(goodbye))
        if self._online.bus is not None and self._online.bus.is_connected:
            await self._online.told(_TELL_WITHIN_S)
        if not self.roster.live:
            await self._boards.close()  # before the shepherd, which keeps them
            self._shepherd.dismiss()

    async def _is_idle_within(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                for attempt in list(self.roster.live.values()):
                    await attempt.gone()
        except TimeoutError:
            return False
        return True
