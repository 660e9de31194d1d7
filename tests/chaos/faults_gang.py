"""Gangs: who dies while four boards are taken, and two gangs that want the same ones: F29."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from tests.chaos import load
from tests.chaos.beside import NAME, a_name, an_agent_beside
from tests.chaos.faults import Fault, Times, survivors, under_load
from tests.chaos.lab import AGENTS, ChaosLab
from tests.chaos.outcome import Bar, Once, with_more
from tshrag_common.errors import LabError
from tshrag_controller.cli import demo_lab

MEMBERS = 4
ENDS_S = 150.0


@asynccontextmanager
async def four_boards(lab: ChaosLab) -> AsyncIterator[tuple[str, ...]]:
    """Have a fourth board on a fourth agent; yield the names of all four."""
    name = a_name("ssh")
    said = await asyncio.to_thread(demo_lab.start_board, lab.processes, name, "ssh_board")
    dut = demo_lab.ssh_dut(name, said).replace('room = "demo"', f'board = "{name}"')
    try:
        async with an_agent_beside(lab, dut, name, "ssh"):
            yield (*(lab.boards[agent] for agent in AGENTS), name)
    finally:
        await asyncio.to_thread(lab.processes.leave, name)


def gang(boards: Sequence[str], *command: str) -> dict[str, Any]:
    """Return a run that has all of `boards` at once, asked for in this order."""
    return {
        "name": "gang",
        "targets": {board: load.target(board) for board in boards},
        "schedule": {"gang": {board: {"command": list(command)} for board in boards}},
    }


class Holds:
    """Looks again and again for how long some, but not all, boards of a gang are held by it."""

    def __init__(self, lab: ChaosLab, runs: Sequence[str]) -> None:
        self._lab = lab
        self._prefixes = {f"job-{run.removeprefix('run-')}-": run for run in runs}
        self.most_s = 0.0

    async def watch(self) -> None:
        since: dict[str, float] = {}
        while True:
            await asyncio.sleep(0.2)
            try:
                duts = (await self._lab.client.duts()).duts
            except LabError:
                continue
            now = time.monotonic()
            for prefix, run in self._prefixes.items():
                held = sum(dut.job.startswith(prefix) for dut in duts)
                if 0 < held < MEMBERS:
                    self.most_s = max(self.most_s, now - since.setdefault(run, now))
                else:
                    since.pop(run, None)


async def _ended(lab: ChaosLab, runs: Sequence[str]) -> tuple[list[str], float]:
    """Return how gangs ended, and the longest time that one held a part of its boards."""
    holds = Holds(lab, runs)
    watching = asyncio.get_running_loop().create_task(holds.watch())
    try:
        states = [(await load.final(lab, run, ENDS_S)).state for run in runs]
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    return states, holds.most_s


async def f29_agent(lab: ChaosLab, member: int) -> Once:
    """SIGKILL the agent of one member while the gang takes its boards; 1 s later it is back."""
    async with four_boards(lab) as boards:
        name = (*AGENTS, NAME)[member - 1]
        runs: list[str] = []

        async def happen(lab: ChaosLab) -> Times:
            runs.append(await load.submit(lab, gang(boards, "sleep", "2")))
            await asyncio.sleep(random.uniform(0.0, 0.15))  # all is assigned in no time
            lab.processes.kill(name)
            await asyncio.sleep(1.0)
            lab.start_agent(name)
            at = time.monotonic()
            states, partial_s = await _ended(lab, runs)
            if states != ["passed"]:
                raise AssertionError(f"the gang ended as {states}")
            return {"gang ended": time.monotonic() - at, "partial": partial_s}

        return await _under_load(lab, f"F29 agent {member}", happen, runs, 30.0)


async def f29_controller(lab: ChaosLab, member: int) -> Once:
    """SIGKILL the controller as it is about to send the start of member k of the gang."""
    async with four_boards(lab) as boards:
        runs: list[str] = []

        async def happen(lab: ChaosLab) -> Times:
            lab.processes.kill("controller")
            lab.start_controller(f"dispatch.starts:{member}:panic")
            async with lab.supervised("controller"):
                at = time.monotonic()
                runs.append(await load.submit(lab, gang(boards, "sleep", "2")))
                states, partial_s = await _ended(lab, runs)
            if states != ["passed"]:
                raise AssertionError(f"the gang ended as {states}")
            if lab.processes.extra["controller"]["TSHRAG_FAILPOINT"]:
                raise AssertionError("the start of this member was not sent")
            return {"gang ended": time.monotonic() - at, "partial": partial_s}

        return await _under_load(lab, f"F29 controller {member}", happen, runs, 30.0)


async def f29_opposite(lab: ChaosLab, pairs: int) -> Once:
    """Let gangs want the same boards in opposite order, two at a time."""
    async with four_boards(lab) as boards:
        runs: list[str] = []

        async def happen(lab: ChaosLab) -> Times:
            at, most_s = time.monotonic(), 0.0
            for _ in range(pairs):
                both = await asyncio.gather(
                    load.submit(lab, gang(boards, "true")),
                    load.submit(lab, gang(tuple(reversed(boards)), "true")),
                )
                runs.extend(both)
                states, partial_s = await _ended(lab, both)
                most_s = max(most_s, partial_s)
                if states != ["passed", "passed"]:
                    raise AssertionError(f"gangs ended as {states}")
            return {"a pair": (time.monotonic() - at) / pairs, "partial": most_s}

        once = await _under_load(lab, "F29 opposite", happen, runs, 3.0 * pairs)
        return with_more(once, counts={**once.counts, "gangs": len(runs)})


async def _under_load(lab: ChaosLab, what: str, happen: Any, runs: list[str],
                      seconds: float) -> Once:  # fmt: skip
    once = await under_load(lab, what, happen, seconds, on_boards=False)
    alive = once.counts["survivors"] + sum([await survivors(lab, run) for run in runs])
    return with_more(once, counts={**once.counts, "survivors": alive}, runs=(*once.runs, *runs))


PARTIAL = Bar("partial", 30.0)
_BARS = (PARTIAL, Bar("gang ended", 60.0))
FAULTS = (
    *(
        Fault("F29", f"gang of 4 boards, the agent of member {member} killed meanwhile",
              partial(f29_agent, member=member), _BARS, quick=0, full=5)
        for member in range(1, MEMBERS + 1)
    ),
    *(
        Fault("F29", f"gang of 4 boards, the controller killed before start {member}",
              partial(f29_controller, member=member), _BARS, quick=0, full=5)
        for member in range(1, MEMBERS + 1)
    ),
    Fault("F29", "10 pairs of gangs that want 4 boards in opposite order",
          partial(f29_opposite, pairs=10), (PARTIAL,), quick=0, full=20),
)  # fmt: skip
