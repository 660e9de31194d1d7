"""Loads down, artifacts up, by sha256: two stores with one face, and what agents ask of them.

A blob is there when all of it has come and its digest was right; before that it is *staged*, and
an upload that broke off goes on from there. `put` and `get` are the whole protocol: people reach
them as requests, agents on ``blob`` (`answer`).
"""

import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from tshrag_common.bus.jetstream import WrongSequence
from tshrag_common.bus.objects import Objects, Upload
from tshrag_common.errors import LabError, NotFound, Refused, StorageFull
from tshrag_common.failpoints import failpoint
from tshrag_common.sources.archive import file_sha256
from tshrag_common.sources.chunks import (
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
from tshrag_common.sources.faults import DigestMismatch
from tshrag_common.sources.policy import sha256_text
from tshrag_common.sources.threads import Check, Locks, in_thread
from tshrag_common.sources.tree import size_text
from tshrag_common.sources.upload import upload
from tshrag_common.streams import CHUNK_BYTES

MAX_BLOB_BYTES = 1 << 30
_UPLOADS = 64
_STAGING = "staging"


class WrongOffset(Refused):
    """Bytes from where the blob has none."""

    code = "offset"


@runtime_checkable
class BlobStore(Protocol):
    """Bytes by their sha256. Every digest that comes in is checked in form by the caller."""

    async def size(self, digest: str) -> int | None:
        """Return how long a complete blob is, None where there is none."""
        ...

    async def read(self, digest: str, offset: int) -> bytes:
        """Return at most CHUNK_BYTES of a complete blob; none at its end."""
        ...

    async def write(self, digest: str, offset: int, data: bytes) -> int:
        """Stage `data` where it goes on at `offset`; return how much is staged either way.

        Raises:
            StorageFull: there is no room.

        """
        ...

    async def finish(self, digest: str) -> None:
        """Check what is staged and make it a blob; remove it when it is another.

        Raises:
            LabError: ``sha256_mismatch``.

        """
        ...

    async def delete(self, digest: str) -> None:
        """Remove a blob, and what is staged of it."""
        ...


async def get(store: BlobStore, digest: str, offset: int) -> tuple[int, bytes]:
    """Return the size of a blob and a piece of it.

    Raises:
        NotFound: there is no such blob (``unknown_blob``).
        WrongOffset: behind its end, or before its begin.

    """
    total = await store.size(sha256_text(digest))
    if total is None:
        raise NotFound("blob", digest)
    if not 0 <= offset <= total:
        raise WrongOffset("offset", f"{offset} is outside 0..{total}")
    return total, await store.read(digest, offset)


async def put(store: BlobStore, digest: str, offset: int, total: int, data: bytes) -> int:
    """Take a piece; return how much is stored: the next one begins there. `total` is all of it.

    Pieces that come twice, late or too early change nothing; all of it comes back only when the
    digest was right.

    Raises:
        DigestMismatch: all has come, and it is something else; nothing of it is kept.
        WrongOffset: outside of what was announced. StorageFull.

    """
    there = await store.size(sha256_text(digest))
    if there is not None:
        return total
    if not 0 <= total <= MAX_BLOB_BYTES:
        raise Refused("", f"{total} bytes > {size_text(MAX_BLOB_BYTES)}", code="too_large")
    if offset < 0 or offset + len(data) > total or len(data) > CHUNK_BYTES:
        raise WrongOffset("offset", f"{offset} + {len(data)} is outside 0..{total}")
    staged = await store.write(digest, offset, data)
    failpoint("blobs.piece")
    if staged >= total:
        await store.finish(digest)
        return total
    return staged


async def put_file(store: BlobStore, digest: str, path: Path) -> None:
    """Store a file of this machine; nothing happens where the store has it already."""

    async def put_chunk(digest: str, offset: int, total: int, data: bytes) -> int:
        return await put(store, digest, offset, total, data)

    if await store.size(sha256_text(digest)) is None:
        await upload(path, digest, put_chunk)


async def has(store: BlobStore, digests: Iterable[str]) -> tuple[str, ...]:
    """Return those of `digests` that are stored."""
    wanted = [sha256_text(digest) for digest in digests]
    return tuple([digest for digest in wanted if await store.size(digest) is not None])


async def answer(loads: BlobStore, artifacts: BlobStore, asked: BlobAsk) -> BlobAnswer:
    """Answer an agent: it gets loads and puts artifacts. A refusal is an answer too."""
    try:
        match asked.ask:
            case BlobGet(digest=digest, offset=offset):
                total, data = await get(loads, digest, offset)
                piece = await in_thread(lambda _: piece_of(data))
                return BlobAnswer(BlobChunk(total=total, piece=piece))
            case BlobPut(digest=digest, offset=offset, total=total, piece=piece):
                data = await in_thread(lambda _: data_of(piece))
                return BlobAnswer(
                    BlobStored(stored=await put(artifacts, digest, offset, total, data))
                )
    except LabError as error:
        return BlobAnswer(BlobFailed(error=error.report()))


class FolderBlobs:
    """Blobs as files of one folder of this machine: ``ab/ab12…``, staged in ``staging/``.

    `max_bytes` bounds what is staged and what is stored, together. Several may be opened on one
    folder by one process only.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._locks = Locks()
        self._used: int | None = None  # learned when it is first needed

    async def size(self, digest: str) -> int | None:
        return await in_thread(lambda _: _size(self._blob(digest)))

    async def read(self, digest: str, offset: int) -> bytes:
        def read() -> bytes:
            with self._blob(digest).open("rb") as file:
                file.seek(offset)
                return file.read(CHUNK_BYTES)

        try:
            return await in_thread(lambda _: read())
        except FileNotFoundError:
            raise NotFound("blob", digest) from None

    async def write(self, digest: str, offset: int, data: bytes) -> int:
        async with self._locks.of(digest):
            if self._used is None:
                self._used = await in_thread(lambda _: _used(self._folder))
            if self._used + len(data) > self._max_bytes:
                raise StorageFull("blobs", f"{size_text(self._max_bytes)} are in use")
            path = self._staged(digest)
            try:
                before, after = await in_thread(lambda _: _appended(path, offset, data))
            except OSError as error:
                raise StorageFull("blobs", str(error.strerror or error)) from None
            self._used += after - before
            return after

    async def finish(self, digest: str) -> None:
        async with self._locks.of(digest):
            staged, blob = self._staged(digest), self._blob(digest)
            got = await in_thread(lambda check: _published(staged, blob, digest, check))
            if got != digest:
                self._used = None
                raise DigestMismatch(digest, got)

    async def delete(self, digest: str) -> None:
        async with self._locks.of(digest):
            for path in (self._blob(digest), self._staged(digest)):
                await in_thread(lambda _, path=path: path.unlink(missing_ok=True))  # type: ignore[misc] # path is bound on purpose
            self._used = None

    async def sweep(self, older_than_s: float, now_s: float) -> int:
        """Remove what was staged and then left alone; return how many there were."""
        count = await in_thread(lambda _: _swept(self._folder / _STAGING, now_s - older_than_s))
        self._used = None
        return count

    def _blob(self, digest: str) -> Path:
        return self._folder / sha256_text(digest)[:2] / digest

    def _staged(self, digest: str) -> Path:
        return self._folder / _STAGING / sha256_text(digest)


class ObjectBlobs:
    """Blobs in a bucket of JetStream: any controller goes on with what another one has staged."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._locks = Locks()
        self._uploads = OrderedDict[str, Upload]()  # those of late; the bucket knows them all

    async def size(self, digest: str) -> int | None:
        info = await self._objects.info(digest)
        return None if info is None else info.size_bytes

    async def read(self, digest: str, offset: int) -> bytes:
        return await self._objects.read(digest, offset)

    async def write(self, digest: str, offset: int, data: bytes) -> int:
        async with self._locks.of(digest):
            upload = await self._at(digest, offset)
            if offset != upload.size_bytes or not data:
                return upload.size_bytes
            if offset % CHUNK_BYTES:  # another's short last piece, never finished
                await self._objects.delete(digest)
                return (await self._load(digest)).size_bytes
            try:
                await upload.write(offset, data)
            except WrongSequence:  # another controller has removed what we knew
                upload = await self._load(digest)
            return upload.size_bytes

    async def finish(self, digest: str) -> None:
        async with self._locks.of(digest):
            known = self._uploads.pop(digest, None)
            try:
                if known is not None:
                    await self._objects.finish(digest, known)
                    return
            except NotFound:
                pass  # what we knew is gone
            await self._objects.finish(digest, await self._objects.upload(digest))

    async def delete(self, digest: str) -> None:
        async with self._locks.of(digest):
            self._uploads.pop(digest, None)
            await self._objects.delete(digest)

    async def _at(self, digest: str, offset: int) -> Upload:
        """Return the upload, read again from the bucket where `offset` surprises us.

        Other controllers add to it, and remove it when its digest was wrong.
        """
        upload = self._uploads.get(digest)
        if upload is None:
            return await self._load(digest)
        if upload.size_bytes < offset:
            await upload.refresh()
        return upload if upload.size_bytes == offset else await self._load(digest)

    async def _load(self, digest: str) -> Upload:
        upload = self._uploads[digest] = await self._objects.upload(digest)
        self._uploads.move_to_end(digest)
        while len(self._uploads) > _UPLOADS:
            self._uploads.popitem(last=False)
        return upload


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _appended(path: Path, offset: int, data: bytes) -> tuple[int, int]:
    """Append where it fits; return the size before and after."""
    before = _size(path) or 0
    if before == offset:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
        return before, before + len(data)
    return before, before


def _published(staged: Path, blob: Path, digest: str, check: Check) -> str:
    """Give a staged file its name, safe from a power cut; remove it when its digest is another."""
    if blob.exists():  # somebody else was faster
        staged.unlink(missing_ok=True)
        return digest
    got = file_sha256(staged, check)
    if got != digest:
        staged.unlink()
        return got
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    blob.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(blob)
    for folder in (blob.parent, blob.parent.parent):
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    return got


def _swept(folder: Path, before: float) -> int:
    old = [path for path in folder.glob("*") if path.stat().st_mtime < before]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
