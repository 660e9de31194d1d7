"""Processes that nothing can end, on a file system that stands still."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import an_agent
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tshrag_agent.attempts.stuck import Stuck
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.ways import LocalWay
from tshrag_common.commands import CancelAttempt
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.labkeys import new_lab
from tshrag_common.reports import DutChanged, Started


def quiet(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Path]:
    """A folder on a frozen file system: who writes there hangs in the kernel, deaf to SIGKILL."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4") or not shutil.which("fsfreeze"):
        pytest.skip("needs root, mkfs.ext4 and fsfreeze")
    image, folder = tmp_path / "image", tmp_path / "still"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    made = quiet("mkfs.ext4", "-q", str(image)) and quiet(
        "mount", "-o", "loop", str(image), str(folder)
    )
    if not made:
        pytest.skip("needs loop devices")
    frozen = quiet("fsfreeze", "-f", str(folder))
    try:
        if not frozen:
            pytest.skip("the file system cannot be frozen")
        yield folder
    finally:
        quiet("fsfreeze", "-u", str(folder))
        quiet("umount", "-l", str(folder))


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[tuple[Leader, NatsServer]]:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    leader = await Leader.begin(server, new_lab())
    yield leader, server
    await leader.bus.close()
    await asyncio.to_thread(server.stop)


@pytest.mark.slow
async def test_a_dut_with_a_process_that_hangs_in_the_kernel_is_not_given_on(
    tmp_path: Path, still: Path, leader: tuple[Leader, NatsServer]
) -> None:
    led, server = leader
    board = DutTable(id="board", kind="sim", local=LocalWay())
    spec = JobSpec(
        kind="command",
        argv=("/bin/sh", "-c", f"echo now; echo x > {still}/file"),
        need=Need(target=Target(runtime="local")),
    )
    async with an_agent(tmp_path, led, server.url, duts=(board,)):
        start = await led.start(spec, dut="board")
        await led.until(lambda: any(isinstance(r, Started) for r in led.reports), 30)
        await led.until(lambda: led.output(start) == b"now\n", 30)
        await led.send([CancelAttempt(fence=start.fence)])
        await led.until(lambda: start.fence in led.ends, 60)
        marked = [report for report in led.reports if isinstance(report, DutChanged)]
        assert [report.dut for report in marked] == ["board"]
        assert "not ended: pids" in marked[0].faulty
        order = [type(report) for report in led.reports]
        assert order.index(DutChanged) < len(order) - 1 - order[::-1].index(
            type(led.ends[start.fence])
        )
        await led.until(lambda: led.beats[-1].counters.get("unkillable") == 1, 30)
        quiet("fsfreeze", "-u", str(still))
        await led.until(lambda: "unkillable" not in led.beats[-1].counters, 30)
        again = await led.start(JobSpec(kind="command", argv=("true",)))  # the agent lives
        (ended,) = await led.until_ended(again, within_s=30)
        assert ended.outcome == "passed"


def test_a_number_that_another_process_has_is_not_stuck(tmp_path: Path) -> None:
    def stat(started: int, state: str = "D") -> None:
        (tmp_path / "71").mkdir(exist_ok=True)
        fields = " ".join(["0"] * 18)
        (tmp_path / "71" / "stat").write_text(f"71 (a) b) {state} {fields} {started} 0 0\n")

    stuck = Stuck(tmp_path)
    stat(5)
    stuck.add((71, 72))
    assert stuck.count() == 1
    stat(6)
    assert stuck.count() == 0
