"""Runs as people meet them, over restarts of the controller too."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.builders import T0
from tests.support.served_lab import (
    PROFILE,
    ScriptedAgent,
    ServedLab,
    new_run,
    served,
    until,
    until_final,
)
from tests.support.stored import a_batch, a_series
from tests.support.waiting import wait_until
from tshrag_common import ids, metric_requests as mr, requests as r
from tshrag_common.client import Client
from tshrag_common.errors import LabError
from tshrag_common.ids import OrgId
from tshrag_common.reports import Goodbye, OutputChunk
from tshrag_common.views import News, RunView


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url) as made:
        yield made


async def test_the_same_id_or_key_is_the_same_run_while_it_lives_and_ever_after(
    lab: ServedLab,
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    first = new_run()
    assert await lab.submit(run=first, key="nightly") == first
    assert await lab.submit(run=first) == first
    assert await lab.submit(key="nightly") == first
    await agent.run_through(first)
    assert await lab.submit(run=first) == first, "it has left the memory"
    assert await lab.submit(key="nightly") == first
    await lab.restart()
    assert await lab.submit(run=first) == first
    assert await lab.submit(key="nightly") == first
    assert await lab.submit(key="weekly") != first
    assert [start.run for start in agent.starts.values()].count(ids.run_id(first)) == 0


async def test_a_key_stands_for_one_profile(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    first = await lab.submit(key="nightly")
    with pytest.raises(LabError, match=f"'nightly' was used by {first}") as refused:
        await lab.submit({**PROFILE, "name": "another"}, key="nightly")
    assert refused.value.code == "key_conflict"


async def test_submits_under_one_key_at_the_same_time_make_one_run(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(lab.submit(key="same"), name=f"submit-{n}") for n in range(12)]
    assert len({each.result() for each in asked}) == 1
    stats = await lab.client.stats()
    assert sum(stats.runs.values()) == 1


async def test_an_id_that_belongs_to_another_org_is_taken_and_the_lab_goes_on(
    lab: ServedLab,
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    theirs = await lab.submit()
    other = Client(lab.bus, OrgId("other"), timeout_s=10)
    own, lab.client = lab.client, other
    with pytest.raises(LabError, match="is taken"):
        await lab.submit(run=theirs)
    with pytest.raises(LabError, match="not known"):
        await other.run(theirs)
    lab.client = own
    await agent.run_through(theirs)
    lab.client = other
    with pytest.raises(LabError, match="is taken"):
        await lab.submit(run=theirs)
    mine = await lab.submit()
    assert [run.id for run in (await other.runs(r.ListRuns())).runs] == [mine]
    lab.client = own
    await agent.run_through(await lab.submit())


async def test_cancel_waits_for_what_it_stops_and_tells_of_it(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = await lab.submit()
    start = await agent.next_start(run)
    await agent.started(start)

    async def obey() -> None:
        async def asked() -> bool:
            return start.fence in agent.cancels

        await until(asked)
        await agent.ended(start, "cancelled", stopped=("pid 7 sleep 60 (term)",))

    async with asyncio.TaskGroup() as group:
        group.create_task(obey(), name="obey")
        answer = await lab.client.cancel(run)
    (job,) = answer.jobs
    assert (job.job, job.pending) == (start.job, False)
    assert job.stopped == ("pid 7 sleep 60 (term)",)
    assert await until_final(lab, run) == "cancelled"


async def test_cancel_of_a_host_that_does_not_answer_says_that_it_is_pending(
    lab: ServedLab,
) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = await lab.submit()
    start = await agent.next_start(run)
    answer = await lab.client.cancel(run, wait_s=0.2)
    assert [job.pending for job in answer.jobs] == [True]
    assert (await lab.client.run(run)).run.state == "cancelled"
    await agent.ended(start, "cancelled")


async def watched(client: Client, run: str, seen: list[News | RunView]) -> None:
    async for each in client.watch(run):
        seen.append(each)


async def test_a_watch_goes_on_over_a_restart_and_ends_with_the_run(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = await lab.submit()
    seen: list[News | RunView] = []
    async with asyncio.TaskGroup() as group, asyncio.timeout(40):
        group.create_task(watched(lab.client, run, seen), name="watch")

        async def begun() -> bool:
            return bool(seen)

        await until(begun)
        await lab.kill()
        await lab.start()
        start = await agent.next_start(run)
        await agent.started(start)
        await agent.ended(start)
    assert isinstance(seen[0], RunView)
    assert seen[-1].state == "passed"


def moves(seen: list[News | RunView]) -> list[str]:
    return [moved.state for each in seen if isinstance(each, News) for moved in each.moved]


async def test_news_reach_those_who_watch_while_it_happens(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = await lab.submit()
    seen: list[News | RunView] = []
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        group.create_task(watched(lab.client, run, seen), name="watch")

        async def begun() -> bool:
            return bool(seen)

        await until(begun)
        start = await agent.next_start(run)
        await agent.started(start)
        await wait_until(lambda: "running" in moves(seen))
        await agent.ended(start)
    news = [each for each in seen if isinstance(each, News)]
    assert moves(seen)[-2:] == ["running", "passed"]
    assert all(before.seq == after.after for before, after in itertools.pairwise(news))


async def test_a_job_whose_data_come_after_a_restart_is_judged_by_them(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    run = await lab.submit()
    start = await agent.next_start(run)
    await agent.started(start)
    await agent.ended(start, samples_upto=1, output_upto=1)

    async def collecting() -> bool:
        return (await lab.client.run(run)).run.counts == {"collecting": 1}

    await until(collecting)
    await lab.kill()
    await lab.start()
    assert await collecting(), "its time begins anew"
    await agent.samples(a_batch(ids.run_id(run), a_series([1.0])))
    chunk = OutputChunk(
        run=run, job=start.job, attempt=1, stream="stdout", offset=0, data=b"done\n"
    )
    await agent.output(chunk)
    await agent.beat()
    assert await until_final(lab, run) == "passed"
    told = await lab.client.metrics(mr.ListMetrics(run=run))
    assert [each.key for each in told.series] == ["net.latency"]


async def test_what_an_old_journal_had_stored_says_nothing_of_a_new_one(lab: ServedLab) -> None:
    old = ScriptedAgent(lab)
    await old.hello()
    run = ids.run_id(await lab.submit())
    start = await old.next_start(run)
    await old.started(start)
    for number in range(20):
        await old.samples(a_batch(run, a_series([number], at=T0)))
    await old.ended(start, samples_upto=20)
    await old.beat()
    assert await until_final(lab, run) == "passed"
    await old.report(Goodbye(at=T0))  # its name is free at once

    new = ScriptedAgent(lab, journal="j2")
    await new.hello()
    again = ids.run_id(await lab.submit())
    start = await new.next_start(again)
    await new.started(start)
    await new.output(
        OutputChunk(run=again, job=start.job, attempt=1, stream="stdout", offset=0, data=b"x")
    )
    await new.ended(start, samples_upto=1, output_upto=1)
    await new.beat()
    assert (await lab.client.run(again)).run.state == "running", "its samples have not come"
    await new.samples(a_batch(again, a_series([1.0])))
    assert await until_final(lab, again) == "passed"


async def test_a_profile_that_is_no_profile_is_refused_with_all_its_problems(
    lab: ServedLab,
) -> None:
    with pytest.raises(LabError) as refused:
        await lab.submit({**PROFILE, "schedul": 1, "name": "a b"})
    assert "schedul" in refused.value.line
    with pytest.raises(LabError, match="priority"):
        await lab.submit(priority=101)


async def test_stats_of_an_org_tell_nothing_of_another(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab)
    await agent.hello()
    await agent.run_through(await lab.submit())
    other = await Client(lab.bus, OrgId("other"), timeout_s=10).stats()
    assert (other.runs, other.jobs, other.counters) == ({}, {"open": 0}, {})
    assert (await lab.client.stats()).runs == {"passed": 1}
