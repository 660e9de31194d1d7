"""Commands of a turn: one message an agent, whole, and never too large for the bus."""

import asyncio

from hypothesis import given, settings, strategies as st

from tests.support.builders import ORG, TestLab, a_plan, a_run_id, a_spec
from tshrag_common import ids
from tshrag_common.commands import CancelAttempt, CommandBatch, StartAttempt, Sync
from tshrag_common.errors import Unreachable
from tshrag_common.ids import AgentId, RunId
from tshrag_common.jobs import JobSpec, Plan, PlannedJob
from tshrag_common.wire import COMMANDS, MAX_MESSAGE_BYTES
from tshrag_controller.core.decision import JudgeRun, SendCancel, SendStart, SendSync
from tshrag_controller.core.on_run import on_cancel
from tshrag_controller.dispatch import Dispatch

A1 = AgentId("a1")


class Sent:
    """A dispatch, and the messages that it has sent."""

    def __init__(self) -> None:
        self.batches: list[CommandBatch] = []
        self.sizes: list[int] = []
        self.judged: list[RunId] = []
        self.away = False
        self.dispatch = Dispatch(self._send, self.judged.append, lambda: 0)

    async def _send(self, agent: AgentId, payload: bytes) -> None:
        if self.away:
            self.away = False
            raise Unreachable("nats", "away")
        self.sizes.append(len(payload))
        self.batches.append(COMMANDS.decode(payload))

    async def flush(self) -> list[CommandBatch]:
        sending = asyncio.get_running_loop().create_task(self.dispatch.send(), name="send")
        await asyncio.sleep(0.02)
        sending.cancel()
        return self.batches

    def started(self) -> list[StartAttempt]:
        """Return all starts, each with a spec that is in its own message."""
        found: list[StartAttempt] = []
        for batch in self.batches:
            for command in batch.commands:
                starts = command.attempts if isinstance(command, Sync) else (command,)
                for start in starts:
                    if isinstance(start, StartAttempt):
                        assert batch.specs[start.spec].argv
                        found.append(start)
        return found


def a_lab(jobs: int, spec: JobSpec | None = None, slots: int = 100_000) -> TestLab:
    lab = TestLab()
    lab.hello(slots=slots)
    lab.submit(a_plan(*[()] * jobs, spec=spec or a_spec()))
    return lab


async def test_a_sync_names_what_must_end_as_long_as_its_end_is_not_told() -> None:
    lab, sent = a_lab(3), Sent()
    stopped = on_cancel(lab.decision, ORG, ids.job_of(a_run_id(1), 2))
    sent.dispatch.carry_out(lab.lab, [SendSync(A1)])
    ((sync,),) = (batch.commands for batch in await sent.flush())
    assert isinstance(sync, Sync)
    assert sync.cancels == stopped.fences
    assert sorted(ids.serial_of(start.job) for start in sync.attempts) == [1, 3]


async def test_all_starts_of_a_turn_are_one_message_and_share_their_spec() -> None:
    lab, sent = a_lab(50), Sent()
    sent.dispatch.carry_out(lab.lab, lab.decision.effects)
    (batch,) = await sent.flush()
    assert (len(batch.commands), len(batch.specs)) == (50, 1)
    assert sent.dispatch.sent == {A1: batch.n}


async def test_a_sync_names_everything_and_makes_single_starts_needless() -> None:
    lab, sent = a_lab(3), Sent()
    sent.dispatch.carry_out(lab.lab, [*lab.decision.effects, SendSync(A1)])
    (batch,) = await sent.flush()
    (sync,) = batch.commands
    assert isinstance(sync, Sync)
    assert {start.fence for start in sync.attempts} == lab.lab.agents[A1].fences


async def test_cancels_and_judgements_find_their_way() -> None:
    lab, sent = a_lab(2), Sent()
    run = next(iter(lab.lab.runs))
    on_cancel(lab.begin(), ORG, run)
    lab.end()
    sent.dispatch.carry_out(lab.lab, [*lab.decision.effects, JudgeRun(run)])
    (batch,) = await sent.flush()
    assert {type(command) for command in batch.commands} == {CancelAttempt}
    assert sent.judged == [run]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40_000), st.booleans())
def test_no_message_is_too_large_however_large_the_specs_are(
    jobs: int, size: int, whole: bool
) -> None:
    lab, sent = TestLab(), Sent()
    lab.hello(slots=1000)
    specs = tuple(a_spec(argv=("x" * size, str(number))) for number in range(jobs))
    planned = tuple(PlannedJob(n, f"j{n}", n - 1) for n in range(1, jobs + 1))
    lab.submit(Plan(specs=specs, jobs=planned))
    fences = lab.lab.agents[A1].fences
    effects = [SendSync(A1)] if whole else [SendStart(A1, fence) for fence in sorted(fences)]
    sent.dispatch.carry_out(lab.lab, effects)
    asyncio.run(sent.flush())
    assert max(sent.sizes) < MAX_MESSAGE_BYTES - 1024
    assert {start.fence for start in sent.started()} == fences
    assert [batch.n for batch in sent.batches] == list(range(1, len(sent.batches) + 1))
    if whole:
        last = sent.batches[-1].commands[-1]
        assert isinstance(last, Sync)
        assert {*last.keep, *(start.fence for start in last.attempts)} == fences


async def test_a_sync_of_thousands_keeps_what_its_starts_have_named() -> None:
    lab, sent = a_lab(4000, a_spec(argv=("true",))), Sent()
    run = next(iter(lab.lab.runs))
    lab.lab.runs[run].bound["r"] = (A1, ids.dut_id("d" * 60))
    for number in range(200):
        lab.lab.runs[run].bound[f"r{number}"] = (A1, ids.dut_id(f"{'d' * 50}{number}"))
    sent.dispatch.carry_out(lab.lab, [SendSync(A1)])
    await sent.flush()
    last = sent.batches[-1].commands
    assert isinstance(last[0], Sync)
    assert set(last[0].keep) == lab.lab.agents[A1].fences
    assert max(sent.sizes) < MAX_MESSAGE_BYTES - 1024


async def test_a_command_that_cannot_be_sent_holds_up_no_other() -> None:
    lab, sent = a_lab(1), Sent()
    sent.away = True
    sent.dispatch.carry_out(lab.lab, lab.decision.effects)
    fence = next(iter(lab.lab.agents[A1].fences))
    sent.dispatch.carry_out(lab.lab, [SendCancel(A1, fence)])
    (batch,) = await sent.flush()
    assert batch.commands == (CancelAttempt(fence=fence),)
    assert batch.n == 2, "the agent sees that one is missing; its digest differs, a Sync follows"
