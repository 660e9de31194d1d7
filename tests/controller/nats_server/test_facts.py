"""External servers are asked what they are before anybody trusts them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer
from tshrag_common.errors import Refused, Unreachable
from tshrag_common.ids import DEFAULT_ORG
from tshrag_common.labkeys import new_lab
from tshrag_controller.broker import open_broker
from tshrag_controller.nats_server.facts import by_monitor, by_system, check
from tshrag_controller.settings import ControllerSettings, ControllerTable, NatsTable

LAZY = {"store_dir": "", "sync_interval": "2m", "max_file_store": 1 << 30}


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a server that brings to the disk what it has acknowledged within two minutes."""
    store = {**LAZY, "store_dir": str(tmp_path / "lazy" / "js")}
    server = NatsServer(tmp_path / "lazy", name="lazy", jetstream=store).start()
    yield server
    server.stop()


def settings(folder: Path, **nats: object) -> ControllerSettings:
    return ControllerSettings(
        controller=ControllerTable(state=str(folder / "state")),
        nats=NatsTable(**nats),  # type: ignore[arg-type]  # fields of any type
    )


async def test_a_server_that_may_lose_what_it_acknowledged_is_refused(
    tmp_path: Path, lazy: NatsServer
) -> None:
    told = settings(tmp_path, url=lazy.url, monitor=lazy.monitor_url)
    with pytest.raises(Refused, match="sync_interval 120s loses the LOG in a power cut") as refused:
        await open_broker(told, print)
    assert refused.value.code == "nats_unsafe_sync"
    meant = settings(tmp_path, url=lazy.url, monitor=lazy.monitor_url, unsafe_sync=True)
    broker = await open_broker(meant, print)
    assert (broker.is_checked, broker.durable) == (True, False)
    await broker.close(stop_server=False)


async def test_a_server_that_syncs_is_taken(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "good").start()
    try:
        told = settings(tmp_path, url=server.url, monitor=server.monitor_url)
        broker = await open_broker(told, print)
        assert (broker.is_checked, broker.durable) == (True, True)
        await broker.close(stop_server=False)
        unknown = await open_broker(settings(tmp_path, url=server.url), print)
        assert not unknown.is_checked, "nobody tells"
        await unknown.close(stop_server=False)
    finally:
        server.stop()


async def test_acks_that_our_readers_do_not_understand_are_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "new", feature_flags={"js_ack_fc_v2": True}).start()
    try:
        told = settings(tmp_path, url=server.url, monitor=server.monitor_url)
        with pytest.raises(Refused, match="js_ack_fc_v2 is on"):
            await open_broker(told, print)
    finally:
        server.stop()


async def test_the_system_account_of_the_lab_tells_too(tmp_path: Path) -> None:
    keys = new_lab(DEFAULT_ORG)
    server = NatsServer(tmp_path / "own", keys=keys).start()
    try:
        (facts,) = await by_system(server.url, keys, "ctl-0")
        assert (facts.name, facts.config.sync_always, facts.sickness) == ("test", True, "")
        assert facts.flags["js_ack_fc_v2"] is False
        assert await by_system(server.url, new_lab(DEFAULT_ORG), "ctl-0") == ()
    finally:
        server.stop()


async def test_one_of_several_servers_that_is_away_is_sick_and_stops_nobody(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path / "nats").start()
    try:
        there, away = await by_monitor(f"{server.monitor_url},http://127.0.0.1:1")
        assert (there.answers, there.sickness) == (True, "")
        assert (away.answers, away.sickness) == (False, "its monitoring port does not answer")
        assert check((there, away), unsafe_sync=False, replicas=1), "of it nothing is known"
    finally:
        server.stop()


async def test_a_monitoring_port_that_is_not_there_is_named() -> None:
    with pytest.raises(Unreachable, match="monitoring port does not answer"):
        await by_monitor("http://127.0.0.1:1")
