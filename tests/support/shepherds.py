"""Shepherds for tests: one a state folder, always ended; jobs that are hard to end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until
from tshrag_agent.attempts.host import HostExit, HostStart, Shepherd, ShepherdSettings
from tshrag_agent.shepherd import cgroups, groups

KINDS = groups.KINDS

# Writes its own pid, a child's and a daemon's to the file argv[1]; all are deaf to SIGTERM.
DEAF_TREE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def note():
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")
if os.fork() == 0:
    note()
    time.sleep(100)
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note()
        time.sleep(100)
    os._exit(0)
os.wait()
note()
time.sleep(100)
"""


def needs(kind: str) -> None:
    """Skip where this kind of group cannot be made."""
    if kind == "proc":
        return
    mountinfo = Path("/proc/self/mountinfo").read_text()
    for one in cgroups.hierarchies(mountinfo, Path("/proc/self/cgroup").read_text()):
        fits = not one.controllers if kind == "v2" else "freezer" in one.controllers
        if fits and os.access(one.folder, os.W_OK):
            return
    pytest.skip(f"no cgroup {kind} that we may write to")


@asynccontextmanager
async def a_shepherd(folder: Path, **settings: Any) -> AsyncIterator[Shepherd]:
    """Open a shepherd on `folder`; in the end it is stopped with all that it holds."""
    needs(settings.get("groups", "proc"))
    shepherd = await Shepherd.open(folder, ShepherdSettings(**settings))
    try:
        yield shepherd
    finally:
        await shepherd.close()
        await stop(shepherd.pid)


@asynccontextmanager
async def running(shepherd: Shepherd) -> AsyncIterator[None]:
    """Let the client reconnect, as the daemon does."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shepherd.run())
        try:
            yield
        finally:
            task.cancel()


async def outcome(shepherd: Shepherd, what: HostStart) -> HostExit:
    """Start a process and wait for its end."""
    await shepherd.start(what)
    async with asyncio.timeout(30):
        return await shepherd.exited(what.key)


async def stop(pid: int) -> None:
    """End one shepherd by its pid and wait until it is gone."""
    if is_alive(pid):
        os.kill(pid, signal.SIGTERM)
    await wait_until(lambda: not is_alive(pid), within_s=15)


def a_start(folder: Path, key: str, *argv: str, **more: Any) -> HostStart:
    """Describe a process whose output goes to ``<key>.out`` and ``<key>.err`` in `folder`."""
    named: dict[str, Any] = {"env": {"PATH": "/usr/local/bin:/usr/bin:/bin"}, "cwd": str(folder)}
    paths = {"stdout_path": str(folder / f"{key}.out"), "stderr_path": str(folder / f"{key}.err")}
    return HostStart(key=key, argv=argv, **{**named, **paths, **more})


def python(code: str, *args: str) -> tuple[str, ...]:
    """Return the arguments that execute some Python, with little around it."""
    return (sys.executable, "-I", "-S", "-c", code, *args)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def pids_in(path: Path, count: int) -> list[int]:
    """Return the pids that a job has noted, as soon as there are `count`."""
    words = path.read_text().split() if path.exists() else []
    return [int(word) for word in words] if len(words) >= count else []
