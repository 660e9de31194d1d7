"""A connection that was closed for good is made anew; what is at work does not notice."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.support.agent_process import end_shepherd
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.served_lab import until
from tests.support.waiting import wait_until
from tshrag_agent import online
from tshrag_agent.daemon import Daemon
from tshrag_agent.process import opened
from tshrag_agent.settings import AgentSettings, AgentTable, NatsTable as AgentNats
from tshrag_common.bus.connection import connect
from tshrag_common.client import Client
from tshrag_common.errors import LabError
from tshrag_common.ids import DEFAULT_ORG, AgentId
from tshrag_common.jobs import JobSpec
from tshrag_common.keys import Bundle, Key, claims_of, parse_creds, write_secret
from tshrag_common.labkeys import LabKeys, new_lab
from tshrag_common.reports import Started
from tshrag_controller.broker import Broker
from tshrag_controller.daemon import serve
from tshrag_controller.nats_server.accounts import push_accounts
from tshrag_controller.settings import ControllerSettings, ControllerTable, NatsTable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

A1 = AgentId("a1")


@pytest.fixture
def keys() -> LabKeys:
    return new_lab(DEFAULT_ORG)


@pytest.fixture
async def server(tmp_path: Path, keys: LabKeys) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", keys=keys)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


async def push(server: NatsServer, keys: LabKeys) -> None:
    """Give the server other accounts: who is revoked in them is disconnected, and refused."""
    system = await connect(server.url, name="push", credentials=keys.system_creds("push").text)
    try:
        await push_accounts(system, keys)
    finally:
        await system.close()


async def known(keys: LabKeys, server: NatsServer, path: Path) -> tuple[LabKeys, Leader]:
    """Make the agent known to a lab, its bundle at `path`; return the keys, and a leader."""
    made, bundle = keys.with_agent(A1, server.url)
    leader = await Leader.begin(server, made)
    write_secret(path, bundle.encoded())
    return made, leader


@contextlib.asynccontextmanager
async def an_agent(folder: Path, bundle: Path, leader: Leader) -> AsyncIterator[Daemon]:
    table = AgentTable(
        name="a1", slots=2, store=str(folder / "store"), cache=str(folder / "cache"),
        beat_s=0.2, drain_s=0.1, sample_s=0,
    )  # fmt: skip
    settings = AgentSettings(agent=table, nats=AgentNats(bundle=str(bundle)))
    try:
        async with opened(settings, settings.bundle()) as daemon, asyncio.TaskGroup() as group:
            group.create_task(daemon.serve())
            await leader.until(lambda: leader.hellos, 30)
            yield daemon
            daemon.stop()
    finally:
        await asyncio.to_thread(end_shepherd, folder / "store")


async def test_an_agent_whose_credentials_have_run_out_goes_on_with_others(
    tmp_path: Path,
    keys: LabKeys,
    server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(online, "_AGAIN_WITHIN_S", 3.0)
    path = tmp_path / "a1.bundle"
    first, leader = await known(keys, server, path)
    go_on = tmp_path / "go on"
    spec = JobSpec(
        kind="command",
        argv=("/bin/sh", "-c", f"echo one; until [ -e '{go_on}' ]; do sleep 0.2; done; echo two"),
    )
    try:
        async with an_agent(tmp_path, path, leader):
            start = await leader.start(spec)
            await leader.until(lambda: any(isinstance(each, Started) for each in leader.reports))
            second, other = first.with_agent(A1, server.url)
            await push(server, second.without_earlier_agent(A1))
            await wait_until(lambda: bool(refusals(caplog)), 60)
            assert refusals(caplog)[0]["attempts"] == 1
            write_secret(path, other.encoded())
            beats = len(leader.beats)
            await leader.until(lambda: len(leader.beats) > beats, 60)
            go_on.touch()
            (ended,) = await leader.until_ended(start, within_s=60)
            assert ended.outcome == "passed", ended
            assert leader.output(start) == b"one\ntwo\n"
    finally:
        await leader.bus.close()


def refusals(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """Return what the agent said whenever its credentials were refused."""
    return [vars(each) for each in caplog.records if "creds_denied" in each.getMessage()]


async def test_an_idle_agent_without_good_credentials_knocks_seldom_and_takes_the_next_ones(
    tmp_path: Path,
    keys: LabKeys,
    server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(online, "_AGAIN_WITHIN_S", 1.0)
    monkeypatch.setattr(online, "_KNOCK_S", (0.5, 600.0))
    path = tmp_path / "a1.bundle"
    first, leader = await known(keys, server, path)
    try:
        async with an_agent(tmp_path, path, leader):
            second, other = first.with_agent(A1, server.url)
            await push(server, second.without_earlier_agent(A1))
            await wait_until(lambda: len(refusals(caplog)) >= 4, 90)
            waits = [float(str(each["next_try_s"])) for each in refusals(caplog)[:4]]
            assert all(2 * a * 1.5 + 0.2 >= b >= a for a, b in itertools.pairwise(waits)), waits
            assert "tshrag agent enroll a1" in caplog.text
            write_secret(path, other.encoded())
            beats = len(leader.beats)
            await leader.until(lambda: len(leader.beats) > beats, 60)
    finally:
        await leader.bus.close()


async def test_an_agent_that_a_new_broker_does_not_know_says_so_and_stays(
    tmp_path: Path, keys: LabKeys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(online, "_AGAIN_WITHIN_S", 3.0)
    server = NatsServer(tmp_path / "old", keys=keys)
    await asyncio.to_thread(server.start)
    path = tmp_path / "a1.bundle"
    _, leader = await known(keys, server, path)
    try:
        async with an_agent(tmp_path, path, leader):
            await leader.bus.close()
            await asyncio.to_thread(server.stop)
            lab = new_lab(DEFAULT_ORG)
            other = NatsServer(tmp_path / "new", keys=lab)
            other.port = server.port
            server = await asyncio.to_thread(other.start)
            await wait_until(lambda: bool(refusals(caplog)), 60)
            _, leader = await known(lab, server, path)
            await leader.until(lambda: leader.hellos or leader.beats, 60)
    finally:
        await leader.bus.close()
        await asyncio.to_thread(server.stop)


def revoked(keys: LabKeys, creds: str) -> LabKeys:
    """Return the keys with a user of the controllers' account revoked."""
    user = str(claims_of(parse_creds(creds).jwt)["sub"])
    return msgspec.structs.replace(keys, revoked=keys._revoked(Key(keys.ctl).public, user))


