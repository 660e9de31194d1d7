"""PURE: what a person types at a console -> bytes for the board, and orders by an escape key.

The escape key (Ctrl-]) is followed by one letter; twice it is itself. Everything else is the
board's, byte by byte. After ``s``, ``x`` or ``y`` a path is typed, to the end of its line.
"""

from typing import Literal

import msgspec

ESCAPE = 0x1D  # Ctrl-]
Order = Literal["quit", "power", "break", "status", "help", "size", "unknown", "cancelled"]
_ORDERS: dict[int, Order] = {
    ord("q"): "quit",
    ord("."): "quit",
    ord("p"): "power",
    ord("b"): "break",
    ord("i"): "status",
    ord("?"): "help",
    ord("h"): "help",
    ord("w"): "size",
}
_ASKS: dict[int, str] = {
    ord("s"): "send file",
    ord("x"): "send file by XMODEM",
    ord("y"): "send file by YMODEM",
    ord("r"): "baud rate",
}
_ENTER, _ERASE, _STOP = (10, 13), (8, 127), (3, 27)

HELP = (
    "q or .  leave the console",
    "p       power-cycle the board (asks first)",
    "b       send a break",
    "s       send a file, as it is",
    "x or y  send a file by XMODEM (rx, loadx) or YMODEM (rb, loady), once the board waits for it",
    "r       set the baud rate",
    "w       tell the board's shell the size of this window",
    "i       show how the console is",
    "?       this help",
)


class Typed(msgspec.Struct, frozen=True):
    """Bytes for the board."""

    data: bytes


class Ordered(msgspec.Struct, frozen=True):
    """An order by the escape key."""

    order: Order


class Asked(msgspec.Struct, frozen=True):
    """A line was begun (``text`` empty) or is being typed: show it to the person."""

    what: str
    text: str


class Answered(msgspec.Struct, frozen=True):
    """A line was typed: the answer to ``what``."""

    what: str
    text: str


Key = Typed | Ordered | Asked | Answered


def escape_of(text: str) -> int:
    """Return the key that ``^]``, ``^a`` or a character means; raise ValueError for another."""
    if len(text) == 2 and text[0] == "^" and 64 <= ord(text[1].upper()) < 96:
        return ord(text[1].upper()) - 64
    if len(text) == 1 and ord(text) < 128:
        return ord(text)
    raise ValueError(f"{text!r} is no key: use ^] or one character")


def key_name(code: int) -> str:
    return f"Ctrl-{chr(code + 64)}" if code < 32 else chr(code)


class Keys:
    """Reads what is typed; keeps what was begun."""

    def __init__(self, escape: int = ESCAPE) -> None:
        self._escape = escape
        self._escaped = False
        self._asking = ""
        self._line = b""

    def feed(self, data: bytes) -> list[Key]:
        """Return what `data` means, in order."""
        found: list[Key] = []
        plain = bytearray()
        for code in data:
            if self._asking or self._escaped or code == self._escape:
                if plain:
                    found.append(Typed(bytes(plain)))
                    plain.clear()
                self._special(code, found)
            else:
                plain.append(code)
        if plain:
            found.append(Typed(bytes(plain)))
        return found

    def ask(self, what: str) -> Asked:
        """Begin a line; what is typed up to Enter answers it."""
        self._asking, self._line = what, b""
        return Asked(what, "")

    def _special(self, code: int, found: list[Key]) -> None:
        if self._asking:
            self._answer(code, found)
        elif not self._escaped:
            self._escaped = True
        else:
            self._escaped = False
            if code == self._escape:
                found.append(Typed(bytes([code])))
            elif code in _ASKS:
                found.append(self.ask(_ASKS[code]))
            else:
                found.append(Ordered(_ORDERS.get(code, "unknown")))

    def _answer(self, code: int, found: list[Key]) -> None:
        what = self._asking
        if code in _ENTER:
            self._asking = ""
            found.append(Answered(what, self._line.decode("utf-8", "replace")))
        elif code in _STOP:
            self._asking = ""
            found.append(Ordered("cancelled"))
        else:
            self._line = self._line[:-1] if code in _ERASE else self._line + bytes([code])
            found.append(Asked(what, self._line.decode("utf-8", "replace")))
