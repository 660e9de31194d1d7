"""The load that is on when a fault comes: jobs with stubborn trees, and samples that are counted.

Every job says ``chaos.n`` 1, 2, 3 .. N, so that what is lost or doubled is seen in the store, and
has a child, a daemon in a session of its own, and one that is deaf to SIGTERM.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from tests.chaos.lab import AGENTS, SLOTS
from tshrag_common import ids, metric_requests as mr, requests as r
from tshrag_common.client import Client, is_final
from tshrag_common.errors import LabError
from tshrag_common.views import RunView

KEY = "chaos.n"
PERIOD_S = 0.2
LEAST_RUNNING, LEAST_PER_S = 20, 100.0
"""A repetition counts only with so many jobs running and so many records a second."""


class NoLoad(AssertionError):
    """Too little was going on for a repetition to count."""


class HasClient(Protocol):
    """A lab as far as its load is concerned."""

    client: Client


SCRIPT = """
sleep 3000 & a=$!
setsid sh -c 'trap "" TERM; exec sleep 3000' & b=$!
(trap '' TERM; exec sleep 3000) & c=$!
i=0
while [ $i -lt {count} ]; do i=$((i+1)); echo "::metric chaos.n $i"; sleep {period}; done
kill -KILL $a $b $c
"""


def profile(seconds: float, boards: Sequence[str] = ()) -> dict[str, Any]:
    """Return a run that fills every slot of the lab, and a job on each board."""
    script = SCRIPT.format(count=count_of(seconds), period=PERIOD_S)
    command = {"command": ["sh", "-c", script], "timeout": f"{seconds + 300:.0f}s"}
    on_boards = [{**command, "target": board} for board in boards]
    return {
        "name": "chaos",
        "targets": {board: target(board) for board in boards},
        "schedule": {"parallel": [command] * (SLOTS * len(AGENTS)) + on_boards},
    }


def target(board: str) -> dict[str, Any]:
    """Return what asks for this board and no other."""
    return {"runtime": "ssh", "labels": {"board": board}}


def count_of(seconds: float) -> int:
    return round(seconds / PERIOD_S)


async def submit(lab: HasClient, document: dict[str, Any], key: str = "") -> str:
    """Submit as a person does who tries again until there is an answer."""
    run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
    body = msgspec.Raw(msgspec.json.encode(document))
    asked = r.Submit(run=run, profile=body, key=key)
    ends = time.monotonic() + 180.0
    while True:
        try:
            return (await lab.client.submit(asked)).run
        except LabError as error:
            if not error.retryable or time.monotonic() > ends:
                raise
            await asyncio.sleep(0.2)


async def view(lab: HasClient, run: str) -> RunView | None:
    try:
        return (await lab.client.run(run)).run
    except LabError:
        return None


async def final(lab: HasClient, run: str, within_s: float) -> RunView:
    """Return the run when it has ended; ride over outages."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        found = await view(lab, run)
        if found is not None and is_final(found.state):
            return found
        await asyncio.sleep(0.2)
    found = await view(lab, run)
    raise AssertionError(f"{run} has not ended within {within_s:.0f} s: {found}")


async def loaded(lab: HasClient, run: str, within_s: float = 60.0) -> tuple[int, float]:
    """Wait until load is on; return jobs that run and records a second."""
    ends = time.monotonic() + within_s
    count, at = 0, time.monotonic()
    while True:
        await asyncio.sleep(0.7)
        now, found = time.monotonic(), await view(lab, run)
        stored = await samples(lab, run)
        rate = (stored - count) / (now - at)
        running = found.counts.get("running", 0) if found else 0
        if count and running >= LEAST_RUNNING and rate >= LEAST_PER_S:
            return running, rate
        if now > ends:
            raise NoLoad(f"no load: {running} running, {rate:.0f} records/s")
        count, at = stored, now


async def samples(lab: HasClient, run: str) -> int:
    try:
        answer = await lab.client.metrics(mr.ListMetrics(run=run, key=KEY))
    except LabError:  # none has come yet
        return 0
    return sum(series.count for series in answer.series)


async def lost_and_doubled(lab: HasClient, run: str, seconds: float) -> tuple[int, int]:
    """Compare what is stored with what was said: all of a passed job, a beginning of the others."""
    passed: dict[str, int] = {}
    for job in (await lab.client.jobs(r.ListJobs(id=run))).jobs:
        if job.state == "passed" and job.attempts:
            passed[job.id] = job.attempts[-1].number
    said = mr.ListMetrics(run=run, key=KEY, stats=("sum", "max"))
    lost = doubled = 0
    found: set[str] = set()
    for series in (await lab.client.metrics(said)).series:
        whole = passed.get(series.job) == series.attempt
        most = count_of(seconds) if whole else round(float(str(series.stats["max"])))
        if whole:
            found.add(series.job)
        total = round(float(str(series.stats["sum"])))
        missing = most * (most + 1) // 2 - total
        if series.count == most and not missing:
            continue
        less, more = await _exactly(lab, run, series.job, series.attempt, most)
        lost, doubled = lost + less, doubled + more
    return lost + count_of(seconds) * len(passed.keys() - found), doubled


async def _exactly(lab: HasClient, run: str, job: str, attempt: int, most: int) -> tuple[int, int]:
    """Count each value of one job; of several attempts the page holds all, each once."""
    answer = await lab.client.series(mr.GetSeries(run=run, key=KEY, job=job))
    values = [round(value) for value in answer.value]
    doubled = max(0, len(values) - len(set(values)))
    missing = len(set(range(1, most + 1)) - set(values))
    return missing, doubled if attempt == 1 else 0
