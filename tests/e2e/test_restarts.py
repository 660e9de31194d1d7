"""A lab that is stopped in order and started again, more often than once, goes on."""

import asyncio
import json
import secrets
import time
from pathlib import Path

import msgspec
import pytest

from tshrag_common import ids, requests as r
from tshrag_common.client import open_client
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.xdist_group("e2e")]

PROFILE = {"name": "again", "schedule": {"command": "echo '::metric again::n 1'"}}


async def passes(lab: LabProcesses) -> str:
    """Run one job with a sample to its end."""
    bundle = lab.bundle
    run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
    async with open_client(bundle.url, name="e2e", credentials=bundle.creds or None) as client:
        await client.submit(r.Submit(run=run, profile=msgspec.Raw(json.dumps(PROFILE).encode())))
        async for _news in client.watch(run):
            pass
        return (await client.run(run)).run.state


async def test_a_lab_starts_a_third_time(tmp_path: Path) -> None:
    state = tmp_path / "lab"
    state.mkdir()
    for _ in range(3):
        lab = LabProcesses(state, {"TSHRAG_NATS_URL": ""})
        try:
            await asyncio.to_thread(lab.start_controller)
            await lab.wait_ready()
            await asyncio.to_thread(lab.start_agent, "rack", "", 1)
            await lab.wait_agents(1)
            assert await passes(lab) == "passed"
        finally:
            await asyncio.to_thread(lab.stop)
