import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tests.support.nats_server import NatsServer
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.objects import Objects, runs_of
from tshrag_common.errors import NotFound, Refused
from tshrag_common.streams import CHUNK_BYTES, LOADS, bucket

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]


@pytest.fixture
async def loads(nats_url: str) -> AsyncIterator[Objects]:
    bus = await connect(nats_url, name="t", within_s=10)
    jetstream = JetStream(bus)
    await jetstream.ensure_stream(bucket(LOADS, 1 << 28))
    yield Objects(jetstream, LOADS)
    await bus.close()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def whole(objects: Objects, digest: str) -> bytes:
    return b"".join([chunk async for chunk in objects.chunks(digest)])


@pytest.mark.parametrize("size", SIZES)
async def test_an_object_comes_back_as_it_was(loads: Objects, size: int) -> None:
    data = os.urandom(size)
    digest = digest_of(data)
    assert not await loads.has(digest)
    await loads.put(digest, [data[:1000], data[1000:]])
    assert await loads.has(digest)
    assert await whole(loads, digest) == data
    assert await loads.digests() == [digest]


async def test_any_part_of_an_object_is_read_by_offset(loads: Objects) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 5)
    digest = digest_of(data)
    await loads.put(digest, [data])
    assert await loads.read(digest, CHUNK_BYTES - 3, 10) == data[CHUNK_BYTES - 3 : CHUNK_BYTES]
    assert await loads.read(digest, CHUNK_BYTES + 7, 10) == data[CHUNK_BYTES + 7 :][:10]
    assert await loads.read(digest, len(data)) == b""
    with pytest.raises(Refused, match="outside"):
        await loads.read(digest, len(data) + 1)


async def test_what_is_not_there_is_named(loads: Objects) -> None:
    with pytest.raises(NotFound) as caught:
        await loads.read("a" * 64, 0)
    assert caught.value.code == "unknown_object"
    for hostile in ("*", ">", "../x", "A" * 64, "a" * 63):
        with pytest.raises(Refused, match="is no digest"):
            await loads.has(hostile)


async def test_bytes_of_another_digest_are_no_object(loads: Objects) -> None:
    with pytest.raises(Refused) as caught:
        await loads.put("a" * 64, [b"data"])
    assert caught.value.code == "sha256_mismatch"
    assert not await loads.has("a" * 64)
    data = b"data"
    await loads.put(digest_of(data), [data])
    assert await whole(loads, digest_of(data)) == data


async def test_an_upload_that_broke_off_is_continued_by_anybody(loads: Objects) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 10)
    digest = digest_of(data)
    first = await loads.upload(digest)
    await first.write(0, data[:CHUNK_BYTES])
    second = await loads.upload(digest)
    assert second.size_bytes == CHUNK_BYTES
    await second.write(0, data[:CHUNK_BYTES])  # sent again: nothing happens
    for offset in range(CHUNK_BYTES, len(data), CHUNK_BYTES):
        await second.write(offset, data[offset : offset + CHUNK_BYTES])
        await first.write(offset, data[offset : offset + CHUNK_BYTES])  # both at once
    with pytest.raises(Refused, match="is next"):
        await second.write(10 * CHUNK_BYTES, b"x")
    await loads.finish(digest, second)
    assert await whole(loads, digest) == data
    assert (await loads.upload(digest)).size_bytes == len(data)


async def test_wrong_chunks_that_another_upload_left_are_found_and_removed(
    loads: Objects,
) -> None:
    data = os.urandom(2 * CHUNK_BYTES)
    digest = digest_of(data)
    await (await loads.upload(digest)).write(0, bytes(CHUNK_BYTES))
    with pytest.raises(Refused, match="want"):
        await loads.put(digest, [data])
    await loads.put(digest, [data])
    assert await whole(loads, digest) == data


async def test_a_deleted_object_is_gone_and_can_come_back(loads: Objects) -> None:
    data = b"x" * 100
    digest = digest_of(data)
    await loads.put(digest, [data])
    await loads.delete(digest)
    assert not await loads.has(digest)
    assert await loads.digests() == []
    await loads.put(digest, [data])
    assert await whole(loads, digest) == data


async def test_an_object_survives_a_killed_server_in_the_middle_of_its_upload(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        bus = await connect(server.url, name="t", within_s=10)
        jetstream = JetStream(bus, timeout_s=20)
        await jetstream.ensure_stream(bucket(LOADS, 1 << 28))
        data = os.urandom(20 * CHUNK_BYTES)
        digest = digest_of(data)
        async with asyncio.TaskGroup() as group:
            group.create_task(Objects(jetstream, LOADS).put(digest, [data]))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.restart)
        assert await whole(Objects(jetstream, LOADS), digest) == data
        await bus.close()
    finally:
        server.stop()


@given(st.sets(st.integers(1, 60)))
def test_runs_of_sequences_name_the_same_sequences(numbers: set[int]) -> None:
    runs = runs_of(sorted(numbers))
    assert [at + i for at, count in runs for i in range(count)] == sorted(numbers)
