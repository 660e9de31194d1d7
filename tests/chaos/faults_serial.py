"""Faults of serial lines: F26, and those of F25 that only a console has."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.beside import RSS, Beside, a_name, an_agent_beside, befall, wrong
from tests.chaos.faults import Fault, Times
from tests.chaos.faults_dut import TOLD
from tests.chaos.lab import ROOT, ChaosLab
from tests.chaos.outcome import Once
from tshrag_controller.cli import demo_lab

COUNTS = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo line $i; sleep 0.1; done"
LOGIN = "timeout_s = 8.0\nsilence_s = 1.0\n"


class Line:
    """A board on a serial line, and who meddles with it."""

    def __init__(self, lab: ChaosLab, name: str) -> None:
        self.name = name
        self.path = lab.folder / f"tty-{name}"
        said = demo_lab.start_board(lab.processes, name, "serial_board")
        self.pid = int(str(said["pid"]))
        argv = [sys.executable, "-m", "tests.chaos.meddler", str(self.path), str(said["path"])]
        self._meddler = subprocess.Popen(argv, stdin=-1, stdout=-1, cwd=ROOT)
        self._answered("pass")

    @property
    def table(self) -> str:
        return (
            f'[[dut]]\nid = "{self.name}"\nkind = "f26"\nlabels = {{ board = "{self.name}" }}\n'
            f'[dut.serial]\nurl = "{self.path}"\n[dut.serial.login]\n{LOGIN}'
        )

    async def let(self, mode: str) -> None:
        """Change what happens to the line, and return when it does."""
        await asyncio.to_thread(self._ask, mode)

    def _ask(self, mode: str) -> None:
        assert self._meddler.stdin is not None
        self._meddler.stdin.write(f"{mode}\n".encode())
        self._meddler.stdin.flush()
        self._answered(mode)

    def _answered(self, mode: str) -> None:
        assert self._meddler.stdout is not None
        said = self._meddler.stdout.readline().decode().strip()
        wrong("the meddler", said, mode)

    def shell(self) -> int:
        """Return the pid of the shell behind the login."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0])

    def end(self) -> None:
        for pipe in (self._meddler.stdin, self._meddler.stdout):
            assert pipe is not None
            pipe.close()
        self._meddler.wait(10)


@asynccontextmanager
async def a_line_beside(lab: ChaosLab) -> AsyncIterator[tuple[Line, Beside]]:
    """Have a board on a serial line, and an agent that owns the line."""
    name = a_name("tty")
    line = await asyncio.to_thread(Line, lab, name)
    try:
        async with an_agent_beside(lab, line.table, name, "serial") as beside:
            yield line, beside
    finally:
        await asyncio.to_thread(line.end)
        await asyncio.to_thread(lab.processes.leave, name)


async def _works(beside: Beside) -> None:
    """Hold that a board serves the next job as if nothing had been."""
    if (await beside.dut()).faulty:
        await beside.back()
    run = await beside.submit("echo well")
    state, codes = await beside.ended(run)
    wrong("the job afterwards", (state, codes[-1]), ("passed", "passed"))


async def f25_reboot(lab: ChaosLab) -> Once:
    """Let a board on a serial line reboot in the middle of a job."""
    async with a_line_beside(lab) as (line, beside):

        async def happen() -> Times:
            run = await beside.submit(COUNTS.format(n=60))
            await beside.said(run, b"line 1")
            at = time.monotonic()
            os.kill(line.pid, signal.SIGUSR1)
            code = await beside.coded(run)
            told = time.monotonic() - at
            wrong("a reboot", code, "dut_rebooted")
            await _works(beside)
            return {"told": told}

        return await befall(lab, "F25 serial reboot", beside, happen=happen, seconds=25.0)


async def f25_prompt(lab: ChaosLab) -> Once:
    """Stop the shell of a board in mid-job: its prompt never returns, no Ctrl-C is heard."""
    async with a_line_beside(lab) as (line, beside):

        async def happen() -> Times:
            run = await beside.submit(COUNTS.format(n=600), timeout="6s")
            await beside.said(run, b"line 1")
            at = time.monotonic()
            shell = line.shell()
            for pid in (shell, *_group_of(shell)):
                os.kill(pid, signal.SIGSTOP)
            code = await beside.coded(run)
            told = time.monotonic() - at
            wrong("no prompt", code, "timeout", "not_ended", "console_login", "serial_lost")
            os.kill(line.pid, signal.SIGUSR1)  # a person pushes the button
            await asyncio.sleep(1.0)
            await _works(beside)
            return {"over": told}

        return await befall(lab, "F25 prompt", beside, happen=happen, seconds=30.0)


