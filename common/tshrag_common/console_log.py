"""Records of a console as they travel and rest: blocks, packed, in the order they happened."""

import zlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from tshrag_common.ids import Whole
from tshrag_common.wire import BadMessage

BLOCK_MOST_BYTES = 1 << 20
"""What a block may unpack to: a small message must not become a large one."""

Direction = Literal["rx", "tx", "event"]


class ConsoleRecord(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of the DUT, bytes that `author` typed, or an event; ``at`` in microseconds UTC."""

    at: Whole
    direction: Direction
    data: bytes
    author: str = ""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[ConsoleRecord, ...])


def packed(records: Sequence[ConsoleRecord]) -> bytes:
    return zlib.compress(_ENCODER.encode(records), 1)


def unpacked(block: bytes) -> tuple[ConsoleRecord, ...]:
    """Return the records of a block; raise BadMessage where it is none, or too large."""
    try:
        inflater = zlib.decompressobj()
        plain = inflater.decompress(block, BLOCK_MOST_BYTES)
        if inflater.unconsumed_tail:
            raise BadMessage("console", f"a block of more than {BLOCK_MOST_BYTES} bytes")
        return _DECODER.decode(plain)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage("console", str(error)[:200]) from None
