"""Samples that end a run early, stop a job, open a gate: on a real bus, across a restart."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.builders import T0
from tests.support.served_lab import ScriptedAgent, ServedLab, now, served, until, until_final
from tests.support.stored import a_batch, a_series
from tshrag_common import ids, requests as r
from tshrag_common.commands import StartAttempt
from tshrag_common.ids import RunId

MAX = {"metric": "net.latency", "max": "150ms"}
LONG = {"command": "sleep 600"}


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url) as lab:
        yield lab


def a_profile(*steps: object, **more: object) -> dict[str, object]:
    return {"name": "live", "schedule": {"sequence": list(steps)}, **more}


async def begun(
    lab: ServedLab, agent: ScriptedAgent, profile: object
) -> tuple[RunId, StartAttempt]:
    run = ids.run_id(await lab.submit(profile))
    start = await agent.next_start(run)
    await agent.started(start)
    return run, start


async def cancelled(agent: ScriptedAgent, start: StartAttempt, upto: int) -> None:
    """Wait until the agent is told to end an attempt, then tell its end."""

    async def told() -> bool:
        await agent.beat()
        return start.fence in agent.cancels

    await until(told, 20)
    await agent.ended(start, "cancelled", samples_upto=upto)
    await agent.beat()


async def states(lab: ServedLab, run: RunId) -> list[str]:
    answer = await lab.client.jobs(r.ListJobs(id=run))
    return [job.state for job in answer.jobs]


async def test_a_run_whose_verdict_is_decided_ends_early(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    profile = a_profile(LONG, LONG, criteria={"fast": MAX}, stop="when_decided")
    run, start = await begun(lab, agent, profile)
    await agent.samples(a_batch(run, a_series([0.1] * 5)))
    upto = await agent.samples(a_batch(run, a_series([0.2])))
    await cancelled(agent, start, upto)
    assert await until_final(lab, run) == "failed"
    view = (await lab.client.run(run)).run
    assert view.evidence[0].verdict == "fail" and view.evidence[0].samples == 6
    assert await states(lab, run) == ["skipped", "skipped"]
    job = (await lab.client.jobs(r.ListJobs(id=run))).jobs[0]
    assert job.error is not None and job.error.code == "decided"
    assert job.error.message.startswith("not needed any more: net.latency is 200 ms, above max")


async def test_a_closed_window_lets_a_run_pass_early(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    criteria = {"warm": {**MAX, "window": {"before": "1s"}}}
    profile = a_profile(LONG, criteria=criteria, stop="when_decided")
    run, start = await begun(lab, agent, profile)
    began, upto = now(), 0

    async def ends() -> bool:
        nonlocal upto
        upto = await agent.samples(a_batch(run, a_series([0.1], at=now())))
        await agent.beat()
        return start.fence in agent.cancels

    await until(ends, 30)
    await agent.ended(start, "cancelled", samples_upto=upto, started_at=began)
    await agent.beat()
    assert await until_final(lab, run) == "passed"
    assert await states(lab, run) == ["skipped"]


async def test_without_being_asked_nothing_ends_early(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run, start = await begun(lab, agent, a_profile(LONG, criteria={"fast": MAX}))
    upto = await agent.samples(a_batch(run, a_series([0.2])))
    await agent.beat()
    await agent.ended(start, samples_upto=upto)
    await agent.beat()
    assert await until_final(lab, run) == "failed"
    assert agent.cancels == [] and await states(lab, run) == ["passed"]


async def test_a_critical_criterion_ends_a_run_without_being_asked(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    criteria = {"fast": {**MAX, "severity": "critical"}}
    run, start = await begun(lab, agent, a_profile(LONG, criteria=criteria))
    upto = await agent.samples(a_batch(run, a_series([0.2])))
    await cancelled(agent, start, upto)
    assert await until_final(lab, run) == "failed"


async def test_a_job_that_has_done_enough_passes_and_the_next_one_starts(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    until_ = {"metric": "net::latency::count", "min": 3, "scope": "job"}
    run, start = await begun(lab, agent, a_profile({**LONG, "until": until_}, LONG))
    upto = await agent.samples(a_batch(run, a_series([0.1] * 2)))
    await agent.beat()
    assert agent.cancels == []
    upto = await agent.samples(a_batch(run, a_series([0.1])))
    await cancelled(agent, start, upto)
    second = await agent.next_start(run, 2)
    await agent.started(second)
    await agent.ended(second)
    assert await until_final(lab, run) == "passed"
    assert await states(lab, run) == ["passed", "passed"]


async def test_a_job_is_aborted_on_a_condition_and_a_leader_that_starts_anew_knows_of_it(
    lab: ServedLab,
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    abort = {"metric": "net::latency::count", "min": 4}
    run, start = await begun(lab, agent, a_profile({**LONG, "abort": abort}, LONG))
    stored = await agent.samples(a_batch(run, a_series([0.1] * 3)))

    async def is_stored() -> bool:
        return (await agent.beat()).samples_upto >= stored

    await until(is_stored)
    await lab.kill()
    await lab.start()
    upto = await agent.samples(a_batch(run, a_series([0.1])))
    await cancelled(agent, start, upto)
    assert await until_final(lab, run) == "failed"
    assert await states(lab, run) == ["failed", "skipped"]
    job = (await lab.client.jobs(r.ListJobs(id=run))).jobs[0]
    assert job.error is not None and job.error.code == "aborted"
    assert job.error.message == "count of net.latency is 4, right at min 4"


async def test_a_job_waits_for_its_condition_and_says_so(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    when = {"metric": "net::latency::last", "max": "50ms"}
    steps = {"parallel": [{**LONG, "name": "load"}, {**LONG, "name": "gated", "when": when}]}
    run, start = await begun(lab, agent, {"name": "gate", "schedule": steps})
    await agent.samples(a_batch(run, a_series([0.1])))
    gated = ids.job_of(run, 2)
    why = await lab.client.why(gated)
    assert why.reason == "gate"
    assert why.sentence == "it starts when samples say so: last of net.latency (when)"
    upto = await agent.samples(a_batch(run, a_series([0.04], at=T0 + 10_000_000)))
    second = await agent.next_start(run, 2)
    await agent.started(second)
    await agent.ended(second)
    await agent.ended(start, samples_upto=upto)
    await agent.beat()
    assert await until_final(lab, run) == "passed"


async def test_a_gate_that_nobody_can_open_any_more_is_skipped(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    when = {"metric": "net::latency::last", "max": "50ms"}
    steps = {"parallel": [LONG, {**LONG, "when": when}]}
    run, start = await begun(lab, agent, {"name": "gate", "schedule": steps})
    await agent.ended(start)
    assert await until_final(lab, run) == "passed"
    assert await states(lab, run) == ["passed", "skipped"]
    job = (await lab.client.jobs(r.ListJobs(id=run))).jobs[1]
    assert job.error is not None and job.error.code == "gate"
