"""Real processes: from a profile to a verdict, on real NATS, real SSH, a real serial line."""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.nats_server import NatsServer
from tshrag_common import ids, metric_requests as mr, requests as r
from tshrag_common.client import Client, is_final, open_client
from tshrag_common.documents import read_document
from tshrag_common.errors import LabError, Unavailable
from tshrag_common.views import RunView
from tshrag_controller.cli import demo_lab
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("e2e")]

SAMPLES = 600


async def start(lab: LabProcesses, *, ssh: bool = False, serial: bool = False) -> None:
    rewrite = await asyncio.to_thread(demo_lab.make_repository, lab.state / "repositories")
    lab.start_controller(rewrite)
    duts = ""
    if ssh:
        name = f"ssh-{secrets.token_hex(4)}"
        said = await asyncio.to_thread(demo_lab.start_board, lab, name, "ssh_board")
        duts += demo_lab.ssh_dut(name, said)
    if serial:
        name = f"serial-{secrets.token_hex(4)}"
        options = ("--password", "letmein")
        said = await asyncio.to_thread(demo_lab.start_board, lab, name, "serial_board", *options)
        password = lab.state / "password"
        password.write_text("letmein")
        password.chmod(0o600)
        duts += demo_lab.serial_dut(name, said, password)
    await lab.wait_ready()
    lab.start_agent("rack", duts, slots=4)
    await lab.wait_agents(1)


@asynccontextmanager
async def client_of(lab: LabProcesses) -> AsyncIterator[Client]:
    bundle = lab.bundle
    async with open_client(bundle.url, name="e2e", credentials=bundle.creds or None) as client:
        yield client


def profile(text: str = demo_lab.EXAMPLE, **more: object) -> dict[str, Any]:
    data = read_document(text.encode(), "example.json").data
    assert isinstance(data, dict)
    return {**data, **more}


