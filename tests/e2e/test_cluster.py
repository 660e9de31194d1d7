"""Three nats-servers, two controllers, an agent: a server is killed while runs go on.

``make cluster`` kills each of them, one after the other.
"""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.controllers import Controllers, a_document
from tests.support.nats_cluster import NAMES, Cluster
from tests.support.served_lab import until
from tests.support.waiting import wait_until
from tshrag_common import ids, metric_requests as mr, requests as r
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.clock import SystemClock
from tshrag_common.errors import LabError
from tshrag_common.streams import LOG
from tshrag_controller.cli.processes import LabProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("e2e")]

T = TypeVar("T")
VICTIMS = NAMES if os.environ.get("TSHRAG_KILL_ALL") else NAMES[:1]
LINE = "::metric long::n"
PROFILE = {
    "name": "long",
    "schedule": {
        "sequence": [
            {"command": ["sh", "-c", f"echo '{LINE} {n}'; sleep 0.3; echo '{LINE} {n}'"]}
            for n in range(4)
        ]
    },
    "criteria": {"all": {"metric": "long::n::count", "equals": 8}},
}


async def passes(lab: Controllers) -> None:
    """Submit a run and see it pass, whatever happens to the servers meanwhile."""
    run = ids.new_run(SystemClock().now() // 1000, secrets.randbits(80))
    asked = r.Submit(run=run, profile=a_document(PROFILE))
    await patiently(lambda: lab.client.submit(asked))

    async def has_ended() -> bool:
        try:
            return bool((await lab.client.run(run)).run.ended_at)
        except LabError:
            return False

    await until(has_ended, 90)
    view = (await patiently(lambda: lab.client.run(run))).run
    assert view.state == "passed", view
    samples = await patiently(lambda: lab.client.series(mr.GetSeries(run=run, key="long::n")))
    assert sorted(samples.value) == sorted([float(n) for n in range(4)] * 2)


async def test_a_server_of_a_cluster_may_be_killed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "nats")
    both = Controllers(tmp_path, cluster.url)
    agents = LabProcesses(tmp_path / "c0", {"TSHRAG_NATS_URL": ""})
    for name in NAMES:
        await asyncio.to_thread(cluster.start, name)
    config = f'replicas = 3\nmonitor = "{cluster.monitor}"\nmax_file_store = {256 << 20}\n'
    try:
        await cluster.healthy()
        await both.meet()
        both.start("c0", config)
        assert await both.leader(within_s=120) == "c0"
        both.start("c1", config)
        await both.stands_by("c1", within_s=120)
        await asyncio.to_thread(agents.start_agent, "rack", "", 1)
        await until(lambda: has_agent(both), 40)
        await passes(both)
        for name in VICTIMS:
            cluster.kill(name)
            await passes(both)
            await asyncio.to_thread(cluster.start, name)
            await cluster.healthy()
        info = await JetStream(both.bus, timeout_s=20.0).stream_info(LOG)
        assert info.messages > 0
    finally:
        await asyncio.to_thread(agents.stop)
        both.end_all()
        await both.bus.close()
        cluster.end()


async def has_agent(lab: Controllers) -> bool:
    try:
        return any(each.state == "online" for each in (await lab.client.agents()).agents)
    except LabError:
        return False


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until it is answered: without a leader of the stream nothing is, for some seconds."""
    while True:
        try:
            return await ask()
        except LabError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(0.5)


async def test_a_controller_that_is_up_before_its_cluster_waits_for_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "nats")
    both = Controllers(tmp_path, cluster.url)
    first, *others = NAMES
    await asyncio.to_thread(cluster.start, first)
    config = f'replicas = 3\nmonitor = "{cluster.monitor}"\nmax_file_store = {256 << 20}\n'
    try:
        await both.meet()
        both.start("c0", config)
        tries = ("no answer within", "temporarily unavailable", "does not answer")
        await wait_until(lambda: any(each in both.said("c0") for each in tries), 60)
        assert both.processes["c0"].poll() is None, both.said("c0")
        for name in others:
            await asyncio.to_thread(cluster.start, name)
        assert await both.leader(within_s=120) == "c0"
    finally:
        both.end_all()
        await both.bus.close()
        cluster.end()
