"""PURE: the server's side of RFC 2217: telnet, and the orders of a serial port inside it.

Bytes of the client go in; what is for the board, what is for the line, and what is answered come
out. Parity, stop bits and flow control are acknowledged as they stand: the agent's settings rule
over them, and a client that insists goes on without.
"""

from typing import Literal

import msgspec

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SGA, COM_PORT = 0, 1, 3, 44
_OURS = frozenset((BINARY, ECHO, SGA))  # what we WILL
_THEIRS = frozenset((BINARY, SGA, COM_PORT))  # what they may DO
_ANSWER = 100  # an order n is answered by n + 100
_SIGNATURE, _BAUD, _DATA, _PARITY, _STOP, _CONTROL = 0, 1, 2, 3, 4, 5
_LINE_MASK, _MODEM_MASK, _PURGE = 10, 11, 12
_BREAK_ASK, _BREAK_ON, _BREAK_OFF = 4, 5, 6
_LONGEST = 64
NAME = b"tshrag"


class ToBoard(msgspec.Struct, frozen=True):
    """Bytes to be typed."""

    data: bytes


class ToLine(msgspec.Struct, frozen=True):
    """The speed to set, or a break to send."""

    what: Literal["baud", "break"]
    value: int = 0


Heard = ToBoard | ToLine


def escaped(data: bytes) -> bytes:
    """Return bytes of the board as they go to a telnet client."""
    return data.replace(b"\xff", b"\xff\xff")


class PortServer:
    """One client; `replies` holds what it must be told, to be taken after each `feed`."""

    def __init__(self, baud: int) -> None:
        self._baud = baud
        self._state: Literal["data", "iac", "option", "sub", "sub_iac"] = "data"
        self._verb = 0
        self._sub = bytearray()
        self._agreed: set[tuple[int, int]] = set()
        self.replies = bytearray()

    def greeting(self) -> bytes:
        """Return what is said to a client that has just come."""
        wills = b"".join(bytes((IAC, WILL, option)) for option in (ECHO, SGA, BINARY))
        self._agreed |= {(WILL, option) for option in _OURS} | {(DO, BINARY), (DO, COM_PORT)}
        return wills + bytes((IAC, DO, BINARY, IAC, DO, COM_PORT))

    def feed(self, data: bytes) -> list[Heard]:
        """Return what `data` of the client means, in order."""
        found: list[Heard] = []
        plain = bytearray()
        for byte in data:
            if self._state == "data":
                if byte == IAC:
                    self._state = "iac"
                else:
                    plain.append(byte)
            elif self._state == "iac" and byte == IAC:
                plain.append(IAC)
                self._state = "data"
            else:
                order = self._command(byte)
                if order is not None:
                    if plain:
                        found.append(ToBoard(bytes(plain)))
                        plain.clear()
                    found.append(order)
        if plain:
            found.append(ToBoard(bytes(plain)))
        return found

    def _command(self, byte: int) -> Heard | None:
        """Take one byte inside a command; return what it completes."""
        match self._state:
            case "iac" if byte in (DO, DONT, WILL, WONT):
                self._verb, self._state = byte, "option"
            case "iac" if byte == SB:
                self._sub.clear()
                self._state = "sub"
            case "iac":
                self._state = "data"
                return ToLine("break") if byte == 243 else None  # telnet's own BRK
            case "option":
                self._negotiate(self._verb, byte)
                self._state = "data"
            case "sub" if byte == IAC:
                self._state = "sub_iac"
            case "sub":
                self._collect(byte)
            case _ if byte == SE:
                self._state = "data"
                return self._order(bytes(self._sub))
            case _:
                self._collect(byte)
                self._state = "sub"
        return None

    def _collect(self, byte: int) -> None:
        if len(self._sub) < _LONGEST:
            self._sub.append(byte)

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
            self.replies += bytes((IAC, said, option))

    def _order(self, sub: bytes) -> Heard | None:
        if len(sub) < 2 or sub[0] != COM_PORT:
            return None
        order, value = sub[1], sub[2:]
        match order:
            case 0 if not value:
                self._answer(order, NAME)
            case 1 if len(value) == 4:
                return self._set_baud(int.from_bytes(value, "big"))
            case 5 if value[:1] in (b"\x05", b"\x06"):
                self._answer(order, value[:1])
                return ToLine("break") if value[0] == _BREAK_ON else None
            case 5 if value[:1] == b"\x04":
                self._answer(order, bytes((_BREAK_OFF,)))
            case _:
                self._answer(order, value or b"\x00")
        return None

    def _set_baud(self, baud: int) -> Heard | None:
        changed = baud not in (0, self._baud)
        if changed:
            self._baud = baud
        self._answer(_BAUD, self._baud.to_bytes(4, "big"))
        return ToLine("baud", baud) if changed else None

    def _answer(self, order: int, value: bytes) -> None:
        body = bytes((COM_PORT, (order + _ANSWER) & 0xFF)) + value
        self.replies += bytes((IAC, SB)) + escaped(body) + bytes((IAC, SE))
