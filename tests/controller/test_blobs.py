import asyncio
import hashlib
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.waiting import wait_for
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.objects import Objects
from tshrag_common.errors import LabError, NotFound, Refused, StorageFull
from tshrag_common.sources.chunks import (
    BLOB_ANSWER,
    BLOB_ASK,
    BlobAnswer,
    BlobAsk,
    BlobChunk,
    BlobFailed,
    BlobGet,
    BlobPut,
    BlobStored,
    data_of,
    piece_of,
)
from tshrag_common.sources.faults import DigestInvalid, DigestMismatch
from tshrag_common.sources.upload import upload
from tshrag_common.streams import CHUNK_BYTES, LOADS, bucket
from tshrag_controller.blobs import (
    BlobStore,
    FolderBlobs,
    ObjectBlobs,
    WrongOffset,
    answer,
    get,
    has,
    put,
    put_file,
)

DATA = random.Random(3).randbytes(2 * CHUNK_BYTES + 1000)
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DIGEST = digest_of(DATA)


@pytest.fixture(params=["folder", "objects"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, nats_url: str
) -> AsyncIterator[BlobStore]:
    if request.param == "folder":
        yield FolderBlobs(tmp_path / "blobs", 1 << 28)
        return
    bus = await connect(nats_url, name="t", within_s=10)
    jetstream = JetStream(bus)
    await jetstream.ensure_stream(bucket(LOADS, 1 << 28))
    yield ObjectBlobs(Objects(jetstream, LOADS))
    await bus.close()


async def whole(store: BlobStore, digest: str) -> bytes:
    data = b""
    while True:
        total, chunk = await get(store, digest, len(data))
        data += chunk
        if not chunk:
            assert total == len(data)
            return data


async def put_all(store: BlobStore, digest: str, data: bytes) -> None:
    offset = 0
    while True:
        piece = data[offset : offset + CHUNK_BYTES]
        offset = await put(store, digest, offset, len(data), piece)
        if offset == len(data):
            return


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_comes_back_as_it_was(store: BlobStore, tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(DATA[:size])
    digest = digest_of(DATA[:size])
    await put_file(store, digest, tmp_path / "f")
    assert await whole(store, digest) == DATA[:size]
    assert await has(store, [digest, DIGEST]) == (digest,)
    await put_file(store, digest, tmp_path / "f")


async def test_a_blob_is_not_there_before_all_of_it_is(store: BlobStore) -> None:
    assert await put(store, DIGEST, 0, len(DATA), DATA[:CHUNK_BYTES]) == CHUNK_BYTES
    assert await has(store, [DIGEST]) == ()
    with pytest.raises(NotFound) as caught:
        await get(store, DIGEST, 0)
    assert caught.value.code == "unknown_blob"


async def test_late_early_and_repeated_pieces_change_nothing(store: BlobStore) -> None:
    total, first = len(DATA), DATA[:CHUNK_BYTES]
    second = DATA[CHUNK_BYTES : 2 * CHUNK_BYTES]
    assert await put(store, DIGEST, CHUNK_BYTES, total, second) == 0
    assert await put(store, DIGEST, 0, total, first) == CHUNK_BYTES
    assert await put(store, DIGEST, 0, total, first) == CHUNK_BYTES
    assert await put(store, DIGEST, CHUNK_BYTES, total, second) == 2 * CHUNK_BYTES
    assert await put(store, DIGEST, 2 * CHUNK_BYTES, total, DATA[2 * CHUNK_BYTES :]) == total
    assert await put(store, DIGEST, 0, total, first) == total
    assert await whole(store, DIGEST) == DATA


async def test_other_bytes_are_refused_and_forgotten(store: BlobStore) -> None:
    wrong = bytes(len(DATA))
    with pytest.raises(LabError) as caught:
        await put_all(store, DIGEST, wrong)
    assert caught.value.line == f"sha256_mismatch: want {DIGEST} got {digest_of(wrong)}"
    assert await has(store, [DIGEST]) == ()
    await put_all(store, DIGEST, DATA)
    assert await whole(store, DIGEST) == DATA


async def test_damage_that_another_left_is_healed_by_an_upload(
    store: BlobStore, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(DATA)
    await put(store, DIGEST, 0, len(DATA), bytes(CHUNK_BYTES))
    await put_file(store, DIGEST, tmp_path / "f")
    assert await whole(store, DIGEST) == DATA


async def test_a_short_piece_that_nobody_finished_is_healed_too(
    store: BlobStore, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(DATA)
    await store.write(DIGEST, 0, DATA[:100])
    await put_file(store, DIGEST, tmp_path / "f")
    assert await whole(store, DIGEST) == DATA


async def test_two_who_upload_the_same_help_each_other(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(put_file(store, DIGEST, tmp_path / "f"))
    assert await whole(store, DIGEST) == DATA


async def test_a_file_with_another_digest_is_named(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA[:-1])
    with pytest.raises(DigestMismatch, match=f"want {DIGEST} got {digest_of(DATA[:-1])}"):
        await put_file(store, DIGEST, tmp_path / "f")
    assert await has(store, [DIGEST]) == ()


async def test_hostile_asks_are_refused(store: BlobStore) -> None:
    for digest in ("../../etc/passwd", "A" * 64, "", "a" * 63 + "/"):
        with pytest.raises(DigestInvalid):
            await get(store, digest, 0)
        with pytest.raises(DigestInvalid):
            await put(store, digest, 0, 1, b"x")
    for offset, total, data in ((-1, 5, b"x"), (4, 5, b"xx"), (0, 5, bytes(CHUNK_BYTES + 1))):
        with pytest.raises(WrongOffset):
            await put(store, DIGEST, offset, total, data)
    with pytest.raises(Refused, match="> 1 GiB"):
        await put(store, DIGEST, 0, (1 << 30) + 1, b"x")
    await put_all(store, DIGEST, DATA)
    for offset in (-1, len(DATA) + 1):
        with pytest.raises(WrongOffset):
            await get(store, DIGEST, offset)


async def test_what_is_deleted_is_gone(store: BlobStore) -> None:
    await put_all(store, DIGEST, DATA)
    await store.delete(DIGEST)
    assert await has(store, [DIGEST]) == ()
    await put_all(store, DIGEST, DATA)
    assert await whole(store, DIGEST) == DATA


async def test_any_controller_goes_on_with_an_upload(nats_url: str, tmp_path: Path) -> None:
    bus = await connect(nats_url, name="t", within_s=10)
    jetstream = JetStream(bus)
    await jetstream.ensure_stream(bucket(LOADS, 1 << 28))
    stores = [ObjectBlobs(Objects(jetstream, LOADS)) for _ in range(3)]
    (tmp_path / "f").write_bytes(DATA)
    turns = iter(range(1000))

    async def put_chunk(digest: str, offset: int, total: int, data: bytes) -> int:
        return await put(stores[next(turns) % 3], digest, offset, total, data)

    await put(stores[2], DIGEST, 0, len(DATA), bytes(CHUNK_BYTES))  # damage, known to one of them
    await upload(tmp_path / "f", DIGEST, put_chunk)
    for store in stores:
        assert await whole(store, DIGEST) == DATA
    await bus.close()


async def ask(store: BlobStore, asked: BlobGet | BlobPut) -> BlobChunk | BlobStored | BlobFailed:
    """Go over the wire, there and back."""
    heard = BLOB_ASK.decode(BLOB_ASK.encode(BlobAsk(asked)))
    said: BlobAnswer = await answer(store, store, heard)
    return BLOB_ANSWER.decode(BLOB_ANSWER.encode(said)).answer


async def test_an_agent_puts_and_gets_over_the_wire(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path, 1 << 20)
    data = b"text " * 10_000
    digest = digest_of(data)
    piece = piece_of(data)
    assert piece.compressed
    assert len(piece.data) < 1000
    put_it = BlobPut(digest=digest, offset=0, total=len(data), piece=piece)
    assert await ask(store, put_it) == BlobStored(stored=len(data))
    got = await ask(store, BlobGet(digest=digest, offset=10))
    assert isinstance(got, BlobChunk)
    assert (got.total, data_of(got.piece)) == (len(data), data[10:])
    missing = await ask(store, BlobGet(digest="0" * 64, offset=0))
    assert isinstance(missing, BlobFailed)
    assert missing.error.code == "unknown_blob"


async def test_a_piece_that_swells_is_refused(tmp_path: Path) -> None:
    bomb = piece_of(bytes(4 * CHUNK_BYTES))
    put_it = BlobPut(digest=DIGEST, offset=0, total=4 * CHUNK_BYTES, piece=bomb)
    answered = await ask(FolderBlobs(tmp_path, 1 << 20), put_it)
    assert isinstance(answered, BlobFailed)
    assert answered.error.code == "bad_message"


async def test_a_folder_has_a_bound_and_is_swept(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path, 2 * CHUNK_BYTES)
    await put(store, DIGEST, 0, len(DATA), DATA[:CHUNK_BYTES])
    await put(store, DIGEST, CHUNK_BYTES, len(DATA), DATA[CHUNK_BYTES : 2 * CHUNK_BYTES])
    with pytest.raises(StorageFull, match="1 MiB are in use"):
        await put(store, DIGEST, 2 * CHUNK_BYTES, len(DATA), DATA[2 * CHUNK_BYTES :])
    assert await store.sweep(3600, time.time()) == 0
    assert await store.sweep(-10, time.time()) == 1
    small = b"small"
    await put_all(store, digest_of(small), small)


UPLOADER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from tshrag_common.sources.upload import upload
    from tshrag_controller.blobs import FolderBlobs, put
    folder, file, digest = sys.argv[1:]
    store = FolderBlobs(Path(folder), 1 << 30)

    async def put_slowly(*piece):
        await asyncio.sleep(0.02)
        return await put(store, *piece)

    asyncio.run(upload(Path(file), digest, put_slowly))
""")


@pytest.mark.slow
def test_an_upload_killed_twenty_times_ends_with_the_right_bytes(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(40 * CHUNK_BYTES + 77)
    (tmp_path / "f").write_bytes(data)
    digest, chance = digest_of(data), random.Random(9)
    folder = tmp_path / "blobs"
    staged = folder / "staging" / digest
    for _ in range(20):
        wanted = size_of(staged) + chance.randrange(1, 2 * CHUNK_BYTES)
        kill_uploader_at(staged, wanted, [str(folder), str(tmp_path / "f"), digest])
        found = folder / digest[:2] / digest
        assert not found.exists() or found.read_bytes() == data
    store = FolderBlobs(folder, 1 << 30)
    asyncio.run(put_file(store, digest, tmp_path / "f"))
    assert asyncio.run(whole(store, digest)) == data


def kill_uploader_at(staged: Path, size: int, arguments: list[str]) -> None:
    command = [sys.executable, "-c", UPLOADER, *arguments]
    with subprocess.Popen(command) as child:
        wait_for(lambda: size_of(staged) >= size or child.poll() is not None)
        child.kill()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
