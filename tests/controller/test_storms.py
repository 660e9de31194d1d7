"""Storms: a thousand cancels at once, a flood of submits; nobody is forgotten, nobody queues."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.support.people_lab import on_board
from tests.support.served_lab import (
    ScriptedAgent,
    ServedLab,
    new_run,
    served,
    until,
    until_final,
)
from tshrag_common import ids, requests as r
from tshrag_common.client import Client
from tshrag_common.errors import Unavailable
from tshrag_common.ids import OrgId
from tshrag_controller.settings import LimitsTable

JOBS = 1000


@pytest.fixture
async def lab(tmp_path: Path, nats_url: str) -> AsyncIterator[ServedLab]:
    async with served(tmp_path, nats_url) as made:
        yield made


async def test_a_thousand_cancels_at_once_end_a_thousand_jobs(lab: ServedLab) -> None:
    agent = ScriptedAgent(lab, "a1")
    await agent.hello()
    each = {"command": ["sleep", "600"]}
    profile = {
        "name": "many",
        "schedule": {"repeat": {"times": JOBS, "parallel": True, "of": each}},
    }
    run = await lab.submit(profile)
    start = await agent.next_start(run)
    await agent.started(start)
    names = [ids.job_of(ids.run_id(run), serial) for serial in range(1, JOBS + 1)]
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(lab.client.cancel(name, wait_s=0.0)) for name in names]
    said = [answer.result().jobs for answer in answers]
    assert [jobs[0].job for jobs in said] == names
    assert {jobs[0].state for jobs in said} == {"cancelled"}
    assert await until_final(lab, run) == "cancelled"
    assert (await lab.client.run(run)).run.counts == {"cancelled": JOBS}
    assert (await lab.counters())["dropped.request"] == 0


async def test_a_flood_of_submits_is_refused_with_the_time_to_wait(
    tmp_path: Path, nats_url: str
) -> None:
    async with served(tmp_path, nats_url) as lab:
        await lab.stop()
        limits = LimitsTable(submits_per_s=2.0, submit_burst=5)
        lab.settings = lab.settings.__class__(
            controller=lab.settings.controller, nats=lab.settings.nats, limits=limits
        )
        await lab.start()
        refused: list[Unavailable] = []
        for _ in range(20):
            try:
                await lab.submit(park=True)
            except Unavailable as error:
                refused.append(error)
        assert refused
        assert {error.code for error in refused} == {"rate_limited"}
        assert "an org may submit 2 times a second, 5 at once; try again in" in str(refused[0])
        await lab.client.health()  # what is no submit is answered

        async def is_taken() -> bool:
            try:
                await lab.submit(park=True)
            except Unavailable:
                return False
            return True

        await until(is_taken, 30)


async def test_a_flood_of_one_org_neither_refuses_nor_holds_up_another(
    tmp_path: Path, nats_url: str
) -> None:
    async with served(tmp_path, nats_url) as lab:
        limits = LimitsTable(submits_per_s=5.0, submit_burst=10)
        lab.settings = msgspec.structs.replace(lab.settings, limits=limits)
        await lab.restart()
        agent = ScriptedAgent(lab)
        await agent.hello()
        refused: list[str] = []
        is_over = asyncio.Event()

        async def flood() -> None:
            while not is_over.is_set():
                try:
                    await lab.submit(on_board(), park=True)  # it takes no slot: there is no board
                except Unavailable as error:
                    refused.append(error.code)

        quiet = Client(lab.bus, OrgId("quiet"), timeout_s=30.0)
        document = msgspec.Raw(msgspec.json.encode({"name": "q", "schedule": {"command": "true"}}))
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(flood())
            await until(lambda: _is(len(refused) > 100), 30)
            for _ in range(4):
                run = (await quiet.submit(r.Submit(run=new_run(), profile=document))).run
                await agent.next_start(run)
            is_over.set()
        assert set(refused) == {"rate_limited"}
        states = [each.state for each in (await quiet.runs(r.ListRuns())).runs]
        assert len(states) == 4, states


async def _is(so: bool) -> bool:
    return so
