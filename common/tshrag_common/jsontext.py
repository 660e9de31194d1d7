"""PURE: JSON, with comments and trailing commas, as data and the line of every value.

``NaN`` and ``Infinity`` are read as numbers, so that the model can say what range is allowed
instead of a parser saying that a letter is unexpected. Cost: O(size).
"""

import re
from collections.abc import Callable

import msgspec

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

_BLANK = re.compile(r"(?:[ \t\r\n]++|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_STRING = re.compile(r'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"')
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*+))(\.[0-9]++)?+([eE][+-]?[0-9]++)?+(?![\w.])")
_WORD = re.compile(r"-?[A-Za-z_]\w{0,20}")
_WORDS: dict[str, object] = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
_MAX_DIGITS = 32


def parse_json(text: str) -> Parsed:
    """Read `text`; raise Broken where it is no JSON."""
    return _Reader(text).document()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._place = Lines(text)
        self._lines: dict[At, int] = {}
        self._faults: list[Fault] = []

    def document(self) -> Parsed:
        self._skip()
        data = self._value(())
        self._skip()
        if self._at < len(self._text):
            raise self._broken("the document has ended, but text follows")
        return Parsed(data=data, lines=self._lines, faults=tuple(self._faults))

    def _value(self, at: At) -> object:
        self._lines.setdefault(at, self._place.line(self._at))
        following = self._text[self._at : self._at + 1]
        if following in ("{", "["):
            if len(at) >= MAX_DEPTH:
                raise too_deep(self._place.line(self._at))
            self._at += 1
            return self._mapping(at) if following == "{" else self._list(at)
        if following == '"':
            return self._string()
        return self._number_or_word()

    def _mapping(self, at: At) -> dict[str, object]:
        found: dict[str, object] = {}

        def member() -> None:
            line = self._place.line(self._at)
            if self._text[self._at : self._at + 1] != '"':
                raise self._broken("expected a key in double quotes")
            key = self._string()
            self._skip()
            self._take(":")
            if key in found:
                self._faults.append(duplicate(key, line, self._lines[(*at, key)]))
                self._value(at)
                return
            self._lines[(*at, key)] = line
            found[key] = self._value((*at, key))

        self._members("}", member)
        return found

    def _list(self, at: At) -> list[object]:
        found: list[object] = []
        self._members("]", lambda: found.append(self._value((*at, len(found)))))
        return found

    def _members(self, end: str, member: Callable[[], None]) -> None:
        self._skip()
        while self._text[self._at : self._at + 1] != end:
            member()
            self._skip()
            if self._text[self._at : self._at + 1] == end:
                break
            self._take(",", f"expected ',' or '{end}'")
        self._at += 1

    def _string(self) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            raise self._broken("this text has no closing quote on its line")
        try:
            text = msgspec.json.decode(match[0].encode(), type=str)
        except msgspec.DecodeError:
            raise self._broken("this text has an escape that JSON does not know") from None
        self._at = match.end()
        return text

    def _number_or_word(self) -> object:
        number = _NUMBER.match(self._text, self._at)
        if number is not None:
            if len(number[1]) > _MAX_DIGITS:
                raise self._broken(f"a number of {len(number[1])} digits")
            self._at = number.end()
            return float(number[0]) if number[2] or number[3] else int(number[1])
        word = _WORD.match(self._text, self._at)
        if word is None or word[0] not in _WORDS:
            raise self._unexpected()
        self._at = word.end()
        return _WORDS[word[0]]

    def _take(self, char: str, expected: str = "") -> None:
        if self._text[self._at : self._at + 1] != char:
            raise self._broken(expected or f"expected '{char}'")
        self._at += 1
        self._skip()

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _unexpected(self) -> Broken:
        rest = self._text[self._at : self._at + 2]
        if not rest:
            return self._broken("the document ends too early")
        if rest == "/*":
            return self._broken("this comment is not closed")
        word = _WORD.match(self._text, self._at)
        return self._broken(f"unexpected {word[0] if word else rest[0]!a}")

    def _broken(self, what: str) -> Broken:
        line, column = self._place.line(self._at), self._place.column(self._at)
        return Broken(Fault(code="json_syntax", what=what, line=line, column=column))
