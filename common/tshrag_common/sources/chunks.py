"""Blobs on the wire: asked for and handed in by (sha256, offset), in pieces of 512 KiB.

An agent asks on its ``blob`` subject, a controller answers. Offsets count the bytes of the blob;
a piece is compressed for itself (gzip without a time), where that makes it smaller, so that any
controller can go on where another one stopped.
"""

import gzip
import zlib
from collections.abc import Awaitable, Callable

import msgspec

from tshrag_common.errors import ErrorReport
from tshrag_common.streams import CHUNK_BYTES
from tshrag_common.wire import BadMessage, Codec

GetChunk = Callable[[str, int], Awaitable[bytes]]
"""(digest, offset) -> the bytes from there on, at most CHUNK_BYTES; none at the end."""

PutChunk = Callable[[str, int, int, bytes], Awaitable[int]]
"""(digest, offset, total, data) -> how much of it is stored; go on from there."""

_GZIP = 31  # zlib's name for the format
_WORTH = 0.9


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Some bytes of a blob as they travel."""

    data: bytes
    compressed: bool = False


class BlobGet(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="get"):
    """Give me what is at `offset`."""

    digest: str
    offset: int


class BlobPut(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="put"):
    """Keep this; a repeated piece changes nothing."""

    digest: str
    offset: int
    total: int
    piece: Piece


class BlobChunk(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="chunk"):
    """Answer to a get; no bytes at the end of the blob."""

    total: int
    piece: Piece


class BlobStored(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="stored"):
    """Answer to a put: how much is stored; all of it means that the digest was right."""

    stored: int


class BlobFailed(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="failed"):
    """Answer to either."""

    error: ErrorReport


class BlobAsk(msgspec.Struct, frozen=True, array_like=True):
    """What an agent says on ``blob``."""

    ask: BlobGet | BlobPut


class BlobAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What a controller answers."""

    answer: BlobChunk | BlobStored | BlobFailed


BLOB_ASK = Codec(BlobAsk)
BLOB_ANSWER = Codec(BlobAnswer)


def piece_of(data: bytes) -> Piece:
    """Return `data` for the wire; equal data makes an equal piece with one zlib."""
    small = gzip.compress(data, compresslevel=1, mtime=0)
    return Piece(small, compressed=True) if len(small) < _WORTH * len(data) else Piece(data)


def data_of(piece: Piece) -> bytes:
    """Return the bytes of a piece.

    Raises:
        BadMessage: it is longer than a piece may be, or damaged.

    """
    data = piece.data
    if piece.compressed:
        inflate = zlib.decompressobj(_GZIP)
        try:
            data = inflate.decompress(piece.data, CHUNK_BYTES + 1)
        except zlib.error as error:
            raise BadMessage("blob", f"damaged piece: {error}") from None
        if not inflate.eof and len(data) <= CHUNK_BYTES:
            raise BadMessage("blob", "damaged piece: it ends too early")
    if len(data) > CHUNK_BYTES:
        raise BadMessage("blob", f"a piece of more than {CHUNK_BYTES} bytes")
    return data
