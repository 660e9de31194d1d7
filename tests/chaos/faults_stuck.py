"""Processes that hang in the kernel, on a file system that never answers: F24."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.chaos.beside import NAME, a_name, an_agent_beside, befall, wrong
from tests.chaos.faults import Fault, Times
from tests.chaos.lab import ROOT, ChaosLab
from tests.chaos.outcome import Bar, Once
from tshrag_common import history
from tshrag_controller.cli import demo_lab

HANG = "echo begun; sleep 0.5; ls {folder}/x; echo over"


def can_hang() -> str:
    """Return why no file system can be mounted that never answers; empty when one can."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "THERE IS NO /dev/fuse HERE: a process in D state was NOT tried"
    return ""


@asynccontextmanager
async def a_deaf_folder(lab: ChaosLab) -> AsyncIterator[Path]:
    """Mount it; at the end of the block everybody is let go."""
    folder = lab.folder / a_name("deaf")
    folder.mkdir()
    process = await asyncio.to_thread(_mounted, folder)
    try:
        yield folder
    finally:
        await asyncio.to_thread(process.communicate)
        umount = ["umount", "-l", str(folder)]
        await asyncio.to_thread(subprocess.run, umount, capture_output=True, check=False)


def _mounted(folder: Path) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "tests.chaos.deaf_fs", str(folder)]
    process = subprocess.Popen(argv, stdin=-1, stdout=-1, stderr=-1, cwd=ROOT)
    assert process.stdout is not None
    wrong("the deaf file system", process.stdout.readline(), b"mounted\n")
    return process


async def f24_stuck(lab: ChaosLab, for_s: float) -> Once:
    """Let a job on a board, and one on a host, hang in the kernel; cancel both."""
    name = a_name("ssh")
    said = await asyncio.to_thread(demo_lab.start_board, lab.processes, name, "ssh_board")
    dut = demo_lab.ssh_dut(name, said).replace('room = "demo"', f'board = "{name}"')
    try:
        async with an_agent_beside(lab, dut, name, "ssh") as beside:

            async def happen() -> Times:
                async with a_deaf_folder(lab) as folder:
                    script = HANG.format(folder=folder)
                    on_board = await beside.submit(script)
                    on_host = await beside.submit_on_host(script)
                    for run in (on_board, on_host):
                        await beside.said(run, b"begun")
                    await asyncio.sleep(1.5)
                    at = time.monotonic()
                    for run in (on_board, on_host):
                        history.note("hangs", job=run)
                        await lab.client.cancel(run, wait_s=0.0)
                    times = {"quarantined": await beside.marked("not_ended", 90.0)}
                    times["host told"] = await _host_told(lab, at)
                    await asyncio.sleep(max(0.0, for_s - (time.monotonic() - at)))
                    well = await beside.submit_on_host("echo well")
                    wrong("a job beside it", (await beside.ended(well))[0], "passed")
                    wrong("the board", bool((await beside.dut()).faulty), True)
                for run in (on_board, on_host):
                    wrong("a cancelled run", (await beside.ended(run))[0], "cancelled", "error")
                await beside.back()
                again = await beside.submit("echo well")
                wrong("the board afterwards", (await beside.ended(again))[0], "passed")
                return times

            return await befall(lab, "F24", beside, happen=happen, seconds=for_s + 40.0)
    finally:
        await asyncio.to_thread(lab.processes.leave, name)


async def _host_told(lab: ChaosLab, at: float, within_s: float = 90.0) -> float:
    """Return when health names the host with a process that cannot be ended."""
    while time.monotonic() < at + within_s:
        reasons = (await lab.client.health()).reasons
        if any(NAME in reason and "cannot be ended" in reason for reason in reasons):
            return time.monotonic() - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"health does not tell of {NAME}: {reasons}")


FAULTS = (
    Fault("F24", "jobs on a board and on a host hang in the kernel for 60 s",
          partial(f24_stuck, for_s=60.0), (Bar("quarantined", 60.0), Bar("host told", 60.0)),
          quick=0, full=3, hangs=True),
)  # fmt: skip
