"""Whose name it is: an agent that leaves, and the one that comes in its place."""

import asyncio

from tests.controller.intake.test_spools import FakeClock
from tests.support.builders import facts
from tshrag_common import subjects, wire
from tshrag_common.ids import AgentId, Epoch
from tshrag_common.reports import (
    AnyReport,
    Goodbye,
    Heartbeat,
    Hello,
    ReportBatch,
    SpoolState,
)
from tshrag_common.seals import seal_report
from tshrag_controller.core.lab import Lab
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.intake.beats import Beats, Confirmed
from tshrag_controller.intake.reports import ReportIntake
from tshrag_controller.intake.spools import Spools
from tshrag_controller.log.frames import Frame

A1 = AgentId("a1")
KEY = b"k" * 32


class Paper:
    """A LOG that takes everything."""

    def __init__(self) -> None:
        self.last = 0

    async def append(self, frame: Frame) -> list[int]:
        self.last += 1
        return [self.last]


class NoStores:
    def confirmed(self, beat: Heartbeat) -> Confirmed:
        return Confirmed()


def a_message(sequence: int, journal: str, seq: int, *reports: AnyReport) -> tuple[str, int, bytes]:
    batch = ReportBatch(agent=A1, spool=f"r-{journal}", first_seq=seq, reports=reports)
    return subjects.said(A1, "ev"), sequence, seal_report(KEY, A1, wire.REPORTS.encode(batch))


def a_hello(journal: str) -> Hello:
    return Hello(at=1, facts=facts("a1", boot=f"boot-{journal}"))


def a_beat(journal: str) -> Heartbeat:
    return Heartbeat(
        agent=A1, boot=f"boot-{journal}", at=1, digest=0, heard=(Epoch(1), 1),
        reports=SpoolState(f"r-{journal}", 1, 0),
        samples=SpoolState(f"s-{journal}", 0, 0),
        output=SpoolState(f"o-{journal}", 0, 0),
    )  # fmt: skip


async def test_a_name_is_free_for_a_hello_right_behind_the_goodbye() -> None:
    clock, lab = FakeClock(), Lab()
    spools = Spools(clock)
    engine = Engine(lab, Paper(), LabClock(clock, 1), lambda *_: None, lambda *_: None)
    beats = Beats(engine, clock, NoStores(), lambda _: 0, spools)
    intake = ReportIntake(
        engine, lambda _: KEY, lambda *_: None, spools, beats.is_foreign, beats.leave
    )
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(engine.lead(), name="engine")
        await intake.take([a_message(1, "j1", 1, a_hello("j1"))])
        await beats.on_heartbeat(a_beat("j1"))
        await intake.take([a_message(2, "j2", 1, a_hello("j2"))])
        assert lab.agents[A1].facts.boot == "boot-j1", "the name is in use"
        assert intake.foreign == 1
        both = [
            a_message(3, "j1", 2, Goodbye(at=2)),
            a_message(4, "j2", 1, a_hello("j2")),
        ]
        await intake.take(both)  # as one batch of a pull
        assert lab.agents[A1].facts.boot == "boot-j2"
        assert lab.ev_hi == 4
        leading.cancel()