async def submit(client: Client, document: dict[str, Any], priority: int = 50) -> str:
    run = ids.new_run(time.time_ns() // 1_000_000, secrets.randbits(80))
    body = msgspec.Raw(json.dumps(document).encode())
    return (await client.submit(r.Submit(run=run, profile=body, priority=priority))).run


async def when(
    client: Client, run: str, holds: Callable[[RunView], bool], within_s: float = 120.0
) -> RunView:
    """Return the run as soon as `holds` is true of it; ride over outages of the bus."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        try:
            view = (await client.run(run)).run
            if holds(view):
                return view
        except Unavailable:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(f"{run} did not come to that within {within_s} s")


async def running(client: Client, run: str, jobs: int = 1) -> RunView:
    """Return when `jobs` jobs of the run have a process."""
    return await when(client, run, lambda view: view.counts.get("running") == jobs)


async def final(client: Client, run: str, within_s: float = 120.0) -> RunView:
    return await when(client, run, lambda view: is_final(view.state), within_s)


async def count_samples(client: Client, run: str) -> int:
    """Return how many latencies count: those of the newest attempt of the job."""
    answer = await client.metrics(mr.ListMetrics(run=run, key="network.latency"))
    newest = max(each.attempt for each in answer.series)
    return sum(each.count for each in answer.series if each.attempt == newest)


async def test_the_example_runs_on_an_ssh_board_and_is_judged_on_all_its_samples(
    lab: LabProcesses,
) -> None:
    await start(lab, ssh=True)
    async with client_of(lab) as client:
        run = await submit(client, profile())
        view = await final(client, run)
        assert (view.state, view.reason) == ("passed", "")
        assert view.evidence[0].samples == SAMPLES
        assert view.loads[0].commit
        job = (await client.jobs(r.ListJobs(id=run))).jobs[0]
        output = await client.logs(r.GetLogs(job=job.id))
        assert output.data.startswith(b"iperf-module 3.1 on ")
        assert output.complete


async def test_a_serial_board_behind_a_login_prompt_runs_the_same_load(lab: LabProcesses) -> None:
    await start(lab, serial=True)
    async with client_of(lab) as client:
        view = await final(client, await submit(client, profile()))
        assert (view.state, view.reason) == ("passed", "")
        assert view.evidence[0].samples == SAMPLES


async def test_a_criterion_that_does_not_hold_fails_the_run_with_its_reason(
    lab: LabProcesses,
) -> None:
    await start(lab)
    command = {"command": ["sh", "-c", "echo ::metric net.latency 250ms"]}
    strict = {"latency": {"metric": "net::latency::max", "max": "150ms"}}
    silent = {"latency": {"metric": "net::jitter::max", "max": "150ms"}}
    async with client_of(lab) as client:
        document = {"name": "strict", "schedule": {"sequence": [command]}, "criteria": strict}
        view = await final(client, await submit(client, document))
        assert view.state == "failed"
        assert "above max 150 ms" in view.reason
        view = await final(client, await submit(client, {**document, "criteria": silent}))
        assert view.state == "error", "no data is never a pass"


async def test_cancel_says_what_it_stopped_and_nothing_of_it_is_left(lab: LabProcesses) -> None:
    await start(lab, ssh=True)
    mark = f"e2e-{secrets.token_hex(6)}"
    script = f"trap '' TERM; sleep 600 & echo up; wait; : {mark}"
    on_board = {"command": ["sh", "-c", script], "target": "board"}
    on_host = {"command": ["sh", "-c", script]}
    document = {
        "name": "endless",
        "targets": {"board": {"runtime": "ssh"}},
        "schedule": {"parallel": [on_board, on_host]},
    }
    async with client_of(lab) as client:
        run = await submit(client, document)
        await running(client, run, 2)
        answer = await client.cancel(run)
        assert [job.state for job in answer.jobs] == ["cancelled", "cancelled"]
        assert all(job.stopped and not job.pending for job in answer.jobs), answer
        assert not processes_with(mark)


def processes_with(mark: str) -> list[str]:
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if mark.encode() in line and path.parent.name != str(os.getpid()):
            found.append(path.parent.name)
    return found


async def test_the_controller_is_killed_in_the_middle_and_the_verdict_is_right(
    lab: LabProcesses,
) -> None:
    await start(lab, ssh=True)
    async with client_of(lab) as client:
        run = await submit(client, profile())
        await running(client, run)
        lab.kill("controller")
        config = str(lab.state / "controller.toml")
        lab.start("controller", "tshrag_controller.daemon", "--config", config, "--stop-broker")
        view = await final(client, run)
        assert (view.state, view.evidence[0].samples) == ("passed", SAMPLES)
        jobs = (await client.jobs(r.ListJobs(id=run))).jobs
        assert [len(job.attempts) for job in jobs] == [1], "nothing ran twice"


async def test_the_agent_is_killed_in_the_middle_and_the_job_is_tried_again(
    lab: LabProcesses,
) -> None:
    await start(lab, ssh=True)
    async with client_of(lab) as client:
        run = await submit(client, profile())
        await running(client, run)
        lab.kill("rack")
        lab.run_agent("rack")
        view = await final(client, run)
        assert (view.state, view.evidence[0].samples) == ("passed", SAMPLES)
        job = (await client.jobs(r.ListJobs(id=run))).jobs[0]
        assert [attempt.outcome for attempt in job.attempts][-1] == "passed"
        assert await count_samples(client, run) == SAMPLES


async def test_an_agent_that_is_killed_takes_its_host_job_up_again(lab: LabProcesses) -> None:
    await start(lab)
    lines = 100
    script = f"for i in $(seq {lines}); do echo line $i; sleep 0.05; done"
    document = {"name": "long", "schedule": {"sequence": [{"command": ["sh", "-c", script]}]}}
    async with client_of(lab) as client:
        run = await submit(client, document)
        await running(client, run)
        lab.kill("rack")
        lab.run_agent("rack")
        view = await final(client, run)
        assert view.state == "passed"
        job = (await client.jobs(r.ListJobs(id=run))).jobs[0]
        assert len(job.attempts) == 1, "the job did not notice"
        output = await client.logs(r.GetLogs(job=job.id))
        assert output.data == b"".join(b"line %d\n" % number for number in range(1, lines + 1))


async def test_the_broker_is_killed_in_the_middle_and_comes_back_by_itself(
    lab: LabProcesses,
) -> None:
    await start(lab, ssh=True)
    async with client_of(lab) as client:
        run = await submit(client, profile())
        await running(client, run)
        os.kill(int((lab.state / "nats" / "run" / "nats.pid").read_text()), signal.SIGKILL)
        view = await final(client, run)
        assert (view.state, view.evidence[0].samples) == ("passed", SAMPLES)
        assert await count_samples(client, run) == SAMPLES


async def test_a_lab_that_was_stopped_in_order_knows_its_runs_when_it_starts_again(
    lab: LabProcesses,
) -> None:
    await start(lab)
    document = {"name": "short", "schedule": {"sequence": [{"command": "true"}]}}
    async with client_of(lab) as client:
        run = await submit(client, document)
        await final(client, run)
    await asyncio.to_thread(lab.stop)
    for path in (lab.state / "store").glob("projection.db*"):
        path.unlink()
    lab.start_controller()
    await lab.wait_ready()
    async with client_of(lab) as client:
        view = (await client.run(run)).run
        assert (view.state, view.counts) == ("passed", {"passed": 1})


async def test_a_second_controller_on_one_state_folder_is_refused(lab: LabProcesses) -> None:
    await start(lab)
    config = str(lab.state / "controller.toml")
    second = lab.start("second", "tshrag_controller.daemon", "--config", config)
    status = await asyncio.to_thread(second.wait, 30)
    assert status == 2
    assert "already_running" in lab.log_of("second").read_text()
    with pytest.raises(LabError, match="ended with status 2"):
        lab.check("second")


async def test_an_external_server_by_url_serves_the_same_lab(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    lab = LabProcesses(tmp_path / "lab", {"TSHRAG_NATS_URL": server.url})
    lab.state.mkdir()
    try:
        await start(lab, ssh=True)
        async with client_of(lab) as client:
            assert client.bus.plain
            view = await final(client, await submit(client, profile()))
            assert (view.state, view.evidence[0].samples) == ("passed", SAMPLES)
            health = await client.health()
            assert health.broker == server.url
            assert any("no accounts" in reason for reason in health.reasons)
    finally:
        await asyncio.to_thread(lab.stop)
        await asyncio.to_thread(server.stop)


async def test_a_second_agent_of_the_same_name_is_not_let_in(lab: LabProcesses) -> None:
    await start(lab)
    folder = lab.state / "second"
    folder.mkdir()
    config = (lab.state / "agents" / "rack" / "agent.toml").read_text()
    (folder / "agent.toml").write_text(
        config.replace(f"{lab.state}/agents/rack/store", f"{folder}/store")
    )
    second = lab.start("second", "tshrag_agent", "run", "--config", str(folder / "agent.toml"))
    status = await asyncio.to_thread(second.wait, 90)
    assert status == 2
    told = lab.log_of("second").read_text()
    assert "agent_name_in_use: rack: since 2" in told
    async with client_of(lab) as client:
        document = {"name": "short", "schedule": {"sequence": [{"command": "true"}]}}
        view = await final(client, await submit(client, document))
        assert view.state == "passed", "the first one never noticed"
        (agent,) = (await client.agents()).agents
        assert agent.state == "online"
