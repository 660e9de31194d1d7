"""PURE: what a target asks of labels, written as a line: ``ram >= 8GiB``, ``arch in arm64, riscv``.

    hdmi              it is there            also ``hdmi exists``
    !hdmi             it is not there        also ``hdmi not exists``
    board = pi4       it is this             ``!=``: it is missing, or something else
    rack in a, b      it is one of these     ``not in``: it is missing, or none of these
    ram >= 8GiB       ``>``, ``<=``, ``<``: numbers with their units, else versions (``6.6 < 6.12``)

Labels are those of a DUT, then those of its host; ``host.KEY`` is always the host's.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from tshrag_common.errors import shown
from tshrag_common.units import BadQuantity, quantity

Operator = Literal["exists", "not exists", "=", "!=", "in", "not in", ">=", ">", "<=", "<"]

_KEY = r"[A-Za-z0-9][A-Za-z0-9_.\-/]{0,126}"
_LINE = re.compile(
    rf"\s*(?P<no>!)?\s*(?P<key>{_KEY})\s*"
    r"(?:(?P<op>>=|<=|!=|==|=|>|<|\bnot\s+in\b|\bin\b|\bnot\s+exists\b|\bexists\b)\s*(?P<rest>.*?))?\s*",
    re.ASCII,
)
_PART = re.compile(r"[0-9]+|[A-Za-z]+")
_FIX = "write KEY, !KEY, KEY = VALUE, KEY in A, B, or KEY >= NUMBER"


class Condition(NamedTuple):
    """One thing asked of the labels of a place."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def fault(self, labels: Mapping[str, str]) -> str:
        """Return why `labels` do not hold it; empty: they do."""
        has = labels.get(self.key)
        match self.operator:
            case "exists":
                return "" if has is not None else f"label {self.key} is missing"
            case "not exists":
                return "" if has is None else f"label {self.key} is there"
            case "=" | "in":
                wanted = " or ".join(self.values)
                if has is None:
                    return f"label {self.key} is missing, not {wanted}"
                return "" if has in self.values else f"label {self.key} is {has}, not {wanted}"
            case "!=" | "not in":
                return f"label {self.key} is {has}" if has in self.values else ""
            case _:
                return self._compared(has)

    def _compared(self, has: str | None) -> str:
        wanted = self.values[0]
        if has is None:
            return f"label {self.key} is missing, wanted {self.operator} {wanted}"
        order = compare(has, wanted)
        if order is None:
            return f"label {self.key} is {has}, which cannot be compared with {wanted}"
        good = {">=": order >= 0, ">": order > 0, "<=": order <= 0, "<": order < 0}
        if good[self.operator]:
            return ""
        return f"label {self.key} is {has}, not {self.operator} {wanted}"


@lru_cache(maxsize=4096)
def condition(text: str) -> Condition:
    """Read one line.

    Raises:
        BadQuantity: code ``condition``: with what is wrong and how it is written.

    """
    match = _LINE.fullmatch(text) if len(text) <= 1024 else None
    if match is None:
        raise _bad(text, "is no condition on labels")
    operator = " ".join((match["op"] or "").split())
    key, rest = match["key"], match["rest"] or ""
    if match["no"]:
        if operator:
            raise _bad(text, "has '!' before its key and an operator behind it")
        return Condition(key, "not exists")
    if operator in ("", "exists", "not exists"):
        if rest:
            raise _bad(text, f"has something behind {operator}")
        return Condition(key, "not exists" if operator == "not exists" else "exists")
    values = _values(rest) if operator in ("in", "not in") else (rest.strip("'\""),)
    if not all(values):
        raise _bad(text, "lacks a value")
    found: Operator = "=" if operator == "==" else operator  # type: ignore[assignment]  # one of _LINE
    if found in (">=", ">", "<=", "<") and _rank(values[0]) is None:
        raise _bad(text, f"compares with {shown(values[0])}, which is neither number nor version")
    return Condition(key, found, values)


def fault_of(text: str) -> str:
    """Return why `text` is no condition; empty: it is one."""
    try:
        condition(text)
    except BadQuantity as bad:
        return f"{bad.what}; {bad.fix}"
    return ""


def compare(one: str, other: str) -> int | None:
    """Return -1, 0 or 1; None where two values have nothing in common."""
    ranks = _rank(one), _rank(other)
    if ranks[0] is None or ranks[1] is None or ranks[0][0] != ranks[1][0]:
        ranks = _version(one), _version(other)
    if ranks[0] is None or ranks[1] is None:
        return None
    return (ranks[0] > ranks[1]) - (ranks[0] < ranks[1])


Rank = tuple[str, tuple[tuple[float, str], ...]]


def _rank(text: str) -> Rank | None:
    try:
        value, dimension = quantity(text)
    except BadQuantity:
        return _version(text)
    return dimension, ((value, ""),)


def _version(text: str) -> Rank | None:
    """Return ``v6.12-rc1`` as its numbers; a word in it comes before the same without it."""
    if not text[:2].lstrip("vV")[:1].isdigit():
        return None
    parts = _PART.findall(text.lstrip("vV"))
    ranked = tuple((float(part), "") if part.isdigit() else (-1.0, part.lower()) for part in parts)
    return "version", (*ranked, (-0.5, ""))


def _values(rest: str) -> tuple[str, ...]:
    inner = rest.strip().removeprefix("(").removesuffix(")")
    return tuple(word.strip().strip("'\"") for word in inner.split(","))


def _bad(text: str, why: str) -> BadQuantity:
    return BadQuantity("", f"{shown(text)} {why}", _FIX, code="condition")
