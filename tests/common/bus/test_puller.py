import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer
from tests.support.waiting import wait_until
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.messages import Message
from tshrag_common.bus.publisher import Publisher
from tshrag_common.bus.puller import Puller, follow
from tshrag_common.errors import NotFound
from tshrag_common.streams import StreamConfig, durable


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path).start()
    yield server
    server.stop()


@asynccontextmanager
async def a_stream(url: str) -> AsyncIterator[JetStream]:
    bus = await connect(url, name="t", within_s=10)
    jetstream = JetStream(bus)
    await jetstream.ensure_stream(StreamConfig(name="S", subjects=("s",), max_bytes=1 << 26))
    yield jetstream
    await bus.close()


async def fill(jetstream: JetStream, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await jetstream.publish("s", b"%d" % number, {"Nats-Msg-Id": str(number)})


async def read(puller: Puller, into: list[int], ack_every: int = 0) -> None:
    async for batch in puller.batches():
        for message in batch:
            into.append(int(message.data))
        if ack_every:
            await puller.ack(batch[-1].sequence)


@asynccontextmanager
async def reading(puller: Puller, ack_every: int = 0) -> AsyncIterator[list[int]]:
    seen: list[int] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(read(puller, seen, ack_every))
        try:
            yield seen
        finally:
            task.cancel()


async def test_a_follower_reads_from_its_sequence_and_goes_on(nats_url: str) -> None:
    async with a_stream(nats_url) as jetstream:
        await fill(jetstream, 1, 20)
        async with reading(follow(jetstream, "S", 11)) as seen:
            await wait_until(lambda: seen == list(range(11, 21)))
            await fill(jetstream, 21, 25)
            await wait_until(lambda: seen == list(range(11, 26)))


async def test_a_message_that_was_read_tells_where_and_when_it_was_stored(nats_url: str) -> None:
    async with a_stream(nats_url) as jetstream:
        await fill(jetstream, 1, 1)
        async for batch in follow(jetstream, "S", 1).batches():
            (message,) = batch
            break
    assert (message.sequence, message.subject, message.message_id) == (1, "s", "1")
    assert message.stored_at > 1_700_000_000_000_000


async def test_a_slow_reader_is_not_flooded(nats_url: str) -> None:
    async with a_stream(nats_url) as jetstream:
        await fill(jetstream, 1, 300)
        puller = Puller(jetstream, "S", follow(jetstream, "S", 1).consumer, batch=50)
        seen = []
        async for batch in puller.batches():
            assert len(batch) <= 50
            seen += [int(message.data) for message in batch]
            await asyncio.sleep(0.01)
            if len(seen) == 300:
                break
        assert seen == list(range(1, 301))


async def test_a_durable_reader_goes_on_behind_its_ack(nats_url: str) -> None:
    async with a_stream(nats_url) as jetstream:
        await fill(jetstream, 1, 30)
        first = Puller(jetstream, "S", durable("d"))
        async with reading(first) as seen:
            await wait_until(lambda: len(seen) == 30)
            await first.ack(12)
            await jetstream.bus.settled()
        async with reading(Puller(jetstream, "S", durable("d"))) as seen:
            await wait_until(lambda: seen == list(range(13, 31)))


async def test_a_deleted_consumer_is_made_again_and_nothing_comes_twice(nats_url: str) -> None:
    async with a_stream(nats_url) as jetstream:
        await fill(jetstream, 1, 10)
        puller = Puller(jetstream, "S", durable("d"))
        async with reading(puller) as seen:
            await wait_until(lambda: len(seen) == 10)
            await puller.ack(4)
            await jetstream.bus.settled()
            await jetstream.delete_consumer("S", "d")
            await fill(jetstream, 11, 15)
            await wait_until(lambda: seen == list(range(1, 16)))
            await puller.ack(15)
            await jetstream.bus.settled()
            assert (await jetstream.consumer_info("S", "d")).acked == 15


async def test_a_delivery_that_got_lost_is_made_good_at_once(nats_url: str) -> None:
    async with a_stream(nats_url) as jetstream:
        puller = Puller(jetstream, "S", durable("d"))
        async with reading(puller) as seen:
            await fill(jetstream, 1, 3)
            await wait_until(lambda: len(seen) == 3)
            thief = b'{"batch":2,"expires":1000000000}'
            await jetstream.bus.publish_for("$JS.API.CONSUMER.MSG.NEXT.S.d", thief, "nowhere.x")
            await jetstream.bus.subscribe("nowhere.x", lambda _: None)
            await fill(jetstream, 4, 40)
            await wait_until(lambda: seen == list(range(1, 41)), within_s=10)


async def test_a_reader_of_a_stream_that_is_not_there_ends_with_its_name(nats_url: str) -> None:
    bus = await connect(nats_url, name="t", within_s=10)
    with pytest.raises(NotFound):
        async for _ in follow(JetStream(bus), "NONE", 1).batches():
            pass
    await bus.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["durable", "follow"])
async def test_over_killed_servers_nothing_is_lost_nothing_comes_twice(
    server: NatsServer, kind: str
) -> None:
    count = 1500
    async with a_stream(server.url) as jetstream:
        reader_bus = await connect(server.url, name="reader")
        reader = JetStream(reader_bus)
        acks = kind == "durable"
        puller = Puller(reader, "S", durable("d")) if acks else follow(reader, "S", 1)
        publisher = Publisher(jetstream, window=64)
        stored: list[int] = []

        async def send(number: int) -> None:
            stored.append(await publisher.publish("s", b"%d" % number, f"id-{number}"))

        async with reading(puller, ack_every=1 if acks else 0) as seen:
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(send(number))
                    if number % 10 == 0:
                        await asyncio.sleep(0.01)
                    if number in (300, 700, 1100):
                        group.create_task(asyncio.to_thread(server.restart))
            await wait_until(lambda: len(seen) >= count, within_s=20)
            assert sorted(seen) == list(range(count))
        info = await jetstream.stream_info("S")
        assert info.messages == count == len(stored)
        await reader_bus.close()


@pytest.mark.slow
async def test_a_window_of_one_keeps_the_order_over_killed_servers(server: NatsServer) -> None:
    async with a_stream(server.url) as jetstream:
        publisher = Publisher(jetstream)
        sequences: list[int] = []

        async def send_all() -> None:
            for number in range(1, 401):
                sequences.append(await publisher.publish("s", b"%d" % number, f"id-{number}"))
                await asyncio.sleep(0.003)

        async with reading(follow(jetstream, "S", 1)) as seen:
            async with asyncio.TaskGroup() as group:
                group.create_task(send_all())
                for _ in range(2):
                    await asyncio.sleep(0.4)
                    await asyncio.to_thread(server.restart)
            assert sequences == list(range(1, 401))
            await wait_until(lambda: seen == sequences)


async def test_what_comes_late_from_before_is_not_taken_for_the_next(nats_url: str) -> None:
    async with a_stream(nats_url) as jetstream:
        await fill(jetstream, 1, 4)
        puller = Puller(jetstream, "S", durable("r"))
        async with reading(puller) as seen:
            await wait_until(lambda: seen == [1, 2, 3, 4], 10)
            late = "$JS.ACK.S.r.1.2.5.0.0"  # message 2, under the number of the next delivery
            puller._on_message(Message("s", late, b"2", {}))
            await fill(jetstream, 5, 6)
            await wait_until(lambda: len(seen) >= 6, 20)
        assert seen == [1, 2, 3, 4, 5, 6]
