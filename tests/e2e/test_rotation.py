"""Credentials, seals and the key of the controller are exchanged while a lab works."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.command_line import run_cli
from tests.support.waiting import wait_until
from tshrag_common import ids, requests as r
from tshrag_common.client import Client, is_final, open_client
from tshrag_common.views import RunView
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("e2e")]


@asynccontextmanager
async def client_of(lab: LabProcesses) -> AsyncIterator[Client]:
    bundle = lab.bundle
    async with open_client(bundle.url, name="e2e", credentials=bundle.creds or None) as client:
        yield client


async def submit(client: Client, *argv: str) -> str:
    run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
    profile = {"name": "turn", "schedule": {"command": list(argv)}}
    body = msgspec.Raw(json.dumps(profile).encode())
    return (await client.submit(r.Submit(run=run, profile=body))).run


async def final(client: Client, run: str) -> RunView:
    async with asyncio.timeout(90):
        while True:
            view = (await client.run(run)).run
            if is_final(view.state):
                return view
            await asyncio.sleep(0.1)


def said(lab: LabProcesses, name: str, phrase: str) -> int:
    return lab.log_of(name).read_text(errors="replace").count(phrase)


def command(lab: LabProcesses, *words: str) -> None:
    done = run_cli(*words, state=lab.state)
    assert done.returncode == 0, done.stderr


async def rotated(lab: LabProcesses, bundle: Path, count: int) -> None:
    """Exchange the file of the agent, and wait until it has taken it."""
    await asyncio.to_thread(command, lab, "agent", "rotate", "rack", "--out", str(bundle))
    await wait_until(lambda: said(lab, "rack", "the credentials were exchanged") >= count, 60)


async def test_all_keys_are_exchanged_under_a_running_job(lab: LabProcesses) -> None:
    lab.start_controller()
    await lab.wait_ready()
    lab.start_agent("rack", slots=4)
    await lab.wait_agents(1)
    bundle = next(lab.state.rglob("rack/bundle.json"))
    before = bundle.read_bytes()
    async with client_of(lab) as client:
        pid = (await client.agents()).agents[0].facts.pid
        long = await submit(client, "sh", "-c", "for i in $(seq 25); do echo $i; sleep 1; done")
        await rotated(lab, bundle, 1)
        assert bundle.read_bytes() != before
        assert (await final(client, await submit(client, "true"))).state == "passed"
        await asyncio.to_thread(command, lab, "agent", "rotate", "rack", "--finish")
        assert (await final(client, await submit(client, "true"))).state == "passed"
        await asyncio.to_thread(command, lab, "keys", "rotate")
        await rotated(lab, bundle, 2)
        await asyncio.to_thread(command, lab, "keys", "rotate", "--finish")
        assert (await final(client, await submit(client, "true"))).state == "passed"
        assert (await final(client, long)).state == "passed"
        jobs = (await client.jobs(r.ListJobs(id=long))).jobs
        assert [len(job.attempts) for job in jobs] == [1]
        assert (await client.agents()).agents[0].facts.pid == pid, "nothing was restarted"
        # and what was issued first is of no use any more
        first = msgspec.json.decode(before, type=dict[str, Any])
        with pytest.raises(Exception, match="credentials"):
            async with open_client(
                first["url"], name="x", credentials=first["creds"], within_s=2
            ) as stale:
                await stale.health()
