"""From submit to running on an idle lab: on a local DUT, and on the host.

The job prints the time at which it runs, by the clock of the same machine, so that nothing counts
but a process that is alive. The peer is a bare request-reply through the same broker.
"""

import asyncio
import time

from benchmarks import limits, work
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, run_async
from tshrag_common import ids, requests as r

NOW: dict[str, object] = {"command": ["/bin/date", "+%s%N"]}
DUT = '[[dut]]\nid = "bench-board"\nkind = "bench"\n\n[dut.local]\n'
_REST_S = 0.05
"""After a submit and before the next one: the lab is idle but for what is measured."""


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale.of(250, 5)))


async def _measure(submits: int) -> list[Figure]:
    async with a_lab(slots=4, duts=DUT) as lab:
        wire = await limits.Wire.open(lab.processes)
        async with asyncio.TaskGroup() as group:
            echo = group.create_task(wire.answer(), name="echo")
            found = [
                figure
                for name in ("dut", "host")
                for figure in await _figures(lab, wire, name, submits)
            ]
            echo.cancel()
        await wire.close()
    return found


async def _figures(lab: RunningLab, wire: limits.Wire, name: str, submits: int) -> list[Figure]:
    profile: dict[str, object] = {"name": "latency", "schedule": NOW}
    if name == "dut":
        profile["targets"] = {"board": {"runtime": "local"}}
        profile["schedule"] = {**NOW, "target": "board"}
    started: list[float] = []
    answered: list[float] = []
    trips: list[float] = []
    for number in range(submits + 5):
        trip = await wire.round_trips_ms(5)
        one = await _once(lab, profile)
        if number >= 5:  # the first ones warm up
            trips += trip
            started.append(one[0])
            answered.append(one[1])
        await asyncio.sleep(_REST_S)
    aims = {50: 5.0, 99: 25.0} if name == "dut" else {}
    return [
        _figure(f"latency_{name}_p{level}", name, level, started, trips, answered, aims.get(level))
        for level in (50, 99)
    ]


async def _once(lab: RunningLab, profile: dict[str, object]) -> tuple[float, float]:
    """Return ms from submit until the job said that it runs, and until the submit was answered."""
    began_ns, began = time.time_ns(), time.perf_counter()
    run = await work.submit(lab.client, profile)
    answered_ms = 1e3 * (time.perf_counter() - began)
    await asyncio.sleep(_REST_S)  # whoever asks meanwhile is in the way
    await work.ended(lab.client, run)
    said = await lab.client.logs(r.GetLogs(job=ids.job_of(run, 1)))
    return (int(said.data) - began_ns) / 1e6, answered_ms


def _figure(
    name: str,
    where: str,
    level: int,
    started: list[float],
    trips: list[float],
    answered: list[float],
    aim: float | None,
) -> Figure:
    value, limit = limits.percentile(started, level), limits.percentile(trips, level)
    place = "a local DUT" if where == "dut" else "the host"
    return Figure(
        name=name,
        what=f"submit until the process of a job runs on {place}, idle, p{level}",
        unit="ms",
        value=round(value, 3),
        limit=round(limit, 3),
        limit_is=f"bare request-reply over the same broker, p{level}",
        ratio=round(value / limit, 2),
        aim=aim,
        better="lower",
        values=tuple(round(each, 3) for each in started),
        facts={"submit_answered_ms": round(limits.percentile(answered, level), 3)},
    )
