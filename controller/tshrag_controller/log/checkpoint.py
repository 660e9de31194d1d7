"""A checkpoint: the Lab and the projection at their sequences, in the object store.

Behind a stored checkpoint the LOG may be purged. Whoever starts takes the newest one, and from
the LOG what came after; a lost projection is taken from it too, ended runs included.
"""

import asyncio
import hashlib
import logging
import secrets
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tshrag_common import subjects
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.bus.objects import Objects
from tshrag_common.errors import Refused
from tshrag_common.failpoints import failpoint
from tshrag_common.streams import ARTIFACTS, CHECKPOINT, EV, LOG

logger = logging.getLogger(__name__)

PIECE = 512 << 10


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a checkpoint lies: digests of both parts, and the sequence of each."""

    sequence: int  # of the Lab
    ev_hi: int
    lab: str
    projection: str = ""  # empty: there was none on disk
    projected: int = 0
    version: int = 1

    @property
    def covers(self) -> int:
        """Return the sequence up to which the LOG is not needed any more."""
        return min(self.sequence, self.projected) if self.projection else 0


class Checkpoints:
    """Stores and finds checkpoints."""

    def __init__(self, log: JetStream, scratch: Path) -> None:
        self._log, self._scratch = log, scratch
        self._objects = Objects(log, ARTIFACTS)

    async def newest(self) -> Checkpoint | None:
        found = await self._log.tail(CHECKPOINT)
        return msgspec.json.decode(found.data, type=Checkpoint) if found else None

    async def store(self, lab: bytes, sequence: int, ev_hi: int, copy: "Copy | None") -> None:
        """Store both parts, then say where; then purge what they cover, and older ones.

        Raises:
            WrongSequence: another controller has stored one meanwhile: ours is older, and the LOG
                may be purged behind it already.

        """
        before = await self.newest()
        behind = (await self._log.stream_info(CHECKPOINT)).last_seq
        packed = await asyncio.to_thread(zlib.compress, lab, 1)
        digest = hashlib.sha256(packed).hexdigest()
        await self._objects.put(digest, [packed])
        database = ""
        if copy is not None:
            database = await self._put_file(copy.path)
        made = Checkpoint(
            sequence=sequence,
            ev_hi=ev_hi,
            lab=digest,
            projection=database,
            projected=copy.sequence if copy else 0,
        )
        name = f"checkpoint-{sequence}-{secrets.token_hex(4)}"
        data = msgspec.json.encode(made)
        await self._log.publish_expect(subjects.checkpoint(), data, name, expected_last=behind)
        failpoint("checkpoint.stored")
        await self._purge(made, before)
        logger.info("a checkpoint is stored", extra={"sequence": sequence})

    async def _purge(self, made: Checkpoint, before: Checkpoint | None) -> None:
        if made.covers:
            await self._log.purge(LOG, made.covers)
        if made.ev_hi:
            await self._log.purge(EV, made.ev_hi)
        tail = await self._log.tail(CHECKPOINT)
        if tail is not None and tail.sequence > 1:
            await self._log.purge(CHECKPOINT, tail.sequence - 1)
        for old in (before.lab, before.projection) if before else ():
            if old and old not in (made.lab, made.projection):
                await self._objects.delete(old)

    async def lab(self, checkpoint: Checkpoint) -> bytes:
        """Return the recorded Lab; raise Refused when it is damaged."""
        pieces = [piece async for piece in self._objects.chunks(checkpoint.lab)]
        packed = b"".join(pieces)
        if hashlib.sha256(packed).hexdigest() != checkpoint.lab:
            raise Refused("checkpoint", "the Lab in it is damaged", code="checkpoint")
        return await asyncio.to_thread(zlib.decompress, packed)

    async def projection(self, checkpoint: Checkpoint, path: Path) -> None:
        """Write the projection of a checkpoint to `path`, whole or not at all."""
        unpack = zlib.decompressobj()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            async for piece in self._objects.chunks(checkpoint.projection):
                data = unpack.decompress(piece)
                await asyncio.to_thread(file.write, data)
            file.write(unpack.flush())
        part.rename(path)

    async def _put_file(self, path: Path) -> str:
        with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=self._scratch) as folder:
            packed = Path(folder, "packed")
            digest = await asyncio.to_thread(_compress, path, packed)
            await self._objects.put(digest, _pieces(packed))
        return digest


class Copy(msgspec.Struct, frozen=True):
    """A copy of the projection, and the sequence that it is at."""

    path: Path
    sequence: int


def _compress(path: Path, packed: Path) -> str:
    """Compress a file; return the sha256 of what came out. Blocks: for a thread."""
    packer, summed = zlib.compressobj(1), hashlib.sha256()
    with packed.open("wb") as out:
        for piece in _pieces(path):
            out.write(packer.compress(piece))
        out.write(packer.flush())
    for piece in _pieces(packed):
        summed.update(piece)
    return summed.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
