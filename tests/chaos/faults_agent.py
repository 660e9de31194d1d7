"""Faults of agents and of their links: F1 to F4, F27."""

import asyncio
import signal
import time
from functools import partial

from tests.chaos import load
from tests.chaos.faults import Fault, Times, all_passed, one_attempt_each, survivors, under_load
from tests.chaos.lab import AGENTS, ChaosLab
from tests.chaos.net import Way
from tests.chaos.outcome import Bar, Once
from tshrag_common import requests as r


async def f1_kill(lab: ChaosLab) -> Once:
    """SIGKILL an agent in the middle of its jobs, and start it again 2 s later."""
    name = AGENTS[0]

    async def happen(lab: ChaosLab) -> Times:
        lab.processes.kill(name)
        await asyncio.sleep(2.0)
        at = time.monotonic()
        lab.start_agent(name)
        return {"resume": await heard_again(lab, name, at)}

    async def judge(lab: ChaosLab, run: str) -> list[str]:
        broken = await all_passed(lab, run)
        for job in (await lab.client.jobs(r.ListJobs(id=run))).jobs:
            on_host = job.attempts and not job.attempts[0].dut
            if on_host and len(job.attempts) != 1:
                broken.append(f"{job.id} on a host was not re-adopted")
        return broken[:3]

    return await under_load(lab, "F1", happen, judge=judge)


async def f1_gone(lab: ChaosLab) -> Once:
    """SIGKILL an agent and its shepherd, and do not start it: nothing outlives 10 s after."""
    name = AGENTS[1]

    async def happen(lab: ChaosLab) -> Times:
        lab.processes.kill(name)
        lab.kill_shepherd(name)
        at = time.monotonic()
        lab.start_agent(name)
        return {"resume": await heard_again(lab, name, at)}

    return await under_load(lab, "F1 with its shepherd", happen, judge=all_passed)


async def heard_again(lab: ChaosLab, name: str, at: float, within_s: float = 60.0) -> float:
    """Return how long it took until the spool of an agent was applied again."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        for line in lab.since(at, "applied"):
            if line["agent"] == name:
                return float(line["mono_ns"]) / 1e9 - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"{name} was not heard again within {within_s} s")


async def f2_freeze(lab: ChaosLab, frozen_s: float) -> Once:
    """SIGSTOP an agent, then let it go on."""
    name = AGENTS[2]

    async def happen(lab: ChaosLab) -> Times:
        lab.processes.signal(name, signal.SIGSTOP)
        at, times = time.monotonic(), Times()
        if frozen_s > 16:
            times["suspect"] = await lab.moved(name, "doubt", at, 40.0)
        if frozen_s > 31:
            times["lost after"] = await lab.moved(name, "lose", at, 60.0)
        await asyncio.sleep(max(0.0, frozen_s - (time.monotonic() - at)))
        lab.processes.signal(name, signal.SIGCONT)
        return times

    judge = one_attempt_each if frozen_s <= 5 else all_passed
    seconds = max(9.0, frozen_s + 6)
    return await under_load(lab, f"F2 {frozen_s:g} s", happen, seconds, judge=judge)


async def f3_hole(lab: ChaosLab, way: Way, dark_s: float) -> Once:
    """Swallow all between an agent and the bus."""
    name = AGENTS[0]
    host = lab.processes.hosts[name]

    async def happen(lab: ChaosLab) -> Times:
        await asyncio.to_thread(host.swallow, way)
        at, times = time.monotonic(), Times()
        if dark_s > 16:
            times["suspect"] = await lab.moved(name, "doubt", at, 40.0)
        if dark_s > 31:
            times["lost after"] = await lab.moved(name, "lose", at, 60.0)
        await asyncio.sleep(max(0.0, dark_s - (time.monotonic() - at)))
        await asyncio.to_thread(host.heal)
        healed = time.monotonic()
        times["resume"] = await heard_again(lab, name, healed)
        return times

    seconds = max(9.0, dark_s + 6)
    what = f"F3 {way} {dark_s:g} s"
    return await under_load(lab, what, happen, seconds, judge=one_attempt_each)


async def f4_board(lab: ChaosLab, dark_s: float) -> Once:
    """Swallow all between an agent and its board."""
    name = AGENTS[1]
    host, port, board = lab.processes.hosts[name], lab.board_ports[name], lab.boards[name]

    async def happen(lab: ChaosLab) -> Times:
        await asyncio.to_thread(host.swallow_board, port)
        at, times = time.monotonic(), Times()
        if dark_s > 10:
            times["tree dead"] = await _dead_on(lab, board, at, dark_s + 30)
        await asyncio.sleep(max(0.0, dark_s - (time.monotonic() - at)))
        await asyncio.to_thread(host.heal)
        return times

    async def judge(lab: ChaosLab, run: str) -> list[str]:
        if dark_s <= 3:
            return await one_attempt_each(lab, run)
        codes = [
            attempt.error.code if attempt.error else ""
            for job in (await lab.client.jobs(r.ListJobs(id=run))).jobs
            for attempt in job.attempts
            if attempt.dut == board and attempt.outcome != "passed"
        ]
        right = codes and all(code == "dut_unreachable" for code in codes)
        return [] if right else [f"the attempt on {board} ended as {codes}"]

    return await under_load(lab, f"F4 {dark_s:g} s", happen, max(9.0, dark_s + 6), judge=judge)


async def _dead_on(lab: ChaosLab, board: str, at: float, within_s: float) -> float:
    """Return how long after `at` the last process of the attempt on a board was seen."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        for line in lab.since(at, "dead"):
            if line["dut"] == board:
                return int(line["last_ns"]) / 1e9 - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"the tree on {board} lived for {within_s:.0f} s")


