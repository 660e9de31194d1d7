"""The processes of a simulated lab: agents and controllers that start, freeze, crash and return."""

import asyncio
import random
from collections.abc import Coroutine, Mapping
from contextvars import Context
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec

from tests.simulation.client import URL, SimClient
from tests.simulation.disk import Disk, StoreDisk
from tests.simulation.history import History
from tests.simulation.machines import Machine, WallClock
from tests.simulation.mutations import Rules
from tests.simulation.network import Network
from tests.simulation.steps import BoardSteps, Follow, HostSteps, SimShepherd
from tests.simulation.vloop import LIFE, VirtualLoop
from tshrag_agent.attempts.attempt import Attempt, Office, Steps
from tshrag_agent.attempts.contact import Contact
from tshrag_agent.attempts.recover import Found, look
from tshrag_agent.attempts.roster import Living, Roster
from tshrag_agent.intake import Intake
from tshrag_agent.online import Online
from tshrag_agent.reports.early import EarlyReports
from tshrag_agent.slots import Slots
from tshrag_common.bus.connection import connect
from tshrag_common.commands import StartAttempt
from tshrag_common.errors import ErrorReport, LabError
from tshrag_common.ids import DEFAULT_ORG, AgentId, DutId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import JobSpec
from tshrag_common.labkeys import LabKeys, new_lab
from tshrag_common.seals import CommandVerifier
from tshrag_controller.broker import Broker
from tshrag_controller.daemon import serve_on
from tshrag_controller.settings import ControllerSettings, ControllerTable

_AGAIN_S = 2.0
"""How long a supervisor waits before it starts a process that has ended by itself."""


@cache
def lab_keys() -> LabKeys:
    """Return keys; all simulated labs of a process share them."""
    return new_lab(DEFAULT_ORG)


class Process:
    """What is started, frozen and killed; `serve` is one life of it."""

    def __init__(
        self, name: str, host: str, network: Network, history: History, rules: Rules
    ) -> None:
        self.name, self.host, self.rules = name, host, rules
        self.network, self.history = network, history
        self.loop: VirtualLoop = network.loop
        self.context: Context | None = None
        self.last_life: Context | None = None
        self.starts = 0
        self.wanted = True
        """False while a fault keeps it down: nobody starts it again."""

    @property
    def is_up(self) -> bool:
        return self.context is not None

    @property
    def actor(self) -> str:
        """Return who it is in the product's history."""
        return self.name

    def client(self) -> SimClient:
        assert self.context is not None
        return SimClient(self.network, self.host, self.context, self.rules.hear)

    def start(self) -> None:
        """Begin a life."""
        if self.context is not None or not self.wanted:
            return
        self.starts += 1
        self.history.note(self.loop.time(), "started", self.name)
        self.context = self.loop.new_life()
        self.history.lives[self.context[LIFE]] = (self.actor, f"{self.name}-{self.starts}")
        task = self.loop.create_task(self._live(self.context), name=self.name, context=self.context)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _live(self, context: Context) -> None:
        try:
            await self.serve()
        except* LabError as errors:
            said = [str(one) for one in flat(errors)]
            self.history.note(self.loop.time(), "left", self.name, *said)
            if any(not isinstance(one, LabError) for one in flat(errors)):
                raise
        except* Exception as errors:
            said = [f"{type(one).__name__}: {one}" for one in flat(errors)]
            self.history.violate(self.loop.time(), "I19", f"{self.name} broke: {said}")
        if self.context is context:
            self.loop.call_later(0.0, self._end_of_life, context, context=Context())

    def _end_of_life(self, context: Context) -> None:
        if self.context is context:
            self.kill()
            self.loop.call_later(_AGAIN_S, self.start, context=Context())

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        if self.context is None:
            return
        self.history.note(self.loop.time(), "killed", self.name)
        self.last_life = context = self.context
        self.context = None
        self.loop.kill(context[LIFE])
        for connection in list(self.network.link(self.host).connections):
            connection.end()
        context.copy().run(self.died)  # what a disk still writes is of this life

    def freeze(self) -> None:
        if self.context is not None:
            self.history.note(self.loop.time(), "frozen", self.name)
            self.loop.freeze(self.context[LIFE])

    def thaw(self) -> None:
        if self.context is not None:
            self.history.note(self.loop.time(), "thawed", self.name)
            self.loop.thaw(self.context[LIFE])

    @property
    def is_frozen(self) -> bool:
        return self.context is not None and self.context[LIFE] in self.loop.frozen

    async def serve(self) -> None: ...

    @property
    def own_disk(self) -> Disk | None:
        return None

    @property
    def own_clock(self) -> WallClock | None:
        return None

    def died(self) -> None:
        """Let the rest of the world notice."""


