"""A fault: how it is brought about, and the frame that all of them share.

`under_load` brings load on, lets the fault happen, waits until all has come to its end, and
counts what was lost, doubled, or lives on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.chaos import load
from tests.chaos.lab import ChaosLab
from tests.chaos.outcome import Bar, Once
from tests.chaos.recorded import Recorded
from tshrag_common import history

Times = dict[str, float]
Happen = Callable[[ChaosLab], Awaitable[Times]]
Judge = Callable[[ChaosLab, str], Awaitable[list[str]]]
SETTLE_S = 120.0


class Fault(NamedTuple):
    """One line of the table. ``smoke``/``quick``/``full``: how often; 0: not in that set."""

    name: str
    what: str
    repeat: Callable[[ChaosLab], Awaitable[Once]]
    bars: tuple[Bar, ...] = ()
    smoke: int = 0
    quick: int = 1
    full: int = 20
    partitions: bool = False
    disks: bool = False
    hangs: bool = False
    history: bool = False


async def under_load(
    lab: ChaosLab,
    what: str,
    happen: Happen,
    seconds: float = 9.0,
    *,
    within_s: float = SETTLE_S,
    judge: Judge | None = None,
    on_boards: bool = True,
) -> Once:
    """Let a fault happen in the middle of a run; return what came of it."""
    document = load.profile(seconds, tuple(lab.boards.values()) if on_boards else ())
    run = await load.submit(lab, document)
    running, rate = await load.loaded(lab, run)
    history.note("fault", what=what, job=run)
    times = await happen(lab)
    history.note("healed", what=what, job=run)
    began = time.monotonic()
    broken: list[str] = []
    try:
        ended = await load.final(lab, run, within_s + seconds)
        times.setdefault("all ended", time.monotonic() - began)
        if judge is None and ended.state != "passed":
            broken.append(f"{what}: {run} ended as {ended.state}: {ended.reason[:120]}")
        elif judge is not None:
            broken += await judge(lab, run)
        lost, doubled = await load.lost_and_doubled(lab, run, seconds)
    except AssertionError as error:
        broken.append(str(error))
        lost = doubled = 0
    counts = {"lost": lost, "doubled": doubled, "survivors": await survivors(lab, run)}
    return Once(running=running, per_s=rate, times=times, counts=counts, broken=tuple(broken),
                runs=(run,), seconds=seconds)  # fmt: skip


async def survivors(lab: ChaosLab, run: str, within_s: float = 10.0) -> int:
    """Count the attempts of a run that live though it has ended."""
    ends = time.monotonic() + within_s
    while True:
        alive = living(lab.recorded(), run)
        if not alive or time.monotonic() > ends:
            return len(alive)
        await asyncio.sleep(0.3)


def living(recorded: Recorded, run: str) -> set[tuple[str, int]]:
    """Return the attempts of a run that the sampler sees."""
    prefix = f"job-{run.removeprefix('run-')}-"
    alive: set[tuple[str, int]] = set()
    for line in recorded.of("born", "dead"):
        if str(line["job"]).startswith(prefix):
            key = (str(line["job"]), int(line["attempt"]))
            alive.add(key) if line["ev"] == "born" else alive.discard(key)
    return alive


async def one_attempt_each(lab: load.HasClient, run: str) -> list[str]:
    """Hold that no job noticed: it passed in its first attempt."""
    from tshrag_common import requests as r

    broken: list[str] = []
    for job in (await lab.client.jobs(r.ListJobs(id=run))).jobs:
        if job.state != "passed" or len(job.attempts) != 1:
            why = [f"{a.outcome}:{a.error.code if a.error else ''}" for a in job.attempts]
            broken.append(f"{job.id} is {job.state} after {why}: it should not have noticed")
    return broken[:3]


async def all_passed(lab: load.HasClient, run: str) -> list[str]:
    found = await load.view(lab, run)
    if found is None or found.state != "passed":
        return [f"{run} is {found.state if found else 'unknown'}, not passed"]
    return []
