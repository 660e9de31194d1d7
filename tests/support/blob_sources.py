"""What a cache fetches from: bytes by digest in memory, and how often they were asked for."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from tests.support.repositories import MANIFEST
from tshrag_common.errors import NotFound
from tshrag_common.sources.pack import pack
from tshrag_common.sources.policy import SourceLimits
from tshrag_common.streams import CHUNK_BYTES


class BlobSource:
    """Answers `get_chunk`; `broken_after` bytes it fails once, `hold` makes it wait."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.broken_after: int | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    async def get_chunk(self, digest: str, offset: int) -> bytes:
        self.asked.append((digest, offset))
        await self.hold.wait()
        if self.broken_after is not None and offset >= self.broken_after:
            self.broken_after = None
            raise ConnectionError("the line is cut")
        if digest not in self.blobs:
            raise NotFound("blob", digest)
        return self.blobs[digest][offset : offset + CHUNK_BYTES]


def a_packed_load(base: Path, files: Mapping[str, bytes]) -> bytes:
    """Return the canonical tar of a load with these files, the first one executable."""
    tree = base / "made"
    for name, data in {**files, "load.toml": MANIFEST}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    packed = base / "made.tar"
    packed.unlink(missing_ok=True)
    pack(tree, packed, SourceLimits())
    return packed.read_bytes()
