"""Bytes <-> messages: the encoders and decoders of the bus, made once, and the limits of size.

msgpack for what goes in batches (reports, samples, output, commands, frames), JSON for what one
wants to read on the bus (requests, answers, heartbeats). What does not decode is a `BadMessage`
with a reason, never another exception: whoever consumes sets it aside, counts it, and lives on.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

from tshrag_common.commands import CommandBatch
from tshrag_common.errors import Refused
from tshrag_common.gang_messages import GangMail
from tshrag_common.reports import (
    Heartbeat,
    HeartbeatAnswer,
    OutputBatch,
    ReportBatch,
    SamplesMessage,
)

VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20  # the server's max_payload
MAX_BATCH_BYTES = 256 << 10  # what one batch of reports, samples or output aims at
MAX_FRAME_BYTES = 512 << 10

T = TypeVar("T")


class BadMessage(Refused):
    """Bytes that are no message of ours, or of another version."""

    code = "bad_message"


class Codec(Generic[T]):
    """One kind of message; the first byte is the version of the format."""

    def __init__(self, kind: type[T], form: str = "msgpack") -> None:
        self.name = kind.__name__
        self._encoder: msgspec.json.Encoder | msgspec.msgpack.Encoder
        self._decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]
        if form == "json":
            self._encoder, self._decoder = msgspec.json.Encoder(), msgspec.json.Decoder(kind)
            self._head = b""
        else:
            self._encoder, self._decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(kind)
            self._head = bytes([VERSION])

    def encode(self, message: T) -> bytes:
        return self._head + self._encoder.encode(message)

    def decode(self, data: bytes) -> T:
        """Return the message; raise BadMessage with a reason of one line."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise BadMessage(self.name, f"{len(data)} bytes > {MAX_MESSAGE_BYTES}")
        if self._head and data[:1] != self._head:
            found = f"version {data[0]}" if data else "no bytes"
            raise BadMessage(self.name, f"{found}, supported {VERSION}")
        try:
            return self._decoder.decode(memoryview(data)[len(self._head) :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise BadMessage(self.name, str(error)[:200] or type(error).__name__) from None


REPORTS = Codec(ReportBatch)
SAMPLES = Codec(SamplesMessage)
OUTPUT = Codec(OutputBatch)
COMMANDS = Codec(CommandBatch)
GANG = Codec(GangMail)
HEARTBEAT = Codec(Heartbeat, "json")
HEARTBEAT_ANSWER = Codec(HeartbeatAnswer, "json")

_BODY = msgspec.msgpack.Encoder()


def body(record: msgspec.Struct) -> bytes:
    """Return one record of a spool as it lies in the journal."""
    return _BODY.encode(record)


def batch(agent: str, spool: str, first_seq: int, bodies: Iterable[bytes]) -> bytes:
    """Return the bytes of a batch from bodies that are encoded already.

    The same as ``REPORTS``, ``OUTPUT`` or ``SAMPLES`` make of the batch; nothing is decoded.
    """
    raw = [msgspec.Raw(one) for one in bodies]
    return bytes([VERSION]) + _BODY.encode((agent, spool, first_seq, raw))
