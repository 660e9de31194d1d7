"""Samples a second from an agent until a client's query returns all of them.

The limits: bytes that are there already on the same way into nothing; samples that are drawn and
packed, as the agent has to, on the same way into nothing; bytes published that nobody reads; and a
plain loop that puts rows into SQLite. Only the second does all that comes before the journal.
"""

import asyncio
import time

from benchmarks import limits, work
from benchmarks.bench_jobs import cost_per_job
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, figure, run_async
from benchmarks.processes import Cost
from tshrag_common import metric_requests as mr

JOBS = (1, 4)
AIM = 500_000


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale, scale.of(500_000, 4000), scale.of(5, 1)))


async def _measure(scale: Scale, samples: int, rounds: int) -> list[Figure]:
    ours: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    stored: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    costs: dict[int, list[dict[str, Cost]]] = {jobs: [] for jobs in JOBS}
    wires: list[float] = []
    loops: list[float] = []
    pipes: list[float] = []
    made: list[float] = []
    async with a_lab(slots=max(JOBS)) as lab:
        wire = await limits.Wire.open(lab.processes)
        for _ in range(rounds):
            wires.append(await wire.samples_stored_per_s(scale.of(4_000_000, 32_000)))
            pipes.append(await wire.samples_piped_per_s(scale.of(4_000_000, 32_000)))
            made.append(await wire.samples_piped_per_s(scale.of(1_000_000, 32_000), made=True))
            loops.append(await asyncio.to_thread(limits.sqlite_samples_per_s, samples))
            for jobs in JOBS:
                whole, settled, cost = await _once(lab, jobs, samples)
                ours[jobs].append(whole)
                stored[jobs].append(settled)
                costs[jobs].append(cost)
        await wire.close()
    return [
        figure(
            f"samples_{jobs}_vs_{name}",
            f"samples of {jobs} job{'s' * (jobs > 1)}, from the agent to a client's query",
            "samples/s",
            ours=ours[jobs],
            limits=values,
            limit_is=limit_is,
            aim=AIM,
            facts={
                "stored_per_s": round(limits.median(stored[jobs])),
                **{
                    name.replace("us_per_job", "us_per_1000"): round(each * 1000, 1)
                    for name, each in cost_per_job(costs[jobs], samples).items()
                },
            },
        )
        for jobs in JOBS
        for name, values, limit_is in (
            (
                "pipe",
                pipes,
                "the same bytes again: published, pulled, decoded, dropped; no journal",
            ),
            (
                "made",
                made,
                "each drawn and packed, published, pulled, decoded, dropped; no journal",
            ),
            ("wire", wires, "published into a stream and acknowledged, nobody reads"),
            ("sqlite", loops, "a plain loop of rows into SQLite, 1000 a transaction"),
        )
    ]


async def _once(lab: RunningLab, jobs: int, samples: int) -> tuple[float, float, dict[str, Cost]]:
    """Return samples/s until they are queried, until they are stored, and what that cost."""
    each = samples // jobs
    step: dict[str, object] = {"load": "samples", "params": {"count": each}}
    began = time.perf_counter()
    view, took, cost = await lab.cost_of(work.done(lab.client, work.repeated(jobs, step)))
    while True:
        answer = await lab.client.metrics(mr.ListMetrics(run=view.id))
        if sum(series.count for series in answer.series) >= each * jobs:
            break
    return each * jobs / (time.perf_counter() - began), each * jobs / took, cost
