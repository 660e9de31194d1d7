"""Jobs of a gang speak to each other over real agents and a real bus, whatever dies meanwhile."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_lab import client_of, final, running, submit, when
from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_controller.cli.processes import LabProcesses

DOCS = Path(__file__).parent.parent.parent / "docs"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("gangs")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabProcesses]:
    made = LabProcesses(tmp_path_factory.mktemp("gangs") / "lab", {"TSHRAG_NATS_URL": ""})
    made.state.mkdir()
    try:
        made.start_controller("")
        asyncio.run(made.wait_ready())
        made.start_agent("west", slots=4)
        made.start_agent("east", slots=4)
        asyncio.run(made.wait_agents(2))
        yield made
    finally:
        made.stop()


def document(near: str, far: str, **more: Any) -> dict[str, Any]:
    """Return a profile of a gang over both hosts; each role is a line of shell."""
    lines = {"near": near, "far": far, **more}
    return {
        "name": "gang",
        "schedule": {"gang": {role: {"command": ["bash", "-ec", t]} for role, t in lines.items()}},
        "targets": {role: {"hosts": ["east" if role == "far" else "west"]} for role in lines},
        "limits": {"attempts": 1},
    }


async def said(client: Client, run: str) -> dict[str, str]:
    """Return what each role has said, on both streams."""
    found: dict[str, str] = {}
    for job in (await client.jobs(r.ListJobs(id=run))).jobs:
        role = job.name.rpartition(".")[2]
        texts = [
            (await client.logs(r.GetLogs(job=job.id, stream=stream))).data.decode()
            for stream in ("stdout", "stderr")
        ]
        found[role] = "".join(texts)
    return found


async def test_roles_meet_at_barriers_and_exchange_messages_over_two_hosts(
    lab: LabProcesses,
) -> None:
    near = """
        tshrag-sync send far port 5201; tshrag-sync send far port 5202
        tshrag-sync barrier up --timeout 60s
        for turn in 1 2 3; do tshrag-sync barrier turn; echo turn $turn; done
        tshrag-sync send far hello me; tshrag-sync recv done
    """
    far = """
        tshrag-sync barrier up --timeout 60s
        echo first $(tshrag-sync recv port --from near)
        tshrag-sync roles; head -c 60000 /dev/zero > big; tshrag-sync send near,third big @big
        for turn in 1 2 3; do tshrag-sync barrier turn; done
        tshrag-sync wait hello; tshrag-sync send all done "all of it"
        echo second $(tshrag-sync recv port)
    """
    third = """
        tshrag-sync send far hello "from third"
        tshrag-sync barrier up --timeout 60s; tshrag-sync recv big --to copy; wc -c < copy
        for turn in 1 2 3; do tshrag-sync barrier turn; done
    """
    body = document(near, far, third=third)
    async with client_of(lab) as client:
        run = await submit(client, body)
        view = await final(client, run)
        told = await said(client, run)
        assert view.state == "passed", (view.reason, told)
        assert told["near"].split("\n")[:4] == ["turn 1", "turn 2", "turn 3", "all of it"]
        assert "first 5201" in told["far"]
        assert "second 5202" in told["far"]
        assert "near me\nthird from third\n" in told["far"]
        assert "60000" in told["third"]
        rows = [line.split() for line in told["far"].splitlines() if "job-" in line]
        assert [row[:3] for row in rows] == [
            ["near", "here", "west"], ["far", "self", "east"], ["third", "here", "west"],
        ]  # fmt: skip


async def test_a_mate_that_is_over_breaks_the_barrier_with_its_own_exit_code(
    lab: LabProcesses,
) -> None:
    near = "tshrag-sync barrier never || { echo code $?; exit 0; }"
    async with client_of(lab) as client:
        run = await submit(client, document(near, "true"))
        assert (await final(client, run)).state == "passed"
        told = (await said(client, run))["near"]
        assert "code 4" in told
        assert "sync_mate_ended: barrier never: far has ended (passed)" in told


async def test_what_cannot_be_ends_at_once_or_in_time_and_says_why(lab: LabProcesses) -> None:
    near = """
        tshrag-sync barrier alone --timeout 300ms || echo late $?
        tshrag-sync barrier alone --timeout 0 || echo again $?
        tshrag-sync recv none --timeout 0 || echo none $?
        tshrag-sync send nobody k v || echo nobody $?
        tshrag-sync send far 'a b' v || echo name $?
        head -c 70000 /dev/zero | tshrag-sync send far k @- || echo large $?
        tshrag-sync barrier || echo usage $?
        tshrag-sync send far go on
    """
    async with client_of(lab) as client:
        run = await submit(client, document(near, "tshrag-sync recv go"))
        view = await final(client, run)
        told = (await said(client, run))["near"]
        assert view.state == "passed", told
        for code in ("late 5", "again 5", "none 5", "nobody 2", "name 2", "large 2", "usage 2"):
            assert code in told.splitlines(), told
        assert "barrier alone: far has not come" in told
        assert "there is no role 'nobody' beside near; take one of far" in told


async def test_a_cancelled_gang_ends_while_it_waits(lab: LabProcesses) -> None:
    async with client_of(lab) as client:
        run = await submit(client, document("tshrag-sync barrier x", "sleep 600"))
        await running(client, run, 2)
        await client.cancel(run)
        assert (await final(client, run, 60)).state == "cancelled"


async def test_messages_and_barriers_outlive_agents_and_the_controller(lab: LabProcesses) -> None:
    near = """
        tshrag-sync send far early 1; tshrag-sync barrier one
        echo passed one; tshrag-sync recv late; tshrag-sync barrier two
    """
    far = """
        tshrag-sync barrier one; echo passed one
        until [ -e "$TSHRAG_STORE/go-$TSHRAG_RUN_ID" ]; do sleep 0.1; done
        echo early $(tshrag-sync recv early); tshrag-sync send near late 2; tshrag-sync barrier two
    """
    async with client_of(lab) as client:
        run = await submit(client, document(near, far))
        await when(client, run, lambda view: bool(view.counts.get("running") == 2))
        await _until_said(client, run, "passed one")
        lab.kill("east")
        lab.kill("west")
        lab.kill("controller")
        lab.run_agent("west")
        lab.start_controller("")
        lab.run_agent("east")
        await asyncio.to_thread((lab.state / "agents/east/store" / f"go-{run}").touch)
        view = await final(client, run)
        told = await said(client, run)
        assert view.state == "passed", (view.reason, told)
        assert "early 1" in told["far"]
        assert "2" in told["near"].splitlines()


async def test_the_example_of_the_page_runs_as_it_stands(lab: LabProcesses) -> None:
    page = (DOCS / "how-to" / "run-on-several-boards.md").read_text()
    blocks = [json.loads(text) for text in re.findall(r"```json profile\n(.*?)```", page, re.S)]
    (example,) = (block for block in blocks if block["name"] == "throughput")
    async with client_of(lab) as client:
        run = await submit(client, example)
        view = await final(client, run)
        told = await said(client, run)
        assert view.state == "passed", told
        assert "measuring against port 5201" in told["client"]


async def test_a_role_without_the_program_is_named_at_once(lab: LabProcesses) -> None:
    body = document("tshrag-sync barrier x || echo code $?", "")
    body["loads"] = {"within": {"path": "builtin:sleep"}}
    body["schedule"]["gang"]["far"] = {"load": "within", "params": {"seconds": 600}}
    async with client_of(lab) as client:
        run = await submit(client, body)
        await when(client, run, lambda view: bool(view.counts.get("collecting")))
        job = (await client.jobs(r.ListJobs(id=run))).jobs[0]
        told = (await client.logs(r.GetLogs(job=job.id, stream="stderr"))).data.decode()
        assert "sync_deaf: barrier x: role far has no tshrag-sync" in told
        await client.cancel(run)


async def _until_said(client: Client, run: str, text: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if all(text in each for each in (await said(client, run)).values()):
                return
            await asyncio.sleep(0.2)
