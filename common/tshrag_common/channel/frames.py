"""PURE: the frames of a channel <-> bytes. One frame is one message of the bus.

    D, C   seq (8 bytes), data          a piece: bytes of the stream, or a word beside it
    E      seq (8 bytes)                no more pieces will come from here
    S      flags, sent, received, limit how far each direction is: acknowledges and gives credit
    X      sent (8 bytes), JSON         the channel is over: an error, or null where all is well

Pieces count from 1 in each direction. ``limit`` is how many bytes may have been sent in all. All
numbers are big-endian. What does not decode is a `BadMessage` and nothing else.
"""

import struct
from typing import Literal

import msgspec

from tshrag_common.errors import ErrorReport
from tshrag_common.wire import BadMessage

PieceKind = Literal["data", "word", "end"]
_LETTERS: dict[PieceKind, bytes] = {"data": b"D", "word": b"C", "end": b"E"}
_KINDS: dict[int, PieceKind] = {letter[0]: kind for kind, letter in _LETTERS.items()}
_PIECE = struct.Struct(">cQ")
_STATE = struct.Struct(">cBQQQ")
_WANTS_ANSWER, _WANTS_AGAIN = 1, 2
_STATE_LETTER, _OVER_LETTER = ord("S"), ord("X")

_OVER = msgspec.json.Decoder(ErrorReport | None)


class Piece(msgspec.Struct, frozen=True):
    """A part of what one end says; ``word`` is a message of its own beside the bytes."""

    kind: PieceKind
    seq: int
    data: bytes = b""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How far an end is: the last piece it has sent, the last it has, the bytes it will take."""

    sent: int
    received: int
    limit: int
    wants_answer: bool = False
    wants_again: bool = False  # everything behind ``received``


class Over(msgspec.Struct, frozen=True):
    """The channel is over; pieces up to ``sent`` were sent before."""

    sent: int
    error: ErrorReport | None = None


Frame = Piece | State | Over


def encoded(frame: Frame) -> bytes:
    match frame:
        case Piece(kind=kind, seq=seq, data=data):
            return _PIECE.pack(_LETTERS[kind], seq) + data
        case State():
            flags = _WANTS_ANSWER * frame.wants_answer | _WANTS_AGAIN * frame.wants_again
            return _STATE.pack(b"S", flags, frame.sent, frame.received, frame.limit)
        case Over(sent=sent, error=error):
            return _PIECE.pack(b"X", sent) + msgspec.json.encode(error)


def decoded(data: bytes) -> Frame:
    """Return the frame; raise BadMessage where it is none."""
    letter = data[0] if data else 0
    try:
        if letter in _KINDS:
            return Piece(_KINDS[letter], _PIECE.unpack_from(data)[1], data[_PIECE.size :])
        if letter == _STATE_LETTER:
            _, flags, sent, received, limit = _STATE.unpack(data)
            return State(
                sent=sent,
                received=received,
                limit=limit,
                wants_answer=bool(flags & _WANTS_ANSWER),
                wants_again=bool(flags & _WANTS_AGAIN),
            )
        if letter == _OVER_LETTER:
            return Over(_PIECE.unpack_from(data)[1], _OVER.decode(data[_PIECE.size :]))
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage("channel", str(error)[:200]) from None
    raise BadMessage("channel", f"no frame begins with {letter}")
