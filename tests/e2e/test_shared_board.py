"""A board that two hosts reach goes to the other one when the first is gone, behind its lease."""

import asyncio
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.controllers import a_document
from tests.support.served_lab import until
from tests.support.waiting import wait_until
from tshrag_common import ids, requests as r
from tshrag_common.client import open_client
from tshrag_common.clock import SystemClock
from tshrag_controller.cli import demo_lab
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("e2e")]


def a_board(lab: LabProcesses) -> str:
    """Start a board with SSH; return it as each of its hosts tells of it."""
    said = demo_lab.start_board(lab, "s1", "ssh_board")
    return demo_lab.ssh_dut("s1", said).replace('id = "s1"\n', 'id = "s1"\nshared = true\n')


def end_host(lab: LabProcesses, name: str) -> None:
    """Let a host be gone: its agent, then the shepherd that would go on without it."""
    lab.kill(name)
    store = f"{lab.state}/agents/{name}/store/agent".encode()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if store in words:
            os.kill(int(entry.name), signal.SIGKILL)


async def test_a_shared_board_is_given_again_when_its_host_is_gone(tmp_path: Path) -> None:
    lab = LabProcesses(tmp_path / "lab", {"TSHRAG_NATS_URL": ""})
    lab.state.mkdir()
    log = tmp_path / "log"
    script = f"echo $$ >> '{log}'; [ $(wc -l < '{log}') -gt 1 ] || sleep 300"
    profile = {
        "name": "shared",
        "targets": {"dut": {"runtime": "ssh"}},
        "schedule": {"sequence": [{"command": ["sh", "-c", script], "target": "dut"}]},
    }
    try:
        await asyncio.to_thread(lab.start_controller)
        await lab.wait_ready()
        board = await asyncio.to_thread(a_board, lab)
        for name in ("left", "right"):
            await asyncio.to_thread(lab.start_agent, name, board, 1)
        await lab.wait_agents(2)
        bundle = lab.bundle
        async with open_client(bundle.url, name="e2e", credentials=bundle.creds) as client:
            run = ids.new_run(SystemClock().now() // 1000, secrets.randbits(80))
            await client.submit(r.Submit(run=run, profile=a_document(profile)))

            await wait_until(log.exists, 60)
            (first,) = (await client.jobs(r.ListJobs(id=run))).jobs[0].attempts
            await asyncio.to_thread(end_host, lab, first.agent)
            gone_at = time.monotonic()

            async def is_given_again() -> bool:
                return len((await client.jobs(r.ListJobs(id=run))).jobs[0].attempts) == 2

            await until(is_given_again, 120)
            sys.stdout.write(f"given again after {time.monotonic() - gone_at:.1f} s\n")

            async def has_ended() -> bool:
                return bool((await client.run(run)).run.ended_at)

            await until(has_ended, 60)
            view = (await client.run(run)).run
            lost, second = (await client.jobs(r.ListJobs(id=run))).jobs[0].attempts
            assert view.state == "passed", view
            assert (lost.state, second.agent != first.agent) == ("lost", True)
            assert len(log.read_text().split()) == 2
    finally:
        await asyncio.to_thread(lab.stop)