async def test_a_controller_whose_credentials_have_run_out_goes_on_with_others(
    tmp_path: Path, keys: LabKeys, server: NatsServer
) -> None:
    path, state = tmp_path / "c0.json", tmp_path / "lab"
    keys.save(state / "keys.json")
    creds = keys.controller_creds("c0").text
    bundle = Bundle(kind="controller", name="c0", url=server.url, creds=creds)
    write_secret(path, bundle.encoded())
    settings = ControllerSettings(
        controller=ControllerTable(state=str(state), node="c0"),
        nats=NatsTable(url=server.url, creds=str(path)),
    )
    stop = asyncio.Event()
    led: list[Broker] = []
    said: list[str] = []
    serving = asyncio.get_running_loop().create_task(
        serve(settings, stop, say=said.append, on_ready=led.append)
    )
    await wait_until(lambda: len(led) == 1, 40)
    person = keys.with_person("jo", DEFAULT_ORG, server.url)[1]
    client = await connect(server.url, name="jo", credentials=person.creds)
    try:
        await push(server, revoked(keys, creds))
        await wait_until(lambda: any("credentials refused" in line for line in said), 40)
        assert not serving.done(), "it goes on to try"
        fresh = keys.controller_creds("c0").text
        write_secret(path, msgspec.structs.replace(bundle, creds=fresh).encoded())
        await wait_until(lambda: len(led) == 2, 60)

        async def answers() -> bool:
            try:
                return (await Client(client).health()).node == "c0"
            except LabError:
                return False

        await until(answers)
    finally:
        stop.set()
        await client.close()
        await asyncio.wait([serving])
    serving.result()
