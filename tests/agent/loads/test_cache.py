import asyncio
import os
import stat
from pathlib import Path

import pytest

from tests.support.blob_sources import BlobSource, a_packed_load
from tests.support.waiting import wait_until
from tshrag_agent.loads.cache import LoadCache
from tshrag_common.errors import NotFound, Refused, StorageFull
from tshrag_common.sources.faults import DigestInvalid, DigestMismatch

MIB = 1 << 20


@pytest.fixture
def source() -> BlobSource:
    return BlobSource()


async def a_cache(tmp_path: Path, source: BlobSource, max_bytes: int = 64 * MIB) -> LoadCache:
    cache = LoadCache(tmp_path / "cache", source.get_chunk, max_bytes=max_bytes)
    await cache.open()
    return cache


def a_load(tmp_path: Path, source: BlobSource, **files: bytes) -> str:
    base = tmp_path / f"made-{len(source.blobs)}"
    base.mkdir()
    named = {name.replace("_", "."): data for name, data in files.items()}
    return source.put(a_packed_load(base, {"bin/go.sh": b"#!/bin/sh\necho 1\n", **named}))


async def test_a_job_gets_a_tree_of_its_own_with_an_executable_entry(
    tmp_path: Path, source: BlobSource
) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source, data=b"1")
    made = await cache.prepare(digest, tmp_path / "job", "bin/go.sh")
    assert made.tree == tmp_path / "job/load"
    assert made.entry == tmp_path / "job/load/bin/go.sh"
    assert made.load_bin == tmp_path / "job/load_bin"
    assert str((tmp_path / "job/load_bin").readlink()) == "load/bin/go.sh"
    assert stat.S_IMODE(made.entry.stat().st_mode) == 0o755
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["load", "load_bin"]
    process = await asyncio.create_subprocess_exec(made.load_bin, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert output == b"1\n"


async def test_what_a_job_does_to_its_tree_is_not_seen_by_the_next(
    tmp_path: Path, source: BlobSource
) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source)
    first = await cache.prepare(digest, tmp_path / "one", "bin/go.sh")
    assert first.entry is not None
    first.entry.write_bytes(b"evil")
    (first.tree / "more").touch()
    second = await cache.prepare(digest, tmp_path / "two", "bin/go.sh")
    assert second.entry is not None
    assert second.entry.read_bytes() == b"#!/bin/sh\necho 1\n"
    assert not (second.tree / "more").exists()
    assert len({(path.stat().st_ino) for path in (first.entry, second.entry)}) == 2


async def test_one_fetch_serves_all_who_ask_at_once(tmp_path: Path, source: BlobSource) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source)
    size = len(source.blobs[digest])
    async with asyncio.TaskGroup() as group:
        for n in range(10):
            group.create_task(cache.prepare(digest, tmp_path / f"{n}", size_bytes=size))
    assert source.asked == [(digest, 0)]
    assert cache.holds(digest)


async def test_a_waiter_goes_on_when_the_first_is_cancelled(
    tmp_path: Path, source: BlobSource
) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source)
    source.hold.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(cache.ensure(digest))
        await wait_until(lambda: source.asked)
        second = group.create_task(cache.ensure(digest))
        first.cancel()
        source.hold.set()
    assert first.cancelled()
    assert second.done()
    assert cache.holds(digest)


async def test_a_file_damaged_on_the_disk_is_fetched_again(
    tmp_path: Path, source: BlobSource
) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source, data=b"x" * 5000)
    await cache.prepare(digest, tmp_path / "one", "data")
    kept = tmp_path / "cache" / f"{digest}.tar"
    for at in (0, 600, 1030, kept.stat().st_size - 1):
        damaged = bytearray(source.blobs[digest])
        damaged[at] ^= 1
        kept.write_bytes(damaged)
        made = await cache.prepare(digest, tmp_path / "two", "data")
        assert made.entry is not None
        assert made.entry.read_bytes() == b"x" * 5000
        assert kept.read_bytes() == source.blobs[digest]


async def test_what_stays_damaged_is_not_started(tmp_path: Path, source: BlobSource) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source)
    await cache.ensure(digest)
    (tmp_path / "cache" / f"{digest}.tar").write_bytes(b"junk")
    source.blobs[digest] = b"junk"
    with pytest.raises(DigestMismatch, match=f"want {digest} got "):
        await cache.prepare(digest, tmp_path / "job", "bin/go.sh")
    assert not (tmp_path / "job/load").exists()
    assert not (tmp_path / "job/load_bin").exists()


