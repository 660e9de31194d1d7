"""Two controllers: whoever leads may be killed, frozen or stopped, and what goes on goes on."""

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.controllers import Controllers, a_document
from tests.support.served_lab import until
from tshrag_common import ids, requests as r
from tshrag_common.clock import SystemClock
from tshrag_common.views import RunView
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
        both = self.controllers
        await both.meet()
        both.start("c0")
        assert await both.leader() == "c0"
        both.start("c1")
        await both.stands_by("c1")
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

        await until(have)

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
        samples = await client.series(r.GetSeries(run=run, key="long::n"))
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
    views = await two.controllers.views()
    assert {view.node: view.role for view in views} == {"c0": "standby", "c1": "leader"}
    assert "standing by anew" in two.controllers.said("c0")
    assert await watching == "passed", (await two.controllers.client.run(run)).run
    await two.has_passed(run)
    assert await two.watched(other) == "passed"