async def f27_poison(lab: ChaosLab) -> Once:
    """A job on a board kills its agent, each time; a supervisor starts the agent again."""
    name = AGENTS[0]
    board = lab.boards[name]
    config = f"agents/{name}/agent[.]toml"  # not what this very script is called with
    kill = f"for p in /proc/[0-9]*; do grep -qsa {config} $p/cmdline && kill -9 ${{p#/proc/}}; done"
    poison = {"command": ["sh", "-c", f"{kill}; sleep 60"], "target": board}
    document = {"name": "poison", "targets": {board: load.target(board)}, "schedule": poison}
    began = time.monotonic()
    broken: list[str] = []
    async with lab.supervised(name):
        run = await load.submit(lab, document)
        ended = await load.final(lab, run, 150.0)
        job = (await lab.client.jobs(r.ListJobs(id=run))).jobs[0]
        if (ended.state, len(job.attempts)) != ("error", 3):
            broken.append(f"poison ended as {ended.state} after {len(job.attempts)} attempts")
        await lab.online()
    times = {"given up": time.monotonic() - began}
    counts = {"survivors": await survivors(lab, run)}
    return Once(times=times, counts=counts, broken=tuple(broken), runs=(run,))


RESUME = Bar("resume", 10.0)
SUSPECT = Bar("suspect", 16.0)
_HOLES: tuple[tuple[Way, float, int, int], ...] = (
    ("both", 5.0, 1, 20),
    ("to-bus", 20.0, 1, 10),
    ("from-bus", 20.0, 0, 10),
    ("both", 60.0, 0, 10),
    ("both", 600.0, 0, 1),
)
FAULTS = (
    Fault("F1", "SIGKILL agent, 2 s later it is back", f1_kill, (RESUME,), smoke=1),
    Fault("F1s", "SIGKILL agent and its shepherd at once", f1_gone, (RESUME,), quick=1),
    Fault("F2", "SIGSTOP agent 5 s", partial(f2_freeze, frozen_s=5.0)),
    Fault("F2", "SIGSTOP agent 25 s", partial(f2_freeze, frozen_s=25.0), (SUSPECT,)),
    Fault("F2", "SIGSTOP agent 60 s", partial(f2_freeze, frozen_s=60.0), (SUSPECT,), quick=0),
    Fault("F2", "SIGSTOP agent 300 s", partial(f2_freeze, frozen_s=300.0), (SUSPECT,), quick=0,
          full=2),
    *(
        Fault("F3", f"black hole agent - bus, {way}, {dark:g} s",
              partial(f3_hole, way=way, dark_s=dark), (RESUME, SUSPECT), quick=quick, full=full,
              partitions=True)
        for way, dark, quick, full in _HOLES
    ),
    Fault("F4", "black hole agent - board 3 s", partial(f4_board, dark_s=3.0), partitions=True),
    Fault("F4", "black hole agent - board 20 s", partial(f4_board, dark_s=20.0),
          (Bar("tree dead", 11.0),), partitions=True),
    Fault("F4", "black hole agent - board 60 s", partial(f4_board, dark_s=60.0),
          (Bar("tree dead", 11.0),), quick=0, partitions=True),
    Fault("F27", "a job on a board kills its agent, each time", f27_poison),
)  # fmt: skip
