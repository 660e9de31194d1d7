"""PURE: YAML 1.2 as data and the line of every value.

Only what a person needs is read: no tags, no anchors, no aliases, keys are text. A plain number
with a leading zero and a time like ``1:30`` stay text: elsewhere they mean eight different things.
It is slow, so that a document is bounded before it comes here, and again by the number of values.
"""

import re
from collections.abc import Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from tshrag_common.positions import (
    MAX_DEPTH,
    At,
    Broken,
    Fault,
    Parsed,
    duplicate,
    too_deep,
)

MAX_VALUES = 20_000
"""A value costs 20 to 60 us here; who has more of them writes JSON or a repeat."""

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,31})")
_BASED = re.compile(r"0o[0-7]{1,21}|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS: dict[str, object] = dict.fromkeys(("", "~", "null", "Null", "NULL")) | {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse_yaml(text: str) -> Parsed:
    """Read `text`; raise Broken where it is no YAML, or more of it than is allowed here."""
    reader = _Reader()
    try:
        return reader.document(text)
    except MarkedYAMLError as error:
        raise Broken(_marked(error, text)) from None
    except (YAMLError, ValueError, OverflowError) as error:
        first = (str(error).splitlines() or ["not readable"])[0]
        raise Broken(_syntax(first, 0, 0)) from None
    except RecursionError:
        raise too_deep(0) from None


class _Reader:
    def __init__(self) -> None:
        self._lines: dict[At, int] = {}
        self._faults: list[Fault] = []
        self._values = 0

    def document(self, text: str) -> Parsed:
        events: Iterator[Event] = iter(YAML(typ="safe", pure=True).parse(text))
        data: object = None
        seen = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                seen += 1
                _one_document(event, seen)
                data = self._value(next(events), events, ())
            if isinstance(event, StreamEndEvent):
                break
        return Parsed(data=data, lines=self._lines, faults=tuple(self._faults))

    def _value(self, event: Event, events: Iterator[Event], at: At) -> object:
        line = event.start_mark.line + 1
        self._lines.setdefault(at, line)
        self._values += 1
        if self._values > MAX_VALUES:
            raise Broken(Fault(code="too_large", what=f"more than {MAX_VALUES} values", line=line))
        _allowed(event)
        if isinstance(event, ScalarEvent):
            text = _text(event)
            plain = bool(event.implicit[0]) and not event.style
            return _scalar(text) if plain else text
        if len(at) >= MAX_DEPTH:
            raise too_deep(line)
        if isinstance(event, SequenceStartEvent):
            return self._list(events, at)
        return self._mapping(events, at)

    def _list(self, events: Iterator[Event], at: At) -> list[object]:
        found: list[object] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            found.append(self._value(event, events, (*at, len(found))))
        return found

    def _mapping(self, events: Iterator[Event], at: At) -> dict[str, object]:
        found: dict[str, object] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            _allowed(event)
            line = event.start_mark.line + 1
            if not isinstance(event, ScalarEvent):
                raise Broken(_syntax("a key must be text", line, event.start_mark.column + 1))
            key = _text(event)
            if key in found:
                self._faults.append(duplicate(key, line, self._lines[(*at, key)]))
                self._value(next(events), events, at)
                continue
            self._lines[(*at, key)] = line
            found[key] = self._value(next(events), events, (*at, key))
        return found


def _one_document(event: DocumentStartEvent, seen: int) -> None:
    line = event.start_mark.line + 1
    if seen > 1:
        raise Broken(_syntax("a second document begins", line, 1))
    if event.version is not None and tuple(event.version) != (1, 2):
        raise Broken(_syntax("only YAML 1.2 is read", line, 1))


def _allowed(event: Event) -> None:
    if not isinstance(event, NodeEvent):
        return
    line = event.start_mark.line + 1
    if isinstance(event, AliasEvent) or event.anchor is not None:
        raise Broken(Fault(code="yaml_alias", what="aliases are not allowed", line=line))
    if getattr(event, "tag", None) is not None:
        raise Broken(Fault(code="yaml_tag", what="tags are not allowed", line=line))


def _text(event: ScalarEvent) -> str:
    text = str(event.value)
    if _SURROGATE.search(text):
        mark = event.start_mark
        raise Broken(_syntax("half a surrogate pair", mark.line + 1, mark.column + 1))
    return text


def _scalar(text: str) -> object:
    """Return what a plain scalar means in the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    special = _SPECIAL.fullmatch(text)
    if special is not None:
        return float("nan") if special[1] is None else float(f"{special[1]}inf")
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _marked(error: MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    what = str(error.problem or error.context or "not readable")
    row = text.splitlines()[line - 1] if 0 < line <= len(text.splitlines()) else ""
    if row[column - 1 : column] == "\t":
        return _syntax("tab character", line, column)
    return _syntax(what.replace("\n", " "), line, column)


def _syntax(what: str, line: int, column: int) -> Fault:
    return Fault(code="yaml_syntax", what=ascii(what)[1:-1], line=line, column=column)
