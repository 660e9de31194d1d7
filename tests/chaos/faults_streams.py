"""What befalls streams and links for a while: F13, F14, F20, F30."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from tests.chaos.faults import Fault, Times, all_passed, one_attempt_each, under_load
from tests.chaos.faults_agent import RESUME
from tests.chaos.faults_bus import all_heard
from tests.chaos.lab import AGENTS, ChaosLab
from tests.chaos.net import Weather
from tests.chaos.outcome import Bar, Once

OF_AGENTS = ("EV", "MET", "LOGS")


async def _unread(lab: ChaosLab, harm: Callable[[], Awaitable[None]]) -> Times:
    """Do harm to streams while nobody reads them; agents hold all of it in their spools."""
    lab.processes.kill("controller")
    await asyncio.sleep(3.0)
    await harm()
    at = time.monotonic()
    lab.start_controller()
    return {"resume": await all_heard(lab, at)}


async def f13_wipe(lab: ChaosLab) -> Once:
    """Wipe what the streams of agents hold, before anybody has read it."""

    async def wipe() -> None:
        for stream in OF_AGENTS:
            await lab.client.bus.request(f"$JS.API.STREAM.PURGE.{stream}", b"", 10)

    async def happen(lab: ChaosLab) -> Times:
        return await _unread(lab, wipe)

    return await under_load(lab, "F13", happen, 12.0, judge=one_attempt_each)


async def f14_damage(lab: ChaosLab) -> Once:
    """Flip bits in the files of the streams of agents while the server is down."""
    chance = random.Random(time.time_ns())
    hit = 0

    async def damage() -> None:
        nonlocal hit
        await asyncio.to_thread(lab.server.kill9)
        hit = await asyncio.to_thread(_flip, lab.server.folder / "js", chance)
        await asyncio.to_thread(lab.server.start)

    async def happen(lab: ChaosLab) -> Times:
        return await _unread(lab, damage)

    once = await under_load(lab, "F14", happen, 14.0, judge=all_passed)
    counts = {**once.counts, "files hit": hit, "wrong": int(not hit)}
    return Once(running=once.running, per_s=once.per_s, times=once.times, counts=counts,
                broken=once.broken, runs=once.runs)  # fmt: skip


def _flip(store: Path, chance: random.Random) -> int:
    """Change a byte in the newest block of each stream of agents; return how many there were."""
    hit = 0
    for stream in OF_AGENTS:
        blocks = [path for path in store.rglob(f"{stream}/msgs/*.blk") if path.stat().st_size]
        for path in sorted(blocks, key=lambda path: path.stat().st_mtime)[-1:]:
            data = bytearray(path.read_bytes())
            data[chance.randrange(len(data) // 2, len(data))] ^= 0x10
            path.write_bytes(bytes(data))
            hit += 1
    return hit


async def f20_weather(lab: ChaosLab, weather: Weather, bad_s: float) -> Once:
    """Let the link of an agent be slow or lossy for a while; nobody may be lost for it."""
    name = AGENTS[0]
    host = lab.processes.hosts[name]

    async def happen(lab: ChaosLab) -> Times:
        at = time.monotonic()
        await asyncio.to_thread(host.worsen, weather)
        try:
            await asyncio.sleep(bad_s)
        finally:
            await asyncio.to_thread(host.heal)
        lost = [line for line in lab.since(at, "agent_moved") if line["cause"] == "lose"]
        if lost:
            raise AssertionError(f"an agent was lost for {weather}: {lost[0]['agent']}")
        return {"resume": await all_heard(lab, time.monotonic())}

    what = f"F20 {weather} {bad_s:g} s"
    return await under_load(lab, what, happen, bad_s + 15, judge=one_attempt_each)


async def f30_storm(lab: ChaosLab, for_s: float) -> Once:
    """Restart everything in random order, every few seconds."""
    chance = random.Random(time.time_ns())

    async def happen(lab: ChaosLab) -> Times:
        ends = time.monotonic() + for_s
        restarts = 0
        while time.monotonic() < ends:
            victim = chance.choice([*AGENTS, "controller", "server"])
            if victim == "server":
                await asyncio.to_thread(lab.server.restart)
            else:
                lab.processes.kill(victim)
                await asyncio.sleep(chance.uniform(0.1, 1.0))
                lab.start_controller() if victim == "controller" else lab.start_agent(victim)
            restarts += 1
            await asyncio.sleep(chance.uniform(1.0, 4.0))
        return {"resume": await all_heard(lab, time.monotonic())}

    return await under_load(lab, f"F30 {for_s:g} s", happen, for_s + 10, judge=all_ended)


async def all_ended(_lab: ChaosLab, _run: str) -> list[str]:
    """Ask nothing of the verdict: a board whose agent dies four times uses up its attempts."""
    return []


FAULTS = (
    Fault("F13", "EV, MET, LOGS wiped before they were read", f13_wipe, (Bar("resume", 60.0),),
          quick=0, full=5),
    Fault("F14", "a bit flipped in a block of EV, MET, LOGS", f14_damage, (Bar("resume", 60.0),),
          quick=0, full=10),
    *(
        Fault("F20", f"{weather} on the link of an agent, 20 s",
              partial(f20_weather, weather=weather, bad_s=20.0), (RESUME,), quick=0, full=3,
              partitions=True)
        for weather in ("256 kbit/s", "5 % loss")
    ),
    Fault("F30", "agents, controller, server restarted at random, 60 s",
          partial(f30_storm, for_s=60.0), (Bar("resume", 60.0),), quick=0, full=5),
)  # fmt: skip
