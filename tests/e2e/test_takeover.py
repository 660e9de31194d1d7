"""Two controllers: whoever leads may be killed, frozen or stopped, and what goes on goes on."""

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.support.controllers import Controllers, a_document
from tests.support.served_lab import until
from tshrag_common import ids, metric_requests as mr, requests as r, subjects, wire
from tshrag_common.asking import READS
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.clock import SystemClock
from tshrag_common.ids import AgentId
from tshrag_common.judge_requests import JudgedStored
from tshrag_common.metrics import MetricInfo, SampleBatch, pack
from tshrag_common.reports import SamplesMessage
from tshrag_common.store_requests import Query, QueryAnswer
from tshrag_common.views import News, RunView
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.xdist_group("e2e")]

LINE = "::metric long::n"
PROFILE = {
    "name": "long",
    "schedule": {
        "sequence": [
            {"command": ["sh", "-c", f"echo '{LINE} {n}'; sleep 0.5; echo '{LINE} {n}'"]}
            for n in range(8)
        ]
    },
    "criteria": {"all": {"metric": "long::n::count", "equals": 16}},
}


class TwoControllers:
    """Both of them, an agent, and a profile that runs for a while."""

    def __init__(self, folder: Path, url: str) -> None:
        self.controllers = Controllers(folder, url)
        self.agents = LabProcesses(folder / "c0", {"TSHRAG_NATS_URL": ""})

    async def begin(self) -> None:
        await self.begin_alone()
        self.controllers.start("c1")
        await self.controllers.stands_by("c1")

    async def begin_alone(self) -> None:
        both = self.controllers
        await both.meet()
        both.start("c0")
        assert await both.leader() == "c0"
        await asyncio.to_thread(self.agents.start_agent, "rack", "", 1)
        await self.agents_online()

    async def agents_online(self) -> None:
        async def are_online() -> bool:
            return bool((await self.controllers.client.agents()).agents)

        await until(are_online)

    async def submit(self) -> str:
        run = ids.new_run(SystemClock().now() // 1000, secrets.randbits(80))
        asked = r.Submit(run=run, profile=a_document(PROFILE))
        return (await self.controllers.client.submit(asked)).run

    async def until(self, run: str, jobs: int) -> None:
        """Wait until so many jobs of a run have ended."""

        async def have() -> bool:
            counts = (await self.controllers.client.run(run)).run.counts
            return counts.get("passed", 0) >= jobs

        await until(have, 60)  # some reads go to whoever is frozen

    async def watched(self, run: str) -> str:
        """Watch a run to its end; return its state."""
        async for _news in self.controllers.client.watch(run):
            pass
        return (await self.controllers.client.run(run)).run.state

    async def has_passed(self, run: str) -> RunView:
        """See that a run is whole: each job was made once, and no sample is missing or doubled."""
        client = self.controllers.client
        view = (await client.run(run)).run
        assert view.state == "passed", view
        jobs = (await client.jobs(r.ListJobs(id=run))).jobs
        assert [len(job.attempts) for job in jobs] == [1] * 8
        samples = await client.series(mr.GetSeries(run=run, key="long::n"))
        assert sorted(samples.value) == sorted([float(n) for n in range(8)] * 2)
        return view

    async def end(self) -> None:
        await asyncio.to_thread(self.agents.stop)
        self.controllers.end_all()
        await self.controllers.bus.close()


@pytest.fixture
async def two(tmp_path: Path, nats_url: str) -> AsyncIterator[TwoControllers]:
    made = TwoControllers(tmp_path, nats_url)
    try:
        await made.begin()
        yield made
    finally:
        await made.end()


async def test_a_run_goes_on_when_its_leader_is_killed(two: TwoControllers) -> None:
    run = await two.submit()
    watching = asyncio.get_running_loop().create_task(two.watched(run))
    await two.until(run, 2)
    two.controllers.kill("c0")
    killed_at = time.monotonic()
    assert await two.controllers.leader(but="c0") == "c1"
    sys.stdout.write(f"takeover after {time.monotonic() - killed_at:.2f} s\n")
    other = await two.submit()
    assert await watching == "passed", (await two.controllers.client.run(run)).run
    await two.has_passed(run)
    assert await two.watched(other) == "passed"
    two.controllers.start("c0")
    await two.controllers.stands_by("c0")
    two.controllers.kill("c1")
    assert await two.controllers.leader(but="c1") == "c0"
    await two.has_passed(run)
    await two.has_passed(other)


GHOST = AgentId("ghost")
PAST = 3000


async def say_much(bus: Bus) -> None:
    """Fill the stream of samples with what a host says of itself, a message a sample."""
    stream, load = JetStream(bus), MetricInfo(key="host.load")
    at = SystemClock().now() - PAST * 1000

    async def say(first: int) -> None:
        batch = SampleBatch(series=(pack(load, [at + first * 1000], [1.0]),))
        message = SamplesMessage(agent=GHOST, spool="g", first_seq=first, batches=(batch,))
        await stream.publish(subjects.said(GHOST, "met"), wire.SAMPLES.encode(message), {})

    for first in range(1, PAST + 1, 50):
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + 50):
                group.create_task(say(number))
                await asyncio.sleep(0)  # they are sent in this order


