"""Runs that have ended, judged again, compared and laid in a row: answers and command lines."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.support.command_line import run_cli
from tests.support.served_lab import ScriptedAgent, ServedLab, served, until_final
from tests.support.stored import a_batch, a_series
from tshrag_common import ids
from tshrag_common.errors import LabError
from tshrag_common.judge_requests import JudgeStored

MEAN = {"metric": "net.latency", "stat": "avg"}
PROFILE = {
    "name": "boot",
    "schedule": {"command": "true"},
    "criteria": {"fast": {**MEAN, "max": "1s"}},
}
STRICT = {**PROFILE, "criteria": {"fast": {**MEAN, "max": "150ms"}}}


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url) as lab:
        yield lab


async def ended(lab: ServedLab, agent: ScriptedAgent, level: float) -> str:
    """Let a run measure values around a level; return it."""
    run = ids.run_id(await lab.submit(PROFILE))
    start = await agent.next_start(run)
    values = [level * (1 + (n % 5 - 2) / 100) for n in range(20)]
    upto = await agent.samples(a_batch(run, a_series(values)))
    await agent.started(start)
    await agent.ended(start, samples_upto=upto)
    await agent.beat()
    assert await until_final(lab, run) == "passed"
    return run


async def said(
    lab: ServedLab, *words: str, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = {"TSHRAG_NATS_URL": lab.url, "COLUMNS": "150"}
    return await asyncio.to_thread(run_cli, *words, environment=environment, cwd=cwd)


def criteria_of(criteria: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(criteria))


async def test_stored_runs_are_judged_again_and_stay_as_they_are(
    lab: ServedLab, tmp_path: Path
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    good, bad = await ended(lab, agent, 0.1), await ended(lab, agent, 0.2)
    criteria = criteria_of(STRICT["criteria"])
    found = await lab.client.judge(JudgeStored(run=bad, criteria=criteria))
    assert (found.state, found.would_be) == ("passed", "failed")
    assert found.evidence[0].reason.startswith("avg of net.latency is 200 ms, above max 150 ms")
    found = await lab.client.judge(JudgeStored(run=good, criteria=criteria))
    assert found.would_be == "passed"
    assert (await lab.client.run(bad)).run.state == "passed"

    profile = tmp_path / "strict.json"
    profile.write_text(json.dumps(STRICT))
    done = await said(lab, "judge", str(profile), "--runs", "last:10", "-o", "json")
    assert done.returncode == 1, done.stderr
    would_be = {each["run"]: each["would_be"] for each in json.loads(done.stdout)["runs"]}
    assert would_be == {good: "passed", bad: "failed"}
    done = await said(lab, "judge", str(profile), "--runs", good)
    assert done.returncode == 0, done.stderr
    assert "1 run judged, 0 would end otherwise" in done.stdout

    slow = criteria_of({"slow": {**MEAN, "vs": "baseline", "max_change": "5%"}})
    found = await lab.client.judge(JudgeStored(run=bad, criteria=slow, baseline=good))
    assert found.would_be == "failed" and "+100%" in found.reason


async def test_what_cannot_be_judged_is_refused(lab: ServedLab, tmp_path: Path) -> None:
    run = await lab.submit(PROFILE)
    with pytest.raises(LabError, match="has not ended"):
        await lab.client.judge(JudgeStored(run=run, criteria=criteria_of(STRICT["criteria"])))
    with pytest.raises(LabError, match="criteria"):
        await lab.client.judge(JudgeStored(run=run, criteria=criteria_of({"a": {"max": 3}})))
    bare, strict = tmp_path / "bare.json", tmp_path / "strict.json"
    bare.write_text(json.dumps({**PROFILE, "criteria": {}}))
    strict.write_text(json.dumps(STRICT))
    done = await said(lab, "judge", "bare.json", cwd=tmp_path)
    assert done.stderr == "no_criteria: bare.json: has no criteria; add some to judge by\n"
    assert done.returncode == 2
    done = await said(lab, "judge", str(strict), "--runs", "last:0")
    assert done.stderr == "range: runs: 'last:0' names no runs; last:1 to last:2000\n"
    assert done.returncode == 2


async def test_runs_are_compared_and_a_change_of_level_is_marked(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    before = [await ended(lab, agent, 0.1 + n % 3 / 1000) for n in range(5)]
    after = [await ended(lab, agent, 0.13 + n % 3 / 1000) for n in range(5)]

    done = await said(lab, "compare", before[0], after[0], "--key", "net::*", "--plot")
    assert done.returncode == 0, done.stderr
    assert "+30%" in done.stdout and "├" in done.stdout and "●" in done.stdout
    done = await said(lab, "compare", before[0], after[0], "-o", "json")
    first, second = json.loads(done.stdout)["rows"]
    assert first["p_value"] is None and second["p_value"] < 1e-6
    assert first["low"] < first["mean"] < first["high"]

    done = await said(lab, "trend", "net::latency", "-o", "json")
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["points"]
    assert [point["run"] for point in points] == [*before, *after]
    assert [point["run"] for point in points if point.get("is_change")] == [after[0]]
    done = await said(lab, "trend", "net::latency")
    assert f"▲ {after[0]}" in done.stdout and "100.8 ms → 130.8 ms" in done.stdout
    done = await said(lab, "trend", "net::latncy")
    assert done.returncode == 2 and "has no samples in the 10 runs" in done.stderr
