"""How soon an urgent job has a board that another gives back, and how long a barrier takes.

Preemption: a job that ignores nothing sleeps on the only board; the urgent one prints when it
runs. Its peer, in turns with it, is the same submit to the board while it is idle: the difference
is what deciding, stopping and clearing away cost. Once more with a gang of two boards.

Barriers: two jobs on two hosts (two agents of one machine) come to a hundred of them, over the
socket that ``tshrag-sync`` uses, so that no start of a program counts. The peer is a bare
request-reply through the same broker; a barrier needs at least one message each way, each of them
written down and answered before the next step.
"""

import asyncio
import json
import statistics
from pathlib import Path

from benchmarks import limits, work
from benchmarks.harness import Figure, RunningLab, Scale, a_lab, figure, run_async
from tshrag_common import ids, requests as r

CONTROLLER = "[scheduler]\npreempt_after_s = 0\n"
BOARDS = ("one", "two")
DUTS = "".join(f'[[dut]]\nid = "bench-{each}"\nkind = "{each}"\n\n[dut.local]\n' for each in BOARDS)
_SLEEP: dict[str, object] = {"command": ["/bin/sleep", "600"]}
_NOW: dict[str, object] = {"command": ["/bin/date", "+%s%N"]}
_CALLS = Path(__file__).with_name("barriers.py")
_REST_S = 0.05


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale.of(60, 3), scale.of(300, 5)))


async def _measure(turns: int, barriers: int) -> list[Figure]:
    async with a_lab(slots=4, duts=DUTS, agent="west", controller=CONTROLLER) as lab:
        lab.processes.start_agent("east", slots=4)
        await lab.processes.wait_agents(2)
        found = [await _preemption(lab, name, turns) for name in ("job", "gang")]
        wire = await limits.Wire.open(lab.processes)
        async with asyncio.TaskGroup() as group:
            echo = group.create_task(wire.answer(), name="echo")
            took, trips = await _barriers(lab, barriers), await wire.round_trips_ms(barriers)
            echo.cancel()
        await wire.close()
    return [*found, *(_barrier(took, trips, level) for level in (50, 99))]


def _profile(kind: str, step: dict[str, object], **limited: object) -> dict[str, object]:
    targets = {each: {"kind": each, "hold": "job"} for each in BOARDS}
    gang = dict.fromkeys(BOARDS, step)
    schedule = {"gang": gang} if kind == "gang" else {**step, "target": BOARDS[0]}
    wanted = targets if kind == "gang" else {BOARDS[0]: targets[BOARDS[0]]}
    return {"name": "bench", "schedule": schedule, "targets": wanted, "limits": limited}


async def _preemption(lab: RunningLab, kind: str, turns: int) -> Figure:
    ours: list[float] = []
    idle: list[float] = []
    jobs = len(BOARDS) if kind == "gang" else 1
    for _ in range(turns):
        idle.append(await _until_all_run(lab, kind, jobs))
        low = await work.submit(lab.client, _profile(kind, _SLEEP, preemptible=True), priority=0)
        await _running(lab, low, jobs)
        ours.append(await _until_all_run(lab, kind, jobs))
        await lab.client.cancel(low)
        await work.ended(lab.client, low)
        await asyncio.sleep(_REST_S)
    what = "a gang of two ends a gang of two" if kind == "gang" else "an urgent job ends another"
    return figure(
        f"gangs_preempt_{kind}",
        f"{what}: submit until all of it runs, p50",
        "ms",
        ours=[statistics.median(ours)],
        limits=[statistics.median(idle)],
        limit_is="the same submit to idle boards, in turns",
        better="lower",
        facts={"p99_ms": round(limits.percentile(ours, 99), 3)},
    )


async def _running(lab: RunningLab, run: ids.RunId, jobs: int) -> None:
    while True:
        view = (await lab.client.run(run)).run
        if view.counts.get("running") == jobs:
            return
        await asyncio.sleep(0.02)


async def _until_all_run(lab: RunningLab, kind: str, jobs: int) -> float:
    """Return ms from an urgent submit until the last job of it has said that it runs."""
    run, began_ns = await work.submitted_at(lab.client, _profile(kind, _NOW), priority=100)
    await asyncio.sleep(_REST_S)
    view = await work.ended(lab.client, run)
    if view.state != "passed":
        raise AssertionError(f"{view.id} ended {view.state}: {view.reason}")
    said = [
        await lab.client.logs(r.GetLogs(job=ids.job_of(run, serial)))
        for serial in range(1, jobs + 1)
    ]
    return max(int(each.data) - began_ns for each in said) / 1e6


async def _barriers(lab: RunningLab, count: int) -> list[float]:
    """Return how long each of so many barriers between two hosts took, in ms."""
    command = ["/usr/bin/env", "python3", "-c", _CALLS.read_text(), str(count)]
    hosts = {"near": "west", "far": "east"}
    profile: dict[str, object] = {
        "name": "barriers",
        "schedule": {"gang": {role: {"command": command} for role in hosts}},
        "targets": {role: {"hosts": [host]} for role, host in hosts.items()},
    }
    view = await work.done(lab.client, profile)
    said = await lab.client.logs(r.GetLogs(job=ids.job_of(ids.RunId(view.id), 1)))
    took: list[float] = json.loads(said.data)
    return took


def _barrier(took: list[float], trips: list[float], level: int) -> Figure:
    return figure(
        f"gangs_barrier_p{level}",
        f"a barrier between two hosts, p{level}",
        "ms",
        ours=[limits.percentile(took, level)],
        limits=[limits.percentile(trips, level)],
        limit_is="bare request-reply through the same broker",
        better="lower",
    )
