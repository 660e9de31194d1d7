"""Clocks that jump, storms, races, garbage, and jobs that nobody wants: F18, F21 to F23, F28."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from tests.chaos import load
from tests.chaos.faults import Fault, Times, one_attempt_each, survivors, under_load
from tests.chaos.faults_agent import heard_again
from tests.chaos.lab import AGENTS, ChaosLab
from tests.chaos.outcome import Bar, Once
from tests.chaos.recorded import at_s
from tshrag_common import history, requests as r, subjects
from tshrag_common.errors import LabError
from tshrag_common.ids import AgentId

FAKETIME = next(map(str, Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")
JUMPS = ("+3600", "-3600", "+86400", "-86400")


async def f18_clocks(lab: ChaosLab, name: str) -> Once:
    """Let the wall clock of one process jump back and forth while jobs run."""
    if not FAKETIME:
        raise AssertionError("no libfaketime: apt-get install libfaketime")
    stamp = lab.folder / f"clock-{name}"
    await asyncio.to_thread(stamp.write_text, "+0")
    faked = {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_CACHE_DURATION": "1",  # without any, each look at the clock opens the file
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "1",  # or the locks of threads wait for too long
    }
    await _restart(lab, name, faked)

    async def happen(lab: ChaosLab) -> Times:
        at = time.monotonic()
        for jump in JUMPS:
            await asyncio.to_thread(stamp.write_text, jump)
            await asyncio.sleep(2.0)
        await asyncio.to_thread(stamp.write_text, "+0")
        doubted = [line for line in lab.since(at, "agent_moved") if line["cause"] != "beat"]
        if doubted:
            raise AssertionError(f"a jump of the clock changed a state: {doubted}")
        return {}

    try:
        return await under_load(lab, f"F18 {name}", happen, 12.0, judge=one_attempt_each)
    finally:
        await _restart(lab, name, {})


async def _restart(lab: ChaosLab, name: str, environment: dict[str, str]) -> None:
    """Start a process again, in order, with something added to its environment."""
    lab.processes.kill(name)
    if name == "controller":
        lab.start_controller(environment=environment)
    else:
        url = lab.processes.extra[name]["TSHRAG_NATS_URL"]
        lab.processes.extra[name] = {"TSHRAG_NATS_URL": url, **environment}
        at = time.monotonic()
        lab.processes.run_agent(name)
        # shown as online it is all the while; one that begins late never has 20 jobs beside others
        await heard_again(lab, name, at)
    await lab.online()


async def f21_cancels(lab: ChaosLab) -> Once:
    """Cancel 1,000 waiting jobs and 50 running ones at once."""
    await asyncio.to_thread(lab.processes.start_agent, "delta", "", 50 - 24)
    await lab.processes.wait_agents(len(AGENTS) + 1)
    job = {"command": ["sh", "-c", "trap '' TERM; sleep 300 & sleep 300"]}
    document = {"name": "storm", "schedule": {"parallel": [job] * 1050}}
    run = await load.submit(lab, document)
    ends = time.monotonic() + 60.0
    running = 0
    while running < 50 and time.monotonic() < ends:
        found = await load.view(lab, run)
        running = found.counts.get("running", 0) if found else 0
        await asyncio.sleep(0.2)
    at = time.monotonic()
    await lab.client.cancel(run, wait_s=20.0)
    ended = await load.final(lab, run, 60.0)
    times = {"cancelled": time.monotonic() - at}
    alive = await survivors(lab, run, 10.0)
    times["dead"] = time.monotonic() - at
    broken = []
    if ended.counts != {"cancelled": 1050}:
        broken.append(f"jobs ended as {ended.counts}")
    await asyncio.to_thread(lab.processes.leave, "delta")
    return Once(
        running=running,
        times=times,
        counts={"survivors": alive, "wrong": int(running < 50)},
        broken=tuple(broken),
        runs=(run,),
    )


async def cancel_trees(lab: ChaosLab) -> Once:
    """Cancel a run whose jobs have children, daemons and one that is deaf; what lives on?"""
    run = await load.submit(lab, load.profile(60.0))
    await load.loaded(lab, run)
    at = time.monotonic()
    await lab.client.cancel(run, wait_s=15.0)
    await load.final(lab, run, 60.0)
    alive = await survivors(lab, run)
    times = {"dead": time.monotonic() - at}
    return Once(times=times, counts={"survivors": alive}, runs=(run,))


async def cap_output(lab: ChaosLab) -> Once:
    """Let a job say three times as much as may be kept of it; how much that is sees the checker."""
    says = {"command": ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"], "timeout": "30s"}
    run = await load.submit(lab, {"name": "cap", "limits": {"output": "1MiB"}, "schedule": says})
    ended = await load.final(lab, run, 60.0)
    broken = [] if ended.state == "passed" else [f"it ended as {ended.state}: {ended.reason[:80]}"]
    return Once(counts={"survivors": await survivors(lab, run)}, broken=tuple(broken), runs=(run,))


async def f22_races(lab: ChaosLab, races: int) -> Once:
    """Let cancels and completions meet at every place, with pauses of 0 to 20 ms there."""
    points = ("engine.decided", "engine.appended", "dispatch.sent")
    slow = ("intake.journaled", "attempt.cleanup", "attempt.ended", "attempt.told")
    lab.processes.kill("controller")
    lab.start_controller(",".join(f"{point}:jitter=20" for point in points))
    lab.processes.kill(AGENTS[0])
    lab.start_agent(AGENTS[0], ",".join(f"{point}:jitter=20" for point in slow))
    await lab.online()
    job = {"command": ["sleep", "0.2"]}
    document = {"name": "races", "schedule": {"parallel": [job] * races}}
    run = await load.submit(lab, document)
    broken: list[str] = []

    async with asyncio.TaskGroup() as group:
        for serial in range(1, races + 1, 2):
            group.create_task(_race(lab, run, serial, broken))
    ended = await load.final(lab, run, 120.0)
    if sum(ended.counts.values()) != races or set(ended.counts) - {"passed", "cancelled"}:
        broken.append(f"jobs ended as {ended.counts}")
    alive = await survivors(lab, run)
    for name in ("controller", AGENTS[0]):
        await _restart(lab, name, {})
    counts = {"survivors": alive, "races": races // 2, **ended.counts}
    return Once(counts=counts, broken=tuple(broken[:3]), runs=(run,))


async def _race(lab: ChaosLab, run: str, serial: int, broken: list[str]) -> None:
    """Cancel a job at any moment around its end."""
    name = f"job-{run.removeprefix('run-')}-{serial:03d}"
    while True:
        await asyncio.sleep(random.uniform(0, 0.3))
        found = (await lab.client.jobs(r.ListJobs(id=name))).jobs[0]
        if found.attempts or is_final_job(found.state):
            break
    try:
        await lab.client.cancel(name, wait_s=0.0)
    except LabError as error:
        if error.code != "already_final":
            broken.append(error.line)


def is_final_job(state: str) -> bool:
    return state in ("passed", "failed", "error", "timeout", "cancelled", "expired", "skipped")


async def f28_garbage(lab: ChaosLab, messages: int) -> Once:
    """Publish what nobody can read on every subject of an agent; all of it is set aside."""
    agent = AgentId(AGENTS[1])
    before = (await lab.client.health()).counters["set_aside"]
    chance = random.Random(4242)

    async def happen(lab: ChaosLab) -> Times:
        at = time.monotonic()
        for number in range(messages):
            kind: Any = ("ev", "met", "logs", "hb")[number % 4]
            data = _garbage(chance, number)
            history.note("garbage", subject=kind, sha=history.digest_of([data]))
            await lab.client.bus.publish(subjects.said(agent, kind), data)
            if number % 200 == 0:
                await lab.client.bus.settled()
        ends = time.monotonic() + 60.0
        while time.monotonic() < ends:
            aside = (await lab.client.health()).counters["set_aside"] - before
            if aside >= messages:
                return {"set aside": time.monotonic() - at}
            await asyncio.sleep(0.2)
        raise AssertionError(f"{aside} of {messages} were set aside")

    once = await under_load(lab, "F28", happen, judge=one_attempt_each)
    aside = (await lab.client.health()).counters["set_aside"] - before
    counts = {**once.counts, "garbage": messages, "wrong": int(aside != messages)}
    return Once(running=once.running, per_s=once.per_s, times=once.times, counts=counts,
                broken=once.broken, runs=once.runs)  # fmt: skip


def _garbage(chance: random.Random, number: int) -> bytes:
    """Return bytes that are no message: random ones, cut ones, text, nothing."""
    whole = b'\x01{"agent":"alpha","spool":"s","first_seq":1}'
    kinds = (
        b"",
        chance.randbytes(1 + number % 300),
        whole[: number % len(whole)],
        b"\x01" + chance.randbytes(40),
        b"A" * 4000,
        "\N{SNOWMAN}\x1b]52;c;AAAA\x07".encode(),
    )
    return kinds[number % len(kinds)]


BOMB = (
    "n=0; while [ $n -lt 60 ]; do n=$((n+1)); "
    "(while :; do (sleep 0.1 & sleep 0.1 & wait) & sleep 0.1; done) & done; sleep 3"
)
"""60 shells that fork for ever, and no more: a boundless one would be others' machine. That bound
is `limits` of a job, which tests/agent/shepherd hold.
"""
NASTY: dict[str, tuple[str, str]] = {
    "a log without end": ("yes | head -c 200000000", "passed"),
    "a line of a megabyte": ("head -c 1000000 /dev/zero | tr '\\0' x; echo", "passed"),
    "binary": ("head -c 300000 /dev/urandom", "passed"),
    "10,000 files": ("i=0; while [ $i -lt 10000 ]; do i=$((i+1)); : >f$i; done", "passed"),
    "a daemon left behind": ("setsid sleep 3000 & sleep 0.1", "passed"),
    "output closed": ("exec >&- 2>&-; sleep 1", "passed"),
    "a fork bomb": (BOMB, "passed"),
    "stops itself": ("kill -STOP $$; true", "timeout"),
}


async def f23_nasty(lab: ChaosLab) -> Once:
    """Run what nobody wants beside the load; the load must not notice."""
    runs: list[tuple[str, str, str]] = []

    async def happen(lab: ChaosLab) -> Times:
        at = time.monotonic()
        for what, (script, state) in NASTY.items():
            job = {"command": ["sh", "-c", script], "timeout": "20s"}
            runs.append((what, state, await load.submit(lab, {"name": "x", "schedule": job})))
        await asyncio.sleep(12.0)
        return {"samples late": _latest(lab, at)}

    once = await under_load(lab, "F23", happen, 20.0, judge=one_attempt_each)
    broken = list(once.broken)
    alive = once.counts["survivors"]
    for what, state, run in runs:
        ended = await load.final(lab, run, 120.0)
        if state and ended.state != state:
            broken.append(f"{what} ended as {ended.state}, not {state}: {ended.reason[:80]}")
        alive += await survivors(lab, run)
    counts = {**once.counts, "survivors": alive}
    every = (*once.runs, *(run for _, _, run in runs))
    return Once(running=once.running, per_s=once.per_s, times=once.times, counts=counts,
                broken=tuple(broken), runs=every)  # fmt: skip


def _latest(lab: ChaosLab, at: float) -> float:
    """Return the longest time in which nothing of an agent was stored, since an instant."""
    last = dict.fromkeys(AGENTS, at)
    most = 0.0
    for line in lab.since(at, "stored"):
        agent = str(line["agent"])
        most, last[agent] = max(most, at_s(line) - last.get(agent, at)), at_s(line)
    return most


async def _clock_of_controller(lab: ChaosLab) -> Once:
    return await f18_clocks(lab, "controller")


async def _clock_of_agent(lab: ChaosLab) -> Once:
    return await f18_clocks(lab, AGENTS[2])


async def _few_races(lab: ChaosLab) -> Once:
    return await f22_races(lab, 200)


async def _many_races(lab: ChaosLab) -> Once:
    return await f22_races(lab, 2000)


async def _some_garbage(lab: ChaosLab) -> Once:
    return await f28_garbage(lab, 2000)


async def _much_garbage(lab: ChaosLab) -> Once:
    return await f28_garbage(lab, 10_000)


DEAD = Bar("dead", 10.0)
FAULTS = (
    Fault("F18", "wall clock of the controller +-1 h, +-1 day", _clock_of_controller, full=10),
    Fault("F18", "wall clock of an agent +-1 h, +-1 day", _clock_of_agent, full=10),
    Fault("F21", "cancel 1,000 waiting and 50 running", f21_cancels, (DEAD,), full=5),
    Fault("cancel", "cancel 24 trees that resist", cancel_trees, (DEAD,), quick=0),
    Fault("cap", "3 MB of output where 1 MiB is kept", cap_output, full=3),
    Fault("F22", "100 cancels race completions, pauses 0-20 ms", _few_races, full=0),
    Fault("F22", "1,000 cancels race completions, pauses 0-20 ms", _many_races, quick=0, full=2),
    Fault("F23", "jobs that nobody wants", f23_nasty, (Bar("samples late", 5.0),), quick=0,
          full=1),
    Fault("F28", "2,000 messages of garbage", _some_garbage, full=0),
    Fault("F28", "10,000 messages of garbage", _much_garbage, quick=0, full=3),
)  # fmt: skip
