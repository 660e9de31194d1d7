"""Faults of boards that are reached by SSH, on a real sshd: F25."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncssh

from tests.chaos.beside import RSS, Beside, a_name, an_agent_beside, befall, wrong
from tests.chaos.faults import Fault, Times
from tests.chaos.images import a_small_disk, fill
from tests.chaos.lab import ChaosLab
from tests.chaos.outcome import Bar, Once
from tests.support.ssh_server import SshServer

LONG = "echo begun; sleep {s} & wait; echo over"
_RUN_MIB = 1


class Board:
    """A board with OpenSSH; what it keeps over a reboot is its folder, what not is in ``run``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.run = folder / "run"
        self.sshd = SshServer("openssh", folder / "ssh")

    @property
    def table(self) -> str:
        """Return its ``[[dut]]``."""
        way = self.sshd.way()
        return (
            f'[[dut]]\nid = "{self.name}"\nkind = "f25"\nlabels = {{ board = "{self.name}" }}\n'
            f'[dut.ssh]\nhost = "{way.host}"\nport = {way.port}\nuser = "root"\n'
            f'host_key = "{way.host_key.strip()}"\nkey_file = "{way.key_file}"\npatience_s = 5.0\n'
            f'[dut.ssh.guard]\nrun_dir = "{self.run}"\n'
        )

    def kill_sshd(self) -> None:
        """Kill the server and every session of it; what these have started lives on."""
        os.kill(self.sshd.pid, signal.SIGSTOP)  # so that it starts nothing meanwhile
        for pid in _below(self.sshd.pid):
            if _name(pid).startswith("sshd"):
                _kill(pid)
        self.sshd.kill()

    def power_off(self) -> None:
        """Kill all that runs on it at once; /run is empty when it comes back."""
        self.kill_sshd()
        for pid in _marked(f"TSHRAG_MARK=guard:{self.run}"):
            _kill(pid)
        for pid in _marked(f"TSHRAG_MARK=tree:{self.run}"):
            _kill(pid)
        for path in self.run.iterdir():
            path.unlink()

    def change_key(self) -> bytes:
        """Give it another host key; return the one before."""
        path = self.sshd.folder / "host_key"
        before = path.read_bytes()
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(path))
        path.chmod(0o600)
        return before


