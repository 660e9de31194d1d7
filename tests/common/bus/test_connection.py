import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer
from tests.support.tcp_proxy import Proxy
from tests.support.waiting import wait_until
from tshrag_common.bus.connection import Bus, connect
from tshrag_common.bus.messages import Message
from tshrag_common.errors import DeadlineExceeded, LabError, Refused, Unreachable


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path).start()
    yield server
    server.stop()


@asynccontextmanager
async def a_bus(url: str, name: str = "x", **options: object) -> AsyncIterator[Bus]:
    bus = await connect(url, name=name, within_s=10, **options)  # type: ignore[arg-type]  # options of connect
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(bus.watch())
        try:
            yield bus
        finally:
            watch.cancel()
            await bus.close()


async def echo(bus: Bus, subject: str, group: asyncio.TaskGroup) -> asyncio.Task[None]:
    heard: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe(subject, heard.put_nowait)
    await bus.settled()

    async def answer() -> None:
        while True:
            message = await heard.get()
            await bus.respond(message, message.data)

    return group.create_task(answer())


async def refused_line(url: str, **options: object) -> str:
    with pytest.raises(LabError) as caught:
        await connect(url, name="x", **options)  # type: ignore[arg-type]  # options of connect
    return caught.value.line


async def test_a_message_reaches_who_has_subscribed_before_settled(nats_url: str) -> None:
    heard: list[Message] = []
    async with a_bus(nats_url) as bus:
        await bus.subscribe("t.*", heard.append)
        await bus.settled()
        await bus.publish("t.a", b"1", {"K": "v"})
        await wait_until(lambda: heard)
    assert (heard[0].subject, heard[0].data, heard[0].headers) == ("t.a", b"1", {"K": "v"})


async def test_a_request_waits_for_a_service_that_comes_late(nats_url: str) -> None:
    async with a_bus(nats_url) as bus, asyncio.TaskGroup() as group:
        asked = group.create_task(bus.request("late", b"?", 5))
        await asyncio.sleep(0.1)
        answering = await echo(bus, "late", group)
        assert (await asked).data == b"?"
        answering.cancel()


async def test_a_request_that_nobody_answers_says_so(nats_url: str) -> None:
    async with a_bus(nats_url) as bus:
        with pytest.raises(Unreachable, match="nobody answers on void") as caught:
            await bus.request("void", b"", 0.2)
        assert caught.value.code == "no_responders"
        await bus.subscribe("mute", lambda _: None)
        with pytest.raises(DeadlineExceeded):
            await bus.request("mute", b"", 0.2)


async def test_a_request_is_answered_over_a_killed_server(server: NatsServer) -> None:
    said: list[str] = []
    async with a_bus(server.url, on_state=said.append) as bus, asyncio.TaskGroup() as group:
        answering = await echo(bus, "e", group)
        back: list[int] = []
        bus.on_reconnect(lambda: back.append(1))
        await asyncio.to_thread(server.kill9)
        asked = group.create_task(bus.request("e", b"still", 20))
        await wait_until(lambda: not bus.is_connected)
        await asyncio.to_thread(server.start)
        assert (await asked).data == b"still"
        assert back == [1]
        answering.cancel()
    assert said[0] == "nats: connection lost"
    assert said[-1] == f"nats: connected again to {server.url}"


async def test_a_frozen_server_is_noticed_and_the_bus_heals(server: NatsServer) -> None:
    async with a_bus(server.url) as bus, asyncio.TaskGroup() as group:
        answering = await echo(bus, "e", group)
        server.freeze()
        await wait_until(lambda: not bus.is_connected, within_s=20)
        server.thaw()
        assert (await bus.request("e", b"x", 10)).data == b"x"
        answering.cancel()


async def test_a_dead_reader_is_noticed_by_the_probe(server: NatsServer) -> None:
    async with a_bus(server.url) as bus, asyncio.TaskGroup() as group:
        answering = await echo(bus, "e", group)
        reader = bus._client._reading_task
        assert reader is not None
        reader.cancel()  # stands for an exception in nats-py's read loop
        assert bus.is_connected
        assert (await bus.request("e", b"x", 20)).data == b"x"
        assert bus.reconnects == 1
        answering.cancel()


async def test_a_flush_that_was_cancelled_does_not_end_the_reader(nats_url: str) -> None:
    async with a_bus(nats_url) as bus:
        for _ in range(20):
            task = asyncio.ensure_future(bus.settled())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await bus.settled()
        assert bus.reconnects == 0


