"""PURE. The Prometheus text format and OpenMetrics -> points. Strict, and every byte is hostile.

One line that is not in the format refuses the whole text: half of an answer looks like a whole
one. Sizes are bounded before anything is kept; times in the text are checked and not used.
"""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from tshrag_common.errors import Refused, shown
from tshrag_common.metrics import MetricType

MOST_BYTES = 4 << 20
MOST_LINES = 50_000
MOST_LINE = 16_384  # characters
MOST_POINTS = 10_000  # of names that are wanted

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*[ \t]*=[ \t]*"(?:[^"\\]|\\[\\"n])*"'
_LABELS = rf"(?:{_LABEL}(?:[ \t]*,[ \t]*{_LABEL})*[ \t]*,?)?"
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_VALUE = rf"{_NUMBER}|[+-]?(?i:inf|infinity|nan)"
_EXEMPLAR = rf"[ \t]+\#[ \t]+\{{[ \t]*{_LABELS}[ \t]*\}}[ \t]+(?:{_VALUE})(?:[ \t]+{_NUMBER})?"
_SAMPLE = re.compile(
    rf"({_NAME})[ \t]*(?:\{{[ \t]*({_LABELS})[ \t]*\}})?[ \t]*(?<=[ \t}}])({_VALUE})"
    rf"(?:[ \t]+{_NUMBER})?(?:{_EXEMPLAR})?[ \t]*",
    re.ASCII,
)
_ONE_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\[\\"n])*)"', re.ASCII)
_ESCAPED = re.compile(r'\\([\\"n])')
_TYPE = re.compile(rf"#[ \t]+TYPE[ \t]+({_NAME})[ \t]+([a-z]+)[ \t]*", re.ASCII)
_TYPE_BEGINS = re.compile(r"#[ \t]+TYPE[ \t]")
_TYPES = {
    "counter", "gauge", "histogram", "summary", "untyped", "unknown", "info", "stateset",
    "gaugehistogram",
}  # fmt: skip
_COUNTED = ("_bucket", "_sum", "_count")
_SUFFIXES = ("_total", "_bucket", "_sum", "_count", "_created", "_info", "_gsum", "_gcount")


class BadExposition(Refused):
    """A text that is not in the format, or larger than what is taken."""

    code = "bad_exposition"


class Point(NamedTuple):
    """One sample of the text."""

    name: str
    type: MetricType
    labels: dict[str, str]
    value: float


def parse(data: bytes, wanted: Collection[str]) -> list[Point]:
    """Return the points whose name is `wanted`; all of the text is checked.

    Raises:
        BadExposition: with the line.

    """
    types: dict[str, str] = {}
    found: dict[tuple[str, frozenset[tuple[str, str]]], Point] = {}
    for number, line in _lines(data):
        where = f"line {number}"
        if line.startswith("#"):
            _note_type(line, types, where)
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise BadExposition(where, f"{shown(line, 60)} is no sample")
        if match[1] not in wanted:
            continue
        labels = _labels(match[2] or "", where)
        point = Point(match[1], _type(match[1], types), labels, float(match[3]))
        series = (point.name, frozenset(labels.items()))
        if series in found:
            raise BadExposition(where, f"{point.name} stands there twice with the same labels")
        found[series] = point
        if len(found) > MOST_POINTS:
            raise BadExposition(where, f"more than {MOST_POINTS} samples", "name fewer keys")
    return list(found.values())


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Number the lines that are not empty, up to ``# EOF``."""
    is_over = False
    for number, line in enumerate(_text(data).split("\n"), start=1):
        if number > MOST_LINES:
            raise BadExposition("", f"more than {MOST_LINES} lines")
        if len(line) > MOST_LINE:
            raise BadExposition(f"line {number}", f"longer than {MOST_LINE} characters")
        bare = line.strip(" \t\r")
        if is_over and bare:
            raise BadExposition(f"line {number}", "stands behind # EOF")
        is_over = is_over or bare == "# EOF"
        if bare:
            yield number, bare


def _text(data: bytes) -> str:
    if len(data) > MOST_BYTES:
        raise BadExposition("", f"more than {MOST_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadExposition(f"byte {error.start}", "is no UTF-8") from None
    if text and not text.endswith("\n"):
        raise BadExposition("", "the last line has no end: the answer was cut")
    return text


def _note_type(line: str, types: dict[str, str], where: str) -> None:
    if not _TYPE_BEGINS.match(line):
        return  # HELP, UNIT, EOF, or words for people
    match = _TYPE.fullmatch(line)
    if match is None or match[2] not in _TYPES:
        raise BadExposition(where, f"{shown(line, 60)} is no type")
    if match[1] in types:
        raise BadExposition(where, f"{match[1]} has a type already")
    types[match[1]] = match[2]


def _labels(text: str, where: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for name, value in _ONE_LABEL.findall(text):
        if name in labels:
            raise BadExposition(where, f"label {name} stands there twice")
        labels[name] = _ESCAPED.sub(lambda one: "\n" if one[1] == "n" else one[1], value)
    return labels


def _type(name: str, types: dict[str, str]) -> MetricType:
    """Return what a sample is for us: parts of a histogram only ever grow, so they are counters."""
    suffix = next((each for each in _SUFFIXES if name.endswith(each)), "")
    family = types.get(name) or types.get(name.removesuffix(suffix), "")
    if family == "counter":
        return "gauge" if suffix == "_created" else "counter"
    if family in ("histogram", "summary") and suffix in _COUNTED:
        return "counter"
    return "gauge"
