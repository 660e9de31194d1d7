import asyncio
import hashlib
import random
import resource
from pathlib import Path

import pytest

from tests.support.blob_sources import BlobSource
from tests.support.waiting import wait_until
from tshrag_agent.loads.fetch import fetch
from tshrag_common.errors import DeadlineExceeded, NotFound, StorageFull
from tshrag_common.sources.faults import ArchiveLimit, DigestMismatch
from tshrag_common.streams import CHUNK_BYTES

DATA = random.Random(7).randbytes(3 * CHUNK_BYTES + 1000)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
async def test_a_blob_of_any_size_arrives(tmp_path: Path, size: int) -> None:
    source = BlobSource()
    digest = source.put(DATA[:size])
    assert await fetch(digest, tmp_path / "x", source.get_chunk) == size
    assert (tmp_path / "x").read_bytes() == DATA[:size]
    assert names_in(tmp_path) == ["x"]


async def test_a_known_size_spares_a_question(tmp_path: Path) -> None:
    source = BlobSource()
    digest = source.put(DATA)
    await fetch(digest, tmp_path / "x", source.get_chunk, size_bytes=len(DATA))
    assert len(source.asked) == 4


async def test_a_fetch_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    source = BlobSource()
    digest = source.put(DATA)
    source.broken_after = 2 * CHUNK_BYTES
    with pytest.raises(ConnectionError):
        await fetch(digest, tmp_path / "x", source.get_chunk)
    assert not (tmp_path / "x").exists()
    source.asked.clear()
    await fetch(digest, tmp_path / "x", source.get_chunk)
    assert source.asked[0] == (digest, 2 * CHUNK_BYTES)
    assert (tmp_path / "x").read_bytes() == DATA


async def test_damaged_leftovers_are_fetched_again(tmp_path: Path) -> None:
    source = BlobSource()
    digest = source.put(DATA)
    (tmp_path / "x.part").write_bytes(bytes(1000))
    await fetch(digest, tmp_path / "x", source.get_chunk)
    assert (tmp_path / "x").read_bytes() == DATA


async def test_other_bytes_are_refused_with_both_digests(tmp_path: Path) -> None:
    source = BlobSource()
    want, got = source.put(DATA), hashlib.sha256(DATA[:5]).hexdigest()
    source.blobs[want] = DATA[:5]
    with pytest.raises(DigestMismatch) as caught:
        await fetch(want, tmp_path / "x", source.get_chunk)
    assert caught.value.line == f"sha256_mismatch: want {want} got {got}"
    assert names_in(tmp_path) == []


async def test_more_than_announced_or_allowed_is_refused(tmp_path: Path) -> None:
    source = BlobSource()
    digest = source.put(DATA)
    with pytest.raises(ArchiveLimit, match="512 KiB"):
        await fetch(digest, tmp_path / "x", source.get_chunk, limit_bytes=CHUNK_BYTES)
    with pytest.raises(ArchiveLimit):
        await fetch(digest, tmp_path / "y", source.get_chunk, size_bytes=100)


async def test_silence_and_absence_are_told_apart(tmp_path: Path) -> None:
    source = BlobSource()
    digest = source.put(DATA)
    source.hold.clear()
    with pytest.raises(DeadlineExceeded, match="no piece of load"):
        await fetch(digest, tmp_path / "x", source.get_chunk, chunk_s=0.05)
    source.hold.set()
    with pytest.raises(NotFound):
        await fetch("0" * 64, tmp_path / "y", source.get_chunk)


async def test_a_cancelled_fetch_leaves_a_part_to_go_on_with(tmp_path: Path) -> None:
    source = BlobSource()
    digest = source.put(DATA)

    async def holding(digest: str, offset: int) -> bytes:
        if offset == CHUNK_BYTES:
            source.hold.clear()
        return await source.get_chunk(digest, offset)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(fetch(digest, tmp_path / "x", holding))
        await wait_until(lambda: len(source.asked) == 2)
        task.cancel()
    assert (tmp_path / "x.part").read_bytes() == DATA[:CHUNK_BYTES]
    source.hold.set()
    await fetch(digest, tmp_path / "x", source.get_chunk)
    assert (tmp_path / "x").read_bytes() == DATA


async def test_a_file_that_may_not_grow_is_storage_full(tmp_path: Path) -> None:
    source = BlobSource()
    digest = source.put(DATA)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES + 100, hard))
    try:
        with pytest.raises(StorageFull):
            await fetch(digest, tmp_path / "x", source.get_chunk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await fetch(digest, tmp_path / "x", source.get_chunk)
    assert (tmp_path / "x").read_bytes() == DATA
