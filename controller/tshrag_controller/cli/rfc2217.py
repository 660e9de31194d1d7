"""PURE: the server's side of RFC 2217.

Bytes of the client go in; what is for the board, what is for the line, and what is answered come
out. What a client sets is set on the real line; what a port cannot be is answered as it stands.
"""

from typing import Literal

import msgspec
from msgspec.structs import replace

from tshrag_common.rfc2217 import (
    ANSWER,
    ASK_BREAK,
    ASK_DTR,
    ASK_FLOW,
    ASK_RTS,
    BAUD,
    BINARY,
    BREAK,
    BREAK_OFF,
    BREAK_ON,
    COM_PORT,
    CONTROL,
    DATA,
    DO,
    DONT,
    DTR_OFF,
    DTR_ON,
    ECHO,
    FLOWS,
    PARITIES,
    PARITY,
    RTS_OFF,
    RTS_ON,
    SGA,
    SIGNATURE,
    STOP,
    WILL,
    WONT,
    Negotiated,
    PortOrder,
    PortState,
    Said,
    Telnet,
    TelnetReader,
    negotiation,
    order,
    orders_of,
)

_OURS = frozenset((BINARY, ECHO, SGA))  # what we WILL
_THEIRS = frozenset((BINARY, SGA, COM_PORT))  # what they may DO
NAME = b"tshrag"


class ToBoard(msgspec.Struct, frozen=True):
    """Bytes to be typed."""

    data: bytes


class ToLine(msgspec.Struct, frozen=True):
    """How the line is to be from now on, or a break to send."""

    what: Literal["set", "break"]
    state: PortState = PortState()


Heard = ToBoard | ToLine


class PortServer:
    """One client; `replies` holds what it must be told, to be taken after each `feed`."""

    def __init__(self, state: PortState) -> None:
        self.state = state
        self._reader = TelnetReader()
        self._agreed: set[tuple[int, int]] = set()
        self.replies = bytearray()

    def greeting(self) -> bytes:
        """Return what is said to a client that has just come."""
        self._agreed |= {(WILL, option) for option in _OURS} | {(DO, BINARY), (DO, COM_PORT)}
        wills = b"".join(negotiation(WILL, option) for option in (ECHO, SGA, BINARY))
        return wills + negotiation(DO, BINARY) + negotiation(DO, COM_PORT)

    def feed(self, data: bytes) -> list[Heard]:
        """Return what `data` of the client means, in order."""
        found = (self._heard(each) for each in self._reader.feed(data))
        return [each for each in found if each is not None]

    def _heard(self, word: Telnet) -> Heard | None:
        match word:
            case bytes():
                return ToBoard(word)
            case Negotiated(verb=verb, option=option):
                self._negotiate(verb, option)
            case PortOrder(number=number, value=value):
                return self._order(number, value)
            case Said(command=command) if command == BREAK:
                return ToLine("break")
            case _:
                pass
        return None

    def _negotiate(self, verb: int, option: int) -> None:
        """Agree or refuse, once each: two that confirm each other would never end."""
        if verb == DO:
            said = WILL if option in _OURS or option == COM_PORT else WONT
        elif verb == WILL:
            said = DO if option in _THEIRS else DONT
        else:
            return
        if (said, option) not in self._agreed:
            self._agreed.add((said, option))
            self.replies += negotiation(said, option)

    def _order(self, number: int, value: bytes) -> Heard | None:
        if number == SIGNATURE:
            if not value:
                self._answer(number, NAME)
            return None
        if number == CONTROL:
            return self._control(value[0] if value else ASK_FLOW)
        if number not in (BAUD, DATA, PARITY, STOP):
            self._answer(number, value or b"\x00")
            return None
        heard = self._set(_wanted(self.state, number, int.from_bytes(value, "big")))
        self._answer(number, orders_of(self.state)[number])
        return heard

    def _control(self, value: int) -> Heard | None:
        state, heard = self.state, None
        match value:
            case 1 | 2 | 3:
                heard = self._set(replace(state, flow=FLOWS[value - 1]))
            case 8 | 9:  # DTR_ON, DTR_OFF
                heard = self._set(replace(state, dtr=value == DTR_ON))
            case 11 | 12:  # RTS_ON, RTS_OFF
                heard = self._set(replace(state, rts=value == RTS_ON))
            case 5:  # BREAK_ON
                heard = ToLine("break")
            case _:
                pass
        self._answer(CONTROL, bytes((self._control_answer(value),)))
        return heard

    def _control_answer(self, value: int) -> int:
        """Return what holds of what an order of control is about."""
        if value in (BREAK_ON, BREAK_OFF):
            return value
        if value == ASK_BREAK:
            return BREAK_OFF
        if value in (ASK_DTR, DTR_ON, DTR_OFF):
            return DTR_ON if self.state.dtr else DTR_OFF
        if value in (ASK_RTS, RTS_ON, RTS_OFF):
            return RTS_ON if self.state.rts else RTS_OFF
        if 13 <= value <= 16 or value == 18:  # flow of what comes in: it has none of its own
            return 14
        return FLOWS.index(self.state.flow) + 1

    def _set(self, wanted: PortState) -> Heard | None:
        if wanted == self.state:
            return None
        self.state = wanted
        return ToLine("set", wanted)

    def _answer(self, number: int, value: bytes) -> None:
        self.replies += order((number + ANSWER) & 0xFF, value)


def _wanted(state: PortState, number: int, value: int) -> PortState:
    """Return the port with a value set; as it is where that is a question, or cannot be."""
    if number == BAUD and 50 <= value <= 20_000_000:
        return replace(state, baud=value)
    if number == DATA and 5 <= value <= 8:
        return replace(state, data_bits=value)
    if number == PARITY and 1 <= value <= len(PARITIES):
        return replace(state, parity=PARITIES[value - 1])
    if number == STOP and value in (1, 2):
        return replace(state, stop_bits=value)
    return state
