"""Who is silent, and who could only not be heard."""

import asyncio

from tests.support.builders import T0, facts
from tests.support.waiting import wait_until
from tshrag_common.ids import AgentId, Epoch
from tshrag_common.reports import Heartbeat, Hello, ReportBatch
from tshrag_common.states import AgentState
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_agent import on_reports
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.intake.beats import Beats, Confirmed
from tshrag_controller.intake.spools import Spools
from tshrag_controller.log.frames import Frame

A1 = AgentId("a1")


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> int:
        return T0 + round(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


class Paper:
    """A LOG that can be away."""

    def __init__(self) -> None:
        self.last, self.there = 0, asyncio.Event()
        self.there.set()
        self.waits = False

    async def append(self, frame: Frame) -> list[int]:
        self.waits = not self.there.is_set()
        await self.there.wait()
        self.waits = False
        self.last += 1
        return [self.last]


class NoStores:
    def confirmed(self, beat: Heartbeat) -> Confirmed:
        return Confirmed()


def hello(decision: Decision) -> None:
    said = Hello(at=1, facts=facts("a1"))
    on_reports(decision, ReportBatch(agent=A1, spool="s", first_seq=1, reports=(said,)))


async def test_agents_are_not_lost_because_the_bus_was_away() -> None:
    clock, paper, lab = HandClock(), Paper(), Lab()
    engine = Engine(lab, paper, LabClock(clock, T0), lambda *_: None, lambda *_: None)
    beats = Beats(engine, clock, NoStores(), lambda _: 0, Spools(clock))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(engine.lead()), group.create_task(beats.watch(0.01))]
        await engine.ask(hello)
        paper.there.clear()
        while not paper.waits:  # until the doubt waits for the LOG
            clock.seconds += 1
            await asyncio.sleep(0.02)
        clock.seconds += 3600
        await asyncio.sleep(0.1)
        paper.there.set()
        turns = engine.turns
        await wait_until(lambda: engine.turns > turns + 3, 10)
        assert lab.agents[A1].state is AgentState.SUSPECT
        for _ in range(31):  # and now it is silent in truth
            clock.seconds += 1
            turns = engine.turns
            await wait_until(lambda before=turns: engine.turns > before, 10)  # type: ignore[misc]  # bound on purpose
        assert lab.agents[A1].state is AgentState.LOST
        for task in tasks:
            task.cancel()


def a_beat(clock: HandClock, *, ahead_s: float = 0.0) -> Heartbeat:
    at = clock.now() + round(ahead_s * 1e6)
    return Heartbeat(agent=A1, boot="b1", at=at, digest=0, heard=(Epoch(0), 0))


async def test_a_host_whose_clock_is_off_works_and_is_told_of() -> None:
    clock = HandClock()
    engine = Engine(Lab(), Paper(), LabClock(clock, T0), lambda *_: None, lambda *_: None)
    beats = Beats(engine, clock, NoStores(), lambda _: 0, Spools(clock))
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(engine.lead())
        await engine.ask(hello)
        answer = await beats.on_heartbeat(a_beat(clock, ahead_s=3600))
        assert answer.known
        assert beats.skews == {A1: 3600.0}
        await beats.on_heartbeat(a_beat(clock, ahead_s=1))
        assert beats.skews == {}
        leading.cancel()
