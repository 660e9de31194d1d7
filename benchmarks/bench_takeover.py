"""From the end of a leader until the next one takes a run: by kill -9, frozen, and by SIGTERM.

A client submits in the same instant, and its answer is the end: nobody else knows better when a lab
is there again. The peer is the same submit while nothing happens to anybody.
"""

import asyncio
import secrets
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Figure, Scale, run_async
from tests.support.controllers import Controllers, a_document
from tests.support.nats_server import NatsServer
from tshrag_common import ids, requests as r
from tshrag_common.clock import SystemClock

PROFILE: dict[str, object] = {"name": "takeover", "schedule": {"command": ["true"]}}


def measure(scale: Scale) -> list[Figure]:
    return run_async(_measure(scale.of(12, 1)))


async def _measure(tries: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-takeover-") as folder:
        server = NatsServer(Path(folder, "nats")).start()
        both = Controllers(Path(folder), server.url)
        try:
            await both.meet()
            both.start("c0")
            await both.leader()
            both.start("c1")
            calm = [await _submit_ms(both) for _ in range(tries)]
            killed = [await _try(both, signal.SIGKILL) for _ in range(tries)]
            frozen = [await _try(both, signal.SIGSTOP) for _ in range(tries)]
            stopped = [await _try(both, signal.SIGTERM) for _ in range(tries)]
        finally:
            both.end_all()
            await both.bus.close()
            server.stop()
    return [
        _figure("takeover", "kill -9 of the leader", killed, calm, 2000.0),
        _figure("takeover-frozen", "SIGSTOP of the leader", frozen, calm, 2000.0),
        _figure("handover", "SIGTERM of the leader", stopped, calm, 500.0),
    ]


async def _try(both: Controllers, how: signal.Signals) -> float:
    """End the leader; return ms until a submit was answered; let the ended one stand by again."""
    leader = await both.leader()
    other = next(name for name in ("c0", "c1") if name != leader)
    await both.stands_by(other)
    began = time.perf_counter()
    both.signal(leader, how)
    await _submit_ms(both)
    took_ms = 1e3 * (time.perf_counter() - began)
    if how is signal.SIGSTOP:
        both.processes[leader].kill()
    await asyncio.to_thread(both.processes.pop(leader).wait)
    both.start(leader)
    await both.stands_by(leader)
    return took_ms


async def _submit_ms(both: Controllers) -> float:
    run = ids.new_run(SystemClock().now() // 1000, secrets.randbits(80))
    began = time.perf_counter()
    await both.client.submit(r.Submit(run=run, profile=a_document(PROFILE), park=True))
    return 1e3 * (time.perf_counter() - began)


def _figure(
    name: str, what: str, took: Sequence[float], calm: Sequence[float], aim: float
) -> Figure:
    value, limit = max(took), max(calm)
    return Figure(
        name=name,
        what=f"{what} until the next one has taken a run, worst of {len(took)}",
        unit="ms",
        value=round(value, 1),
        limit=round(limit, 1),
        limit_is="a submit while nothing happens, worst of as many",
        ratio=round(value / limit, 2),
        aim=aim,
        better="lower",
        values=tuple(round(each, 1) for each in took),
        limits=tuple(round(each, 1) for each in calm),
        facts={"p50": round(sorted(took)[len(took) // 2], 1)},
    )
