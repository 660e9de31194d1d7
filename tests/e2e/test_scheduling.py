"""What the scheduler promises, over real agents: setups shared, resources, rates, orgs, retries."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_lab import client_of, final, submit, when
from tests.support.command_line import QGJOB, run_cli
from tshrag_common import requests as r
from tshrag_common.client import Client
from tshrag_common.views import JobView
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.xdist_group("scheduling")]

CONTROLLER = """
[scheduler]
preempt_after_s = 0.2
[scheduler.consumables]
licence = { count = 1 }
strip = { every_s = 0.3 }
[scheduler.quotas.crowd]
running_duts = 1
"""
MARK = secrets.token_hex(3)
BOARD = '[[dut]]\nid = "{id}"\nkind = "{kind}"\nlabels = {{ ram = "{ram}" }}\n[dut.local]\n'


def boards(rack: str, *rams: str, kind: str = "pi") -> str:
    names = [f"{rack}{number}-{MARK}" for number in range(1, len(rams) + 1)]
    made = [
        BOARD.format(id=name, ram=ram, kind=kind) for name, ram in zip(names, rams, strict=True)
    ]
    return "".join(made)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabProcesses]:
    made = LabProcesses(tmp_path_factory.mktemp("sched") / "lab", {"TSHRAG_NATS_URL": ""})
    made.state.mkdir()
    try:
        made.start_controller(CONTROLLER)
        asyncio.run(made.wait_ready())
        resources = "[resources]\nusb-hub = 1\n"
        made.start_agent("west", resources + boards("w", "4GiB", "8GiB"), slots=4)
        made.start_agent("east", boards("e", "2GiB") + boards("s", "1GiB", kind="solo"), slots=4)
        asyncio.run(made.wait_agents(2))
        yield made
    finally:
        made.stop()


def document(*commands: str, **target: Any) -> dict[str, Any]:
    steps = [{"command": ["sh", "-c", text], "target": "place"} for text in commands]
    return {
        "name": "sched",
        "schedule": {"parallel": steps},
        "targets": {"place": {"hold": "job", **target}},
    }


async def jobs_of(client: Client, run: str) -> list[JobView]:
    return list((await client.jobs(r.ListJobs(id=run))).jobs)


def overlap(jobs: list[JobView]) -> int:
    """Return how many of the jobs ran at a time, at most."""
    ends = [job.attempts[-1] for job in jobs]
    spans = [(each.assigned_at, each.ended_at) for each in ends]
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


async def test_a_group_makes_its_setup_once_and_the_report_says_what_that_saved(
    lab: LabProcesses, tmp_path: Path
) -> None:
    log = tmp_path / "setups"
    profile = document("test -e /dev/null", "true", "true", "true", kind="solo")
    profile |= {
        "setup": {"sequence": [{"command": ["sh", "-c", f"sleep 1; echo made >> {log}"]}]},
        "teardown": {"command": ["sh", "-c", f"echo undone >> {log}"]},
        "labels": {"app_version_id": "1"},
    }
    async with client_of(lab) as client:
        run = await submit(client, profile)
        assert (await final(client, run)).state == "passed"
        attempts = [job.attempts[-1] for job in await jobs_of(client, run)]
        assert sorted(each.setup for each in attempts) == ["found", "found", "found", "made"]
        assert all(each.setup_us >= 1_000_000 for each in attempts), "what it saved is known"
        assert log.read_text() == "made\n"
        again = await submit(client, profile)
        await final(client, again)
        assert log.read_text() == "made\n", "another run of the same version finds it"
        other = await submit(client, {**profile, "labels": {"app_version_id": "2"}})
        await final(client, other)
        assert log.read_text() == "made\nundone\nmade\n", "the old one goes before the new one"
        plain = await submit(client, document("true", kind="solo"))
        await final(client, plain)
        assert log.read_text() == "made\nundone\nmade\nundone\n"


async def test_a_setup_survives_the_restart_of_its_agent(lab: LabProcesses, tmp_path: Path) -> None:
    log = tmp_path / "setups"
    profile = document("true", kind="solo")
    profile |= {"setup": {"command": ["sh", "-c", f"echo made >> {log}"]}, "group": {"key": "r"}}
    async with client_of(lab) as client:
        await final(client, await submit(client, profile))
        lab.kill("east")
        lab.run_agent("east")
        run = await submit(client, profile)
        assert (await final(client, run)).state == "passed"
        assert log.read_text() == "made\n"


async def test_a_setup_that_fails_ends_its_jobs_with_the_reason(lab: LabProcesses) -> None:
    profile = document("true", kind="solo")
    profile |= {"setup": {"command": "false"}, "group": {"key": "bad"}}
    async with client_of(lab) as client:
        run = await submit(client, profile)
        assert (await final(client, run)).state == "error"
        (job,) = await jobs_of(client, run)
        assert job.error is not None
        assert "setup of its group failed: group_setup_1: exit code 1" in job.error.message
        assert [each.setup for each in job.attempts] == ["failed", "failed"]


async def test_a_condition_on_labels_finds_the_board(lab: LabProcesses) -> None:
    async with client_of(lab) as client:
        run = await submit(client, document("true", kind="pi", where=["ram >= 6GiB"]))
        await final(client, run)
        assert (await jobs_of(client, run))[0].attempts[-1].dut == f"w2-{MARK}"


async def test_one_hub_one_licence_one_strip_bound_what_runs_together(lab: LabProcesses) -> None:
    async with client_of(lab) as client:
        hub = document(*["sleep 0.3"] * 3, kind="pi", hosts=["west"], resources={"usb-hub": 1})
        one = document(*["sleep 0.3"] * 3, consumes={"licence": 1})
        paced = document(*["true"] * 3, consumes={"strip": 1})
        runs = [await submit(client, each) for each in (hub, one, paced)]
        assert {(await final(client, run)).state for run in runs} == {"passed"}
        assert overlap(await jobs_of(client, runs[0])) == 1
        assert overlap(await jobs_of(client, runs[1])) == 1
        given = sorted(job.attempts[0].assigned_at for job in await jobs_of(client, runs[2]))
        assert all(b - a >= 300_000 for a, b in pairwise(given))


async def test_urgent_work_goes_first_and_why_tells_the_others(lab: LabProcesses) -> None:
    async with client_of(lab) as client:
        first = await submit(client, document("sleep 2", kind="solo"))
        await when(client, first, lambda view: bool(view.counts.get("running")))
        low = await submit(client, document("true", kind="solo"))
        body = document("true", kind="solo")
        urgent = await submit(client, body, priority=100)
        why = await client.why(low)
        assert "held by" in why.sentence
        await final(client, low)
        began = [(await jobs_of(client, run))[0].started_at for run in (urgent, low)]
        assert began[0] < began[1]


async def test_a_gang_starts_on_boards_of_two_hosts_at_once_and_ends_as_one(
    lab: LabProcesses,
) -> None:
    gang: dict[str, Any] = {
        "near": {"command": ["sh", "-c", "sleep 1; test $TSHRAG_ROLE = near"]},
        "far": {"command": ["sh", "-c", "sleep 1; test $TSHRAG_ROLES = near,far,host"]},
        "host": {"command": ["sh", "-c", "sleep 1"]},
    }
    targets = {
        "near": {"kind": "pi", "hosts": ["west"], "hold": "job"},
        "far": {"kind": "solo", "hold": "job"},
        "host": {},
    }
    document = {"name": "gang", "schedule": {"gang": gang}, "targets": targets}
    async with client_of(lab) as client:
        run = await submit(client, document)
        assert (await final(client, run)).state == "passed"
        jobs = await jobs_of(client, run)
        assert len({job.attempts[0].assigned_at for job in jobs}) == 1, "in one frame"
        assert {job.attempts[0].agent for job in jobs} >= {"west", "east"}
        gang["far"] = {"command": "false"}
        gang["host"] = {"command": "sleep 60"}
        spoilt = await submit(client, document)
        assert (await final(client, spoilt)).state == "failed"
        states = {job.name.rpartition(".")[2]: job.state for job in await jobs_of(client, spoilt)}
        assert (states["far"], states["host"]) == ("failed", "skipped")


async def test_two_gangs_that_want_the_same_boards_both_end(lab: LabProcesses) -> None:
    kinds = {"a": "pi", "b": "pi", "c": "pi"}
    document = {
        "name": "three",
        "schedule": {"gang": {role: {"command": "sleep 0.2"} for role in kinds}},
        "targets": {role: {"kind": kind} for role, kind in kinds.items()},
    }
    async with client_of(lab) as client:
        runs = [await submit(client, document) for _ in range(3)]
        assert {(await final(client, run)).state for run in runs} == {"passed"}


async def test_the_work_of_a_lab_can_be_exported_and_played_again(
    lab: LabProcesses, tmp_path: Path
) -> None:
    async with client_of(lab) as client:
        run = await submit(client, document("sleep 0.5", "sleep 0.5", kind="solo"))
        assert (await final(client, run)).state == "passed"
    work, host = str(tmp_path / "work.jsonl"), str(tmp_path / "lab.toml")
    said = await cli(lab, "history", "export", "--work", work, "--lab", host)
    assert said.returncode == 0, said.stderr
    assert keep_lines(Path(work), run) == 2
    said = await cli(lab, "simulate", "--lab", host, "--work", work, "--json")
    assert said.returncode == 0, said.stderr
    played = json.loads(said.stdout)
    assert (played["hosts"], played["jobs"]) == (2, 2)
    assert 1.0 <= played["policies"][0]["makespan_s"] < 60, "one board, one after the other"
    assert played["policies"][0]["unfit"] == {}


async def cli(lab: LabProcesses, *words: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(run_cli, *words, state=lab.state)


async def qgjob(lab: LabProcesses, *words: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(run_cli, *words, state=lab.state, program=QGJOB)


async def test_qgjob_submits_tests_of_an_app_version_in_its_own_words(
    lab: LabProcesses, tmp_path: Path
) -> None:
    version, test = (
        f"1.{MARK}",
        written(tmp_path / "login.py", 'import os; print(os.environ["TARGET"])'),
    )
    words = ("--app-version-id", version, "--test", test)
    about = ("--setup", f"echo made >> {tmp_path}/setups", "--target", "solo", "--priority", "high")
    done = await qgjob(lab, "submit", *words, *about, "--wait")
    assert done.returncode == 0, done.stderr
    done = await qgjob(lab, "submit", *words, *about, "-o", "quiet")
    job = done.stdout.strip()
    done = await qgjob(lab, "status", "--job-id", job, "--watch")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "setups").read_text() == "made\n", "once for both"
    record = json.loads((await qgjob(lab, "status", "--job-id", job, "--json")).stdout)
    assert (record["status"], record["worker_id"]) == ("completed", f"s1-{MARK}")
    payload = record["payload"]
    assert (payload["org_id"], payload["app_version_id"]) == ("default", version)
    assert (payload["test_path"], payload["target"], payload["priority"]) == (test, "solo", 75)

    folder = a_load(tmp_path / "whole", '#!/bin/sh\ntest "$APP_VERSION_ID" != 0\n')
    other = ("--app-version-id", f"2.{MARK}", "--test", str(folder), "--target", "solo")
    done = await qgjob(lab, "submit", *other, "--wait")
    assert done.returncode == 0, done.stderr

    broken = written(tmp_path / "broken.sh", "exit 3")
    words = ("--app-version-id", version, "--test", broken)
    done = await qgjob(lab, "submit", *words, "--target", "solo", "--wait")
    assert done.returncode == 1, done.stderr
    parked = await qgjob(lab, "submit", *words, "--target", "browserstack", "-o", "quiet")
    assert parked.returncode == 0, parked.stderr
    refused = await qgjob(lab, "submit", *words, "--target", "solox", "--require-agent")
    assert refused.returncode == 2
    assert "kind=solox" in refused.stderr

    async def listed(*more: str) -> list[str]:
        answer = await qgjob(lab, "list", "--app-version-id", version, *more, "--json")
        return [each["status"] for each in json.loads(answer.stdout)["jobs"]]

    assert await listed() == ["pending", "failed", "completed", "completed"]
    assert await listed("--status", "failed") == ["failed"]
    assert "there are more" in (await qgjob(lab, "list", "--limit", "1")).stderr
    counts = json.loads((await qgjob(lab, "stats", "--json")).stdout)
    assert counts["active_workers"] == 2
    assert counts["completed_jobs"] >= 2
    assert (await qgjob(lab, "health")).stdout.startswith("status")
    missing = await qgjob(lab, "status", "--job-id", job[:-4] + "zzzz")
    assert (missing.returncode, "Job not found" in missing.stderr) == (2, True)
    await cli(lab, "cancel", parked.stdout.strip())
    assert await listed("--status", "cancelled") == ["cancelled"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--test", "nothere.py"), "file: nothere.py: there is no such file"),
        (("--test", "README.md"), "nothing says how it is run"),
        (("--test", "/etc"), "runner: /etc: nothing says how this folder is run"),
    ],
)
def test_qgjob_refuses_a_test_before_it_asks_a_lab(words: tuple[str, ...], said: str) -> None:
    done = qgjob_alone(*words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def qgjob_alone(*words: str) -> "subprocess.CompletedProcess[str]":
    nobody = ("--url", "nats://127.0.0.1:1")
    here = Path(__file__).parents[2]
    about = ("--app-version-id", "1")
    return run_cli("submit", *about, *words, *nobody, program=QGJOB, cwd=here)


def a_load(folder: Path, script: str) -> Path:
    folder.mkdir()
    (folder / "run.sh").write_text(script)
    (folder / "run.sh").chmod(0o755)
    return folder


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def keep_lines(path: Path, holding: str) -> int:
    kept = [line for line in path.read_text().splitlines() if holding in line]
    path.write_text("\n".join(kept))
    return len(kept)


async def test_a_job_that_may_gives_way_to_an_urgent_one_and_comes_to_its_end(
    lab: LabProcesses, tmp_path: Path
) -> None:
    done = tmp_path / "urgent-is-done"
    low = document(f"test -e {done} || sleep 600", kind="solo")
    low["limits"] = {"preemptible": True}
    async with client_of(lab) as client:
        first = await submit(client, low, priority=0)
        await when(client, first, lambda view: bool(view.counts.get("running")))
        urgent = await submit(client, document(f"touch {done}", kind="solo"), priority=100)
        assert (await final(client, urgent)).state == "passed"
        assert (await final(client, first)).state == "passed"
        (job,) = await jobs_of(client, first)
        assert [each.outcome for each in job.attempts] == ["preempted", "passed"]
        assert job.attempts[0].error is not None
        assert "gives way to job-" in job.attempts[0].error.message


def pair_of(first: str, second: str, **more: Any) -> dict[str, Any]:
    """Return a gang over a board of each of the two hosts."""
    lines = {f"w1-{MARK}": first, f"e1-{MARK}": second}
    return {
        "name": "pair",
        "schedule": {
            "gang": {
                role: {"command": ["sh", "-c", text], "target": role}
                for role, text in zip(("x", "y"), lines.values(), strict=True)
            }
        },
        "targets": {
            role: {"duts": [dut], "hold": "job"}
            for role, dut in zip(("x", "y"), lines, strict=True)
        },
        **more,
    }


async def test_a_gang_gives_way_to_a_gang_as_a_whole_and_starts_again_as_a_whole(
    lab: LabProcesses, tmp_path: Path
) -> None:
    done = tmp_path / "urgent-is-done"
    wait = f"test -e {done} || sleep 600"
    low = pair_of(wait, wait, limits={"preemptible": True})
    async with client_of(lab) as client:
        first = await submit(client, low, priority=0)
        await when(client, first, lambda view: view.counts.get("running") == 2)
        urgent = await submit(client, pair_of("true", f"touch {done}"), priority=100)
        assert (await final(client, urgent)).state == "passed"
        assert (await final(client, first)).state == "passed"
        for job in await jobs_of(client, first):
            assert [each.outcome for each in job.attempts] == ["preempted", "passed"]
        for job in await jobs_of(client, urgent):
            assert [each.outcome for each in job.attempts] == ["passed"], "it ended nothing in vain"


async def test_an_urgent_gang_ends_two_single_jobs_on_two_hosts_and_nobody_else(
    lab: LabProcesses, tmp_path: Path
) -> None:
    done = tmp_path / "urgent-is-done"
    async with client_of(lab) as client:
        low = []
        for dut in (f"w1-{MARK}", f"e1-{MARK}", f"w2-{MARK}"):
            one = document(f"test -e {done} || sleep 600", duts=[dut])
            low.append(await submit(client, {**one, "limits": {"preemptible": True}}, priority=0))
        for run in low:
            await when(client, run, lambda view: bool(view.counts.get("running")))
        urgent = await submit(client, pair_of(f"touch {done}", f"touch {done}"), priority=100)
        assert (await final(client, urgent)).state == "passed"
        outcomes = []
        await client.cancel(low[2])
        for run in low:
            await final(client, run)
            (job,) = await jobs_of(client, run)
            outcomes.append([each.outcome for each in job.attempts])
        assert outcomes == [["preempted", "passed"], ["preempted", "passed"], ["cancelled"]]


async def test_a_gang_that_fails_is_tried_again_as_a_whole_where_its_profile_says_so(
    lab: LabProcesses,
) -> None:
    second = '[ "$TSHRAG_ATTEMPT" = 2 ]'
    retries = {"on": ["failed"], "attempts": 2}
    async with client_of(lab) as client:
        again = pair_of(second, "true", retries=retries)
        run = await submit(client, again)
        assert (await final(client, run)).state == "passed"
        first, other = await jobs_of(client, run)
        assert [each.outcome for each in first.attempts] == ["failed", "passed"]
        assert len(other.attempts) == 2, "it goes along, also where it had passed"
