"""Who is silent, and who could only not be heard."""

import asyncio

from msgspec.structs import replace

from tests.support.builders import ORG, T0, TestLab, a_plan, facts
from tests.support.waiting import wait_until
from tshrag_common import ids
from tshrag_common.digest import digest
from tshrag_common.ids import AgentId, Epoch
from tshrag_common.reports import Heartbeat, Hello, ReportBatch
from tshrag_common.states import AgentState
from tshrag_controller.core.decision import Decision, Effect, SendSync
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_agent import on_reports
from tshrag_controller.core.on_run import on_cancel
from tshrag_controller.core.stopping import to_end
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


async def test_a_lost_cancel_is_said_again_with_every_beat_until_the_end_is_told() -> None:
    lab, clock = TestLab(), HandClock()
    lab.hello(slots=4)
    run = lab.submit(a_plan((), ()))
    lab.lab.at = 0
    sent: list[Effect] = []
    engine = Engine(
        lab.lab, Paper(), LabClock(clock, T0), lambda *_: None, lambda _, all_: sent.extend(all_)
    )
    beats = Beats(engine, clock, NoStores(), lambda _: 7, Spools(clock))
    first, second = sorted(lab.lab.agents[A1].fences)
    both = digest((first, second))
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(engine.lead())
        await beats.on_heartbeat(a_beat_of(both))
        assert not any(isinstance(effect, SendSync) for effect in sent)
        await engine.ask(lambda decision: on_cancel(decision, ORG, ids.job_of(run, 1)))
        for _ in range(2):  # what was said is lost: the agent has both still
            sent.clear()
            await beats.on_heartbeat(a_beat_of(both))
            assert SendSync(A1) in sent
        assert to_end(lab.lab, A1) == (first,)
        leading.cancel()


def a_beat_of(digested: int) -> Heartbeat:
    return Heartbeat(agent=A1, boot="b1", at=1, digest=digested, heard=(Epoch(0), 7))


async def test_what_keeps_an_agent_from_storing_is_told_until_it_is_well_again() -> None:
    clock = HandClock()
    engine = Engine(Lab(), Paper(), LabClock(clock, T0), lambda *_: None, lambda *_: None)
    beats = Beats(engine, clock, NoStores(), lambda _: 0, Spools(clock))
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(engine.lead())
        await engine.ask(hello)
        await beats.on_heartbeat(replace(a_beat(clock), trouble="storage_full: no space left"))
        assert beats.troubles == {A1: "storage_full: no space left"}
        await beats.on_heartbeat(a_beat(clock))
        assert beats.troubles == {}
        leading.cancel()
