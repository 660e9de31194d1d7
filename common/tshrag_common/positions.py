"""PURE: where the words of a document stand.

A parser of this house gives plain data and the line of every value in it, so that what the model
finds wrong later can still be shown with its line.
"""

import re
from bisect import bisect_right

import msgspec

from tshrag_common.errors import shown

At = tuple[str | int, ...]
"""The way to a value: keys of mappings, indexes of lists."""

MAX_DEPTH = 32
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What a parser has to say against a text."""

    code: str
    what: str
    line: int = 0
    column: int = 0
    fix: str = ""


class Broken(Exception):
    """The text cannot be read on from here."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was read to its end; with faults its data is not to be used."""

    data: object
    lines: dict[At, int]
    faults: tuple[Fault, ...] = ()


class Lines:
    """Offsets of a text as lines and columns, both from 1."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def line(self, offset: int) -> int:
        return bisect_right(self._starts, offset)

    def column(self, offset: int) -> int:
        return offset - self._starts[self.line(offset) - 1] + 1


def path_text(at: At) -> str:
    """Return `at` as people read it: ``schedule.sequence[0].load``; odd keys are quoted."""
    text = ""
    for part in at:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part, 40)}]"
    return text


def duplicate(key: str, line: int, first: int) -> Fault:
    """Return the fault of a key that stands twice in one mapping."""
    return Fault(code="duplicate_key", what=f"{shown(key)}, first at {first}", line=line)


def too_deep(line: int) -> Broken:
    return Broken(Fault(code="too_deep", what=f"limit {MAX_DEPTH}", line=line))
