"""The engine, against inputs that fail."""

import asyncio

import pytest

from tests.support.builders import T0
from tshrag_common.clock import SystemClock
from tshrag_common.ids import AgentId, Epoch
from tshrag_common.states import AgentCause
from tshrag_controller.core.decision import BrokenLab, Decision, SendSync
from tshrag_controller.core.events import AgentMoved, LeaderChosen
from tshrag_controller.core.lab import Lab
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.log.frames import Frame


class Paper:
    """Takes frames, and gives them the next numbers."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    async def append(self, frame: Frame) -> list[int]:
        self.frames.append(frame)
        return [len(self.frames)]


def fails(decision: Decision) -> None:
    decision.then(SendSync(AgentId("a1")))
    raise KeyError("a bug of ours")


def chosen(decision: Decision) -> int:
    decision.happen(LeaderChosen(epoch=Epoch(7), node="n1"))
    return 7


def half(decision: Decision) -> None:
    chosen(decision)
    raise KeyError("a bug of ours")


def broken(decision: Decision) -> None:
    decision.happen(AgentMoved(agent=AgentId("nobody"), cause=AgentCause.LEAVE))


async def test_an_input_that_fails_before_it_changed_anything_fails_alone() -> None:
    paper, effects = Paper(), list[object]()
    clock = LabClock(SystemClock(), T0)
    engine = Engine(Lab(), paper, clock, lambda *_: None, lambda _, these: effects.extend(these))
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(engine.lead())
        bad, good = engine.ask(fails), engine.ask(chosen)
        with pytest.raises(KeyError, match="a bug"):
            await bad
        assert await good == 7
        assert [len(frame.events) for frame in paper.frames] == [1]
        assert effects == []
        leading.cancel()


@pytest.mark.parametrize(("decide", "error"), [(half, KeyError), (broken, BrokenLab)])
async def test_an_input_that_fails_in_the_middle_ends_the_leadership(
    decide: object, error: type[Exception]
) -> None:
    paper = Paper()
    engine = Engine(Lab(), paper, LabClock(SystemClock(), T0), lambda *_: None, lambda *_: None)
    engine.tell(decide)  # type: ignore[arg-type]  # one of the two above
    with pytest.raises(error):
        async with asyncio.timeout(10):
            await engine.lead()
    assert paper.frames == []