class AgentProcess(Process):
    """An agent: its own rooms, wired as its daemon wires them; only its steps are of this world."""

    def __init__(self, machine: Machine, network: Network, history: History, rules: Rules) -> None:
        super().__init__(machine.name, machine.name, network, history, rules)
        self.machine = machine
        self.roster: Roster | None = None
        machine.poison = self._poisoned

    async def serve(self) -> None:
        machine, clock = self.machine, self.machine.clock
        name = AgentId(machine.name)
        journal = machine.disk.open()
        self.journal = journal
        assert self.context is not None
        self._shepherd = SimShepherd(machine)
        machine.meet(self._shepherd.note_exit, self.context)
        self.facts = self._facts(name)
        self.roster = roster = Roster(
            Slots(machine.slots, {dut.id: dut for dut in self.facts.duts})
        )
        self._contact = Contact(roster.live, _NoLeases(), clock)
        early = EarlyReports(journal)
        self._office = Office(journal, early, roster, clock)
        self._intake = intake = Intake(
            name,
            verifier=CommandVerifier(name, lab_keys().controller_key),
            journal=journal,
            fences=self.rules.fences(journal.heard, journal.duts),
            roster=roster,
            launch=self._launch,
            clock=clock,
        )
        online = Online(
            self.facts,
            lab_keys().plain_agent(name, URL),
            journal=journal,
            roster=roster,
            intake=intake,
            clock=clock,
            beat_s=5.0,
            renew=self._contact.renew,
            connect=partial(connect, client=self.client),
        )
        found = await look(journal.attempts, self._shepherd, lambda dut, _way: dut is None)
        found = self.rules.found(found)
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(early.pump(), name="early reports")
            group.create_task(self._contact.run(), name="contact")
            self._recover(found)
            group.create_task(online.stay(), name="online")
            group.create_task(intake.obey(), name="intake")

    @property
    def actor(self) -> str:
        return f"agent {self.name}"

    @property
    def own_disk(self) -> Disk:
        return self.machine.disk

    @property
    def own_clock(self) -> WallClock:
        return self.machine.clock

    def _facts(self, name: AgentId) -> AgentFacts:
        duts = tuple(
            Dut(
                id=DutId(board.name),
                kind="pi",
                transports=(board.way,),  # type: ignore[arg-type]  # a Runtime
                shared=board.is_shared,
            )
            for board in self.machine.boards.values()
        )
        boot = f"{name}-{self.starts}"
        return AgentFacts(agent=name, boot=boot, version="sim", slots=self.machine.slots, duts=duts)

    def _recover(self, found: Found) -> None:
        """Adopt or end what an earlier agent has left, as the daemon does."""
        assert self.roster is not None
        for fence, seq in found.ended:
            self.roster.end(fence, seq)
        for left in found.left:
            self.roster.slots.take(left.start, left.spec)
            attempt = Attempt(self._office, left.start, left.spec, self._steps, left=left)
            self.roster.enter(attempt)
            if not left.adoptable:
                message = "its agent was started again in the middle of it"
                attempt.interrupt(
                    ErrorReport(code="agent_restarted", message=message, retryable=True)
                )
            self._begin(attempt)

    def _launch(self, start: StartAttempt, spec: JobSpec, older: Living | None) -> Living:
        attempt = Attempt(self._office, start, spec, self._steps, older)
        self._begin(attempt)
        return attempt

    def _begin(self, attempt: Attempt) -> None:
        self._contact.entered()
        self._group.create_task(attempt.conduct(), name=attempt.start.job)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._group.create_task(work, name=name)

    def _steps(self, attempt: Attempt) -> Steps:
        follow = Follow(attempt, self.machine, self.journal, self._spawn)
        if attempt.start.dut is None:
            return HostSteps(attempt, self.machine, self._shepherd, follow)
        board = self.machine.boards[attempt.start.dut]
        return BoardSteps(attempt, self.machine, board, self.context, follow)

    def freeze(self) -> None:
        super().freeze()
        for board in self.machine.boards.values():
            board.driver_froze(self.context, lambda: self.is_frozen)

    def died(self) -> None:
        self.roster = None
        self.machine.leave()
        self.machine.disk.crash()
        for board in self.machine.boards.values():
            board.driver_died(self.last_life)

    def _poisoned(self) -> None:
        self.kill()
        self.loop.call_later(_AGAIN_S, self.start, context=Context())


class _NoLeases:
    """Of processes on a host: none has one here, only sessions on shared boards have."""

    async def renew(self, leases: Mapping[str, float], *, timeout_s: float) -> set[str]:
        return set()


class ControllerProcess(Process):
    """A controller: all of its daemon behind the opening of the bus."""

    def __init__(
        self,
        name: str,
        network: Network,
        history: History,
        rules: Rules,
        chance: random.Random,
        folder: Path,
        checkpoint_frames: int,
    ) -> None:
        super().__init__(name, name, network, history, rules)
        self.clock = WallClock(
            network.loop, chance.uniform(1e5, 1e6), honest=rules.has_monotonic_clocks
        )
        self.disk = StoreDisk(network.loop, chance, folder, rules.opened)
        table = ControllerTable(node=name, state=str(folder), checkpoint_frames=checkpoint_frames)
        self.settings = ControllerSettings(controller=table)
        self.leads_since = 0.0

    async def serve(self) -> None:
        bus = await connect(URL, name=self.name, client=self.client, need_jetstream=True)
        broker = Broker(bus, lab_keys(), URL, None, True)

        def ready(_: Broker) -> None:
            self.leads_since = self.loop.time()
            self.history.note(self.loop.time(), "leads", self.name)

        await serve_on(self.settings, broker, asyncio.Event(), ready, self.clock, self.disk.open)

    @property
    def actor(self) -> str:
        return f"controller {self.name}"

    @property
    def own_disk(self) -> Disk:
        return self.disk

    @property
    def own_clock(self) -> WallClock:
        return self.clock

    def died(self) -> None:
        self.disk.crash()


def flat(error: BaseException) -> list[BaseException]:
    """Return the errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [inner for each in error.exceptions for inner in flat(each)]
    return [error]


def a_document(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
