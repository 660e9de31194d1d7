"""PURE: TOML as data and the line of every value.

tomllib reads, and knows no lines; a scanner of our own walks the same text beside it and only
notes where keys stand. Where the scanner loses its way, a value has the line of what it is in.
"""

import re
import tomllib

from tshrag_common.positions import (
    MAX_DEPTH,
    At,
    Broken,
    Fault,
    Lines,
    Parsed,
    duplicate,
    too_deep,
)

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r]++|\#[^\n]*+)
    |(?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*+"|'[^'\n]*+')
    |(?P<sign>\[\[|\]\]|[\[\]{},=.\n])
    |(?P<bare>[^\s\[\]{},=.\#"']++)""",
    re.VERBOSE | re.DOTALL,
)
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def parse_toml(text: str) -> Parsed:
    """Read `text`; raise Broken where it is no TOML."""
    scanner = _Scanner(text)
    scanner.scan()
    if scanner.faults:
        return Parsed(data=None, lines=scanner.lines, faults=tuple(scanner.faults))
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise too_deep(0) from None
    except ValueError as error:
        raise Broken(_syntax(error)) from None
    _check_depth(data)
    return Parsed(data=data, lines=scanner.lines)


def _syntax(error: ValueError) -> Fault:
    said = str(error)
    place = _PLACE.search(said)
    line, column = (int(place[1] or 0), int(place[2] or 0)) if place else (0, 0)
    what = said[: place.start()] if place else said
    what = f"{what}, at the end" if place and not line else what
    return Fault(code="toml_syntax", what=ascii(what)[1:-1], line=line, column=column)


def _check_depth(data: object) -> None:
    level: list[object] = [data]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    if any(isinstance(value, dict | list) for value in level):
        raise too_deep(0)


class _Lost(Exception):
    pass


class _Scanner:
    """Notes the line of each key, and which keys stand twice."""

    def __init__(self, text: str) -> None:
        self.lines: dict[At, int] = {(): 1}
        self.faults: list[Fault] = []
        self._place = Lines(text)
        self._tokens = self._cut(text)
        self._next = 0
        self._counts: dict[At, int] = {}  # how many tables an array of tables has by now
        self._headers: dict[At, int] = {}
        self._assigned: set[At] = set()

    def scan(self) -> None:
        table: At = ()
        try:
            while self._next < len(self._tokens):
                sign = self._peek()
                if sign == "\n":
                    self._next += 1
                elif sign in ("[", "[["):
                    table = self._header(doubled=sign == "[[")
                else:
                    self._assignment(table)
        except (_Lost, RecursionError):
            return

    def _cut(self, text: str) -> list[tuple[str, str, int]]:
        found: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                break
            if match.lastgroup != "blank":
                found.append((str(match.lastgroup), match[0], self._place.line(at)))
            at = match.end()
        return found

    def _peek(self) -> str:
        if self._next >= len(self._tokens):
            return ""
        group, text, _ = self._tokens[self._next]
        return text if group == "sign" else ""

    def _line(self) -> int:
        index = min(self._next, len(self._tokens) - 1)
        return self._tokens[index][2] if self._tokens else 1

    def _take(self, sign: str) -> None:
        if self._peek() != sign:
            raise _Lost
        self._next += 1

    def _key(self) -> At:
        parts: list[str] = []
        while True:
            if self._next >= len(self._tokens) or self._tokens[self._next][0] == "sign":
                raise _Lost
            group, text, _ = self._tokens[self._next]
            parts.append(_unquoted(text) if group == "text" else text)
            self._next += 1
            if len(parts) > MAX_DEPTH:  # tomllib would need minutes for a key of many parts
                raise too_deep(self._line())
            if self._peek() != ".":
                return tuple(parts)
            self._next += 1

    def _header(self, *, doubled: bool) -> At:
        line = self._line()
        self._next += 1
        key = self._key()
        self._take("]]" if doubled else "]")
        table = self._resolved(key[:-1])
        last = (*table, key[-1])
        if doubled:
            index = self._counts.get(last, 0)
            self._counts[last] = index + 1
            self.lines.setdefault(last, line)
            last = (*last, index)
        elif last in self._headers:
            self.faults.append(duplicate(str(key[-1]), line, self._headers[last]))
        else:
            self._headers[last] = line
        self._note(last, line)
        return last

    def _resolved(self, key: At) -> At:
        at: At = ()
        for part in key:
            at = (*at, part)
            if at in self._counts:
                at = (*at, self._counts[at] - 1)
        return at

    def _assignment(self, table: At) -> None:
        line = self._line()
        key = self._key()
        at = (*table, *key)
        self._take("=")
        if at in self._assigned or at in self._headers:
            self.faults.append(duplicate(str(key[-1]), line, self.lines[at]))
        self._assigned.add(at)
        self._note(at, line)
        self._value(at)

    def _note(self, at: At, line: int) -> None:
        for size in range(1, len(at) + 1):
            self.lines.setdefault(at[:size], line)

    def _value(self, at: At) -> None:
        if len(at) > MAX_DEPTH:
            raise too_deep(self._line())
        sign = self._peek()
        if sign in ("[", "[["):
            self._array(at)
        elif sign == "{":
            self._inline(at)
        else:
            while self._next < len(self._tokens) and self._peek() in ("", "."):
                self._next += 1

    def _array(self, at: At) -> None:
        if self._peek() == "[[":  # two arrays begin: take the first bracket only
            self._tokens[self._next] = ("sign", "[", self._line())
        else:
            self._next += 1
        index = 0
        while not self._closes_array():
            if self._peek() in ("\n", ","):
                self._next += 1
                continue
            self._note((*at, index), self._line())
            self._value((*at, index))
            index += 1

    def _closes_array(self) -> bool:
        if self._next >= len(self._tokens):
            raise _Lost
        if self._peek() == "]]":  # it closes two; leave one
            self._tokens[self._next] = ("sign", "]", self._line())
            return True
        if self._peek() == "]":
            self._next += 1
            return True
        if self._peek() in ("}", "="):
            raise _Lost
        return False

    def _inline(self, at: At) -> None:
        self._take("{")
        while self._peek() != "}":
            if self._peek() in ("\n", ","):
                self._next += 1
                continue
            self._assignment(at)
        self._next += 1


def _unquoted(text: str) -> str:
    try:
        return str(tomllib.loads(f"key = {text}")["key"])
    except ValueError:
        return text
