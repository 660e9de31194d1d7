"""How the cost of a job grows with the jobs that wait, from 100 to 100,000.

The pure core alone: turns that end a few attempts and schedule as many, at each depth of the
queue, with 1 and with 100 agents; the pass that finds no place for anything; the first pass that
gives 1,000 DUTs to 10,000 that wait. Then the whole
lab: processor time of the controller a no-op job, of so many submitted together. The limit of each
is its own cost at the smallest depth, so the ratio says how flat it is.
"""

import gc
import time
from typing import Literal

from benchmarks import limits, work
from benchmarks.bench_noop import NOOP, SLOTS
from benchmarks.core_lab import CoreLab
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, figure, run_async
from tshrag_common.jobs import MAX_JOBS, Need, Target

DEPTHS = (100, 1_000, 10_000, 100_000)
QUICK_DEPTHS = (100, 1_000)
AGENTS = (1, 100)
AT_ONCE = 200
"""Attempts that live in the pure core, over all agents."""
PER_TURN = 50
FLAT = 2.0
Hold = Literal["job", "run"]
HOLDS: tuple[Hold, ...] = ("job", "run")


def measure(scale: Scale) -> list[Figure]:
    depths = QUICK_DEPTHS if scale.quick else DEPTHS
    rounds = scale.of(3, 1)
    figures = [each for agents in AGENTS for each in _core(agents, depths, rounds, scale.of(40, 2))]
    figures += [_first_pass(hold, scale, rounds) for hold in HOLDS]
    return [*figures, *run_async(_whole((300, 600) if scale.quick else DEPTHS, rounds))]


def _core(agents: int, depths: tuple[int, ...], rounds: int, turns: int) -> list[Figure]:
    """Return the cost of a turnover and of an idle pass at each depth, against the smallest."""
    turnovers: dict[int, list[float]] = {depth: [] for depth in depths}
    idles: dict[int, list[float]] = {depth: [] for depth in depths}
    for _ in range(rounds):
        for depth in depths:
            turnover_us, idle_us = _once(agents, depth, turns)
            turnovers[depth].append(turnover_us)
            idles[depth].append(idle_us)
    last, first = depths[-1], depths[0]
    return [
        figure(
            f"core_{name}_{agents}_agents",
            f"pure core, {what} with {last} waiting jobs and {agents} agents",
            unit,
            ours=costs[last],
            limits=costs[first],
            limit_is=f"the same with {first} waiting jobs",
            aim=FLAT,
            aim_is="ratio",
            better="lower",
            facts={f"with_{depth}": round(limits.median(costs[depth]), 2) for depth in depths},
        )
        for name, what, unit, costs in (
            ("turnover", "a job from waiting to passed", "us/job", turnovers),
            ("idle_pass", "a pass that finds no place", "us/pass", idles),
        )
    ]


def _first_pass(hold: Hold, scale: Scale, rounds: int) -> Figure:
    """Return how long the pass takes that gives every DUT away; the peer gives away a tenth."""
    duts, waiting = scale.of(1000, 50), scale.of(10_000, 200)
    ours: list[float] = []
    tenth: list[float] = []
    for _ in range(rounds):
        ours.append(_pass_ms(hold, duts, waiting))
        tenth.append(_pass_ms(hold, duts // 10, waiting))
    return figure(
        f"core_first_pass_{hold}",
        f"pure core, the pass that gives {duts} DUTs, kept for a {hold}, to {waiting} that wait",
        "ms",
        ours=ours,
        limits=tenth,
        limit_is=f"the same with {duts // 10} DUTs",
        aim=50.0,
        better="lower",
    )


def _pass_ms(hold: Hold, duts: int, waiting: int) -> float:
    lab = CoreLab(max(1, duts // 10), 0, duts_each=min(10, duts))
    target = Target(runtime="ssh", kind="board", hold=hold)
    each = 1 if hold == "run" else MAX_JOBS
    lab.submit(waiting, need=Need(target=target, role="board"), jobs_each=each)
    began = time.perf_counter()
    lab.turn()
    return 1e3 * (time.perf_counter() - began)


def _once(agents: int, depth: int, turns: int) -> tuple[float, float]:
    lab = CoreLab(agents, AT_ONCE // agents)
    lab.submit(depth + AT_ONCE)
    lab.turn()
    gc.collect()
    gc.disable()  # a collection that falls into one depth is no cost of that depth
    try:
        began = time.perf_counter()
        for _ in range(100):
            lab.turn()
        idle_us = 1e6 * (time.perf_counter() - began) / 100
        took_us, ended = 0.0, 0
        for _ in range(turns):
            began = time.perf_counter()
            ended += lab.end_some(PER_TURN)
            lab.turn()
            took_us += 1e6 * (time.perf_counter() - began)
            lab.submit(PER_TURN)  # the depth stays
    finally:
        gc.enable()
    return took_us / ended, idle_us


async def _whole(sizes: tuple[int, ...], rounds: int) -> list[Figure]:
    """Return the controller's time a no-op job of growing numbers, against the smallest."""
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    async with a_lab(slots=SLOTS) as lab:
        await work.done(lab.client, work.repeated(min(sizes), NOOP))
        for _ in range(rounds):
            for size in sizes:
                repeats = max(1, 2000 // size)  # processor time is counted in steps of 10 ms
                _, _, cost = await lab.cost_of(_drained(lab, size, repeats))
                costs[size].append(1e6 * cost["controller"].all_s / size / repeats)
    last, first = sizes[-1], sizes[0]
    return [
        figure(
            "lab_growth",
            f"processor time of the controller a no-op job, {last} submitted together",
            "us/job",
            ours=costs[last],
            limits=costs[first],
            limit_is=f"the same with {first} submitted together",
            aim=FLAT,
            aim_is="ratio",
            better="lower",
            facts={f"with_{size}": round(limits.median(costs[size]), 1) for size in sizes},
        )
    ]


async def _drained(lab: RunningLab, jobs: int, repeats: int) -> None:
    """Submit so many jobs together and wait for the last; `repeats` times."""
    sizes = [min(MAX_JOBS, jobs - first) for first in range(0, jobs, MAX_JOBS)]
    for _ in range(repeats):
        runs = [await work.submit(lab.client, work.repeated(size, NOOP)) for size in sizes]
        for run in runs:
            await work.ended(lab.client, run)
