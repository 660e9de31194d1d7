"""Checkpoints that cannot be stored: the leader goes on, and tries again."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.builders import T0
from tests.support.waiting import wait_until
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.clock import SystemClock
from tshrag_common.ids import Epoch
from tshrag_controller.core.decision import Decision
from tshrag_controller.core.events import LeaderChosen
from tshrag_controller.core.lab import Lab
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.log.checkpoint import Checkpoints
from tshrag_controller.log.frames import Frame
from tshrag_controller.projecting import Projecting
from tshrag_controller.store.store import Store


class Paper:
    """Takes frames, and gives them the next numbers."""

    def __init__(self) -> None:
        self.last = 0

    async def append(self, frame: Frame) -> list[int]:
        self.last += 1
        return [self.last]


def chosen(decision: Decision) -> None:
    decision.happen(LeaderChosen(epoch=Epoch(1), node="n1"))


async def test_a_disk_that_takes_no_checkpoint_does_not_end_the_leader(
    tmp_path: Path, nats_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = await Store.open(tmp_path / "store")
    bus = await connect(nats_url, name="tests", within_s=10)
    checkpoints = Checkpoints(JetStream(bus), tmp_path)
    engine = Engine(
        Lab(),
        Paper(),
        LabClock(SystemClock(), T0),
        lambda _, frame, sequence: projecting.put(sequence, frame),
        lambda _, effects: None,
    )
    projecting = Projecting(store, engine, checkpoints, 1)
    shutil.rmtree(store.folder)  # the open databases go on, nothing new can be made here
    loops = (engine.lead(), projecting.project(), projecting.keep_checkpoints())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        await engine.ask(chosen)
        await wait_until(lambda: "no checkpoint was stored" in caplog.text, 10)
        assert not any(task.done() for task in tasks)
        with pytest.raises(OSError, match="store"):
            await projecting.checkpoint()  # what is not stored is still owed
        for task in tasks:
            task.cancel()
    await store.close()
    await bus.close()
