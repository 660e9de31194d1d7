"""The LOG is wiped: nobody leads on by chance, ``--reseed`` restores, fences keep growing: F13.

In a lab of its own, outside the history: what it loses on purpose would be a loss of the other.
"""

import asyncio
import secrets
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos import load
from tests.chaos.beside import wrong
from tests.chaos.faults import Fault
from tests.chaos.lab import ROOT, program
from tests.chaos.outcome import Bar, Once
from tests.support.agent_process import end_shepherd
from tests.support.nats_server import NatsServer
from tests.support.process_trees import living
from tshrag_common import ids, requests as r
from tshrag_common.client import Client, open_client
from tshrag_controller.cli.processes import LabProcesses

JOBS, SLOTS, ENDED = 20, 24, 3
WIPED = ("LOG",)


class Small:
    """A controller and an agent on a server of their own."""

    def __init__(self, processes: LabProcesses, server: NatsServer, agent: str) -> None:
        self.processes, self.server, self.agent = processes, server, agent
        self.client: Client

    async def submit(self, jobs: int, *command: str) -> str:
        document: dict[str, Any] = {
            "name": "seed",
            "schedule": {"parallel": [{"command": list(command), "timeout": "300s"}] * jobs},
        }
        run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
        asked = r.Submit(run=run, profile=msgspec.Raw(msgspec.json.encode(document)))
        # not by client.submit, which would note in the history what this lab is to lose
        return (await self.client.ask("submit", asked, r.SubmitAnswer)).run

    async def fences(self, run: str) -> list[int]:
        jobs = (await self.client.jobs(r.ListJobs(id=run))).jobs
        return [attempt.fence for job in jobs for attempt in job.attempts]

    async def state(self, run: str) -> tuple[str, str]:
        view = (await self.client.run(run)).run
        return view.state, view.reason.partition(":")[0]

    async def ended(self, run: str, within_s: float = 90.0) -> str:
        return (await load.final(self, run, within_s)).state  # type: ignore[arg-type]

    async def running(self, run: str, jobs: int) -> None:
        ends = time.monotonic() + 60.0
        while time.monotonic() < ends:
            if (await self.client.run(run)).run.counts.get("running") == jobs:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"not {jobs} jobs of {run} are running")

    def controller(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """Run the controller's program to its end, which it must come to by itself."""
        config = str(self.processes.state / "controller.toml")
        argv = program("tshrag_controller.daemon", "--config", config, *more)
        environment = self.processes._environment
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
            env=environment,
        )  # fmt: skip


@asynccontextmanager
async def a_small_lab() -> AsyncIterator[Small]:
    with tempfile.TemporaryDirectory(prefix="tshrag-log-", ignore_cleanup_errors=True) as name:
        server = NatsServer(Path(name) / "nats")
        await asyncio.to_thread(server.start)
        environment = {"TSHRAG_NATS_URL": server.url, "TSHRAG_TEST_MODE": ""}
        processes = LabProcesses(Path(name) / "lab", environment)
        processes.state.mkdir()
        lab = Small(processes, server, f"seed-{secrets.token_hex(3)}")
        try:
            await asyncio.to_thread(processes.start_controller)
            await processes.wait_ready()
            await asyncio.to_thread(processes.start_agent, lab.agent, "", SLOTS)
            await processes.wait_agents(1)
            async with open_client(processes.bundle.url, name="log") as client:
                lab.client = client
                yield lab
        finally:
            await asyncio.to_thread(processes.stop)
            end_shepherd(processes.state / "agents" / lab.agent / "store")
            await asyncio.to_thread(server.stop)


async def f13_log(_lab: object) -> Once:
    """Delete the LOG while 20 jobs run and the controller is away."""
    async with a_small_lab() as lab:
        before = [await lab.submit(1, "true") for _ in range(ENDED)]
        for run in before:
            wrong("a run", await lab.ended(run), "passed")
        mark = f"TSHRAG_SEED={secrets.token_hex(6)}"
        alive = await lab.submit(JOBS, "env", mark, "sleep", "250")
        await lab.running(alive, JOBS)
        fences = await _all_fences(lab, [*before, alive])
        lab.processes.kill("controller")
        for stream in WIPED:
            await lab.client.bus.request(f"$JS.API.STREAM.DELETE.{stream}", b"", 10)
        refused = await asyncio.to_thread(lab.controller)
        is_refused = refused.returncode == 2 and "log_behind_projection" in refused.stderr
        wrong(f"a controller without its LOG says {refused.stderr[-200:]}", is_refused, True)
        at = time.monotonic()
        seeded = await asyncio.to_thread(lab.controller, "--reseed")
        wrong(f"reseed, {seeded.stderr[-200:]}", seeded.returncode, 0)
        lab.processes.start(
            "controller", "tshrag_controller.daemon", "--config",
            str(lab.processes.state / "controller.toml"),
        )  # fmt: skip
        await lab.processes.wait_ready()
        answers = time.monotonic() - at
        lost = [run for run in before if await lab.state(run) != ("passed", "")]
        wrong("the run that was alive", await lab.state(alive), ("error", "log_lost"))
        dead = await _dead(mark, at)
        after = await lab.submit(JOBS, "true")
        wrong("a run afterwards", await lab.ended(after), "passed")
        resume = time.monotonic() - at
        newer = await _all_fences(lab, [after])
    counts = {"lost": len(lost), "wrong": int(min(newer) <= max(fences))}
    times = {"answers": answers, "tree dead": dead, "resume": resume}
    return Once(running=JOBS, times=times, counts=counts)


async def _all_fences(lab: Small, runs: Sequence[str]) -> list[int]:
    return [fence for run in runs for fence in await lab.fences(run)]


async def _dead(mark: str, at: float, within_s: float = 60.0) -> float:
    """Return when nothing of the lost run lives on the host any more."""
    while time.monotonic() < at + within_s:
        if not living(mark):
            return time.monotonic() - at
        await asyncio.sleep(0.2)
    raise AssertionError(f"processes of a lost run live on for {within_s:g} s")


FAULTS = (
    Fault("F13", "the LOG wiped, 20 jobs running; --reseed", f13_log,
          (Bar("resume", 60.0), Bar("tree dead", 60.0)), quick=0, full=5),
)  # fmt: skip
