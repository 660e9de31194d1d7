import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tshrag_common import subjects
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.errors import LabError, Refused, Unavailable
from tshrag_common.ids import AgentId, OrgId
from tshrag_common.labkeys import LabKeys, new_lab
from tshrag_common.streams import all_streams
from tshrag_controller.nats_server.accounts import push_accounts
from tshrag_controller.nats_server.binary import nats_server
from tshrag_controller.nats_server.config import ServerConfig, server_config
from tshrag_controller.nats_server.process import NatsServer, start_or_adopt

STARTER = """
import asyncio, os, signal, sys
from tshrag_controller.nats_server.config import ServerConfig
from tshrag_controller.nats_server.process import start_or_adopt
server = asyncio.run(start_or_adopt(ServerConfig(state=sys.argv[1]), None))
print(server.pid, server.url, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(state=str(tmp_path / "state"))


@pytest.fixture
async def running(config: ServerConfig) -> AsyncIterator[NatsServer]:
    server = await start_or_adopt(config, None)
    yield server
    await server.stop()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_running_server_has_the_settings_that_the_lab_rests_on(
    running: NatsServer,
) -> None:
    about = await running.monitor("/varz")
    flags, stores = about["feature_flags"], await running.monitor("/jsz?config=true")
    assert isinstance(flags, dict)
    assert flags.get("js_ack_fc_v2") is False
    config = stores["config"]
    assert isinstance(config, dict)
    assert config["sync_always"] is True
    assert config["max_storage"] == 100 << 30
    bus = await connect(running.url, name="t", within_s=5, need_jetstream=True)
    jetstream = JetStream(bus)
    for stream in all_streams():
        await jetstream.ensure_stream(stream)
    answer = await bus.request("$JS.API.STREAM.INFO.MET", b"", 5)
    assert b'"max_consumers":64' in answer.data
    await bus.close()


async def test_a_server_outlives_a_killed_starter_and_is_adopted(config: ServerConfig) -> None:
    starter = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", STARTER, config.state],
        capture_output=True,
        text=True,
        timeout=50,
    )
    pid, url = starter.stdout.split()
    assert starter.returncode == -signal.SIGKILL
    assert is_alive(int(pid))
    server = await start_or_adopt(config, None)
    assert (server.adopted, server.pid, server.url) == (True, int(pid), url)
    bus = await connect(server.url, name="t", within_s=5)
    await bus.close()
    await server.stop()
    await wait_until(lambda: not is_alive(int(pid)))


async def test_two_starters_at_once_have_one_server(config: ServerConfig) -> None:
    async with asyncio.TaskGroup() as group:
        starts = [group.create_task(start_or_adopt(config, None)) for _ in range(3)]
    servers = [start.result() for start in starts]
    assert len({server.pid for server in servers}) == 1
    assert sorted(server.adopted for server in servers) == [False, True, True]
    (owner,) = [server for server in servers if not server.adopted]
    await owner.stop()


async def test_a_second_server_on_a_locked_store_is_refused(
    running: NatsServer, config: ServerConfig
) -> None:
    stranger = ServerConfig(state=config.state, name="another")
    with pytest.raises(Unavailable, match=r"a server holds .*js\.lock"):
        await start_or_adopt(stranger, None, ready_within_s=0.5)
    assert is_alive(running.pid)


async def test_the_store_and_the_ports_are_kept_over_a_restart(running: NatsServer) -> None:
    bus = await connect(running.url, name="t", within_s=5)
    jetstream = JetStream(bus)
    await jetstream.ensure_stream(all_streams()[0])
    await jetstream.publish_expect(subjects.log(), b"1", "a:1", 0)
    url, pid = running.url, running.pid
    await running.restart()
    assert running.url == url
    assert running.pid != pid
    tail = await jetstream.tail("LOG")
    assert tail is not None
    assert tail.data == b"1"
    await bus.close()


async def test_a_killed_server_is_started_again_on_its_ports(running: NatsServer) -> None:
    said: list[str] = []
    running._say = said.append
    url, pid = running.url, running.pid
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(running.watch())
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: running.pid != pid, within_s=20)
        bus = await connect(running.url, name="t", within_s=5)
        await bus.close()
        watch.cancel()
    assert running.url == url
    assert said == ["nats: the server has ended with -9; restarting the server"]


async def test_ports_of_a_killed_server_are_not_believed(config: ServerConfig) -> None:
    first = await start_or_adopt(config, None)
    os.kill(first.pid, signal.SIGKILL)
    await wait_until(lambda: first._child is not None and first._child.poll() is not None)
    second = await start_or_adopt(config, None)
    assert not second.adopted
    assert second.pid != first.pid
    assert second.url == first.url
    await second.stop()


async def test_stopping_is_orderly_and_tells_its_clients(running: NatsServer) -> None:
    said: list[str] = []
    bus = await connect(running.url, name="t", within_s=5, on_state=said.append)
    await running.stop()
    child = running._child
    assert child is not None
    assert child.returncode == 0
    await wait_until(lambda: not bus.is_connected)
    await bus.close()


async def test_accounts_that_came_later_are_there_after_a_restart(config: ServerConfig) -> None:
    acme, bolt, a1 = OrgId("acme"), OrgId("bolt"), AgentId("a1")
    keys: LabKeys = new_lab(acme)
    server = await start_or_adopt(config, keys)
    keys, bundle = keys.with_agent(a1, server.url)
    keys = keys.with_org(bolt).without_agent(a1)
    system = await connect(
        server.url, name="s", credentials=keys.system_creds("s").text, within_s=5
    )
    await push_accounts(system, keys)
    await server.use_keys(keys)
    await server.restart()
    keys, person = keys.with_person("jo", bolt, server.url)
    bus = await connect(server.url, name="jo", credentials=person.creds, within_s=5)
    with pytest.raises(LabError, match="credentials refused"):
        await connect(server.url, name="a1", credentials=bundle.creds, within_s=0.5)
    await bus.close()
    await system.close()
    await server.stop()


async def test_a_server_that_cannot_start_says_why_in_one_line(config: ServerConfig) -> None:
    wrong = ServerConfig(state=config.state, host="203.0.113.1")
    with pytest.raises(Unavailable) as caught:
        await start_or_adopt(wrong, None)
    assert caught.value.line.startswith("nats_server: nats-server: ended: ")
    assert "\n" not in caught.value.line


def test_unsafe_sync_is_refused_unless_it_is_said_on_purpose(config: ServerConfig) -> None:
    with pytest.raises(Refused) as caught:
        NatsServer(ServerConfig(state=config.state, sync_interval="1s"), None)
    assert caught.value.code == "nats_unsafe_sync"
    NatsServer(ServerConfig(state=config.state, sync_interval="1s", unsafe_sync=True), None)


def test_the_server_itself_proves_its_configuration(tmp_path: Path, config: ServerConfig) -> None:
    path = tmp_path / "nats.json"
    path.write_text(json.dumps(server_config(config, None)))
    done = subprocess.run(
        [nats_server(), "-t", "-c", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def a_program(path: Path, says: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_is_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = a_program(tmp_path / "nats", "nats-server: v2.9.10")
    monkeypatch.setenv("TSHRAG_NATS_SERVER", old)
    with pytest.raises(Refused) as caught:
        nats_server()
    assert caught.value.line.startswith("nats_version: 2.9.10 < 2.14; ")
    monkeypatch.setenv("TSHRAG_NATS_SERVER", a_program(tmp_path / "other", "hello"))
    with pytest.raises(Refused, match="tells no version"):
        nats_server()
    monkeypatch.setenv("TSHRAG_NATS_SERVER", str(tmp_path / "none"))
    with pytest.raises(LabError):
        nats_server()
