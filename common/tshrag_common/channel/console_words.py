"""Words beside the bytes of a console's channel; bytes up are typed, bytes down are the DUT's."""

from typing import Annotated, Literal

import msgspec

from tshrag_common.rfc2217 import PortState
from tshrag_common.wire import BadMessage

Baud = Annotated[int, msgspec.Meta(ge=50, le=20_000_000)]
BreakSeconds = Annotated[float, msgspec.Meta(gt=0, le=10)]
PaceSeconds = Annotated[float, msgspec.Meta(ge=0, le=10)]
Chunk = Annotated[int, msgspec.Meta(ge=0, le=65536)]


class SendBreak(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="break"):
    """Hold the line low for a while: sysrq, or the attention of a bootloader."""

    duration_s: BreakSeconds = 0.3


class SetBaud(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="baud"):
    """Switch the speed of the line."""

    baud: Baud


class SetLine(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="line"):
    """Set the line; it says all of it, and is as fresh as what the agent has told before."""

    state: PortState


class SetPace(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="pace"):
    """Type slowly from now on: so many bytes at once (0: all), then a rest."""

    chunk_bytes: Chunk = 0
    delay_s: PaceSeconds = 0.0


class Power(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="power"):
    """Switch the power of the DUT."""

    what: Literal["on", "off", "cycle"]


class AskStatus(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="ask"):
    """How is the console?"""


Order = SendBreak | SetBaud | SetLine | SetPace | Power | AskStatus


class Happened(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="happened"):
    """Something that is no byte of the DUT: the line came or went, somebody writes now."""

    at: int
    text: str
    author: str = ""


class Failed(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="failed"):
    """An order, or what was typed, came to nothing; the console stays attached."""

    line: str


class Status(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="status"):
    """The console as it stands."""

    line: str  # where its bytes come from
    baud: int  # 0: it has none
    trouble: str = ""  # why the line is not open; empty when it is
    writer: str = ""
    watchers: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    boots: int = 0
    last_sign: str = ""
    state: PortState = PortState()  # of the line, where it has such


Told = Happened | Failed | Status

_ENCODER = msgspec.msgpack.Encoder()
_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_TOLD: msgspec.msgpack.Decoder[Told] = msgspec.msgpack.Decoder(Told)


def spoken(word: Order | Told) -> bytes:
    return _ENCODER.encode(word)


def order_of(data: bytes) -> Order:
    """Return what a person wants; raise BadMessage where it cannot be understood."""
    try:
        return _ORDERS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage("console", str(error)[:200]) from None


def told_of(data: bytes) -> Told:
    """Return what the agent tells; raise BadMessage where it cannot be understood."""
    try:
        return _TOLD.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage("console", str(error)[:200]) from None
