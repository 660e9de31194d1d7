"""The beat goes on, whatever the disk does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.images import a_small_disk
from tests.support.builders import facts
from tests.support.waiting import wait_until
from tshrag_agent.attempts.fences import Fences
from tshrag_agent.attempts.roster import Living, Roster
from tshrag_agent.intake import Intake
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.store import Store
from tshrag_agent.reports.heartbeat import Pulse
from tshrag_agent.slots import Slots
from tshrag_common import subjects, wire
from tshrag_common.bus.connection import connect
from tshrag_common.bus.messages import Message
from tshrag_common.clock import SystemClock
from tshrag_common.commands import StartAttempt
from tshrag_common.ids import DEFAULT_ORG, AgentId, Epoch
from tshrag_common.jobs import JobSpec
from tshrag_common.labkeys import new_lab
from tshrag_common.reports import HeartbeatAnswer
from tshrag_common.seals import CommandVerifier

A1 = AgentId("a1")


class Frozen:
    """A disk that takes nothing and says nothing."""

    def __init__(self, serve: Callable[[list[Any]], None], most: int) -> None:
        self.waiting: list[Any] = []

    def put(self, order: Any, /) -> None:
        self.waiting.append(order)

    def end(self) -> None:
        """Forget what waits."""


def launch(start: StartAttempt, spec: JobSpec, older: Living | None) -> Living:
    raise AssertionError("nothing starts here")


async def test_an_agent_whose_disk_takes_nothing_beats_on(tmp_path: Path, nats_url: str) -> None:
    journal = Journal(Store(tmp_path / "journal.db"), hands=Frozen)
    bus = await connect(nats_url, name="a1", within_s=10)
    heard: list[bytes] = []

    async def answer(message: Message) -> None:
        heard.append(message.data)
        said = HeartbeatAnswer(epoch=Epoch(1), at=1, known=False)
        await bus.respond(message, wire.HEARTBEAT_ANSWER.encode(said))

    async with asyncio.TaskGroup() as group:

        def hear(message: Message) -> None:
            group.create_task(answer(message))

        await bus.subscribe(subjects.any_said("hb"), hear)
        await bus.settled()
        clock, roster = SystemClock(), Roster(Slots(1, {}))
        intake = Intake(
            A1,
            verifier=CommandVerifier(A1, new_lab(DEFAULT_ORG).controller_key),
            journal=journal,
            fences=Fences(),
            roster=roster,
            launch=launch,
            clock=clock,
        )
        pulse = Pulse(
            lambda: facts("a1"),
            bus=bus,
            journal=journal,
            roster=roster,
            intake=intake,
            outbounds={},
            clock=clock,
            beat_s=0.05,
            jobs=tmp_path / "jobs",
        )
        journal.fault = "no space left"
        beating = group.create_task(pulse.beat())
        await wait_until(lambda: len(heard) > 1, 20)
        assert wire.HEARTBEAT.decode(heard[-1]).trouble == "storage_full: no space left"
        journal.fault = ""
        await wait_until(lambda: not wire.HEARTBEAT.decode(heard[-1]).trouble, 20)
        with a_small_disk(tmp_path / "jobs", 1):  # of its own, and too small
            await wait_until(
                lambda: "folders of jobs" in wire.HEARTBEAT.decode(heard[-1]).trouble, 20
            )
        beating.cancel()
    await bus.close()
    await journal.close()
