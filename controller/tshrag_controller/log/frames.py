"""PURE: a frame, one transaction of events, and its bytes.

A frame is one message of the LOG: all of it is there or nothing. The first byte is the version
of the format; a build reads every version up to its own.
"""

import msgspec

from tshrag_common.errors import Refused
from tshrag_common.ids import Epoch
from tshrag_controller.core.events import AnyEvent

VERSION = 1
AIM_BYTES = 512 << 10  # a turn stops taking inputs when its events are about this large
MOST_BYTES = 1 << 20
MOST_EVENT_BYTES = 960 << 10
"""Of one event: a frame can be cut between events, not inside one."""


class Frame(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Events decided by the leader of `epoch` at one instant (microseconds UTC).

    ``ev_hi`` is the sequence in stream EV up to which reports are applied in this frame and
    those before it.
    """

    epoch: Epoch
    at: int
    ev_hi: int
    events: tuple[AnyEvent, ...]


class BadFrame(Refused):
    """The LOG holds what this build cannot read."""

    code = "bad_frame"


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    return bytes([VERSION]) + _ENCODER.encode(frame)


def decode(data: bytes) -> Frame:
    """Return the frame; raise BadFrame for a newer format or damage."""
    if data[:1] != bytes([VERSION]):
        found = data[0] if data else "nothing"
        raise BadFrame("lab.v1.log", f"format {found}, supported up to {VERSION}", "upgrade")
    try:
        return _DECODER.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame("lab.v1.log", str(error)) from None