async def test_what_is_too_large_is_refused_before_it_is_sent(nats_url: str) -> None:
    async with a_bus(nats_url) as bus:
        for subject, data, headers, line in (
            ("s" * 257, b"", None, "payload_too_large: subject: 257 B > 256 B"),
            ("s", b"", {"A": "y" * 5000}, "payload_too_large: headers: 4.9 KB > 4 KB"),
            ("s", bytes(1_363_149), None, "payload_too_large: 1.3 MB > 1 MB"),
        ):
            with pytest.raises(Refused) as caught:
                await bus.publish(subject, data, headers)
            assert caught.value.line == line
        with pytest.raises(Refused, match="is no subject"):
            await bus.publish("a b\r\nPUB x", b"")
        await bus.settled()
        assert bus.is_connected


async def test_a_callback_that_fails_does_not_end_its_subscription(nats_url: str) -> None:
    heard: list[bytes] = []

    def callback(message: Message) -> None:
        heard.append(message.data)
        if message.data == b"1":
            raise ValueError("of the test")

    async with a_bus(nats_url) as bus:
        await bus.subscribe("c", callback)
        await bus.settled()
        for data in (b"1", b"2"):
            await bus.publish("c", data)
        await wait_until(lambda: heard == [b"1", b"2"])


async def test_a_server_that_is_not_there_is_one_line_a_try() -> None:
    said: list[str] = []
    line = await refused_line("nats://127.0.0.1:1", within_s=0.6, on_state=said.append)
    assert line == "nats: cannot reach nats://127.0.0.1:1 (refused)"
    assert said
    assert all("(refused), next try in" in one for one in said)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("127.0.0.1:4222", "config: nats.url: '127.0.0.1:4222' has no scheme"),
        ("nats://h:99999", "config: nats.url: 'nats://h:99999' has a port outside"),
        ("http://h:1", "config: nats.url: 'http://h:1' has no scheme"),
        ("nats://", "config: nats.url: 'nats://' names no host"),
        ("", "config: nats.url: '' is empty"),
    ],
)
async def test_a_bad_url_is_refused_at_once(url: str, line: str) -> None:
    assert (await refused_line(url)).startswith(line)


async def test_a_password_in_a_url_is_never_shown() -> None:
    for url in ("nats://u:secret@127.0.0.1:1", "nats://u:secret@h:99999", "nats://u:se@cret@ :1"):
        line = await refused_line(url, within_s=0.1)
        assert "cret" not in line


async def test_credentials_that_are_none_are_refused_at_once() -> None:
    line = await refused_line("nats://127.0.0.1:1", credentials="nonsense")
    assert line == "creds: no JWT and seed in the credentials"


@asynccontextmanager
async def a_fake_server(info: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + info + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"nats://127.0.0.1:{fake.sockets[0].getsockname()[1]}"
    fake.close()


async def test_a_server_that_is_too_old_is_refused() -> None:
    async with a_fake_server(b'{"version":"2.9.10","max_payload":1048576}') as url:
        line = await refused_line(url)
    assert line.startswith("nats_version: 2.9.10 < 2.14; ")


async def test_a_server_without_jetstream_is_refused_where_it_is_needed() -> None:
    async with a_fake_server(b'{"version":"2.15.1","max_payload":1048576}') as url:
        line = await refused_line(url, need_jetstream=True)
    assert line.startswith("jetstream_off: ")


async def test_who_is_cancelled_while_a_full_buffer_is_flushed_ends(nats_url: str) -> None:
    proxy = Proxy(int(nats_url.rpartition(":")[2]))
    await proxy.start()
    bus = await connect(f"nats://127.0.0.1:{proxy.port}", name="x", within_s=10)
    published = 0

    async def flood() -> None:
        nonlocal published
        while True:
            await bus.publish("t.flood", bytes(500_000))
            published += 1

    try:
        proxy.hold()
        flooding = asyncio.get_running_loop().create_task(flood())
        seen = -1
        while seen != published:  # until it waits for the buffer
            seen = published
            await asyncio.sleep(0.3)
        flooding.cancel()
        done, _ = await asyncio.wait([flooding], timeout=20)
        assert done, "the cancel was swallowed"
        assert flooding.cancelled()
    finally:
        flooding.cancel()
        proxy.release()
        await bus.close()
        await proxy.stop()