async def test_a_standby_that_has_just_begun_judges_what_lives_and_stores_the_past_once(
    tmp_path: Path, nats_url: str
) -> None:
    """Its leader dies while the streams hold much that it has not read."""
    two = TwoControllers(tmp_path, nats_url)
    try:
        await two.begin_alone()
        await say_much(two.controllers.bus)
        run = await two.submit()
        watching = asyncio.get_running_loop().create_task(two.watched(run))
        await two.until(run, 1)
        two.controllers.start("c1")
        await two.controllers.stands_by("c1")
        two.controllers.kill("c0")
        assert await two.controllers.leader(but="c0") == "c1"
        assert await watching == "passed", (await two.controllers.client.run(run)).run
        await two.has_passed(run)

        async def is_filled() -> bool:
            reasons = (await two.controllers.health()).reasons
            return not any(each.startswith("filling:") for each in reasons)

        await until(is_filled, 60)
        asked = Query(sql="SELECT count(*), sum(value) FROM samples WHERE agent='ghost'")
        rows = (await two.controllers.client.query(asked)).rows
        assert rows == ((PAST, float(PAST)),)
        said = two.controllers.said("c1")
        assert "what was there before is stored" in said
    finally:
        await two.end()


async def test_a_leader_that_is_stopped_hands_over(two: TwoControllers) -> None:
    run = await two.submit()
    watching = asyncio.get_running_loop().create_task(two.watched(run))
    await two.until(run, 2)
    ended = asyncio.get_running_loop().create_task(two.controllers.end("c0"))
    stopped_at = time.monotonic()
    assert await two.controllers.leader(but="c0") == "c1"
    sys.stdout.write(f"handover after {time.monotonic() - stopped_at:.2f} s\n")
    assert await ended == 0
    assert await watching == "passed", (await two.controllers.client.run(run)).run
    await two.has_passed(run)


async def test_a_frozen_leader_that_goes_on_does_no_harm(two: TwoControllers) -> None:
    run = await two.submit()
    watching = asyncio.get_running_loop().create_task(two.watched(run))
    await two.until(run, 2)
    two.controllers.signal("c0", signal.SIGSTOP)
    assert await two.controllers.leader(but="c0") == "c1"
    other = await two.submit()
    await two.until(run, 5)
    two.controllers.signal("c0", signal.SIGCONT)
    await two.controllers.stands_by("c0")

    async def both_are_told() -> bool:  # whoever has just begun anew hears the other in a moment
        views = await two.controllers.views()
        return {view.node: view.role for view in views} == {"c0": "standby", "c1": "leader"}

    await until(both_are_told)
    assert "standing by anew" in two.controllers.said("c0")
    assert await watching == "passed", (await two.controllers.client.run(run)).run
    await two.has_passed(run)
    assert await two.watched(other) == "passed"


ASKED: dict[r.Verb, object] = {
    "runs": {}, "stats": {}, "health": {}, "agents": {}, "duts": {}, "leases": {}, "queue": {},
    "flaky": {}, "signs": {}, "work": {},
    "run": {"id": "{run}"}, "jobs": {"id": "{run}"}, "why": {"id": "{run}"},
    "watch": {"run": "{run}"}, "metrics": {"run": "{run}"},
    "outlook": {"id": "{job}"}, "placement": {"id": "{job}"}, "logs": {"job": "{job}"},
    "series": {"run": "{run}", "key": "long::n"},
    "judge": {"run": "{run}", "criteria": {"all": {"metric": "long::n::count", "equals": 16}}},
    "query": {"sql": "SELECT count(*) FROM samples WHERE key LIKE 'long%'"},
    "console": {"dut": "nothing"}, "console_grep": {"duts": ["nothing"], "pattern": "x"},
}  # fmt: skip
"""Every question that a standby answers."""
UNKNOWN = {"console": "unknown_dut", "console_grep": "unknown_dut", "outlook": "unknown_job"}
"""Of those there is nothing in this lab; a standby says so as the leader does."""


async def test_a_standby_answers_every_read_and_what_it_says_is_complete(
    two: TwoControllers,
) -> None:
    assert ASKED.keys() == READS
    run = await two.submit()
    assert await two.watched(run) == "passed"
    names = {"{run}": run, "{job}": ids.job_of(ids.run_id(run), 1)}
    said: dict[str, r.Envelope] = {}
    for verb, asked in ASKED.items():
        text = msgspec.json.encode(asked).decode()
        for name, value in names.items():
            text = text.replace(name, value)
        said[verb] = await two.controllers.answer_of("c1", verb, text.encode())
    failed = {verb: each.error for verb, each in said.items() if each.error is not None}
    assert {verb: error.code for verb, error in failed.items() if error} == UNKNOWN
    judged = msgspec.json.decode(said["judge"].data, type=JudgedStored)
    assert judged.would_be == "passed", judged
    rows = msgspec.json.decode(said["query"].data, type=QueryAnswer).rows
    assert rows[0][0] == 16


async def test_who_watches_goes_on_when_the_standby_that_told_is_killed(
    two: TwoControllers,
) -> None:
    run = await two.submit()
    for node in ("c1", "c0"):  # both tell of it from here on, and what both tell counts once
        await two.controllers.answer_of(node, "watch", f'{{"run":"{run}"}}'.encode())
    told: list[tuple[int, str]] = []

    async def watched() -> str:
        async for news in two.controllers.client.watch(run):
            if isinstance(news, News):
                told.append((news.seq, news.state))
        return "ended"

    watching = asyncio.get_running_loop().create_task(watched())
    await two.until(run, 2)
    two.controllers.kill("c1")
    assert await watching == "ended"
    assert len(told) == len({seq for seq, _ in told}), "nothing was told twice"
    await two.has_passed(run)
