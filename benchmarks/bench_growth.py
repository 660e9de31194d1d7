"""How the cost of a job grows with the jobs that wait, from 100 to 100,000.

The pure core alone: turns that end a few attempts and schedule as many, at each depth of the
queue, with 1 and with 100 agents; and the pass that finds no place for anything. Then the whole
lab: processor time of the controller a no-op job, in runs of growing size. The limit of each is
its own cost at the smallest depth, so the ratio says how flat it is.
"""

import gc
import time

from benchmarks import limits, work
from benchmarks.bench_jobs import jobs_per_s
from benchmarks.bench_noop import NOOP, SLOTS
from benchmarks.core_lab import CoreLab
from benchmarks.harness import Figure, Scale, a_lab, figure, run_async

DEPTHS = (100, 1_000, 10_000, 100_000)
QUICK_DEPTHS = (100, 1_000)
AGENTS = (1, 100)
AT_ONCE = 200
"""Attempts that live in the pure core, over all agents."""
PER_TURN = 50
FLAT = 2.0


def measure(scale: Scale) -> list[Figure]:
    depths = QUICK_DEPTHS if scale.quick else DEPTHS
    rounds = scale.of(5, 1)
    figures = [each for agents in AGENTS for each in _core(agents, depths, rounds, scale.of(40, 2))]
    return [*figures, *run_async(_whole((300, 600) if scale.quick else DEPTHS[:3], rounds))]


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
    """Return the controller's time a no-op job in runs of growing size, against the smallest."""
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    async with a_lab(slots=SLOTS) as lab:
        await work.done(lab.client, work.repeated(min(sizes), NOOP))
        for _ in range(rounds):
            for size in sizes:
                repeats = max(1, min(10, 2000 // size))
                spent_s = 0.0
                for _ in range(repeats):
                    _, cost = await jobs_per_s(lab, size, NOOP)
                    spent_s += cost["controller"].all_s
                costs[size].append(1e6 * spent_s / size / repeats)
    last, first = sizes[-1], sizes[0]
    return [
        figure(
            "lab_growth",
            f"processor time of the controller a no-op job, in a run of {last}",
            "us/job",
            ours=costs[last],
            limits=costs[first],
            limit_is=f"the same in runs of {first}",
            aim=FLAT,
            aim_is="ratio",
            better="lower",
            facts={f"with_{size}": round(limits.median(costs[size]), 1) for size in sizes},
        )
    ]
