import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from tests.support.outputs import Output
from tests.support.process_trees import deaf_tree, living
from tests.support.transport_contract import TransportContract, new_tag, shell
from tests.support.waiting import wait_until
from tshrag_agent.transport.local import LocalTransport
from tshrag_agent.transport.ways import Guard, LocalWay
from tshrag_common.errors import StaleFence
from tshrag_common.ids import Fence, dut_id

AGENT = """
import asyncio, sys
from tshrag_agent.transport.base import ShellCommand
from tshrag_agent.transport.local import LocalTransport
from tshrag_agent.transport.ways import Guard, LocalWay

async def agent(run_dir, text):
    dut = LocalTransport("board", LocalWay(guard=Guard(run_dir=run_dir, grace_s=1)))
    await dut.execute(ShellCommand(text), env={}, cwd="", timeout_s=60, fence=1, on_output=print)

asyncio.run(agent(*sys.argv[1:]))
"""


@pytest.fixture
async def dut(run_dir: str) -> AsyncIterator[LocalTransport]:
    local = LocalTransport(dut_id("board"), LocalWay(guard=Guard(run_dir=run_dir, grace_s=1)))
    yield local
    await local.close()


class TestLocal(TransportContract):
    pass


async def test_the_environment_of_the_agent_does_not_reach_a_job(
    dut: LocalTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSHRAG_SECRET", "creds")
    sink = Output()
    await shell(dut, "env", 1, sink)
    assert b"creds" not in sink.stdout
    assert b"PATH=" in sink.stdout


async def test_an_equal_fence_from_another_agent_is_stale(
    dut: LocalTransport, run_dir: str
) -> None:
    await shell(dut, "true", 5, Output())
    other = LocalTransport(dut_id("board"), LocalWay(guard=Guard(run_dir=run_dir)))
    with pytest.raises(StaleFence, match="fence 5 is stale: 5 has been seen"):
        await shell(other, "true", 5, Output())
    assert (await shell(other, "true", 6, Output())).succeeded


async def test_a_killed_agent_leaves_no_process(tmp_path: Path) -> None:
    tag, run_dir = new_tag(), str(tmp_path / "run")
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGENT, run_dir, deaf_tree(tag)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    await wait_until(lambda: len(living(f".{tag}")) >= 6)
    agent.kill()
    await agent.wait()
    await wait_until(lambda: not living(f".{tag}") and not living(run_dir), 10)


async def test_end_reaches_what_an_earlier_agent_has_left(tmp_path: Path) -> None:
    """A guard that is frozen cannot end its tree; the next agent can."""
    tag, run_dir = new_tag(), str(tmp_path / "run")
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGENT, run_dir, deaf_tree(tag)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    await wait_until(lambda: len(living(f".{tag}")) >= 6)
    for pid in living("guard:" + run_dir):
        os.kill(pid, signal.SIGSTOP)
    agent.kill()
    await agent.wait()
    later = LocalTransport(dut_id("board"), LocalWay(guard=Guard(run_dir=run_dir, grace_s=1)))
    await later.end(Fence(1))
    assert living(f".{tag}") == []
    await wait_until(lambda: not living(run_dir), 10)


def test_the_loop_of_the_agent_works_too(run_dir: str) -> None:
    """The transports of uvloop are no subclasses of those of asyncio."""

    async def life() -> bytes:
        local = LocalTransport(dut_id("board"), LocalWay(guard=Guard(run_dir=run_dir)))
        sink = Output()
        await shell(local, "echo out; cat", 1, sink)
        await local.close()
        return sink.stdout

    assert uvloop.run(life()) == b"out\n"
