import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tshrag_agent.daemon import Daemon, opened
from tshrag_agent.settings import AgentSettings, AgentTable
from tshrag_common.commands import CancelAttempt
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
    bundle = leader.keys.plain_agent(A1, url)
    async with opened(settings, bundle) as daemon, asyncio.TaskGroup() as group:
        group.create_task(daemon.serve())
        try:
            await leader.until(lambda: leader.hellos)
            yield daemon
        finally:
            daemon.stop()


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


def command(*argv: str, **more: object) -> JobSpec:
    return JobSpec(kind="command", argv=argv, **more)  # type: ignore[arg-type]  # any fields


def shell(text: str, **more: object) -> JobSpec:
    return command("/bin/sh", "-c", text, **more)


async def test_a_command_passes_and_its_output_arrives(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(shell("echo hello; echo oops >&2"))
        (ended,) = await leader.until_ended(start)
        assert (ended.outcome, ended.exit_code) == ("passed", 0)
        assert leader.output(start) == b"hello\n"
        assert leader.output(start, "stderr") == b"oops\n"
        assert ended.stdout.length_bytes == 6
        assert ended.usage.max_rss_bytes > 0


async def test_an_exit_code_other_than_0_is_failed(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        (ended,) = await leader.until_ended(await leader.start(shell("exit 3")))
        assert (ended.outcome, ended.exit_code) == ("failed", 3)
        assert ended.error is not None
        assert ended.error.message == "exit code 3"


async def test_a_missing_executable_is_an_error_at_once(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        (ended,) = await leader.until_ended(await leader.start(command("no-such-program")))
        assert ended.outcome == "error"
        assert ended.error is not None
        assert ended.error.code == "not_found"
        assert not ended.error.retryable


async def test_a_job_longer_than_its_limit_ends_as_timeout(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        (ended,) = await leader.until_ended(
            await leader.start(command("sleep", "60", timeout_s=0.3))
        )
        assert ended.outcome == "timeout"
        assert "sleep 60" in ended.stopped[0]


async def test_a_cancelled_job_says_what_was_stopped(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url) as daemon:
        start = await leader.start(shell("echo begun; sleep 60 & sleep 60"))
        await leader.until(lambda: leader.chunks)
        await leader.send([CancelAttempt(fence=start.fence)])
        (ended,) = await leader.until_ended(start)
        assert ended.outcome == "cancelled"
        assert sum("sleep 60" in one for one in ended.stopped) == 3  # the shell too
        assert daemon.roster.slots.free == 4


async def test_samples_in_the_output_arrive(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        text = "for i in 1 2 3; do echo ::metric network::latency ${i}ms; done"
        start = await leader.start(shell(text))
        (ended,) = await leader.until_ended(start)
        assert ended.samples_upto > 0
        values = [
            sample.value
            for batch in leader.samples
            for series in batch.series
            if series.key == "network.latency"
            for sample in series.samples()
        ]
        assert values == [0.001, 0.002, 0.003]