def _group_of(shell: int) -> list[int]:
    """Return what the shell has started."""
    found: list[int] = []
    waiting = [shell]
    while waiting:
        pid = waiting.pop()
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        found += map(int, text.split())
        waiting += map(int, text.split())
    return found


async def f26_flood(lab: ChaosLab) -> Once:
    """Let a kernel flood the console in the middle of a job."""
    async with a_line_beside(lab) as (line, beside):

        async def happen() -> Times:
            run = await beside.submit(COUNTS.format(n=50))
            await beside.said(run, b"line 1")
            await line.let("flood")
            await asyncio.sleep(8.0)
            await line.let("pass")
            at = time.monotonic()
            state, codes = await beside.ended(run)
            wrong("a flood", state, "passed", "error", "timeout")
            if state == "passed":
                wrong("its attempt", codes[-1], "passed")
            took = time.monotonic() - at
            await _works(beside)
            return {"over": took}

        return await befall(lab, "F26 flood", beside, happen=happen, seconds=30.0)


async def f26_drops(lab: ChaosLab) -> Once:
    """Lose a fifth of what a board says: a job must end, and never in success by chance."""
    async with a_line_beside(lab) as (line, beside):

        async def happen() -> Times:
            run = await beside.submit(COUNTS.format(n=30), timeout="15s")
            await beside.said(run, b"line 1")
            at = time.monotonic()
            await line.let("drop 200")
            code = await beside.coded(run)
            told = time.monotonic() - at
            await line.let("pass")
            right = ("passed", "timeout", "serial_lost", "transfer_failed", "console_login")
            wrong("drops", code, *right, "not_ended")
            if code == "not_ended":  # nobody could look whether it is: it must not be given on
                await beside.marked("not_ended")
                await lab.client.cancel(run)
            await beside.ended(run)
            await _works(beside)
            return {"over": told}

        return await befall(lab, "F26 drops", beside, happen=happen, seconds=30.0)


async def f26_vanishes(lab: ChaosLab) -> Once:
    """Pull the adapter out in the middle of a job; 3 s later it is back under another number."""
    async with a_line_beside(lab) as (line, beside):

        async def happen() -> Times:
            run = await beside.submit(COUNTS.format(n=40))
            await beside.said(run, b"line 1")
            at = time.monotonic()
            await line.let("vanish")
            await asyncio.sleep(3.0)
            await line.let("back")
            code = await beside.coded(run)
            told = time.monotonic() - at
            wrong("a pulled plug", code, "serial_lost", "serial_missing")
            wrong("the job", (await beside.ended(run))[0], "passed")
            await _works(beside)
            return {"told": told}

        return await befall(lab, "F26 vanishes", beside, happen=happen, seconds=25.0)


async def f26_garbage(lab: ChaosLab) -> Once:
    """Let a line be at a wrong baud rate when a job comes; later it is right."""
    async with a_line_beside(lab) as (line, beside):

        async def happen() -> Times:
            await line.let("garbage")
            at = time.monotonic()
            run = await beside.submit(COUNTS.format(n=5))
            code = await beside.coded(run)
            told = time.monotonic() - at
            await line.let("pass")
            wrong("garbage", code, "console_login", "no_shell")
            wrong("the job", (await beside.ended(run))[0], "passed")
            return {"told": told}

        return await befall(lab, "F26 garbage", beside, happen=happen, seconds=25.0)


_HOW = (
    ("F25", "board on a serial line: reboot in mid-job", f25_reboot),
    ("F25", "board on a serial line: its prompt never returns", f25_prompt),
    ("F26", "serial line: 8 s of flood", f26_flood),
    ("F26", "serial line: a fifth of the bytes dropped", f26_drops),
    ("F26", "serial line: vanishes, back after 3 s", f26_vanishes),
    ("F26", "serial line: garbage of a wrong baud rate", f26_garbage),
)
FAULTS = tuple(
    Fault(name, what, happens, (RSS, TOLD), quick=0, full=5) for name, what, happens in _HOW
)
