"""Objects by their sha256 in JetStream: the standard layout, so that the ``nats`` tool reads it.

Chunks are messages on ``$O.<bucket>.C.<id>``, the description is one on ``$O.<bucket>.M.<name>``.
Name and id are the digest. A chunk is published with the sequence of the one before it on its
subject, so two who upload the same object at once help each other, and one that broke off is
continued. An object is there when its description is; that is written last.

Up to 1 GiB in chunks of 512 KiB; one chunk at a time is in memory.
"""

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterable

import msgspec

from tshrag_common.bus.jetstream import (
    EXPECTED_LAST_ON_SUBJECT,
    JetStream,
    StoredMessage,
    WrongSequence,
)
from tshrag_common.errors import NotFound, Refused, shown
from tshrag_common.streams import CHUNK_BYTES, bucket_stream

MAX_OBJECT_BYTES = 1 << 30
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RUNS = "tshrag-runs"


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an object; `runs` are (sequence, count) of its chunks in the stream."""

    digest: str
    size_bytes: int
    runs: tuple[tuple[int, int], ...]

    def sequence_of(self, chunk: int) -> int:
        """Return where chunk number `chunk` is stored."""
        for sequence, count in self.runs:
            if chunk < count:
                return sequence + chunk
            chunk -= count
        raise Refused("offset", f"behind the end of {self.digest[:12]}", code="offset")


class _Options(msgspec.Struct, frozen=True):
    max_chunk_size: int = CHUNK_BYTES


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    """The description as the standard has it."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str
    mtime: str = ""
    options: _Options = _Options()
    metadata: dict[str, str] = {}
    deleted: bool = False


