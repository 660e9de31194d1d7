import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from hypothesis import HealthCheck, given, settings, strategies as st

from tshrag_agent.attempts.follow import Chunk, Tails
from tshrag_agent.shepherd import native


def never() -> asyncio.Future[object]:
    return asyncio.get_running_loop().create_future()


def over() -> asyncio.Future[object]:
    ended = never()
    ended.set_result(None)
    return ended


async def gathered(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    async with asyncio.timeout(20):
        return [chunk async for chunk in chunks]


@given(data=st.binary(max_size=300), offset=st.integers(0, 310), size=st.integers(1, 50))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_byte_from_the_offset_on_comes_once(
    tmp_path: Path, data: bytes, offset: int, size: int
) -> None:
    file = tmp_path / "out"
    file.write_bytes(data)
    chunks = await gathered(Tails().follow(file, offset=offset, ended=over(), read_bytes=size))
    assert b"".join(chunk.data for chunk in chunks) == data[offset:]
    assert [chunk.offset for chunk in chunks] == list(range(offset, len(data), size))


async def test_what_is_written_while_it_is_followed_comes_once(tmp_path: Path) -> None:
    file, tails, ended = tmp_path / "out", Tails(), never()
    pieces = [random.Random(7).randbytes(n * 997 % 3000) for n in range(60)]

    async def write() -> None:
        with file.open("ab", buffering=0) as out:
            for piece in pieces:
                out.write(piece)
                await asyncio.sleep(0.004)
        ended.set_result(None)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        whole = group.create_task(gathered(tails.follow(file, ended=ended)))
        rest = group.create_task(gathered(tails.follow(file, offset=5000, ended=ended)))
    written = b"".join(pieces)
    assert b"".join(chunk.data for chunk in whole.result()) == written
    assert b"".join(chunk.data for chunk in rest.result()) == written[5000:]
    assert len(whole.result()) > 5


async def test_the_first_byte_comes_without_waiting_for_the_end(tmp_path: Path) -> None:
    file = tmp_path / "out"
    async with aclosing(Tails().follow(file, ended=never())) as chunks:
        asyncio.get_running_loop().call_later(0.05, file.write_bytes, b"hello")
        async with asyncio.timeout(5):
            assert await anext(chunks) == Chunk(0, b"hello")


async def test_a_hole_shows_as_a_jump(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"h" * 65536 + b"x" * 1048576 + b"t" * 65536)
    fd = os.open(file, os.O_WRONLY)
    native.punch_hole(fd, 65536, 1048576)
    os.close(fd)
    chunks = await gathered(Tails().follow(file, ended=over(), read_bytes=50000))
    assert b"".join(chunk.data for chunk in chunks) == b"h" * 65536 + b"t" * 65536
    assert [chunk.offset for chunk in chunks] == [0, 50000, 1114112, 1164112]


async def test_a_file_that_never_comes_ends_with_the_process(tmp_path: Path) -> None:
    ended = never()
    asyncio.get_running_loop().call_later(0.05, ended.set_result, None)
    assert await gathered(Tails().follow(tmp_path / "none", ended=ended)) == []


async def test_what_is_no_plain_file_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("fifo", "link"):
        assert await gathered(Tails().follow(tmp_path / name, ended=over())) == []


async def test_a_follower_that_is_closed_leaves_no_open_file(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- of this process, not of a path
    for _ in range(5):
        async with aclosing(Tails().follow(file, ended=never())) as chunks:
            await anext(chunks)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 -- the same
