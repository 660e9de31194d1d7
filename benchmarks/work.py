"""Runs to measure with: many equal jobs, submitted and awaited as any client would."""

import asyncio
import json
import secrets
import time

import msgspec

from tshrag_common import ids, requests as r
from tshrag_common.client import Client, is_final
from tshrag_common.ids import RunId
from tshrag_common.views import RunView

TRUE: dict[str, object] = {"command": ["/bin/true"]}
_POLL_S = 0.02


def repeated(count: int, step: dict[str, object]) -> dict[str, object]:
    """Return the profile of one run of `count` jobs that may all go at once."""
    load = step.get("load")
    return {
        "name": "benchmark",
        "loads": {str(load): {"path": f"builtin:{load}"}} if load else {},
        "schedule": {"repeat": {"times": count, "parallel": True, "of": step}},
    }


def new_run() -> RunId:
    return ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))


async def submit(client: Client, profile: dict[str, object], priority: int = 50) -> RunId:
    run = new_run()
    raw = msgspec.Raw(json.dumps(profile).encode())
    await client.submit(r.Submit(run=run, profile=raw, priority=priority))
    return run


async def submitted_at(
    client: Client, profile: dict[str, object], priority: int = 50
) -> tuple[RunId, int]:
    """Submit; return the run, and when that began, in ns of the wall clock."""
    began_ns = time.time_ns()
    return await submit(client, profile, priority), began_ns


async def ended(client: Client, run: RunId, poll_s: float = _POLL_S) -> RunView:
    """Return the run once the projection has its final state."""
    while True:
        view = (await client.run(run)).run
        if is_final(view.state):
            return view
        await asyncio.sleep(poll_s)


async def done(client: Client, profile: dict[str, object]) -> RunView:
    """Submit, and return the run that must have passed."""
    view = await ended(client, await submit(client, profile))
    if view.state != "passed":
        raise AssertionError(f"{view.id} ended {view.state}: {view.reason} {view.counts}")
    return view


async def taken(client: Client, slots: int) -> None:
    """Return once so many slots are taken."""
    while True:
        if (await client.stats()).slots_taken >= slots:
            return
        await asyncio.sleep(_POLL_S)
