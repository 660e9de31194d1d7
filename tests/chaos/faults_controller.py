"""Faults of the controller: F6 and the failpoints of all processes."""

import asyncio
import hashlib
import os
import signal
import time
from functools import partial

from tests.chaos import load
from tests.chaos.faults import Fault, Times, one_attempt_each, survivors, under_load
from tests.chaos.faults_agent import RESUME
from tests.chaos.lab import AGENTS, FIRST, SECOND, ChaosLab
from tests.chaos.outcome import Bar, Once
from tshrag_common import requests as r
from tshrag_common.errors import LabError, Unavailable
from tshrag_common.failpoints import FAILPOINTS, Failpoint
from tshrag_common.sources.upload import upload


async def f6_kill(lab: ChaosLab, away_s: float) -> Once:
    """SIGKILL the controller under load, and start it again."""

    async def happen(lab: ChaosLab) -> Times:
        lab.processes.kill("controller")
        await asyncio.sleep(away_s)
        at = time.monotonic()
        lab.start_controller()
        return {"resume": await _assigns_again(lab, at)}

    seconds = max(9.0, away_s + 6)
    return await under_load(lab, f"F6 {away_s:g} s", happen, seconds, judge=one_attempt_each)


async def _assigns_again(lab: ChaosLab, at: float, within_s: float = 60.0) -> float:
    """Return how long it takes until a controller leads and answers."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if lab.since(at, "leads"):
            await lab.client.health()
            return time.monotonic() - at
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody leads within {within_s} s")


async def f6_takeover(lab: ChaosLab) -> Once:
    """SIGKILL the leader while a standby is there."""

    async def happen(lab: ChaosLab) -> Times:
        lab.processes.kill("controller")
        return {"takeover": await lab.roles(leader=SECOND, standby="")}

    async with lab.two_controllers():
        return await under_load(lab, "F6 with a standby", happen, judge=one_attempt_each)


async def f6_handover(lab: ChaosLab) -> Once:
    """SIGTERM the leader while a standby is there."""

    async def happen(lab: ChaosLab) -> Times:
        lab.processes.signal("controller", signal.SIGTERM)
        return {"handover": await lab.roles(leader=SECOND, standby="")}

    async with lab.two_controllers():
        return await under_load(lab, "F6 in order", happen, judge=one_attempt_each)


async def f7_freeze(lab: ChaosLab, frozen_s: float) -> Once:
    """SIGSTOP the leader, and let it go on when the other one has led for a while."""

    async def happen(lab: ChaosLab) -> Times:
        lab.processes.signal("controller", signal.SIGSTOP)
        at = time.monotonic()
        taken = await lab.roles(leader=SECOND, standby="")
        await asyncio.sleep(max(0.0, frozen_s - (time.monotonic() - at)))
        lab.processes.signal("controller", signal.SIGCONT)
        return {"takeover": taken}

    async with lab.two_controllers(), lab.supervised("controller"):
        seconds = max(9.0, frozen_s + 6)
        return await under_load(lab, f"F7 {frozen_s:g} s", happen, seconds, judge=one_attempt_each)


async def f5_hole(lab: ChaosLab, dark_s: float) -> Once:
    """Swallow all between the leader and the bus, which the agents and the standby see."""
    host = lab.processes.hosts[SECOND]

    async def happen(lab: ChaosLab) -> Times:
        await asyncio.to_thread(host.swallow, "both")
        at = time.monotonic()
        taken = await lab.roles(leader=FIRST, standby="")
        await asyncio.sleep(max(0.0, dark_s - (time.monotonic() - at)))
        await asyncio.to_thread(host.heal)
        return {"takeover": taken}

    async with lab.two_controllers(), lab.supervised("controller", SECOND):
        lab.processes.signal("controller", signal.SIGTERM)
        await lab.roles(leader=SECOND, standby=FIRST)
        seconds = max(9.0, dark_s + 6)
        return await under_load(lab, f"F5 {dark_s:g} s", happen, seconds, judge=one_attempt_each)


OF_CONTROLLER = ("engine.", "pen.", "dispatch.", "projecting.", "ingest.", "checkpoint.", "blobs.")


def where(point: Failpoint) -> str:
    """Return which process passes by a failpoint: the controller, or an agent with its shepherd."""
    return "controller" if point.startswith(OF_CONTROLLER) else AGENTS[0]


async def panic(lab: ChaosLab, point: Failpoint) -> Once:
    """Let a process die at a failpoint while jobs start, run, end and are cancelled; and go on."""
    name = where(point)
    is_shepherd = point.startswith("shepherd.")
    if name == "controller":
        lab.processes.signal(name, signal.SIGTERM)
        await asyncio.to_thread(lab.processes._processes[name].wait, 30)
        await asyncio.sleep(0.1)
        lab.start_controller(f"{point}:{1 if point in AT_ONCE else 3}:panic")
    else:
        lab.processes.kill(name)
        if is_shepherd:
            lab.kill_shepherd(name)
        lab.start_agent(name, f"{point}:{1 if point in AT_ONCE else 2}:panic")
    broken: list[str] = []
    at = time.monotonic()
    async with lab.supervised(*(() if is_shepherd else (name,))):
        quick = {"command": ["sh", "-c", "echo ::metric chaos.n 1; sleep 0.3"]}
        document = {"name": "points", "schedule": {"parallel": [quick] * 24}}
        long = {"name": "cancelled", "schedule": {"parallel": [{"command": ["sleep", "60"]}] * 6}}
        runs = [await load.submit(lab, document), await load.submit(lab, long)]
        await load.final(lab, runs[0], 150.0)
        await _enough_for(lab, point)
        cancelled = await _cancel(lab, runs[1])
        states = [(await load.final(lab, run, 60.0)).state for run in runs]
        if states != ["passed", "cancelled"] or not cancelled:
            broken.append(f"{point}: runs ended as {states}")
        if not is_shepherd and not await _passed(lab, name):
            broken.append(f"{point}: it was not passed")
        await lab.online()
    if lab.processes.extra[name].get("TSHRAG_FAILPOINT"):
        lab.processes.kill(name)
        lab.start_controller() if name == "controller" else lab.start_agent(name)
        await lab.online()
    counts = {"survivors": sum([await survivors(lab, run) for run in runs])}
    times = {"all ended": time.monotonic() - at}
    return Once(times=times, counts=counts, broken=tuple(broken), runs=tuple(runs))


async def _enough_for(lab: ChaosLab, point: Failpoint) -> None:
    """Do what makes the controller pass by a place that plain jobs do not lead to."""
    if point == "blobs.piece":
        path = lab.folder / "blob"
        data = os.urandom(3 << 20)
        await asyncio.to_thread(path.write_bytes, data)
        await upload(path, hashlib.sha256(data).hexdigest(), partial(_put, lab))
    if point == "checkpoint.stored":
        await _passed(lab, "controller", 40)


async def _passed(lab: ChaosLab, name: str, tries: int = 10) -> bool:
    """Let jobs come until a process has died at its failpoint; some wait for a beat, or many."""
    for _ in range(tries):
        if not lab.processes.extra[name].get("TSHRAG_FAILPOINT"):
            return True
        nop = {"name": "nop", "schedule": {"parallel": [{"command": "true"}] * 8}}
        await load.final(lab, await load.submit(lab, nop), 60.0)
    return False


async def _put(lab: ChaosLab, digest: str, offset: int, total: int, data: bytes) -> int:
    """Hand in a piece, as one does who tries again until there is an answer."""
    asked = r.BlobPut(digest=digest, offset=offset, total=total, data=data)
    for _ in range(100):
        try:
            return (await lab.client.blob_put(asked)).stored
        except Unavailable:
            await asyncio.sleep(0.2)
    raise AssertionError("the upload does not get on")


async def _cancel(lab: ChaosLab, run: str) -> bool:
    for _ in range(50):
        try:
            await lab.client.cancel(run, wait_s=15.0)
            return True
        except LabError as error:
            if not error.retryable:
                return error.code == "already_final"
            await asyncio.sleep(0.3)
    return False


QUICK: tuple[Failpoint, ...] = ("engine.appended", "journal.after_fsync", "shepherd.spawned")
SMOKE: tuple[Failpoint, ...] = ("engine.decided",)
AT_ONCE: tuple[Failpoint, ...] = (
    "recover.found",
    "checkpoint.stored",
    "blobs.piece",
    "intake.before_fence",
    "intake.journaled",
    "beat.answered",
)
"""Passed so seldom that a process dies at the first passage."""
TAKEOVER = Bar("takeover", 2.0)
FAULTS = (
    Fault("F5", "black hole leader - bus 10 s, a standby is there", partial(f5_hole, dark_s=10.0),
          partitions=True),
    Fault("F5", "black hole leader - bus 60 s, a standby is there", partial(f5_hole, dark_s=60.0),
          quick=0, full=5, partitions=True),
    Fault("F6", "SIGKILL leader, a standby is there", f6_takeover, (TAKEOVER,)),
    Fault("F6", "SIGTERM leader, a standby is there", f6_handover, (Bar("handover", 0.5),)),
    Fault("F7", "SIGSTOP leader 10 s, a standby is there", partial(f7_freeze, frozen_s=10.0)),
    Fault("F7", "SIGSTOP leader 60 s, a standby is there", partial(f7_freeze, frozen_s=60.0),
          quick=0, full=5),
    Fault("F6", "SIGKILL controller, back after 1 s", partial(f6_kill, away_s=1.0), (RESUME,)),
    Fault("F6", "SIGKILL controller, back after 30 s", partial(f6_kill, away_s=30.0), (RESUME,),
          quick=0, full=10),
    Fault("F6", "SIGKILL controller, back after 120 s", partial(f6_kill, away_s=120.0), (RESUME,),
          quick=0, full=2),
    *(
        Fault("panic", f"at {point}", partial(panic, point=point), smoke=int(point in SMOKE),
              quick=int(point in QUICK), full=2)
        for point in FAILPOINTS
    ),
)  # fmt: skip