def _below(pid: int) -> list[int]:
    """Return the pids of all descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                parents.setdefault(int(words[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def a_board_beside(lab: ChaosLab) -> AsyncIterator[tuple[Board, Beside]]:
    """Have a board with sshd, and an agent that drives it."""
    name = a_name("ssh")
    board = Board(name, lab.folder / name)
    board.folder.mkdir(mode=0o755)
    with a_small_disk(board.run, _RUN_MIB):
        await asyncio.to_thread(board.sshd.start)
        try:
            async with an_agent_beside(lab, board.table, name, "ssh") as beside:
                yield board, beside
        finally:
            await asyncio.to_thread(board.sshd.kill)


async def f25_reboot(lab: ChaosLab) -> Once:
    """Cut the power of a board in the middle of a job; 2 s later it is back."""
    async with a_board_beside(lab) as (board, beside):

        async def happen() -> Times:
            run = await beside.submit(LONG.format(s=6))
            await beside.said(run, b"begun")
            at = time.monotonic()
            await asyncio.to_thread(board.power_off)
            await asyncio.sleep(2.0)
            await asyncio.to_thread(board.sshd.start_again)
            code = await beside.coded(run)
            told = time.monotonic() - at
            wrong("a reboot", code, "dut_unreachable", "dut_rebooted")
            wrong("the job", (await beside.ended(run))[0], "passed")
            return {"told": told, "passed again": time.monotonic() - at}

        return await befall(lab, "F25 reboot", beside, happen=happen, seconds=25.0)


async def f25_sshd(lab: ChaosLab) -> Once:
    """Kill sshd and its sessions; the board itself, and what runs on it, lives on."""
    async with a_board_beside(lab) as (board, beside):

        async def happen() -> Times:
            run = await beside.submit(LONG.format(s=6))
            await beside.said(run, b"begun")
            at = time.monotonic()
            await asyncio.to_thread(board.kill_sshd)
            code = await beside.coded(run)
            told = time.monotonic() - at
            dead = at + 30.0
            while _marked(f"TSHRAG_MARK=tree:{board.run}"):
                wrong("the tree lives", time.monotonic() < dead, True)
                await asyncio.sleep(0.1)
            gone = time.monotonic() - at
            await asyncio.to_thread(board.sshd.start_again)
            wrong("sshd killed", code, "dut_unreachable", "ssh_refused")
            wrong("the job", (await beside.ended(run))[0], "passed")
            return {"told": told, "tree dead": gone, "passed again": time.monotonic() - at}

        return await befall(lab, "F25 sshd", beside, happen=happen, seconds=25.0)


async def f25_host_key(lab: ChaosLab) -> Once:
    """Let a board come back with another host key: it is no board of ours any more."""
    async with a_board_beside(lab) as (board, beside):

        async def happen() -> Times:
            run = await beside.submit(LONG.format(s=30))
            await beside.said(run, b"begun")
            before = await asyncio.to_thread(board.change_key)
            await asyncio.to_thread(board.power_off)
            await asyncio.to_thread(board.sshd.start_again)
            told = await beside.marked("host key")
            code = await beside.coded(run)
            wrong("another key", code, "host_key_changed", "dut_unreachable")
            attempts = len(await beside.attempts(run))
            await asyncio.sleep(5.0)  # nobody may try it again, though the job is due
            wrong("attempts on it", len(await beside.attempts(run)), attempts)
            await lab.client.cancel(run)
            (board.sshd.folder / "host_key").write_bytes(before)
            return {"told": told}

        return await befall(lab, "F25 host key", beside, happen=happen, seconds=25.0)


async def f25_disk(lab: ChaosLab) -> Once:
    """Fill the disk of a board in mid-job, and leave it full when the next job comes."""
    async with a_board_beside(lab) as (board, beside):

        async def happen() -> Times:
            first = await beside.submit(LONG.format(s=5))
            await beside.said(first, b"begun")
            filler = await asyncio.to_thread(fill, board.run)
            wrong("a job that runs", await beside.ended(first), ("passed", ["passed"]))
            more = await asyncio.to_thread(fill, board.run, "more")  # what the first has freed
            at = time.monotonic()
            second = await beside.submit(LONG.format(s=1))
            code = await beside.coded(second)
            told = time.monotonic() - at
            for path in (filler, more):
                await asyncio.to_thread(path.unlink)
            wrong("a full disk", code, "fence_failed")
            wrong("the job", (await beside.ended(second))[0], "passed")
            return {"told": told}

        return await befall(lab, "F25 disk", beside, happen=happen, seconds=25.0)


async def f25_output(lab: ChaosLab) -> Once:
    """Let a job on a board say 50 MB a second for 8 s; what is too much is cut, and told."""
    async with a_board_beside(lab) as (_board, beside):

        async def happen() -> Times:
            burst = "yes 0123456789012345678901234567890 | head -c 50000000"
            script = f"i=0; while [ $i -lt 8 ]; do i=$((i+1)); {burst}; sleep 0.7; done"
            at = time.monotonic()
            run = await beside.submit(script)
            wrong("the job", await beside.ended(run), ("passed", ["passed"]))
            attempt = (await beside.attempts(run))[0]
            said = attempt.stdout_bytes + attempt.cut_bytes
            wrong("bytes told", attempt.cut_bytes > 0 and said >= 400_000_000, True)
            return {"took": time.monotonic() - at}

        return await befall(lab, "F25 output", beside, happen=happen, seconds=40.0)


TOLD = Bar("told", 20.0)
_HOW = {
    "power cut in mid-job, back after 2 s": f25_reboot,
    "sshd and its sessions killed": f25_sshd,
    "host key changed": f25_host_key,
    "disk full": f25_disk,
    "50 MB/s of output for 8 s": f25_output,
}
FAULTS = tuple(
    Fault("F25", f"board over SSH: {what}", partial(happens), (RSS, TOLD, Bar("tree dead", 11.0)),
          quick=0, full=5, disks=True)
    for what, happens in _HOW.items()
)  # fmt: skip
