"""Boards in a whole lab: how soon a free one has its next job, and a matrix over many platforms.

Real processes, DUTs that are this host. The pause is from the end of an attempt, all of it gone, to
the first process of the next, by the clock of the agent; its peer is a bare request-reply through
the same broker. The matrix is 1,500 jobs for 135 platforms, one board each; its limit is starting
as many processes with nothing around them.
"""

import asyncio
import time
from itertools import pairwise
from typing import Any

from benchmarks import limits, work
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, figure, run_async
from tshrag_common import requests as r

TARGETS_A_RUN = 45
JOBS_EACH = 11


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale.of(135, 5), scale.of(300, 10)))


async def _measure(platforms: int, jobs: int) -> list[Figure]:
    duts = "".join(
        f'[[dut]]\nid = "board-{number}"\nkind = "platform-{number}"\n\n[dut.local]\n'
        for number in range(platforms)
    )
    async with a_lab(slots=4, duts=duts) as lab:
        wire = await limits.Wire.open(lab.processes)
        async with asyncio.TaskGroup() as group:
            echo = group.create_task(wire.answer(), name="echo")
            pauses, trips = await _pauses(lab, jobs), await wire.round_trips_ms(jobs)
            echo.cancel()
        await wire.close()
        took_s = await _matrix(lab, platforms)
    count = platforms * JOBS_EACH
    return [
        *(_pause(pauses, trips, level) for level in (50, 99)),
        figure(
            "boards_matrix",
            f"{count} jobs of /bin/true for {platforms} platforms, one board each, end to end",
            "jobs/s",
            ours=[count / took_s],
            limits=[limits.spawns_per_s(count)],
            limit_is=limits.spawn_limit_is(),
        ),
    ]


def _pause(pauses: list[float], trips: list[float], level: int) -> Figure:
    return figure(
        f"boards_next_p{level}",
        f"from the end of a job to the next one running on the same board, p{level}",
        "ms",
        ours=[limits.percentile(pauses, level)],
        limits=[limits.percentile(trips, level)],
        limit_is="bare request-reply through the same broker",
        aim=20.0 if level == 50 else None,
        better="lower",
    )


def _profile(platforms: range, times: int) -> dict[str, object]:
    """Return a profile in which each platform has so many jobs, all of which may go at once."""
    steps = [
        {
            "repeat": {
                "times": times,
                "parallel": True,
                "of": {**work.TRUE, "target": f"p{number}"},
            }
        }
        for number in platforms
    ]
    targets = {f"p{number}": {"kind": f"platform-{number}", "hold": "job"} for number in platforms}
    return {"name": "matrix", "schedule": {"parallel": steps}, "targets": targets}


async def _pauses(lab: RunningLab, jobs: int) -> list[float]:
    """Return the pauses between the jobs that one board has, in ms."""
    run = await work.done(lab.client, _profile(range(1), jobs))
    tries: list[Any] = []
    while len(tries) < jobs:
        page = await lab.client.jobs(r.ListJobs(id=run.id, limit=200, offset=len(tries)))
        tries += [job.attempts[-1] for job in page.jobs]
    tries.sort(key=lambda each: each.started_at)
    return [max(0.0, (b.started_at - a.ended_at) / 1e3) for a, b in pairwise(tries)]


async def _matrix(lab: RunningLab, platforms: int) -> float:
    began = time.perf_counter()
    runs = [
        await work.submit(lab.client, _profile(each, JOBS_EACH))
        for first in range(0, platforms, TARGETS_A_RUN)
        if (each := range(first, min(platforms, first + TARGETS_A_RUN)))
    ]
    for run in runs:
        view = await work.ended(lab.client, run)
        if view.state != "passed":
            raise AssertionError(f"{view.id} ended {view.state}: {view.reason}")
    return time.perf_counter() - began
