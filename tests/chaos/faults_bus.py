"""Faults of the bus: F8, F9, F15, F17."""

import asyncio
import time
from functools import partial

import msgspec

from tests.chaos.faults import Fault, Times, one_attempt_each, under_load
from tests.chaos.faults_agent import RESUME
from tests.chaos.lab import AGENTS, ChaosLab
from tests.chaos.outcome import Bar, Once


async def f8_kill(lab: ChaosLab, away_s: float) -> Once:
    """SIGKILL the server, and start it again."""

    async def happen(lab: ChaosLab) -> Times:
        await asyncio.to_thread(lab.server.kill9)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(lab.server.start)
        at = time.monotonic()
        return {"resume": await all_heard(lab, at)}

    seconds = max(9.0, away_s + 6)
    return await under_load(lab, f"F8 {away_s:g} s", happen, seconds, judge=one_attempt_each)


async def f9_freeze(lab: ChaosLab, frozen_s: float) -> Once:
    """SIGSTOP the server, then let it go on."""

    async def happen(lab: ChaosLab) -> Times:
        lab.server.freeze()
        await asyncio.sleep(frozen_s)
        lab.server.thaw()
        return {"resume": await all_heard(lab, time.monotonic())}

    seconds = max(9.0, frozen_s + 6)
    return await under_load(lab, f"F9 {frozen_s:g} s", happen, seconds, judge=one_attempt_each)


async def all_heard(lab: ChaosLab, at: float, within_s: float = 90.0) -> float:
    """Return when samples of every agent were stored again."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        first: dict[str, float] = {}
        for line in lab.since(at, "stored"):
            first.setdefault(str(line["agent"]), int(line["mono_ns"]) / 1e9 - at)
        if len(first) == len(AGENTS):
            return max(first.values())
        await asyncio.sleep(0.2)
    raise AssertionError(f"not everybody was heard again within {within_s} s")


async def f15_replay(lab: ChaosLab) -> Once:
    """Cut an agent off for longer than the server remembers message ids; then it sends again.

    The window is made one second long, the cut is one way only: what the agent sent is stored,
    the acknowledgement is lost, and the same message comes a second time.
    """
    name = AGENTS[0]
    host = lab.processes.hosts[name]
    before = {stream: await _window(lab, stream, 1_000_000_000) for stream in ("EV", "MET", "LOGS")}

    async def happen(lab: ChaosLab) -> Times:
        await asyncio.to_thread(host.swallow, "from-bus")
        await asyncio.sleep(9.0)
        await asyncio.to_thread(host.heal)
        return {"resume": await all_heard(lab, time.monotonic())}

    try:
        return await under_load(lab, "F15", happen, 16.0, judge=one_attempt_each)
    finally:
        for stream, window in before.items():
            await _window(lab, stream, window)


async def _window(lab: ChaosLab, stream: str, nanoseconds: int) -> int:
    """Set how long a stream remembers ids; return what it was."""
    config = await config_of(lab, stream)
    before = int(str(config["duplicate_window"]))
    await change(lab, {**config, "duplicate_window": nanoseconds})
    return before


async def config_of(lab: ChaosLab, stream: str) -> dict[str, object]:
    answer = await lab.client.bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5)
    config: dict[str, object] = msgspec.json.decode(answer.data)["config"]
    return config


async def change(lab: ChaosLab, config: dict[str, object]) -> None:
    subject = f"$JS.API.STREAM.UPDATE.{config['name']}"
    answer = await lab.client.bus.request(subject, msgspec.json.encode(config), 5)
    error = msgspec.json.decode(answer.data).get("error")
    if error:
        raise AssertionError(f"{config['name']} was not changed: {error}")


async def f17_full_stream(lab: ChaosLab) -> Once:
    """Let the streams of samples and reports be full for 6 s; agents keep what they have."""
    whole = {stream: await config_of(lab, stream) for stream in ("MET", "EV")}

    async def happen(lab: ChaosLab) -> Times:
        for config in whole.values():
            await change(lab, {**config, "max_bytes": 2048})
        await asyncio.sleep(6.0)
        for config in whole.values():
            await change(lab, config)
        return {"resume": await all_heard(lab, time.monotonic())}

    return await under_load(lab, "F17", happen, 14.0, judge=one_attempt_each)


AFTER_UP = Bar("resume", 5.0)
FAULTS = (
    Fault("F8", "SIGKILL nats-server, back after 1 s", partial(f8_kill, away_s=1.0), (AFTER_UP,)),
    Fault("F8", "SIGKILL nats-server, back after 30 s", partial(f8_kill, away_s=30.0), (AFTER_UP,),
          quick=0, full=10),
    Fault("F8", "SIGKILL nats-server, back after 300 s", partial(f8_kill, away_s=300.0),
          (AFTER_UP,), quick=0, full=1),
    Fault("F9", "SIGSTOP nats-server 2 s", partial(f9_freeze, frozen_s=2.0), (RESUME,)),
    Fault("F9", "SIGSTOP nats-server 30 s", partial(f9_freeze, frozen_s=30.0), (RESUME,), quick=0,
          full=10),
    Fault("F9", "SIGSTOP nats-server 120 s", partial(f9_freeze, frozen_s=120.0), (RESUME,),
          quick=0, full=2),
    Fault("F15", "replay behind the dedup window", f15_replay, (RESUME,), full=5,
          partitions=True),
    Fault("F17", "max_bytes of EV and MET reached for 6 s", f17_full_stream, (RESUME,), full=5),
)  # fmt: skip