async def test_a_file_removed_behind_our_back_is_fetched_again(
    tmp_path: Path, source: BlobSource
) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source)
    await cache.ensure(digest)
    (tmp_path / "cache" / f"{digest}.tar").unlink()
    await cache.prepare(digest, tmp_path / "job")
    assert len(source.asked) == 4  # twice a piece and the end


async def test_loads_and_parts_outlive_the_agent(tmp_path: Path, source: BlobSource) -> None:
    digest = a_load(tmp_path, source)
    part = source.put(os.urandom(2 * MIB))
    first = await a_cache(tmp_path, source)
    await first.ensure(digest)
    source.broken_after = MIB
    with pytest.raises(ConnectionError):
        await first.ensure(part)
    source.asked.clear()
    second = await a_cache(tmp_path, source)
    assert second.holds(digest)
    assert not second.holds(part)
    assert second.size_bytes == len(source.blobs[digest]) + MIB
    await second.prepare(digest, tmp_path / "job")
    await second.ensure(part)
    assert source.asked[0] == (part, MIB)


async def test_what_was_used_longest_ago_makes_room(tmp_path: Path, source: BlobSource) -> None:
    cache = await a_cache(tmp_path, source, max_bytes=3 * MIB)
    a, b, c, d = (a_load(tmp_path, source, data=os.urandom(900_000)) for _ in range(4))
    for digest in (a, b, c):
        await cache.ensure(digest)
    await cache.prepare(a, tmp_path / "job")
    await cache.ensure(d, len(source.blobs[d]))
    assert [cache.holds(digest) for digest in (a, b, c, d)] == [True, False, True, True]
    assert cache.size_bytes <= 3 * MIB
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kept == {f"{digest}.tar" for digest in (a, c, d)}
    again = await a_cache(tmp_path, source, max_bytes=3 * MIB)
    await again.ensure(b)
    assert [again.holds(digest) for digest in (a, b, c, d)] == [True, True, False, True]


async def test_a_pinned_load_is_never_evicted(tmp_path: Path, source: BlobSource) -> None:
    cache = await a_cache(tmp_path, source, max_bytes=MIB)
    a, b = (a_load(tmp_path, source, data=os.urandom(700_000)) for _ in range(2))
    with cache.pinned(a):
        await cache.ensure(a)
        with pytest.raises(StorageFull, match="1 MiB of loads are all in use"):
            await cache.ensure(b, len(source.blobs[b]))
        assert cache.holds(a)
    await cache.ensure(b, len(source.blobs[b]))
    assert not cache.holds(a)


async def test_what_can_never_fit_is_said_at_once(tmp_path: Path, source: BlobSource) -> None:
    cache = await a_cache(tmp_path, source, max_bytes=MIB)
    with pytest.raises(StorageFull, match="> 1 MiB"):
        await cache.ensure("a" * 64, 2 * MIB)
    assert source.asked == []


async def test_an_entry_that_is_not_there_is_named(tmp_path: Path, source: BlobSource) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source)
    for entry in ("gone", "bin", "../../etc/passwd"):
        with pytest.raises(Refused, match=r"no entry|leads outside"):
            await cache.prepare(digest, tmp_path / "job", entry)
    assert list((tmp_path / "job").iterdir()) == []


async def test_a_second_preparation_replaces_the_first(tmp_path: Path, source: BlobSource) -> None:
    cache = await a_cache(tmp_path, source)
    digest = a_load(tmp_path, source)
    first = await cache.prepare(digest, tmp_path / "job", "bin/go.sh")
    (first.tree / "junk").touch()
    second = await cache.prepare(digest, tmp_path / "job", "load.toml")
    assert not (second.tree / "junk").exists()
    assert second.load_bin is not None
    assert str(second.load_bin.readlink()) == "load/load.toml"


async def test_hostile_digests_and_unknown_ones_are_refused(
    tmp_path: Path, source: BlobSource
) -> None:
    cache = await a_cache(tmp_path, source)
    for digest in ("../" + "a" * 61, "A" * 64, "", "a" * 63):
        with pytest.raises(DigestInvalid):
            await cache.prepare(digest, tmp_path / "job")
    with pytest.raises(NotFound):
        await cache.prepare("a" * 64, tmp_path / "job")


async def test_foreign_files_in_the_folder_are_left_alone(
    tmp_path: Path, source: BlobSource
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/notes.txt").write_text("mine")
    cache = await a_cache(tmp_path, source)
    assert cache.size_bytes == 0
    assert (tmp_path / "cache/notes.txt").exists()
