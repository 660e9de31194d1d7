"""A run that is compared with an earlier one: which it is, and what comes of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.served_lab import ScriptedAgent, ServedLab, served, until_final
from tests.support.stored import a_batch, a_series
from tshrag_common import ids
from tshrag_common.criteria import Evidence
from tshrag_common.errors import LabError

STEP = {"command": "true"}
COMPARED = {
    "name": "boot",
    "schedule": STEP,
    "criteria": {
        "slower": {"metric": "net.latency", "stat": "avg", "vs": "baseline", "max_change": "5%"}
    },
}
MINOR = {
    "name": "minor",
    "schedule": STEP,
    "criteria": {
        "strict": {"metric": "net.latency", "stat": "max", "max": "1ms", "severity": "minor"}
    },
}


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url) as lab:
        yield lab


async def measured(
    lab: ServedLab, agent: ScriptedAgent, value: float, profile: object = COMPARED, **more: object
) -> tuple[str, str, Evidence]:
    """Let a run measure one value often; return run, state and evidence."""
    run = ids.run_id(await lab.submit(profile, **more))
    start = await agent.next_start(run)
    await agent.started(start)
    upto = await agent.samples(a_batch(run, a_series([value] * 20)))
    await agent.ended(start, samples_upto=upto)
    await agent.beat()
    state = await until_final(lab, run)
    return run, state, (await lab.client.run(run)).run.evidence[0]


async def test_a_run_is_compared_with_the_newest_that_passed(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    _, state, found = await measured(lab, agent, 0.1)
    assert state == "error" and found.reason.startswith("there is no baseline")
    first_profile = {**COMPARED, "criteria": {}}
    first = ids.run_id(await lab.submit(first_profile))
    start = await agent.next_start(first)
    upto = await agent.samples(a_batch(first, a_series([0.1] * 20)))
    await agent.started(start)
    await agent.ended(start, samples_upto=upto)
    await agent.beat()
    assert await until_final(lab, first) == "passed"

    second, state, found = await measured(lab, agent, 0.102)
    assert (state, found.verdict, found.against) == ("passed", "pass", first)
    third, state, found = await measured(lab, agent, 0.2)
    assert (state, found.against) == ("failed", second)
    assert found.reason.startswith("avg of net.latency is 200 ms, the baseline has 102 ms: +96.")
    _, state, found = await measured(lab, agent, 0.201, baseline=third)
    assert (state, found.against) == ("passed", third), "the one that was named"
    with pytest.raises(LabError, match="not known"):
        await lab.submit(COMPARED, baseline=third[:-1] + "z")


async def test_what_is_minor_is_told_and_fails_nothing(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    _, state, found = await measured(lab, agent, 0.1, MINOR)
    assert (state, found.verdict, found.severity) == ("passed", "fail", "minor")
