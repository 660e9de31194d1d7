"""Links that are slow, trickle, or are reset again and again, through our own TCP proxy: F20."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.chaos.faults import Fault, Times, one_attempt_each, under_load
from tests.chaos.faults_agent import RESUME, heard_again
from tests.chaos.faults_bus import all_heard
from tests.chaos.lab import AGENTS, ROOT, ChaosLab
from tests.chaos.outcome import Once, with_more

RESET_S = 20.0


class Link:
    """The way of an agent to the bus, through a proxy."""

    def __init__(self, *argv: str) -> None:
        program = [sys.executable, "-m", "tests.chaos.proxy", *argv]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, cwd=ROOT)
        self.port = self._line()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """End the proxy; return how many connections it has carried."""
        self._process.terminate()
        said = self._process.communicate()[0].split()
        return int(said[-1]) if said else 0


@asynccontextmanager
async def through_a_proxy(lab: ChaosLab, name: str, *options: str) -> AsyncIterator[list[int]]:
    """Lead an agent to the bus through a proxy; yield where the number of connections will be."""
    host = lab.processes.hosts.get(name)
    near = host.gateway if host else "127.0.0.1"
    link = await asyncio.to_thread(Link, near, str(lab.server.port), *options)
    config = lab.processes.state / "agents" / name / "agent.toml"
    extra = lab.processes.extra[name]
    before, url = await asyncio.to_thread(config.read_text), extra["TSHRAG_NATS_URL"]
    carried: list[int] = []
    try:
        await _moved(lab, name, f"nats://{near}:{link.port}", before.replace(
            f'url = "{url}"', f'url = "nats://{near}:{link.port}"'))  # fmt: skip
        yield carried
    finally:
        carried.append(await asyncio.to_thread(link.end))
        await _moved(lab, name, url, before)


async def _moved(lab: ChaosLab, name: str, url: str, config: str) -> None:
    """Let an agent reach the bus by another address from now on."""
    path = lab.processes.state / "agents" / name / "agent.toml"
    await asyncio.to_thread(path.write_text, config)
    lab.processes.extra[name]["TSHRAG_NATS_URL"] = url
    lab.processes.kill(name)
    at = time.monotonic()
    lab.start_agent(name)
    await heard_again(lab, name, at)


async def f20_link(lab: ChaosLab, options: tuple[str, ...], bad_s: float) -> Once:
    """Let the link of an agent be bad while jobs run; nobody may be lost for it."""
    name = AGENTS[0]
    async with through_a_proxy(lab, name, *options) as carried:

        async def happen(lab: ChaosLab) -> Times:
            at = time.monotonic()
            await asyncio.sleep(bad_s)
            moved = [line for line in lab.since(at, "agent_moved") if line["cause"] == "lose"]
            if moved:
                raise AssertionError(f"an agent was lost: {moved[0]['agent']}")
            return {"resume": await all_heard(lab, time.monotonic())}

        what = f"F20 {' '.join(options)} {bad_s:g} s"
        once = await under_load(lab, what, happen, bad_s + 15, judge=one_attempt_each)
    resets = bad_s / RESET_S if "--reset-s" in options else 0
    stormy = carried[0] > 3 * resets + 6  # the hello, its reconnects, and room for a drill's own
    counts = {**once.counts, "connections": carried[0], "wrong": int(stormy)}
    return with_more(once, counts=counts)


_WEATHER: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("200+-100 ms each way", ("--delay-ms", "200", "--jitter-ms", "100"), 30.0),
    ("a trickle of single bytes, 8 kB/s", ("--trickle", "8000"), 30.0),
    (f"RST every {RESET_S:g} s", ("--reset-s", f"{RESET_S:g}"), 65.0),
)
FAULTS = tuple(
    Fault("F20", f"{what}, link of an agent, {bad_s:g} s",
          partial(f20_link, options=options, bad_s=bad_s), (RESUME,), quick=0, full=3)
    for what, options, bad_s in _WEATHER
)  # fmt: skip
