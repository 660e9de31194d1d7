"""A turn: decide, one frame, and only then does anything leave the house."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from tests.support.builders import ORG, a_plan, a_run_id, facts
from tests.support.waiting import wait_until
from tshrag_common.clock import SystemClock
from tshrag_common.errors import Fenced, Refused
from tshrag_common.ids import AgentId, Epoch, RunId
from tshrag_common.jobs import JobSpec, Plan, PlannedJob
from tshrag_common.reports import Hello
from tshrag_common.states import JobCause
from tshrag_controller.core.decision import BrokenLab, Decision, Effect, SendStart
from tshrag_controller.core.events import AgentSeen, JobMoved, LeaderChosen, RunAdmitted
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.on_agent import on_hello
from tshrag_controller.core.on_run import Submitted, on_submit
from tshrag_controller.core.revive import revive
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.log.frames import Frame


class FakePen:
    """Keeps frames; `gate` holds an append up, `fenced` refuses it."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fenced = False

    async def append(self, frame: Frame) -> list[int]:
        await self.gate.wait()
        if self.fenced:
            raise Fenced(frame.epoch, 99)
        self.frames.append(frame)
        return [len(self.frames)]


class Led:
    """An engine that leads, and what came out of it."""

    def __init__(self) -> None:
        self.lab, self.pen = Lab(), FakePen()
        self.committed: list[int] = []
        self.effects: list[Effect] = []
        clock = LabClock(SystemClock(), 0)
        self.engine = Engine(self.lab, self.pen, clock, self._on_commit, self._carry_out)

    def _on_commit(self, lab: Lab, frame: Frame, sequence: int) -> None:
        assert frame in self.pen.frames, "it is in the LOG before anybody hears of it"
        self.committed.append(sequence)

    def _carry_out(self, lab: Lab, effects: Sequence[Effect]) -> None:
        self.effects += effects


@pytest.fixture
async def led() -> AsyncIterator[Led]:
    made = Led()
    task = asyncio.get_running_loop().create_task(made.engine.lead(), name="lead")
    await made.engine.ask(lambda decision: decision.happen(LeaderChosen(epoch=Epoch(1), node="n")))
    yield made
    task.cancel()
    await asyncio.wait((task,))


def submit(number: int = 1, plan: Plan | None = None) -> "RunAdmitted":
    return RunAdmitted(
        run=a_run_id(number), org=ORG, by="jo", key="", name="t", priority=50,
        profile=b"{}", plan=plan or a_plan(()),
    )  # fmt: skip


def hello(decision: Decision) -> None:
    on_hello(decision, AgentId("a1"), 1, Hello(at=0, facts=facts()), False)


async def test_nothing_is_answered_and_no_command_goes_before_the_frame_is_stored(
    led: Led,
) -> None:
    await led.engine.ask(hello)
    led.effects.clear()
    led.pen.gate.clear()
    answer = asyncio.ensure_future(led.engine.ask(lambda d: on_submit(d, submit())))
    await asyncio.sleep(0.05)
    assert not answer.done()
    assert not led.effects
    led.pen.gate.set()
    assert await answer == Submitted(a_run_id(1), True)
    assert any(isinstance(effect, SendStart) for effect in led.effects)


async def test_what_waits_while_a_frame_is_on_its_way_is_one_frame(led: Led) -> None:
    led.pen.gate.clear()
    asked = [partial(on_submit, admitted=submit(n), park=True) for n in range(1, 101)]
    answers = [asyncio.ensure_future(led.engine.ask(each)) for each in asked]
    await asyncio.sleep(0.05)
    led.pen.gate.set()
    await asyncio.wait(answers)
    assert all(answer.result().created for answer in answers)
    assert len(led.pen.frames) <= 3, "the first, the one on its way, all the others"


async def test_a_refused_frame_ends_the_leader_and_nothing_of_it_has_left() -> None:
    made = Led()
    made.pen.fenced = True
    answer = asyncio.ensure_future(made.engine.ask(hello))
    with pytest.raises(Fenced):
        await made.engine.lead()
    assert not answer.done()
    assert not made.effects
    assert not made.committed


async def test_a_refusal_is_the_answer_of_one_and_no_matter_of_the_others(led: Led) -> None:
    def refuse(decision: Decision) -> None:
        raise Refused("here", "no")

    led.engine.tell(refuse)
    refused = asyncio.ensure_future(led.engine.ask(refuse))
    fine = asyncio.ensure_future(led.engine.ask(hello))
    with pytest.raises(Refused, match="here: no"):
        await refused
    await fine
    assert isinstance(led.pen.frames[-1].events[0], AgentSeen)


async def test_a_question_makes_no_frame(led: Led) -> None:
    frames = len(led.pen.frames)
    assert await led.engine.ask(lambda decision: len(decision.lab.runs)) == 0
    assert len(led.pen.frames) == frames


async def test_how_far_reports_are_applied_is_a_frame_even_without_events(led: Led) -> None:
    await led.engine.ask(lambda _: led.engine.ev_applied(41))
    assert led.pen.frames[-1].ev_hi == 41
    assert not led.pen.frames[-1].events


async def test_time_is_an_input_nobody_has_to_ask_for_it(led: Led) -> None:
    specs = (JobSpec(kind="sleep", sleep_s=0.05),)
    plan = Plan(specs=specs, jobs=(PlannedJob(1, "a", 0),))
    await led.engine.ask(lambda decision: on_submit(decision, submit(1, plan)))
    await wait_until(lambda: not led.lab.runs)
    moved = [
        each for frame in led.pen.frames for each in frame.events if isinstance(each, JobMoved)
    ]
    assert [each.cause for each in moved] == [JobCause.START, JobCause.PASS]


async def test_a_snapshot_is_the_lab_between_two_turns(led: Led) -> None:
    await led.engine.ask(lambda decision: on_submit(decision, submit(), park=True))
    data, sequence, _ = await led.engine.snapshot()
    assert sequence == led.engine.sequence
    assert list(revive(data, 0).runs) == [RunId(a_run_id(1))]


async def test_an_event_that_the_lab_cannot_take_ends_the_leader() -> None:
    made = Led()
    bad = JobMoved(job="job-x", cause=JobCause.PASS)  # type: ignore[arg-type]
    made.engine.tell(lambda decision: decision.happen(bad))
    with pytest.raises(BrokenLab, match="JobMoved"):
        await made.engine.lead()
    assert not made.pen.frames


async def test_who_went_away_does_not_hold_up_the_others(led: Led) -> None:
    led.pen.gate.clear()
    gone = asyncio.ensure_future(led.engine.ask(hello))
    stays = asyncio.ensure_future(led.engine.ask(lambda decision: 7))
    await asyncio.sleep(0.02)
    gone.cancel()
    led.pen.gate.set()
    assert await stays == 7


def test_the_clock_of_a_lab_never_goes_back() -> None:
    class Jumping:
        """A wall clock that somebody sets."""

        wall, mono = 1_000_000_000, 5.0

        def now(self) -> int:
            return self.wall

        def monotonic(self) -> float:
            return self.mono

    clock = Jumping()
    lab_clock = LabClock(clock, 0)
    first = lab_clock.now()
    clock.wall -= 3_600_000_000
    clock.mono += 1.0
    assert lab_clock.now() == first + 1_000_000
    assert LabClock(clock, first).now() == first
