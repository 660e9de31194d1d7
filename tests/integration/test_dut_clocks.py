"""Boards whose clocks are wrong: their samples come out at the right time, or are refused."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent_process import an_agent
from tests.support.faked_clock import FakedClock
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.ssh_server import SshServer
from tests.support.waiting import wait_until
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.ways import Guard
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.labkeys import new_lab
from tshrag_common.metrics import Sample
from tshrag_common.reports import Ended

YEARS_56 = 56 * 365 * 86400.0
NEED = Need(target=Target(runtime="ssh", kind="pi"))


class Bench:
    """A board with a clock of its own, on an agent."""

    def __init__(self, leader: Leader, clock: FakedClock) -> None:
        self.leader, self.clock = leader, clock

    async def run(self, script: str) -> tuple[Ended, int, int]:
        """Run `script` on the board; return how it ended, and our times around it."""
        began = time.time_ns() // 1000
        spec = JobSpec(kind="command", argv=("sh", "-c", script), need=NEED, timeout_s=120.0)
        start = await self.leader.start(spec, dut="board")
        (ended,) = await self.leader.until_ended(start, within_s=60)
        return ended, began, time.time_ns() // 1000

    def samples(self, key: str) -> list[Sample]:
        return [
            sample
            for batch in self.leader.samples
            for series in batch.series
            if series.key == key
            for sample in series.samples()
        ]


@pytest.fixture
async def bench(tmp_path: Path, server: NatsServer) -> AsyncIterator[Bench]:
    clock = FakedClock(tmp_path / "clock")
    board = SshServer("board", tmp_path / "board", ("--shell", str(clock.shell)))
    await asyncio.to_thread(board.start)
    leader = await Leader.begin(server, new_lab())
    way = board.way(guard=Guard(run_dir=str(tmp_path / "r")))
    dut = DutTable(id="board", kind="pi", ssh=way)
    async with an_agent(tmp_path, leader, server.url, duts=(dut,), clock_s=0.3):
        yield Bench(leader, clock)
    await leader.bus.close()
    await asyncio.to_thread(board.stop)


async def test_a_board_that_stands_at_1970_gives_right_times(bench: Bench) -> None:
    bench.clock.set(-YEARS_56)
    ended, began, over = await bench.run("echo ::metric a.b 7 $(date +%s.%N)")
    assert (ended.outcome, ended.notices) == ("passed", ())
    (sample,) = bench.samples("a.b")
    assert sample.value == 7.0
    assert ended.clock is not None and ended.clock.aligned == 1
    error = ended.clock.error_us
    assert began - error <= sample.at_us <= over + error
    assert abs(ended.clock.offset_us - YEARS_56 * 1e6) <= error
    offsets = bench.samples("dut.board.clock.offset")
    assert offsets and abs(offsets[-1].value - YEARS_56) < 5


async def test_a_clock_that_is_set_in_the_middle_gives_right_times_on_both_sides(
    bench: Bench,
) -> None:
    bench.clock.set(-YEARS_56)
    marks = [bench.clock.shell.with_name(f"mark{number}") for number in range(2)]
    script = (
        "echo ::metric a.b 1 $(date +%s.%N); "
        f"touch {marks[0]}; until [ -e {marks[1]} ]; do sleep 0.05; done; "
        "echo ::metric a.b 2 $(date +%s.%N)"
    )
    running = asyncio.create_task(bench.run(script))
    await wait_until(marks[0].exists, 40)
    bench.clock.set(0)
    set_at = time.time_ns() // 1000
    marks[1].touch()
    ended, began, over = await running
    first, second = sorted(bench.samples("a.b"), key=lambda sample: sample.value)
    assert ended.notices == ()
    slack = 500_000  # what a reading may be off on a machine that is busy
    assert began - slack <= first.at_us <= set_at + slack
    assert set_at - slack <= second.at_us <= over + slack
    assert ended.clock is not None and ended.clock.jumps >= 1


async def test_late_samples_are_kept_whatever_their_order(
    bench: Bench,
) -> None:
    bench.clock.set(7200.0)
    script = (
        "now=$(date +%s); "
        'for ago in 1 3 2; do echo "$((now - ago)).0,$ago"; done'
        " | while IFS=, read -r at value; do echo ::metric a.b $value $at; done"
    )
    ended, began, over = await bench.run(script)
    assert ended.notices == ()
    samples = bench.samples("a.b")
    assert sorted(sample.value for sample in samples) == [1.0, 2.0, 3.0]
    for sample in samples:
        ago = sample.value * 1e6
        assert began - ago - 2_500_000 <= sample.at_us <= over - ago + 1_500_000


async def test_the_future_is_refused_counted_and_told(bench: Bench) -> None:
    bench.clock.set(-3600.0)
    ended, _, _ = await bench.run(
        "echo ::metric a.b 1 $(($(date +%s) + 600)).0; echo ::metric a.b 2"
    )
    assert ended.outcome == "passed"
    assert [sample.value for sample in bench.samples("a.b")] == [2.0]
    (notice,) = ended.notices
    assert (notice.key, notice.count) == ("a.b", 1)
    assert notice.reason.startswith("metric_ahead: 'a.b': ")
