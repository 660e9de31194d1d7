import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.waiting import wait_until
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.publisher import Publisher
from tshrag_common.errors import Refused
from tshrag_common.streams import StreamConfig


@pytest.fixture
async def jetstream(nats_url: str) -> AsyncIterator[JetStream]:
    bus = await connect(nats_url, name="t", within_s=10)
    yield JetStream(bus)
    await bus.close()


async def a_stream(jetstream: JetStream, max_bytes: int) -> None:
    await jetstream.ensure_stream(StreamConfig(name="S", subjects=("s",), max_bytes=max_bytes))


async def test_a_message_sent_twice_is_stored_once(jetstream: JetStream) -> None:
    await a_stream(jetstream, 1 << 20)
    publisher = Publisher(jetstream)
    assert await publisher.publish("s", b"1", "a") == 1
    assert await publisher.publish("s", b"1", "a") == 1
    assert await publisher.publish("s", b"2", "b") == 2


async def test_a_full_stream_is_told_and_waited_for(jetstream: JetStream) -> None:
    await a_stream(jetstream, 2000)
    said: list[str] = []
    publisher = Publisher(jetstream, on_full=said.append)
    await publisher.publish("s", bytes(1500), "a")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(publisher.publish("s", bytes(1500), "b"))
        await wait_until(lambda: said)
        assert not waiting.done()
        await jetstream.purge("S", 1)
    assert waiting.result() == 2
    assert said[0].startswith("storage_full: s: ")


async def test_a_message_waits_for_a_stream_that_comes_late(jetstream: JetStream) -> None:
    publisher = Publisher(jetstream)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(publisher.publish("s", b"1", "a"))
        await asyncio.sleep(0.1)
        await a_stream(jetstream, 1 << 20)
    assert waiting.result() == 1


async def test_what_can_never_be_stored_is_refused(jetstream: JetStream) -> None:
    await a_stream(jetstream, 1 << 20)
    with pytest.raises(Refused) as caught:
        await Publisher(jetstream).publish("s", bytes(1 << 21), "a")
    assert caught.value.code == "payload_too_large"
