"""Fetch a load by its digest, piece by piece; what an earlier try has left is used."""

import asyncio
import hashlib
import os
from pathlib import Path

from tshrag_common.errors import DeadlineExceeded, StorageFull
from tshrag_common.sources.chunks import GetChunk
from tshrag_common.sources.faults import ArchiveLimit, DigestMismatch
from tshrag_common.sources.policy import sha256_text
from tshrag_common.sources.threads import Check, in_thread
from tshrag_common.sources.tree import size_text

CHUNK_S = 30.0
"""How long one piece may take; the callable's own deadline may be shorter."""

_READ_BYTES = 1 << 20


async def fetch(
    digest: str,
    into: Path,
    get_chunk: GetChunk,
    *,
    size_bytes: int = 0,
    limit_bytes: int = 1 << 30,
    chunk_s: float = CHUNK_S,
) -> int:
    """Bring the blob `digest` to the file `into`, which is there whole or not at all.

    ``into.part`` beside it keeps what has come; cancelled or failed, the next try goes on there.
    `size_bytes` spares the question for the end. Return the size.

    Raises:
        DigestMismatch: the bytes are others, also when asked for once more from the begin.
        ArchiveLimit: more than `limit_bytes`.
        DeadlineExceeded, Unavailable: nobody answers. StorageFull: the disk.

    """
    part = into.with_name(into.name + ".part")
    bound = min(size_bytes or limit_bytes, limit_bytes)
    for is_last in (False, True):
        download = await in_thread(lambda check: _Download(part, check))
        try:
            continued = download.size
            got = await _complete(digest, download, get_chunk, size_bytes, bound, chunk_s)
        finally:
            download.close()
        if got == digest:
            await in_thread(lambda _: _publish(part, into))
            return download.size
        await in_thread(lambda _: part.unlink())
        if is_last or not continued:
            break
    raise DigestMismatch(digest, got)


async def _complete(
    digest: str,
    download: "_Download",
    get_chunk: GetChunk,
    size_bytes: int,
    bound: int,
    chunk_s: float,
) -> str:
    """Take pieces up to the end; return the digest of all."""
    while not size_bytes or download.size < size_bytes:
        try:
            async with asyncio.timeout(chunk_s):
                chunk = await get_chunk(digest, download.size)
        except TimeoutError:
            late = f"no piece of load {digest[:12]} within {chunk_s:g} s"
            raise DeadlineExceeded("blob", late) from None
        if not chunk:
            break
        if download.size + len(chunk) > bound:
            raise ArchiveLimit("", f"load {digest[:12]} > {size_text(bound)}")
        await download.add(chunk)
    return download.sha256.hexdigest()


class _Download:
    """The file with what has come, and the sha256 of it."""

    def __init__(self, part: Path, check: Check) -> None:
        self.sha256, self.size = hashlib.sha256(), 0
        part.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while data := os.read(self._fd, _READ_BYTES):
                check()
                self.sha256.update(data)
                self.size += len(data)
        except BaseException:
            self.close()
            raise

    async def add(self, chunk: bytes) -> None:
        try:
            await in_thread(lambda _: self._write(chunk))
        except OSError as error:
            raise StorageFull("cache", f"{error.strerror or error}") from None

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            written = os.write(self._fd, left)
            self.sha256.update(left[:written])
            self.size += written
            left = left[written:]


def _publish(part: Path, into: Path) -> None:
    """Give the whole file its name, so that a power cut leaves it whole or absent."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(into)
    directory = os.open(into.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def checked_name(digest: str) -> str:
    """Return the file name of a load in the cache."""
    return sha256_text(digest) + ".tar"
