"""A DUT that is cut off in the middle of a job: the lab is told what it was, by its own code."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import an_agent
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.ssh_server import SshServer
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.ways import Guard
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.labkeys import new_lab


@pytest.fixture
def board(tmp_path: Path) -> Iterator[SshServer]:
    board = SshServer("board", tmp_path / "board")
    board.start()
    yield board
    board.stop()


async def test_a_board_that_is_gone_in_the_middle_is_unreachable_and_no_fault_of_ours(
    tmp_path: Path, server: NatsServer, board: SshServer
) -> None:
    leader = await Leader.begin(server, new_lab())
    guard = Guard(run_dir=str(tmp_path / "r"), lease_s=2, beat_s=0.5, grace_s=1)
    way = board.way(guard=guard)
    dut = DutTable(id="board", kind="pi", ssh=way)
    async with an_agent(tmp_path, leader, server.url, duts=(dut,)):
        need = Need(target=Target(runtime="ssh", kind="pi"))
        script = ("sh", "-c", "echo begun; sleep 62")
        spec = JobSpec(kind="command", argv=script, need=need, timeout_s=120.0)
        start = await leader.start(spec, dut="board")
        await leader.until(lambda: b"begun" in leader.output(start))
        await asyncio.to_thread(board.kill)
        (ended,) = await leader.until_ended(start)
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "dut_unreachable")
        assert ended.error.retryable
    await leader.bus.close()
