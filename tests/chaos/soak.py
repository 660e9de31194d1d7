"""``make soak HOURS=24``: short jobs without end, a fault every minute; does anything grow? F33.

    python -m tests.chaos.soak HOURS [--out FOLDER]

One agent is killed again and again. Controller, server and the two other agents are only frozen
and cut off, so that they live through all of it: of them memory and descriptors are taken every
10 s. The slope is that of the straight line which fits best, without the first fifth; a soak of
less than an hour says what it is and judges nothing by it.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos import load
from tests.chaos.beside import rss_mib
from tests.chaos.lab import AGENTS, ChaosLab, a_chaos_lab
from tests.chaos.net import can_partition
from tshrag_common import history

FAULT_EVERY_S = 60.0
LOOK_EVERY_S = 10.0
JOBS, SAMPLES = 40, 5
BAR_PERCENT_H = 1.0
SCRIPT = "i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo ::metric chaos.n $i; sleep 0.05; done"


class Look(NamedTuple):
    """What a process used at an instant."""

    at_h: float
    rss_mib: float
    descriptors: int


class Slope(NamedTuple):
    """How a figure of a process grew."""

    mean: float
    percent_h: float


class Soak:
    """One soak; `run` is its life."""

    def __init__(self, lab: ChaosLab, hours: float) -> None:
        self._lab, self._hours = lab, hours
        self._began = time.monotonic()
        self._chance = random.Random(33)
        self.looks: dict[str, list[Look]] = {}
        self.jobs = self.faults = self.lost = self.doubled = 0
        self.broken: list[str] = []

    @property
    def _is_over(self) -> bool:
        return time.monotonic() - self._began > self._hours * 3600

    async def run(self) -> None:
        helpers = [asyncio.ensure_future(work()) for work in (self._look, self._befall)]
        try:
            while not self._is_over:
                await self._one_run()
                if any(helper.done() for helper in helpers):
                    break  # it has failed: say so below
        finally:
            for helper in helpers:
                helper.cancel()
            ends = await asyncio.gather(*helpers, return_exceptions=True)
        self.broken += [repr(end) for end in ends if isinstance(end, Exception)]

    async def _one_run(self) -> None:
        command = {"command": ["sh", "-c", SCRIPT.format(count=SAMPLES)], "timeout": "60s"}
        document: dict[str, Any] = {"name": "soak", "schedule": {"parallel": [command] * JOBS}}
        run = await load.submit(self._lab, document)
        view = await load.final(self._lab, run, 600.0)
        self.jobs += JOBS
        if view.state != "passed":
            self.broken.append(f"{run} ended as {view.state}: {view.reason[:120]}")
        lost, doubled = await load.lost_and_doubled(self._lab, run, SAMPLES * load.PERIOD_S)
        self.lost, self.doubled = self.lost + lost, self.doubled + doubled

    async def _look(self) -> None:
        while True:
            at_h = (time.monotonic() - self._began) / 3600
            pids = {name: self._lab.processes.pid(name) for name in ("controller", *AGENTS[1:])}
            for name, pid in {**pids, "nats-server": self._lab.server.pid}.items():
                found = Look(at_h, rss_mib(pid), len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208
                self.looks.setdefault(name, []).append(found)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _befall(self) -> None:
        ways = [self._kill, self._freeze_agent, self._freeze_controller, self._freeze_server]
        if AGENTS[2] in self._lab.processes.hosts:
            ways.append(self._cut_off)
        while True:
            await asyncio.sleep(FAULT_EVERY_S)
            await self._chance.choice(ways)()
            self.faults += 1

    async def _kill(self) -> None:
        self._lab.processes.kill(AGENTS[0])
        await asyncio.sleep(self._chance.uniform(0.1, 3.0))
        self._lab.start_agent(AGENTS[0])

    async def _freeze_agent(self) -> None:
        await self._frozen(AGENTS[1], 8.0)

    async def _freeze_controller(self) -> None:
        await self._frozen("controller", 3.0)

    async def _frozen(self, name: str, for_s: float) -> None:
        self._lab.processes.signal(name, signal.SIGSTOP)
        await asyncio.sleep(for_s)
        self._lab.processes.signal(name, signal.SIGCONT)

    async def _freeze_server(self) -> None:
        self._lab.server.freeze()
        await asyncio.sleep(3.0)
        self._lab.server.thaw()

    async def _cut_off(self) -> None:
        host = self._lab.processes.hosts[AGENTS[2]]
        await asyncio.to_thread(host.swallow, "both")
        await asyncio.sleep(10.0)
        await asyncio.to_thread(host.heal)


def slope(values: Sequence[tuple[float, float]]) -> Slope:
    """Return the slope of the line that fits (hours, value) best, as percent of the mean."""
    kept = list(values)[len(values) // 5 :]
    if len(kept) < 3:
        return Slope(kept[-1][1] if kept else 0.0, 0.0)
    mean_x = sum(x for x, _ in kept) / len(kept)
    mean = sum(y for _, y in kept) / len(kept)
    square = sum((x - mean_x) ** 2 for x, _ in kept)
    rise = sum((x - mean_x) * (y - mean) for x, y in kept) / square if square else 0.0
    return Slope(mean, 100 * rise / mean if mean else 0.0)


def table(soak: Soak, hours: float) -> tuple[str, bool]:
    """Return the table, and whether every bar is met."""
    lines = ["| process | RSS, MiB | slope, %/h | descriptors | slope, %/h | |",
             "|---|---:|---:|---:|---:|---|"]  # fmt: skip
    well = not (soak.lost or soak.doubled or soak.broken)
    for name, looks in soak.looks.items():
        rss = slope([(look.at_h, look.rss_mib) for look in looks])
        files = slope([(look.at_h, float(look.descriptors)) for look in looks])
        met = max(rss.percent_h, files.percent_h) < BAR_PERCENT_H
        said = "too short to judge" if hours < 1 else "met" if met else "**missed**"
        well = well and (met or hours < 1)
        lines.append(
            f"| {name} | {rss.mean:.1f} | {rss.percent_h:+.1f} | {files.mean:.0f} "
            f"| {files.percent_h:+.1f} | {said} |"
        )
    lines.append("")
    lines.append(
        f"{hours:g} h, {soak.jobs} jobs, {soak.faults} faults, {soak.lost} lost, "
        f"{soak.doubled} doubled, {len(soak.broken)} runs went wrong"
    )
    return "\n".join([*lines, *soak.broken[:10]]) + "\n", well


async def soaked(hours: float) -> Soak:
    async with a_chaos_lab(not can_partition()) as lab:
        soak = Soak(lab, hours)
        await soak.run()
        return soak


def conduct(hours: float, out: Path | None) -> int:
    soak = asyncio.run(soaked(hours))
    text, well = table(soak, hours)
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "soak.md").write_text(text)
        (out / "soak.json").write_text(json.dumps(soak.looks))
    return 0 if well else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("hours", type=float)
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    os.environ.pop(history.TEST_MODE, None)  # a day of history is more than a checker can read
    with tempfile.TemporaryDirectory(prefix="tshrag-soak-") as folder:
        os.environ[history.HISTORY] = folder
        return conduct(said.hours, said.out)


if __name__ == "__main__":
    raise SystemExit(main())
