"""An agent beside the load, with a board of its own: what befalls them must harm nobody else."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.chaos import load
from tests.chaos.faults import Judge, Times, one_attempt_each, survivors, under_load
from tests.chaos.lab import AGENTS, ChaosLab
from tests.chaos.outcome import Bar, Once, with_more
from tshrag_common import requests as r
from tshrag_common.errors import LabError
from tshrag_common.intent_requests import SetIntent
from tshrag_common.views import AttemptView, DutView, RunView

NAME = "delta"
LIMIT_S = 120.0
RSS = Bar("RSS +MiB", 64.0)
"""What an agent may grow by, whatever a board says."""


class Beside:
    """The agent, its board, and the runs that were given to it."""

    def __init__(self, lab: ChaosLab, board: str, runtime: str) -> None:
        self.lab, self.board, self._runtime = lab, board, runtime
        self.runs: list[str] = []
        self._rss = 0.0
        self._most = 0.0
        self._watching: asyncio.Task[None] | None = None

    async def submit(self, script: str, **more: object) -> str:
        """Submit a job for the board; return its run."""
        job = {"command": ["sh", "-c", script], "target": self.board, "timeout": "60s", **more}
        target = {"runtime": self._runtime, "labels": {"board": self.board}}
        document: dict[str, Any] = {"name": "beside", "targets": {self.board: target}}
        run = await load.submit(self.lab, {**document, "schedule": job})
        self.runs.append(run)
        return run

    async def submit_on_host(self, script: str) -> str:
        """Submit a job for the host of this agent; return its run."""
        host = {"hosts": [NAME], "runtime": "host"}
        document: dict[str, Any] = {
            "name": "beside",
            "targets": {"here": host},
            "schedule": {"command": ["sh", "-c", script], "target": "here", "timeout": "60s"},
        }
        run = await load.submit(self.lab, document)
        self.runs.append(run)
        return run

    async def lines(self, run: str) -> int:
        """Return how many lines of a job are stored."""
        job = (await self.lab.client.jobs(r.ListJobs(id=run))).jobs[0].id
        return (await self.lab.client.logs(r.GetLogs(job=job))).data.count(b"\n")

    async def said(self, run: str, text: bytes) -> None:
        """Return when the job has said `text`: it is running before the board has heard of it."""
        job = (await self.lab.client.jobs(r.ListJobs(id=run))).jobs[0].id
        ends = time.monotonic() + LIMIT_S
        while time.monotonic() < ends:
            with contextlib.suppress(LabError):  # nothing has come yet
                if text in (await self.lab.client.logs(r.GetLogs(job=job))).data:
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{run} has not said {text!a}: {_told(await self.attempts(run))}")

    async def attempts(self, run: str) -> Sequence[AttemptView]:
        return (await self.lab.client.jobs(r.ListJobs(id=run))).jobs[0].attempts

    async def ended(self, run: str) -> tuple[str, list[str]]:
        """Return how a run ended, and the code of each of its attempts; empty: passed."""
        view: RunView = await load.final(self.lab, run, LIMIT_S)
        return view.state, _told(await self.attempts(run))

    async def coded(self, run: str, attempt: int = 1) -> str:
        """Return the code of an attempt as soon as it is over."""
        ends = time.monotonic() + LIMIT_S
        while time.monotonic() < ends:
            found = await self.attempts(run)
            if len(found) >= attempt and found[attempt - 1].outcome:
                return _told(found)[attempt - 1]
            await asyncio.sleep(0.1)
        raise AssertionError(f"attempt {attempt} of {run} is not over: {_told(found)}")

    async def dut(self) -> DutView:
        duts = (await self.lab.client.duts()).duts
        return next(each for each in duts if each.dut.id == self.board)

    async def back(self) -> None:
        """Say, as a person who has looked, that the board is well."""
        asked = SetIntent(kind="dut", names=(self.board,), what="in_service", reason="looked")
        await self.lab.client.set_intent(asked)

    async def marked(self, reason: str, within_s: float = 60.0) -> float:
        """Return how long it takes until the board is out of service for such a reason."""
        began = time.monotonic()
        while time.monotonic() < began + within_s:
            if reason in (await self.dut()).faulty:
                return time.monotonic() - began
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.board} is not faulty for {reason}: {await self.dut()}")

    # what the agent uses meanwhile

    async def watch_memory(self) -> None:
        self._rss = self._most = rss_mib(self.lab.processes.pid(NAME))
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            self._most = max(self._most, rss_mib(self.lab.processes.pid(NAME)))
            await asyncio.sleep(0.1)

    async def grown_mib(self) -> float:
        """Return by how much the agent had grown at most since `watch_memory`."""
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.wait([self._watching])
        return self._most - self._rss


def _told(attempts: Sequence[AttemptView]) -> list[str]:
    codes = [each.error.code if each.error else "" for each in attempts]
    return [code or each.outcome for code, each in zip(codes, attempts, strict=True)]


def rss_mib(pid: int) -> float:
    """Return how much memory a process holds; 0: it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((line for line in text.splitlines() if line.startswith("VmRSS")), "x 0")
    return int(line.split()[1]) / 1024


@asynccontextmanager
async def an_agent_beside(
    lab: ChaosLab, dut: str, board: str, runtime: str
) -> AsyncIterator[Beside]:
    """Start an agent that has `dut` (the table of ``agent.toml``); end it in order."""
    await asyncio.to_thread(lab.processes.start_agent, NAME, dut, 2)
    try:
        await lab.processes.wait_agents(len(AGENTS) + 1)
        yield Beside(lab, board, runtime)
    finally:
        if not lab.processes.has_ended(NAME):
            await asyncio.to_thread(lab.processes.leave, NAME)


def a_name(kind: str) -> str:
    return f"b-{kind}-{secrets.token_hex(3)}"


async def befall(lab: ChaosLab, what: str, beside: Beside, *, seconds: float = 9.0,
                 happen: Any, judge: Judge = one_attempt_each) -> Once:  # fmt: skip
    """Let something happen to the board beside the load; the load must not notice."""

    async def both(_lab: ChaosLab) -> Times:
        await beside.watch_memory()
        try:
            times: Times = await happen()
        finally:
            grown = await beside.grown_mib()
        return {**times, RSS.name: grown}

    once = await under_load(lab, what, both, seconds, judge=judge)
    alive = once.counts["survivors"] + sum([await survivors(lab, run) for run in beside.runs])
    counts = {**once.counts, "survivors": alive}
    return with_more(once, counts=counts, runs=(*once.runs, *beside.runs))


def wrong(what: str, found: object, *right: object) -> None:
    """Hold what came of it against what is right."""
    if found not in right:
        raise AssertionError(f"{what}: {found}, not {' or '.join(map(str, right))}")
