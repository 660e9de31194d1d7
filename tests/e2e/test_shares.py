"""Shares, ageing, quotas, host resources, limits of groups, retries: over a real agent."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.test_lab import client_of, final, submit, when
from tests.e2e.test_scheduling import document, jobs_of, overlap
from tests.support.command_line import run_cli
from tests.support.s3 import a_free_port
from tshrag_common import ids, requests as r
from tshrag_common.client import Client, open_client
from tshrag_common.errors import LabError
from tshrag_common.ids import OrgId
from tshrag_common.keys import read_bundle
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("shares")]

CONTROLLER = """
[scheduler]
ageing_s = 1
share_points = 500
setup_points = 100
weights = { "*" = 0.001 }
[scheduler.quotas.small]
running_duts = 1
queued_jobs = 4
"""
MARK = secrets.token_hex(3)
LOCAL = '[[dut]]\nid = "{id}-{mark}"\nkind = "{kind}"\n[dut.local]\n'
DEAD = """[[dut]]
id = "a-dead-{mark}"
kind = "mixed"
[dut.ssh]
host = "127.0.0.1"
port = {port}
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
password_file = "/dev/null"
patience_s = 0
"""


def boards() -> str:
    kinds = {"solo": "solo", "p1": "pair", "p2": "pair", "b-good": "mixed"}
    local = [LOCAL.format(id=name, kind=kind, mark=MARK) for name, kind in kinds.items()]
    return "".join(local) + DEAD.format(mark=MARK, port=a_free_port())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabProcesses]:
    made = LabProcesses(tmp_path_factory.mktemp("shares") / "lab", {"TSHRAG_NATS_URL": ""})
    made.state.mkdir()
    try:
        made.start_controller(CONTROLLER)
        asyncio.run(made.wait_ready())
        made.start_agent("west", boards(), slots=2)
        asyncio.run(made.wait_agents(1))
        for org in ("one", "two", "small"):
            out = str(made.state / f"{org}.json")
            done = run_cli("user", "add", f"of-{org}", "--org", org, "--out", out, state=made.state)
            assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.stop()


@asynccontextmanager
async def of_org(lab: LabProcesses, org: str) -> AsyncIterator[Client]:
    bundle = read_bundle(lab.state / f"{org}.json")
    async with open_client(bundle.url, credentials=bundle.creds, org=OrgId(org)) as client:
        yield client


@asynccontextmanager
async def a_busy_board(client: Client, tmp_path: Path, kind: str = "solo") -> AsyncIterator[None]:
    """Hold the board of a kind while the block lasts; what is submitted meanwhile waits."""
    gate = tmp_path / secrets.token_hex(4)
    body = document(f"until [ -e {gate} ]; do sleep 0.05; done", kind=kind)
    run = await submit(client, body)
    try:
        await when(client, run, lambda view: bool(view.counts.get("running")))
        yield
    finally:
        gate.touch()


async def started(client: Client, *runs: str) -> list[int]:
    """Return when the jobs of these runs were given a place, once all have passed."""
    found: list[int] = []
    for run in runs:
        assert (await final(client, run)).state == "passed"
        found += [job.attempts[0].assigned_at for job in await jobs_of(client, run)]
    return found


async def test_an_org_that_used_little_goes_before_one_that_used_much(
    lab: LabProcesses, tmp_path: Path
) -> None:
    short = document("sleep 0.2", kind="solo")
    async with of_org(lab, "one") as one, of_org(lab, "two") as two:
        async with a_busy_board(one, tmp_path):
            many = [await submit(one, short) for _ in range(4)]
            few = [await submit(two, short) for _ in range(2)]
        of_one, of_two = await started(one, *many), await started(two, *few)
        assert max(of_two) < sorted(of_one)[1], "though it came last"


async def test_what_is_urgent_goes_first_but_what_waits_long_is_not_starved(
    lab: LabProcesses, tmp_path: Path
) -> None:
    async with client_of(lab) as client:
        body = document("sleep 0.2", kind="solo")
        stream: list[str] = []
        async with a_busy_board(client, tmp_path):
            low = await submit(client, body, priority=50)
            stream += [await submit(client, body, priority=54) for _ in range(3)]
        ends = time.monotonic() + 90
        while (await client.run(low)).run.state not in ("running", "passed"):
            assert time.monotonic() < ends, "what came later always went first"
            waiting = 0
            for run in stream[-4:]:
                waiting += (await client.run(run)).run.state == "waiting"
            if waiting < 2:  # there is always somebody with more priority
                stream.append(await submit(client, body, priority=54))
            await asyncio.sleep(0.02)
        (at,) = await started(client, low)
        times = await started(client, *stream)
        assert max(times[:3]) < at, "those with more priority went first"


async def test_quotas_bound_boards_and_the_line_and_why_says_so(
    lab: LabProcesses, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.05; done"
    async with of_org(lab, "small") as small:
        run = await submit(small, document(wait, wait, kind="pair"))
        await when(small, run, lambda view: bool(view.counts.get("running")))
        jobs = await jobs_of(small, run)
        waiting = next(job.id for job in jobs if job.state == "waiting")
        why = await small.why(waiting)
        said = f"{why.sentence} {why.places}"
        assert "org small has 1 DUT, its quota is 1" in said, "though another board is free"
        with pytest.raises(LabError, match="the quota of org small is 4") as refused:
            await submit(small, document(*["true"] * 4, kind="pair"))
        assert refused.value.code == "quota"
        gate.touch()
        assert (await final(small, run)).state == "passed"
        assert overlap(await jobs_of(small, run)) == 1


async def test_an_org_that_floods_is_told_when_to_come_again(lab: LabProcesses) -> None:
    raw = r.Submit(run=ids.new_run(1, 1), profile=msgspec.Raw(b"{}"), key="flood")
    async with of_org(lab, "one") as one, of_org(lab, "two") as two:
        answers = await asyncio.gather(
            *(one.submit(raw) for _ in range(400)), return_exceptions=True
        )
        codes = {each.code for each in answers if isinstance(each, LabError)}
        assert "rate_limited" in codes
        assert (
            await final(two, await submit(two, document("true", kind="pair")))
        ).state == "passed"


async def test_slots_and_memory_of_a_host_bound_what_runs_there(lab: LabProcesses) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    async with client_of(lab) as client:
        slots = await submit(client, document(*["sleep 0.3"] * 5))
        large = document(*["sleep 0.3"] * 2, resources={"memory": round(0.6 * memory)})
        await started(client, slots)
        assert overlap(await jobs_of(client, slots)) == 2
        run = await submit(client, large)
        await started(client, run)
        assert overlap(await jobs_of(client, run)) == 1
        with pytest.raises(LabError, match="GiB of memory"):
            await submit(client, document("true", resources={"memory": 2 * memory}))


def grouped(key: str, command: str = "true", kind: str = "solo", **group: Any) -> dict[str, Any]:
    made = {"setup": {"command": "true"}, "group": {"key": key, **group}}
    return document(command, kind=kind) | made


async def test_a_group_has_its_turn_and_then_others_have_theirs(
    lab: LabProcesses, tmp_path: Path
) -> None:
    key = secrets.token_hex(3)
    async with client_of(lab) as client:
        body = grouped(f"{key}-a", max_jobs=2)
        assert (await final(client, await submit(client, body))).state == "passed"
        async with a_busy_board(client, tmp_path):
            many = [await submit(client, body) for _ in range(5)]
            other = await submit(client, grouped(f"{key}-b"), priority=90)
        times, (at,) = await started(client, *many), await started(client, other)
        assert sum(each < at for each in times) <= 2, "it does not go on while another waits"
        async with a_busy_board(client, tmp_path):
            body = grouped(f"{key}-c", "sleep 0.4", max_runtime="1s")
            many = [await submit(client, body) for _ in range(6)]
            other = await submit(client, grouped(f"{key}-d"), priority=51)
        times, (at,) = await started(client, *many), await started(client, other)
        assert sum(each < at for each in times) <= 4, "after a second its turn was over"


async def test_a_window_lets_others_join_and_one_setup_does_for_all(lab: LabProcesses) -> None:
    body = grouped(secrets.token_hex(3), window="1s", kind="pair")
    async with client_of(lab) as client:
        first = await submit(client, body)
        assert "others may join its group" in (await client.why(first)).sentence
        second = await submit(client, body)
        given = await started(client, first, second)
        created = (await client.run(first)).run.created_at
        assert min(given) - created >= 1_000_000


async def test_a_late_joiner_goes_where_the_setup_is_before_those_who_need_another(
    lab: LabProcesses, tmp_path: Path
) -> None:
    key, gate = secrets.token_hex(3), tmp_path / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.05; done"
    async with client_of(lab) as client:
        first = await submit(client, grouped(f"{key}-a", wait))
        await when(client, first, lambda view: bool(view.counts.get("running")))
        other = await submit(client, grouped(f"{key}-b"))
        late = await submit(client, grouped(f"{key}-a"))
        gate.touch()
        (at_other,), (at_late,) = await started(client, other), await started(client, late)
        assert at_late < at_other
        (joined,) = await jobs_of(client, late)
        assert joined.attempts[0].setup == "found"


async def test_a_setup_that_fails_on_one_board_splits_its_group(lab: LabProcesses) -> None:
    body = grouped(secrets.token_hex(3), kind="pair")
    body["setup"] = {"command": ["sh", "-c", f"test $TSHRAG_JOB_DEVICE != p1-{MARK}"]}
    async with client_of(lab) as client:
        runs = [await submit(client, body) for _ in range(3)]
        await started(client, *runs)
        tries = [each for run in runs for each in (await jobs_of(client, run))[0].attempts]
        assert {each.dut for each in tries if each.setup == "failed"} == {f"p1-{MARK}"}
        assert {each.dut for each in tries if each.setup in ("made", "found")} == {f"p2-{MARK}"}


async def test_a_fault_of_the_lab_is_tried_on_another_board_and_the_report_says_why(
    lab: LabProcesses,
) -> None:
    async with client_of(lab) as client:
        run = await submit(client, document("true", kind="mixed"))
        assert (await final(client, run)).state == "passed"
        (job,) = await jobs_of(client, run)
        assert [each.dut for each in job.attempts] == [f"a-dead-{MARK}", f"b-good-{MARK}"]
        report = run_cli("report", run, state=lab.state).stdout
        assert "a-dead" in report
        assert "is closed" in report, "the reason of the first attempt"


async def test_a_failure_is_tried_again_as_often_as_its_profile_says(
    lab: LabProcesses, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    flaky = f"echo x >> {mark}; test $(wc -l < {mark}) -ge 3"
    async with client_of(lab) as client:
        body = document(flaky, kind="pair") | {"retries": {"attempts": 3, "on": ["failed"]}}
        run = await submit(client, body)
        assert (await final(client, run)).state == "passed"
        (job,) = await jobs_of(client, run)
        assert [each.outcome for each in job.attempts] == ["failed", "failed", "passed"]
        report = run_cli("report", run, state=lab.state).stdout
        assert report.count("exit code 1") >= 2
        mark.write_text("")
        twice = body | {"retries": {"attempts": 2, "on": ["failed"], "elsewhere": True}}
        run = await submit(client, twice)
        assert (await final(client, run)).state == "failed"
        (job,) = await jobs_of(client, run)
        assert len({each.dut for each in job.attempts}) == 2
        assert job.error is not None
        assert "attempts exhausted after 2: exit code 1" in job.error.message
