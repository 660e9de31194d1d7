"""A disk that is worn out: every SQLite transaction takes 200 ms more, everywhere: F19."""

import asyncio
import time
from functools import partial
from typing import Any

from tests.chaos import load
from tests.chaos.beside import rss_mib
from tests.chaos.faults import Fault, one_attempt_each, survivors
from tests.chaos.lab import AGENTS, SLOTS, ChaosLab
from tests.chaos.outcome import Bar, Once
from tshrag_common import requests as r

SLOW = "tests.chaos.slow"
JOBS = SLOTS * len(AGENTS) - 1  # one slot is for what is cancelled
BURST, PAUSE_S = 100, 0.2
SCRIPT = (
    "i=0; while [ $i -lt {count} ]; do "
    "awk -v b=$i 'BEGIN {{ for (n = 1; n <= {burst}; n++) print \"::metric chaos.n \" b + n }}'; "
    "i=$((i + {burst})); sleep {pause}; done"
)


async def f19_slow(lab: ChaosLab, for_s: float) -> Once:
    """Slow down every process, and ask for samples as fast as 23 jobs say them."""
    everybody = ("controller", *AGENTS)
    for name in everybody:
        lab.processes.inside[name] = SLOW
    try:
        await _again(lab, everybody)
        return await _loaded(lab, for_s)
    finally:
        lab.processes.inside.clear()
        await _again(lab, everybody)


async def _again(lab: ChaosLab, names: tuple[str, ...]) -> None:
    """Start processes again, in order: the controller last, so that nobody is missed."""
    for name in reversed(names):
        lab.processes.kill(name)
        lab.start_controller() if name == "controller" else lab.start_agent(name)
    await asyncio.sleep(1.0)
    await lab.online()


async def _loaded(lab: ChaosLab, for_s: float) -> Once:
    count = round(for_s / PAUSE_S) * BURST
    script = SCRIPT.format(count=count, burst=BURST, pause=PAUSE_S)
    command: dict[str, Any] = {"command": ["sh", "-c", script], "timeout": "900s"}
    run = await load.submit(lab, {"name": "slow", "schedule": {"parallel": [command] * JOBS}})
    running, rate = await load.loaded(lab, run, 120.0)
    at = time.monotonic()
    pids = [lab.processes.pid(name) for name in ("controller", *AGENTS)]
    await asyncio.sleep(for_s / 3)
    before = [rss_mib(pid) for pid in pids]
    cancel_s = await _cancelled(lab)
    ended = await load.final(lab, run, for_s + 300.0)
    grown = max(rss_mib(pid) - was for pid, was in zip(pids, before, strict=True))
    took = time.monotonic() - at
    doubts = [line for line in lab.since(at, "agent_moved") if line["cause"] in ("doubt", "lose")]
    broken = await one_attempt_each(lab, run)
    if ended.state != "passed":
        broken.append(f"{run} ended as {ended.state}: {ended.reason[:120]}")
    if doubts:
        broken.append(f"{len(doubts)} times an agent was in doubt")
    lost, doubled = await load.lost_and_doubled(lab, run, count * load.PERIOD_S)
    counts = {"lost": lost, "doubled": doubled, "survivors": await survivors(lab, run)}
    counts["samples a second"] = round(JOBS * count / took)
    times = {"cancel": cancel_s, "RSS +MiB": grown, "all ended": took}
    return Once(running=running, per_s=rate, times=times, counts=counts, broken=tuple(broken),
                runs=(run,), seconds=for_s)  # fmt: skip


async def _cancelled(lab: ChaosLab) -> float:
    """Return how long it takes to end a job that runs."""
    job = {"command": ["sleep", "300"]}
    run = await load.submit(lab, {"name": "cancelled", "schedule": job})
    ends = time.monotonic() + 60.0
    while time.monotonic() < ends:
        if (await lab.client.run(run)).run.counts.get("running"):
            break
        await asyncio.sleep(0.1)
    at = time.monotonic()
    await lab.client.ask("cancel", r.Cancel(id=run, wait_s=30.0), r.CancelAnswer, 60.0)
    await load.final(lab, run, 60.0)
    return time.monotonic() - at


FAULTS = (
    Fault("F19", "every SQLite write +200 ms, 23 jobs, as many samples as they say, 60 s",
          partial(f19_slow, for_s=60.0), (Bar("cancel", 10.0), Bar("RSS +MiB", 64.0)), quick=0,
          full=2),
)  # fmt: skip
