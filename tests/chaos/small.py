"""A small lab of its own for what would harm the large one: a controller, an agent, a broker."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos import load
from tests.chaos.images import a_small_disk
from tests.chaos.lab import ROOT, ChaosProcesses, program
from tests.support.agent_process import end_shepherd
from tests.support.nats_server import NatsServer
from tshrag_common import history, ids, requests as r
from tshrag_common.client import Client, open_client

SLOTS = 24


class Small:
    """A controller and an agent on a server of their own."""

    def __init__(self, processes: ChaosProcesses, agent: str) -> None:
        self.processes, self.agent = processes, agent
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
        return (await load.final(self, run, within_s)).state

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


def _own_history() -> dict[str, str]:
    folder = Path(os.environ[history.HISTORY], f"small-{secrets.token_hex(3)}")
    folder.mkdir()
    return {history.HISTORY: str(folder)}


@asynccontextmanager
async def a_small_lab(
    *,
    recorded: bool,
    embedded: bool = False,
    config: str = "",
    nats_mib: int = 0,
    of: Mapping[str, Mapping[str, str]] | None = None,
) -> AsyncIterator[Small]:
    """Have one; `embedded`: the broker is the controller's own, on a disk of `nats_mib`.

    `of`: what the environments of "controller" and "agent" have more. What is not `recorded` is
    no part of the histories that the checker reads; what is has one of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="tshrag-small-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        environment = _own_history() if recorded else {"TSHRAG_TEST_MODE": ""}
        server = NatsServer(folder / "nats")
        if not embedded:
            await asyncio.to_thread(server.start)
            stack.callback(server.stop)
        processes = ChaosProcesses(folder / "lab", {"TSHRAG_NATS_URL": server.url, **environment})
        processes.state.mkdir()
        if nats_mib:
            stack.enter_context(a_small_disk(processes.state / "nats" / "js", nats_mib))
        lab = Small(processes, f"small-{secrets.token_hex(3)}")
        for name, more in (of or {}).items():
            processes.extra[lab.agent if name == "agent" else name] = dict(more)
        try:
            await asyncio.to_thread(processes.start_controller, config)
            await processes.wait_ready()
            await asyncio.to_thread(processes.start_agent, lab.agent, "", SLOTS)
            await processes.wait_agents(1)
            bundle = processes.bundle
            credentials = bundle.creds or None
            async with open_client(bundle.url, name="small", credentials=credentials) as client:
                lab.client = client
                yield lab
        finally:
            await asyncio.to_thread(processes.stop)
            await asyncio.to_thread(_keep_logs, processes, lab.agent)
            end_shepherd(processes.state / "agents" / lab.agent / "store")


def _keep_logs(processes: ChaosProcesses, name: str) -> None:
    """Keep what the processes said beside the history: a miss is looked into afterwards."""
    kept = Path(os.environ[history.HISTORY]) / "log" / name
    shutil.copytree(processes.state / "log", kept, dirs_exist_ok=True)