class Objects:
    """One bucket."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._jetstream = jetstream
        self._bucket, self._stream = bucket, bucket_stream(bucket)
        self._known: dict[str, ObjectInfo] = {}

    async def info(self, digest: str) -> ObjectInfo | None:
        """Return what is known of a complete object, None where there is none."""
        known = self._known.get(_checked(digest))
        if known is not None:
            return known
        stored = await self._jetstream.last_on(self._stream, self._description(digest))
        if stored is None:
            return None
        info = _info(stored)
        if info is not None:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[digest] = info
        return info

    async def has(self, digest: str) -> bool:
        return await self.info(digest) is not None

    async def read(self, digest: str, offset: int, length: int = CHUNK_BYTES) -> bytes:
        """Return up to `length` bytes from `offset`, at most to the end of that chunk.

        Raises:
            NotFound: there is no such object (``unknown_object``).
            Refused: `offset` is not in it (``offset``).

        """
        info = await self.info(digest)
        if info is None:
            raise NotFound("object", digest)
        if offset == info.size_bytes:
            return b""
        if not 0 <= offset < info.size_bytes:
            raise Refused("offset", f"{offset} is outside 0..{info.size_bytes}", code="offset")
        sequence = info.sequence_of(offset // CHUNK_BYTES)
        stored = await self._jetstream.direct(self._stream, sequence)
        if stored is None:
            self._known.pop(digest, None)
            raise NotFound("object", digest)
        begin = offset % CHUNK_BYTES
        return stored.data[begin : begin + length]

    async def chunks(self, digest: str) -> AsyncIterator[bytes]:
        """Yield the object from its begin to its end; the reader checks the digest."""
        offset = 0
        while chunk := await self.read(digest, offset):
            yield chunk
            offset += len(chunk)

    async def put(self, digest: str, pieces: Iterable[bytes]) -> ObjectInfo:
        """Store an object; continue what an earlier try has left. Nothing happens if it is there.

        `pieces` may be of any size; they are read as they are needed.

        Raises:
            Refused: the bytes do not have that digest (``sha256_mismatch``; also when another
                upload had left wrong ones, which are gone then), or are more than 1 GiB.
            StorageFull: the bucket is full.

        """
        there = await self.info(digest)
        if there is not None:
            return there
        upload = await self.upload(digest)
        continued = upload.size_bytes > 0
        summed, offset = hashlib.sha256(), 0
        for chunk in _cut(pieces):
            summed.update(chunk)
            await upload.write(offset, chunk)
            offset += len(chunk)
        if summed.hexdigest() != digest:
            await self._forget(digest)
            raise _mismatch(digest, summed.hexdigest())
        return (
            await self.finish(digest, upload) if continued else await self._describe(digest, upload)
        )

    async def upload(self, digest: str) -> "Upload":
        """Return the state of an upload chunk by chunk, as far as it has come."""
        upload = Upload(self._jetstream, self._stream, self._chunk_subject(digest))
        await upload.refresh()
        return upload

    async def finish(self, digest: str, upload: "Upload") -> ObjectInfo:
        """Read back what was uploaded, check its digest, and make it an object.

        Raises:
            Refused: ``sha256_mismatch``; the chunks are removed.

        """
        there = await self.info(digest)
        if there is not None:
            return there
        summed = hashlib.sha256()
        async for chunk in upload.stored():
            summed.update(chunk)
        if summed.hexdigest() != digest:
            await self._forget(digest)
            raise _mismatch(digest, summed.hexdigest())
        return await self._describe(digest, upload)

    async def delete(self, digest: str) -> None:
        """Remove an object, or what an upload of it has left."""
        await self._jetstream.purge_subject(self._stream, self._description(digest))
        await self._forget(digest)

    async def digests(self) -> list[str]:
        """Return what is in the bucket, in no order."""
        pattern = f"$O.{self._bucket}.M.>"
        info = await self._jetstream.stream_info(self._stream, pattern)
        names = (subject.rpartition(".")[2] for subject in info.subjects)
        decoded = (base64.urlsafe_b64decode(name).decode("utf-8", "replace") for name in names)
        return [name for name in decoded if _DIGEST.fullmatch(name)]

    async def _describe(self, digest: str, upload: "Upload") -> ObjectInfo:
        info = ObjectInfo(
            digest=digest, size_bytes=upload.size_bytes, runs=runs_of(upload.sequences)
        )
        description = _Description(
            name=digest,
            bucket=self._bucket,
            nuid=digest,
            size=info.size_bytes,
            chunks=len(upload.sequences),
            digest="SHA-256=" + base64.urlsafe_b64encode(bytes.fromhex(digest)).decode(),
            mtime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            metadata={_RUNS: msgspec.json.encode(info.runs).decode()},
        )
        await self._jetstream.publish(
            self._description(digest), msgspec.json.encode(description), {"Nats-Rollup": "sub"}
        )
        self._known[digest] = info
        return info

    async def _forget(self, digest: str) -> None:
        self._known.pop(digest, None)
        await self._jetstream.purge_subject(self._stream, self._chunk_subject(digest))

    def _chunk_subject(self, digest: str) -> str:
        return f"$O.{self._bucket}.C.{_checked(digest)}"

    def _description(self, digest: str) -> str:
        name = base64.urlsafe_b64encode(_checked(digest).encode()).decode()
        return f"$O.{self._bucket}.M.{name}"


class Upload:
    """Chunks of one object that are stored already; another uploader may add to them too."""

    def __init__(self, jetstream: JetStream, stream: str, subject: str) -> None:
        self._jetstream, self._stream, self._subject = jetstream, stream, subject
        self.sequences: list[int] = []
        self.size_bytes = 0

    async def refresh(self) -> None:
        """Learn of chunks that were stored by others, or by an earlier try."""
        while found := await self._next():
            if len(self.sequences) * CHUNK_BYTES != self.size_bytes:
                raise Refused("offset", "a chunk follows on a short one", code="offset")
            self._took(found.sequence, len(found.data))

    async def write(self, offset: int, chunk: bytes) -> None:
        """Store the chunk at `offset`; nothing happens where it is stored already.

        Raises:
            Refused: not the next chunk, or of a wrong size (``offset``); beyond 1 GiB.

        """
        if len(chunk) > CHUNK_BYTES or not chunk or offset % CHUNK_BYTES:
            raise Refused("offset", f"chunks are of {CHUNK_BYTES} bytes", code="offset")
        if offset + len(chunk) > MAX_OBJECT_BYTES:
            raise Refused("", f"more than {MAX_OBJECT_BYTES} bytes", code="too_large")
        if offset < self.size_bytes:
            return
        if offset != self.size_bytes:
            raise Refused("offset", f"{offset}, and {self.size_bytes} is next", code="offset")
        headers = {EXPECTED_LAST_ON_SUBJECT: str(self.sequences[-1] if self.sequences else 0)}
        try:
            sequence = await self._jetstream.publish(self._subject, chunk, headers)
        except WrongSequence:  # it is there: an earlier try of ours, or another uploader
            await self.refresh()
            if self.size_bytes < offset + len(chunk):
                raise
            return
        self._took(sequence, len(chunk))

    async def stored(self) -> AsyncIterator[bytes]:
        """Yield the chunks that are stored."""
        for sequence in list(self.sequences):
            found = await self._jetstream.direct(self._stream, sequence)
            if found is None:
                raise NotFound("chunk", f"{self._subject} {sequence}")
            yield found.data

    async def _next(self) -> StoredMessage | None:
        behind = self.sequences[-1] + 1 if self.sequences else 1
        return await self._jetstream.next_on(self._stream, self._subject, behind)

    def _took(self, sequence: int, size: int) -> None:
        self.sequences.append(sequence)
        self.size_bytes += size


def runs_of(sequences: list[int]) -> tuple[tuple[int, int], ...]:
    """Return ascending `sequences` as (first, count) of those that follow on each other."""
    runs: list[tuple[int, int]] = []
    for sequence in sequences:
        if runs and sum(runs[-1]) == sequence:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((sequence, 1))
    return tuple(runs)


def _info(stored: StoredMessage) -> ObjectInfo | None:
    try:
        description = msgspec.json.decode(stored.data, type=_Description)
        runs = msgspec.json.decode(
            description.metadata.get(_RUNS, "[]"), type=tuple[tuple[int, int], ...]
        )
    except msgspec.DecodeError:
        return None
    if description.deleted:
        return None
    return ObjectInfo(digest=description.name, size_bytes=description.size, runs=runs)


def _cut(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """Yield `pieces` as chunks of the size of the store, the last one smaller."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise Refused("sha256", f"{shown(digest)} is no digest", code="invalid_id")
    return digest


def _mismatch(want: str, got: str) -> Refused:
    return Refused("", f"want {want} got {got}", code="sha256_mismatch")
