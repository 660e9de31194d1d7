"""Jobs a second of ``builtin:noop``: what is left is the cost of the lab itself.

The peer is a message each way a job: requests answered by a bare echo in Python, 64 in flight,
nothing stored. Slots are the depth of the pipeline here; nothing is executed outside the agent.
"""

import asyncio

from benchmarks import limits, work
from benchmarks.bench_jobs import cost_per_job, jobs_per_s
from benchmarks.harness import Figure, Scale, a_lab, figure, run_async
from benchmarks.processes import Cost

SLOTS = 1024
NOOP: dict[str, object] = {"load": "noop"}


def measure(scale: Scale) -> list[Figure]:
    return [run_async(_measure(scale, scale.of(10_000, 300), scale.of(7, 2)))]


async def _measure(scale: Scale, jobs: int, rounds: int) -> Figure:
    ours: list[float] = []
    echoed: list[float] = []
    costs: list[dict[str, Cost]] = []
    async with a_lab(slots=SLOTS) as lab:
        wire = await limits.Wire.open(lab.processes)
        async with asyncio.TaskGroup() as group:
            echo = group.create_task(wire.answer(), name="echo")
            await work.done(lab.client, work.repeated(scale.of(2000, 50), NOOP))
            for _ in range(rounds):
                echoed.append(await wire.requests_per_s(scale.of(10_000, 300)))
                rate, cost = await jobs_per_s(lab, jobs, NOOP)
                ours.append(rate)
                costs.append(cost)
            echo.cancel()
        await wire.close()
    return figure(
        "noop",
        f"jobs of builtin:noop, end to end and durable, {SLOTS} at once",
        "jobs/s",
        ours=ours,
        limits=echoed,
        limit_is="bare request-reply of Python clients, 64 in flight, nothing stored",
        aim=10_000,
        facts=cost_per_job(costs, jobs),
    )
