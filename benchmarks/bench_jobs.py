"""Jobs a second of /bin/true: one run of 2,000 jobs, from submit until all are final.

All of it is durable: LOG, journal and projection; the limit is what the machine spawns at all.
"""

from benchmarks import limits, work
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, figure, run_async
from benchmarks.processes import Cost

SLOTS = 64


def measure(scale: Scale) -> list[Figure]:
    return [run_async(_measure(scale, scale.of(2000, 64), scale.of(7, 2)))]


async def _measure(scale: Scale, jobs: int, rounds: int) -> Figure:
    ours: list[float] = []
    spawned: list[float] = []
    costs: list[dict[str, Cost]] = []
    async with a_lab(slots=SLOTS) as lab:
        await work.done(lab.client, work.repeated(scale.of(500, 16), work.TRUE))
        for _ in range(rounds):
            spawned.append(limits.spawns_per_s(scale.of(2000, 160)))
            rate, cost = await jobs_per_s(lab, jobs, work.TRUE)
            ours.append(rate)
            costs.append(cost)
    return figure(
        "jobs",
        f"jobs of /bin/true, end to end and durable, {SLOTS} at once",
        "jobs/s",
        ours=ours,
        limits=spawned,
        limit_is=limits.spawn_limit_is(),
        aim=0.5,
        aim_is="ratio",
        facts=cost_per_job(costs, jobs),
    )


async def jobs_per_s(
    lab: RunningLab, jobs: int, step: dict[str, object]
) -> tuple[float, dict[str, Cost]]:
    """Return the rate of one run of equal jobs, and what each process used for it."""
    done = work.done(lab.client, work.repeated(jobs, step))
    _, took, cost = await lab.cost_of(done)
    return jobs / took, cost


def cost_per_job(costs: list[dict[str, Cost]], jobs: int) -> dict[str, float]:
    """Return the median processor time a job of each kind of process, in microseconds."""
    kinds = sorted({kind for cost in costs for kind in cost})
    return {
        f"{kind}_us_per_job": round(
            limits.median([1e6 * cost.get(kind, Cost()).all_s / jobs for cost in costs]), 1
        )
        for kind in kinds
    }
