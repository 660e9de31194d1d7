"""Credentials that are revoked, expire, or are exchanged under a connected agent: F34.

In a lab of its own, whose broker has accounts: the other one is a plain server.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos import load
from tests.chaos.beside import a_name, wrong
from tests.chaos.faults import Fault
from tests.chaos.outcome import Bar, Once
from tests.support.agent_process import end_shepherd
from tests.support.command_line import run_cli
from tshrag_common import requests as r
from tshrag_common.client import Client, is_final, open_client
from tshrag_common.errors import LabError
from tshrag_common.keys import Bundle, Key, issue, parse_creds, read_bundle, write_secret
from tshrag_common.labkeys import load_lab
from tshrag_controller.cli.processes import LabProcesses

EXPIRES_S = 6
_CLEAR = ("creds_denied", "credentials refused", "authentication expired", "revoked")


class KeyLab:
    """A lab with accounts, one agent, and a job that runs on it."""

    def __init__(self, processes: LabProcesses, client: Client, agent: str) -> None:
        self.processes, self.client, self.agent = processes, client, agent
        self.run = ""

    @property
    def bundle(self) -> Path:
        return self.processes.state / "agents" / self.agent / "bundle.json"

    async def begin(self, seconds: float) -> None:
        """Start a job, and return when it runs."""
        document: dict[str, Any] = {
            "name": "keys",
            "schedule": {"command": ["sleep", str(seconds)]},
        }
        self.run = await load.submit(self, document)
        await self.until(lambda view: view.counts.get("running", 0) == 1)

    async def until(self, holds: Callable[[Any], bool], within_s: float = 90.0) -> Any:
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            try:
                view = (await self.client.run(self.run)).run
            except LabError:
                continue
            if holds(view):
                return view
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.run}: {view}")

    async def passed_at_once(self) -> None:
        """Hold that the job passed, in one attempt, whatever befell the credentials."""
        view = await self.until(lambda view: is_final(view.state))
        attempts = (await self.client.jobs(r.ListJobs(id=self.run))).jobs[0].attempts
        wrong("the job", (view.state, len(attempts)), ("passed", 1))

    async def told(self, at: float, within_s: float = 60.0) -> float:
        """Return when the agent's log says clearly what is the matter."""
        log = self.processes.log_of(self.agent)
        begin = self._log_began
        while time.monotonic() < at + within_s:
            text = log.read_text(errors="replace")[begin:].lower()
            if any(word in text for word in _CLEAR):
                return time.monotonic() - at
            await asyncio.sleep(0.1)
        raise AssertionError(f"the agent says nothing for {within_s:g} s")

    def mark_log(self) -> None:
        self._log_began = len(self.processes.log_of(self.agent).read_text(errors="replace"))

    async def command(self, *words: str) -> None:
        done = await asyncio.to_thread(lambda: run_cli(*words, state=self.processes.state))
        wrong(" ".join(words), done.returncode, 0)

    async def renewed(self) -> float:
        """Put good credentials in their place; return when the agent is there with them.

        Nobody starts it: its process must have stayed.
        """
        process = self.processes._processes[self.agent]
        out = ("--out", str(self.bundle))
        await self.command("agent", "enroll", self.agent, *out)
        at, since = time.monotonic(), time.time_ns() // 1000
        while time.monotonic() < at + 60.0:
            wrong("the agent has ended", process.poll(), None)
            agents = (await self.client.agents()).agents
            if any(each.facts.agent == self.agent and each.heard_at > since for each in agents):
                return time.monotonic() - at
            await asyncio.sleep(0.1)
        raise AssertionError("the agent is not there after 60 s")


@asynccontextmanager
async def a_lab_with_accounts() -> AsyncIterator[KeyLab]:
    with tempfile.TemporaryDirectory(prefix="tshrag-keys-", ignore_cleanup_errors=True) as name:
        processes = LabProcesses(Path(name) / "lab", {"TSHRAG_NATS_URL": ""})
        processes.state.mkdir()
        agent = a_name("keys")
        try:
            await asyncio.to_thread(processes.start_controller)
            await processes.wait_ready()
            await asyncio.to_thread(processes.start_agent, agent, "", 2)
            await processes.wait_agents(1)
            bundle = processes.bundle
            async with open_client(bundle.url, name="keys", credentials=bundle.creds) as client:
                yield KeyLab(processes, client, agent)
        finally:
            await asyncio.to_thread(processes.stop)
            end_shepherd(processes.state / "agents" / agent / "store")


async def f34_revoked(_lab: object) -> Once:
    """Revoke an agent while its job runs; with new credentials it goes on with that job."""
    async with a_lab_with_accounts() as lab:
        await lab.begin(45.0)
        lab.mark_log()
        at = time.monotonic()
        await lab.command("agent", "revoke", lab.agent)
        told = await lab.told(at)
        back = await lab.renewed()
        await lab.passed_at_once()
    return Once(times={"told": told, "back": back}, runs=(lab.run,))


async def f34_expired(_lab: object) -> Once:
    """Let an agent's credentials expire while it is connected and its job runs."""
    async with a_lab_with_accounts() as lab:
        await lab.begin(60.0)
        lab.mark_log()
        short = await asyncio.to_thread(_expiring, lab.processes.state, lab.bundle)
        await asyncio.to_thread(write_secret, lab.bundle, short.encoded())
        await _taken(lab)
        at = time.monotonic() + EXPIRES_S - 3.0  # the file is looked at every 3 s
        told = await lab.told(at)
        back = await lab.renewed()
        await lab.passed_at_once()
    return Once(times={"told": told, "back": back}, runs=(lab.run,))


async def _taken(lab: KeyLab) -> None:
    log = lab.processes.log_of(lab.agent)
    ends = time.monotonic() + 30.0
    while "the credentials were exchanged" not in log.read_text(errors="replace"):
        wrong("exchanged", time.monotonic() < ends, True)
        await asyncio.sleep(0.1)


def _expiring(state: Path, path: Path) -> Bundle:
    """Return the bundle of an agent with a JWT that is good for a few seconds."""
    keys, bundle = load_lab(state / "keys.json"), read_bundle(path)
    creds = parse_creds(bundle.creds)
    claims: dict[str, object] = {
        "type": "user",
        "issuer_account": Key(keys.agents_account).public,
    }
    expires = int(time.time()) + EXPIRES_S
    key = Key(creds.seed)
    jwt = issue(Key(keys.agent_role), key.public, creds.name, claims, expires)
    text = msgspec.structs.replace(creds, jwt=jwt).text
    return msgspec.structs.replace(bundle, creds=text)


async def f34_exchanged(_lab: object) -> Once:
    """Exchange an agent's credentials, and revoke the old ones, while its job runs."""
    async with a_lab_with_accounts() as lab:
        await lab.begin(15.0)
        at = time.monotonic()
        await lab.command("agent", "rotate", lab.agent, "--out", str(lab.bundle))
        await _taken(lab)
        taken = time.monotonic() - at
        await lab.command("agent", "rotate", lab.agent, "--finish")
        await lab.passed_at_once()
    return Once(times={"taken": taken}, runs=(lab.run,))


TOLD = Bar("told", 15.0)
FAULTS = (
    Fault("F34", "credentials of an agent revoked", f34_revoked, (TOLD,), quick=0, full=5),
    Fault("F34", "credentials of an agent expire", f34_expired, (TOLD,), quick=0, full=5),
    Fault("F34", "credentials of an agent exchanged", f34_exchanged, quick=0, full=5),
)
