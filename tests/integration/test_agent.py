import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tshrag_agent.daemon import Daemon
from tshrag_agent.journal.journal import Journal
from tshrag_agent.settings import AgentSettings, AgentTable
from tshrag_common.ids import AgentId
from tshrag_common.jobs import JobSpec, LoadRef
from tshrag_common.labkeys import LabKeys, new_lab

A1 = AgentId("a1")


@pytest.fixture(scope="module")
def keys() -> LabKeys:
    return new_lab()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def leader(server: NatsServer, keys: LabKeys) -> AsyncIterator[Leader]:
    leader = await Leader.begin(server, keys)
    yield leader
    await leader.bus.close()


@asynccontextmanager
async def an_agent(
    tmp_path: Path, leader: Leader, url: str, slots: int = 4, **table: object
) -> AsyncIterator[Daemon]:
    """Be an agent inside this process while the block lasts."""
    fields = {"name": "a1", "slots": slots, "store": str(tmp_path / "store"),
              "cache": str(tmp_path / "cache"), "beat_s": 0.2, "drain_s": 0.1, **table}  # fmt: skip
    settings = AgentSettings(agent=AgentTable(**fields))  # type: ignore[arg-type]  # any fields
    journal = await Journal.open(settings.state / "journal.db")
    daemon = Daemon(settings, leader.keys.plain_agent(A1, url), journal)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(daemon.serve())
            await leader.until(lambda: leader.hellos)
            yield daemon
            daemon.stop()
    finally:
        await journal.close()


def builtin(name: str, **params: object) -> JobSpec:
    load = LoadRef(name=name, digest="", source=f"builtin:{name}", builtin=name)
    return JobSpec(kind="load", load=load, params=params)


async def test_a_builtin_passes_and_says_so(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(builtin("noop"))
        (ended,) = await leader.until_ended(start)
        assert (ended.outcome, ended.error) == ("passed", None)
        assert ended.started_at > 0


async def test_2000_noop_attempts_arrive_once(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url, slots=2000):
        starts = [leader.a_start() for _ in range(2000)]
        await leader.send(starts, builtin("noop"))
        ends = await leader.until_ended(*starts)
        assert {ended.outcome for ended in ends} == {"passed"}
        assert leader.repeated == 0
