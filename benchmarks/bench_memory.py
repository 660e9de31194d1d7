"""Resident memory of every process, and how long the command line takes to start.

The peer of a daemon is a bare Python that sleeps; of the command line it is ``python -c pass``.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import limits, work
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, figure, run_async
from benchmarks.processes import rss_mib_of

BARE = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
WAITING = 10_000
COMMANDS = {"cli_version": ["version"], "cli_help": ["--help"]}


def measure(scale: Scale) -> list[Figure]:
    rounds = scale.of(5, 1)
    labs = [run_async(_memory(scale.of(WAITING, 100))) for _ in range(rounds)]
    bare = [_bare_mib() for _ in range(rounds)]
    aims = {"agent": 45.0, "controller_waiting": 150.0}
    figures = [
        figure(
            f"rss_{name}",
            what,
            "MiB",
            ours=[lab[name] for lab in labs],
            limits=bare,
            limit_is="a bare Python that sleeps",
            aim=aims.get(name),
            better="lower",
        )
        for name, what in _WHAT.items()
    ]
    return [*figures, *(_start(name, argv, scale) for name, argv in COMMANDS.items())]


_WHAT = {
    "agent": "agent without SSH, idle after 200 jobs",
    "shepherd": "shepherd and its hands",
    "broker": "nats-server",
    "controller": "controller, idle after 200 jobs",
    "controller_waiting": f"controller with {WAITING} waiting jobs",
}


async def _memory(waiting: int) -> dict[str, float]:
    """Return what the processes of a lab hold, in MiB."""
    async with a_lab(slots=2) as lab:
        await work.done(lab.client, work.repeated(200, work.TRUE))
        found = {
            name: lab.measured.rss_mib(name)
            for name in ("agent", "shepherd", "broker", "controller")
        }
        found["controller_waiting"] = await _waiting_mib(lab, waiting)
    return found


async def _waiting_mib(lab: RunningLab, waiting: int) -> float:
    """Return what the controller holds while all slots are taken and `waiting` jobs wait."""
    held = work.repeated(2, {"command": ["/bin/sleep", "600"]})
    holder = await work.submit(lab.client, held)
    await work.taken(lab.client, 2)
    run = await work.submit(lab.client, work.repeated(waiting, work.TRUE))
    await asyncio.sleep(2.0)  # the projection has followed, and what made it is let go
    mib = lab.measured.rss_mib("controller")
    for each in (run, holder):
        await lab.client.cancel(each)
    return mib


def _bare_mib() -> float:
    with subprocess.Popen(BARE, stdout=subprocess.PIPE) as process:
        if process.stdout is not None:
            process.stdout.readline()
        time.sleep(0.05)
        mib = rss_mib_of(process.pid)
        process.kill()
    return mib


def _start(name: str, argv: list[str], scale: Scale) -> Figure:
    command = str(Path(sys.executable).parent / "tshrag")
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(scale.of(11, 2)):
        bare += limits.python_starts_ms([], 1)
        ours += limits.python_starts_ms([command, *argv], 1)
    return figure(
        name,
        f"start and end of `tshrag {' '.join(argv)}`",
        "ms",
        ours=ours,
        limits=bare,
        limit_is="python -c pass",
        better="lower",
    )
