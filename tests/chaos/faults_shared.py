"""An agent that has a shared board vanishes; behind its lease another host gets the board: I6."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.chaos import load
from tests.chaos.beside import a_name, wrong
from tests.chaos.faults import Fault, Times, one_attempt_each, survivors, under_load
from tests.chaos.lab import AGENTS, ChaosLab
from tests.chaos.outcome import Bar, Once, with_more
from tests.chaos.recorded import at_s
from tshrag_common import requests as r
from tshrag_common.views import AttemptView
from tshrag_controller.cli import demo_lab

HOSTS = ("left", "right")
_WITHIN_S = 90.0


@asynccontextmanager
async def a_shared_board(lab: ChaosLab) -> AsyncIterator[str]:
    """Have a board that two hosts reach; yield its name."""
    board = a_name("shared")
    said = await asyncio.to_thread(demo_lab.start_board, lab.processes, board, "ssh_board")
    dut = demo_lab.ssh_dut(board, said).replace('room = "demo"', f'board = "{board}"')
    dut = dut.replace("labels =", "shared = true\nlabels =")
    try:
        for name in HOSTS:
            await asyncio.to_thread(lab.processes.start_agent, name, dut, 1)
        await lab.processes.wait_agents(len(AGENTS) + len(HOSTS))
        yield board
    finally:
        for name in (*HOSTS, board):
            if not lab.processes.has_ended(name):
                await asyncio.to_thread(lab.processes.leave, name)


async def i6_vanishes(lab: ChaosLab, *, frozen: bool) -> Once:
    """Kill the agent that has the board, with its shepherd, or freeze it; later it is back."""
    runs: list[str] = []
    async with a_shared_board(lab) as board:

        async def happen(lab: ChaosLab) -> Times:
            run, first = await _first(lab, board)
            runs.append(run)
            _vanish(lab, first.agent, frozen=frozen)
            at = time.monotonic()
            second = await _attempt(lab, run, 2)
            wrong("the host of the second attempt", second.agent == first.agent, False)
            _return(lab, first.agent, frozen=frozen)
            wrong("the job", (await load.final(lab, run, _WITHIN_S)).state, "passed")
            again, since_renewed = _granted(lab, run, first.agent)
            return {"granted again": since_renewed, "vanished for": again - at}

        once = await under_load(lab, "I6", happen, 50.0, judge=one_attempt_each)
        alive = once.counts["survivors"] + sum([await survivors(lab, run) for run in runs])
    counts = {**once.counts, "survivors": alive}
    return with_more(once, counts=counts, runs=(*once.runs, *runs))


async def _first(lab: ChaosLab, board: str) -> tuple[str, AttemptView]:
    """Give the board a job that lasts in its first attempt; return them when it is running."""
    log = lab.folder / f"log-{board}"
    script = f"echo $$ >> '{log}'; [ $(wc -l < '{log}') -gt 1 ] || sleep 300"
    job = {"command": ["sh", "-c", script], "target": board}
    document = {"name": "shared", "targets": {board: load.target(board)}, "schedule": job}
    run = await load.submit(lab, document)
    ends = time.monotonic() + _WITHIN_S
    while not log.exists():
        wrong("its first attempt begins", time.monotonic() < ends, True)
        await asyncio.sleep(0.1)
    return run, await _attempt(lab, run, 1)


def _vanish(lab: ChaosLab, name: str, *, frozen: bool) -> None:
    if frozen:
        lab.processes.signal(name, signal.SIGSTOP)
        return
    lab.processes.kill(name)
    lab.kill_shepherd(name)


def _return(lab: ChaosLab, name: str, *, frozen: bool) -> None:
    if frozen:
        lab.processes.signal(name, signal.SIGCONT)
    else:
        lab.processes.run_agent(name)


async def _attempt(lab: ChaosLab, run: str, number: int) -> AttemptView:
    ends = time.monotonic() + _WITHIN_S
    while time.monotonic() < ends:
        attempts = (await lab.client.jobs(r.ListJobs(id=run))).jobs[0].attempts
        if len(attempts) >= number:
            return attempts[number - 1]
        await asyncio.sleep(0.1)
    raise AssertionError(f"{run} has no attempt {number} after {_WITHIN_S:g} s")


def _granted(lab: ChaosLab, run: str, agent: str) -> tuple[float, float]:
    """Return when the second attempt was given its place, and how long after the last renewal."""
    recorded, prefix = lab.recorded(), f"job-{run.removeprefix('run-')}-"
    given = [each for each in recorded.of("assigned") if str(each["job"]).startswith(prefix)]
    at = at_s(given[1])
    renewed = [at_s(each) for each in recorded.of("renewed") if each["agent"] == agent]
    return at, at - max(each for each in renewed if each < at)


_BARS = (Bar("granted again", 35.0, least=30.0),)
FAULTS = (
    Fault("I6", "SIGKILL of the agent that has a shared board, and of its shepherd",
          partial(i6_vanishes, frozen=False), _BARS),
    Fault("I6", "SIGSTOP of the agent that has a shared board", partial(i6_vanishes, frozen=True),
          _BARS, quick=0),
)  # fmt: skip
