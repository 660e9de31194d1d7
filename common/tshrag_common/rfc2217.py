"""PURE: telnet, and the orders for a serial port that RFC 2217 puts inside it; for both ends.

An order ``n`` of a client is answered by the server with ``n + 100`` and the value that holds.
"""

from typing import Literal

import msgspec

IAC, DONT, DO, WONT, WILL, SB, BREAK, SE = 255, 254, 253, 252, 251, 250, 243, 240
BINARY, ECHO, SGA, COM_PORT = 0, 1, 3, 44
ANSWER = 100
SIGNATURE, BAUD, DATA, PARITY, STOP, CONTROL = 0, 1, 2, 3, 4, 5
LINE_STATE, MODEM_STATE, SUSPEND, RESUME, LINE_MASK, MODEM_MASK, PURGE = 6, 7, 8, 9, 10, 11, 12

ASK_FLOW, ASK_BREAK, BREAK_ON, BREAK_OFF = 0, 4, 5, 6
ASK_DTR, DTR_ON, DTR_OFF, ASK_RTS, RTS_ON, RTS_OFF = 7, 8, 9, 10, 11, 12

_LONGEST = 64
_NEGOTIATES = (DO, DONT, WILL, WONT)

ParityName = Literal["none", "odd", "even", "mark", "space"]
FlowName = Literal["none", "xonxoff", "rtscts"]
PARITIES: tuple[ParityName, ...] = ("none", "odd", "even", "mark", "space")  # 1 to 5
FLOWS: tuple[FlowName, ...] = ("none", "xonxoff", "rtscts")  # 1 to 3


class PortState(msgspec.Struct, frozen=True, kw_only=True):
    """How a serial port is set."""

    baud: int = 115200
    data_bits: int = 8
    parity: ParityName = "none"
    stop_bits: int = 1
    flow: FlowName = "none"
    dtr: bool = True
    rts: bool = True


class Negotiated(msgspec.Struct, frozen=True):
    """One side will, or shall, do an option or not."""

    verb: int
    option: int


class PortOrder(msgspec.Struct, frozen=True):
    """An order for the port, or its answer (``number`` is 100 more)."""

    number: int
    value: bytes


class Said(msgspec.Struct, frozen=True):
    """Another command of telnet, of one byte."""

    command: int


Telnet = bytes | Negotiated | PortOrder | Said


class TelnetReader:
    """Takes a stream apart, however it is cut; what is no order of a port is passed over."""

    def __init__(self) -> None:
        self._state: Literal["data", "iac", "option", "sub", "sub_iac"] = "data"
        self._verb = 0
        self._sub = bytearray()

    def feed(self, data: bytes) -> list[Telnet]:
        """Return what `data` means, in order; neighbouring bytes of the line are one piece."""
        found: list[Telnet] = []
        plain = bytearray()
        at = 0
        while at < len(data):
            if self._state == "data":
                end = data.find(b"\xff", at)
                plain += data[at : end if end >= 0 else len(data)]
                if end < 0:
                    break
                self._state, at = "iac", end + 1
                continue
            byte, at = data[at], at + 1
            if self._state == "iac" and byte == IAC:
                plain.append(IAC)
                self._state = "data"
                continue
            word = self._command(byte)
            if word is not None:
                if plain:
                    found.append(bytes(plain))
                    plain.clear()
                found.append(word)
        if plain:
            found.append(bytes(plain))
        return found

    def _command(self, byte: int) -> Telnet | None:
        """Take one byte inside a command; return what it completes."""
        match self._state:
            case "iac" if byte in _NEGOTIATES:
                self._verb, self._state = byte, "option"
            case "iac" if byte == SB:
                self._sub.clear()
                self._state = "sub"
            case "iac":
                self._state = "data"
                return Said(byte)
            case "option":
                self._state = "data"
                return Negotiated(self._verb, byte)
            case "sub" if byte == IAC:
                self._state = "sub_iac"
            case "sub":
                self._collect(byte)
            case _ if byte == SE:
                self._state = "data"
                return self._order()
            case _:
                self._collect(byte)
                self._state = "sub"
        return None

    def _collect(self, byte: int) -> None:
        if len(self._sub) < _LONGEST:
            self._sub.append(byte)

    def _order(self) -> PortOrder | None:
        if len(self._sub) < 2 or self._sub[0] != COM_PORT:
            return None
        return PortOrder(self._sub[1], bytes(self._sub[2:]))


def escaped(data: bytes) -> bytes:
    """Return bytes of the line as they go through telnet."""
    return data.replace(b"\xff", b"\xff\xff")


def negotiation(verb: int, option: int) -> bytes:
    return bytes((IAC, verb, option))


def order(number: int, value: bytes) -> bytes:
    """Return an order, or an answer, as it goes through telnet."""
    return bytes((IAC, SB)) + escaped(bytes((COM_PORT, number)) + value) + bytes((IAC, SE))


def orders_of(state: PortState) -> dict[int, bytes]:
    """Return the orders that set speed, bits and flow control; those of DTR and RTS are apart."""
    return {
        BAUD: state.baud.to_bytes(4, "big"),
        DATA: bytes((state.data_bits,)),
        PARITY: bytes((PARITIES.index(state.parity) + 1,)),
        STOP: bytes((state.stop_bits,)),
        CONTROL: bytes((FLOWS.index(state.flow) + 1,)),
    }


def modem_orders_of(state: PortState) -> tuple[bytes, bytes]:
    """Return the values of CONTROL that set DTR and RTS."""
    return (
        bytes((DTR_ON if state.dtr else DTR_OFF,)),
        bytes((RTS_ON if state.rts else RTS_OFF,)),
    )
