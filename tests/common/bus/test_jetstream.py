import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.nats_server import NatsServer
from tshrag_common import subjects
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream, WrongSequence
from tshrag_common.errors import NotFound, StorageFull, Unavailable
from tshrag_common.streams import (
    EV_LEADER,
    LOG,
    StreamConfig,
    StreamSizes,
    all_streams,
    met_ingest,
)


@pytest.fixture
async def jetstream(nats_url: str) -> AsyncIterator[JetStream]:
    bus = await connect(nats_url, name="t", within_s=10)
    yield JetStream(bus)
    await bus.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path).start()
    yield server
    server.stop()


async def make_log(jetstream: JetStream) -> None:
    await jetstream.ensure_stream(all_streams()[0])


async def test_every_stream_and_consumer_of_the_lab_is_taken_by_the_server(
    jetstream: JetStream,
) -> None:
    for _ in range(2):
        for stream in all_streams():
            await jetstream.ensure_stream(stream)
        await jetstream.ensure_consumer("EV", EV_LEADER)
        for partition in range(subjects.MET_PARTITIONS):
            await jetstream.ensure_consumer("MET", met_ingest(partition, "ctl-0"))


async def test_a_stream_takes_a_new_bound(jetstream: JetStream) -> None:
    for stream in all_streams(StreamSizes().within(1 << 30)):
        await jetstream.ensure_stream(stream)
    for stream in all_streams():
        await jetstream.ensure_stream(stream)


async def test_samples_are_stored_by_partition(jetstream: JetStream) -> None:
    for stream in all_streams():
        await jetstream.ensure_stream(stream)
    await jetstream.publish("lab.v1.agent.rack7.met", b"x", {})
    info = await jetstream.stream_info("MET", ">")
    (stored,) = info.subjects
    assert subjects.agent_of(stored) == ("rack7", "met")
    assert stored.startswith("lab.v1.met.")


async def test_a_frame_is_appended_behind_the_expected_one_only(jetstream: JetStream) -> None:
    await make_log(jetstream)
    assert await jetstream.tail(LOG) is None
    log = subjects.log()
    assert await jetstream.publish_expect(log, b"1", "a:1", 0) == 1
    assert await jetstream.publish_expect(log, b"2", "a:2", 1) == 2
    with pytest.raises(WrongSequence):
        await jetstream.publish_expect(log, b"other", "b:1", 1)
    with pytest.raises(WrongSequence):
        await jetstream.publish_expect(log, b"2", "a:2", 1)  # a second copy: the tail tells
    tail = await jetstream.tail(LOG)
    assert tail is not None
    assert (tail.sequence, tail.message_id, tail.data) == (2, "a:2", b"2")


async def test_a_purge_keeps_the_last_sequence_and_the_cas(jetstream: JetStream) -> None:
    await make_log(jetstream)
    for number in range(5):
        await jetstream.publish_expect(subjects.log(), b"x", f"a:{number}", number)
    await jetstream.purge(LOG, 3)
    assert await jetstream.get(LOG, 3) is None
    assert await jetstream.get(LOG, 4) is not None
    await jetstream.purge(LOG, 5)
    info = await jetstream.stream_info(LOG)
    assert (info.messages, info.last_seq) == (0, 5)
    assert await jetstream.tail(LOG) is None
    assert await jetstream.publish_expect(subjects.log(), b"x", "a:6", 5) == 6


async def test_a_full_stream_refuses_and_keeps_what_it_has(jetstream: JetStream) -> None:
    await jetstream.ensure_stream(StreamConfig(name="S", subjects=("s",), max_bytes=20_000))
    stored = 0
    with pytest.raises(StorageFull):
        for stored in range(100):  # noqa: B007  # counted up to the refusal
            await jetstream.publish("s", bytes(1000), {})
    info = await jetstream.stream_info("S")
    assert info.messages == stored > 10
    assert await jetstream.get("S", 1) is not None


async def test_a_stream_that_is_not_there_is_named(jetstream: JetStream) -> None:
    with pytest.raises(NotFound):
        await jetstream.tail("NONE")
    with pytest.raises(Unavailable):
        await jetstream.publish("lab.v1.nowhere", b"", {}, timeout_s=0.3)
    await jetstream.delete_stream("NONE")
    with pytest.raises(NotFound):
        await jetstream.delete_consumer("NONE", "c")
        await jetstream.stream_info("NONE")


async def reign(url: str, name: str, acked: list[bytes], stop: asyncio.Event) -> None:
    """Append under CAS until `stop`; whoever is deposed takes over again behind the tail."""
    bus = await connect(url, name=name)
    jetstream = JetStream(bus, timeout_s=1)
    number = last = 0
    while not stop.is_set():
        number += 1
        try:
            last = await append(jetstream, f"{name}:{number}", last)
            acked.append(f"{name}:{number}".encode())
        except WrongSequence:
            last = await newest(jetstream)
    await bus.close()


async def newest(jetstream: JetStream) -> int:
    while True:
        try:
            tail = await jetstream.tail(LOG)
            return tail.sequence if tail else 0
        except Unavailable:
            continue


async def append(jetstream: JetStream, word: str, last: int) -> int:
    """Store `word` behind `last`, over whatever happens; WrongSequence means: another did."""
    while True:
        try:
            return await jetstream.publish_expect(subjects.log(), word.encode(), word, last)
        except WrongSequence:
            tail = await jetstream.tail(LOG)
            if tail is None or tail.message_id != word:
                raise
            return tail.sequence
        except Unavailable:
            continue


async def test_two_writers_over_killed_servers_lose_nothing_and_double_nothing(
    server: NatsServer,
) -> None:
    acked: list[bytes] = []
    stop = asyncio.Event()
    bus = await connect(server.url, name="reader")
    jetstream = JetStream(bus)
    await make_log(jetstream)
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(reign(server.url, name, acked, stop))
        for _ in range(3):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.restart)
        await asyncio.sleep(0.5)
        stop.set()
    info = await jetstream.stream_info(LOG)
    stored = [await jetstream.get(LOG, sequence) for sequence in range(1, info.last_seq + 1)]
    data = [message.data for message in stored if message]
    assert len(data) == len(set(data)) == info.messages
    assert set(acked) <= set(data)
    assert len(acked) > 50
    await bus.close()
