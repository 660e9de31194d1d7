"""Hand a file in by its digest, piece by piece; what an earlier try has left is used."""

from pathlib import Path

from tshrag_common.errors import LabError
from tshrag_common.sources.archive import file_sha256
from tshrag_common.sources.chunks import PutChunk
from tshrag_common.sources.faults import DigestMismatch, SourceRefused, SourceUnreachable
from tshrag_common.sources.threads import in_thread
from tshrag_common.streams import CHUNK_BYTES

_SETBACKS = 10  # answers that do not get us on; controllers may differ for a moment


async def upload(path: Path, digest: str, put_chunk: PutChunk) -> None:
    """Hand `path` in as `digest`. `put_chunk` has a deadline of its own.

    What another try had left may be damaged: then everything is sent once more.

    Raises:
        DigestMismatch: the file has another digest.
        SourceUnreachable: the store does not get on.

    """
    try:
        await _send(path, digest, put_chunk)
    except LabError as error:
        if error.code != DigestMismatch.code:
            raise
        got = await in_thread(lambda check: file_sha256(path, check))
        if got != digest:
            raise DigestMismatch(digest, got) from None
        await _send(path, digest, put_chunk)


async def _send(path: Path, digest: str, put_chunk: PutChunk) -> None:
    total = (await in_thread(lambda _: path.stat())).st_size
    offset, setbacks = 0, 0
    while True:
        stored = await put_chunk(digest, offset, total, await _read(path, offset))
        if stored == total:
            return
        if not 0 <= stored < total:
            raise SourceRefused(digest[:12], f"the store says {stored} of {total} bytes")
        setbacks += stored <= offset
        if setbacks > _SETBACKS:
            raise SourceUnreachable(digest[:12], f"the store stays at {stored} of {total} bytes")
        offset = stored


async def _read(path: Path, offset: int) -> bytes:
    def read() -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)

    return await in_thread(lambda _: read())
