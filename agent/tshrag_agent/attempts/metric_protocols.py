"""PURE. What a load may write to its metrics socket, a line each.

* our own ``::metric KEY VALUE[unit] [time]``
* StatsD ``name:value|type[|@rate][|#tags]``: ``c`` is summed up here, so that a counter only
  grows; ``g`` takes deltas (``+1``, ``-1``); ``ms``, ``h`` and ``d`` are gauges (``ms`` in ms);
  ``s``, a set, is passed over
* InfluxDB line protocol ``measurement[,tag=v] field=1.5[,other=2i] [ns]``: the key is
  ``measurement.field``, and the measurement alone for a field called ``value``

Tags that the declaration of the metric allows become segments of its key; others are not kept,
which is counted. A set and a text field are not numbers, and counted too.
"""

import re
from typing import NamedTuple

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.attempts.metric_lines import LINE_CAP, MARK, offer_line
from tshrag_common.errors import shown
from tshrag_common.metrics import MetricType
from tshrag_common.units import NUMBER

MAX_TOTALS = 1000  # keys of StatsD that are summed up
MAX_FIELDS = 100  # of one line

_STATSD = re.compile(
    rf"(?P<name>[^:|@=\s]+):(?P<value>{NUMBER})\|(?P<type>c|g|ms|h|d)(?P<rest>(?:\|[^|]*)*)",
    re.ASCII,
)
_STATSD_SET = re.compile(r"[^:|@=\s]+:[^|]*\|s(?:\|.*)?")
_RATE = re.compile(rf"@({NUMBER})", re.ASCII)
_NANOSECONDS = re.compile(r"[0-9]{1,19}", re.ASCII)
_INFLUX_NUMBER = re.compile(rf"({NUMBER})[iu]?", re.ASCII)
_TRUE = ("t", "T", "true", "True", "TRUE")
_FALSE = ("f", "F", "false", "False", "FALSE")
_BOOLEANS = {**dict.fromkeys(_TRUE, 1.0), **dict.fromkeys(_FALSE, 0.0)}


class MetricProtocols:
    """Reads the lines of one attempt; it remembers the totals of its counters."""

    def __init__(self, gate: MetricGate) -> None:
        self._gate = gate
        self._totals: dict[str, float] = {}

    def feed(self, packet: bytes, now_us: int) -> None:
        """Take the samples of a datagram, which may hold several lines."""
        for line in packet.replace(b"\r", b"\n").split(b"\n"):
            if line:
                self.line(line, now_us)

    def line(self, line: bytes, now_us: int) -> None:
        """Take the samples of one line; what it is not is counted."""
        if len(line) > LINE_CAP:
            self._gate.refuse("socket", f"metric_line: longer than {LINE_CAP} bytes")
            return
        if line.startswith(MARK):
            offer_line(self._gate, line, now_us)
            return
        text = line.decode("utf-8", "backslashreplace").strip()
        found = _STATSD.fullmatch(text)
        if found:
            self._statsd(found, now_us)
        elif _STATSD_SET.fullmatch(text):
            self._gate.refuse(text.partition(":")[0], "metric_line: a set of StatsD is no number")
        elif text and not text.startswith("#"):
            self._influx(text, now_us)

    def _statsd(self, found: re.Match[str], now_us: int) -> None:
        name, kind, value = found["name"], found["type"], float(found["value"])
        rate, tags = self._statsd_rest(found["rest"])
        name = self._tagged(name, tags, now_us)
        if not name:
            return
        if not 0 < rate <= 1:
            self._gate.refuse(name, f"metric_value: a sample rate of {rate:g}")
            return
        if kind == "c":
            value = self._total(name, value / rate, is_delta=True)
        elif kind == "g":
            value = self._total(name, value, is_delta=found["value"][0] in "+-")
        claimed: MetricType | None = "counter" if kind == "c" else None
        self._gate.offer(name, value, "ms" if kind == "ms" else "", None, 0, claimed, now_us=now_us)

    def _statsd_rest(self, rest: str) -> tuple[float, dict[str, str]]:
        """Return the sample rate and the tags; a tag without a value says that it is there."""
        rate, tags = 1.0, dict[str, str]()
        for part in rest.split("|")[1:]:
            sampled = _RATE.fullmatch(part)
            if sampled:
                rate = float(sampled[1])
            elif part:
                pairs = (tag.partition(":")[::2] for tag in part.removeprefix("#").split(","))
                tags.update(pairs)
        return rate, tags

    def _total(self, name: str, value: float, *, is_delta: bool) -> float:
        if is_delta:
            value += self._totals.get(name, 0.0)
        if name in self._totals or len(self._totals) < MAX_TOTALS:
            self._totals[name] = value
        return value

    def _influx(self, text: str, now_us: int) -> None:
        line = _split_influx(text)
        if line is None or len(line.fields) > MAX_FIELDS:
            said = f"metric_line: {shown(text)} is neither ::metric, StatsD nor line protocol"
            self._gate.refuse("socket", said)
            return
        for field, value in line.fields:
            name = line.measurement if field == "value" else f"{line.measurement}.{field}"
            whole = self._tagged(name, line.tags, now_us)
            number = _influx_number(value)
            if not whole:
                continue
            if number is None:
                self._gate.refuse(whole, f"metric_value: {shown(value)} is no number")
            else:
                self._gate.offer(whole, number, "", line.at_us, now_us=now_us)

    def _tagged(self, name: str, tags: dict[str, str], now_us: int) -> str:
        """Return the key with the tags that it may have; empty where it has too many series."""
        if not tags:
            return name
        key, left_out = self._gate.labelled(name, tags, now_us)
        if left_out:
            self._gate.refuse(name, "metric_tags: the sample was taken, its tags are not kept")
        return key


class _Influx(NamedTuple):
    measurement: str
    tags: dict[str, str]
    fields: list[tuple[str, str]]
    at_us: int | None


def _split_influx(text: str) -> _Influx | None:
    parts = _split(text, " ")
    if len(parts) not in (2, 3) or (parts[2:] and not _NANOSECONDS.fullmatch(parts[2])):
        return None
    head = _split(parts[0], ",")
    fields = [_split(field, "=") for field in _split(parts[1], ",")]
    if not head[0] or not all(len(field) == 2 and field[0] for field in fields):
        return None
    named = [(_plain(name), value) for name, value in fields]
    at_us = int(parts[2]) // 1000 if parts[2:] else None
    pairs = (tag.partition("=")[::2] for tag in head[1:])
    tags = {_plain(name): _plain(value) for name, value in pairs}
    return _Influx(_plain(head[0]), tags, named, at_us)


def _split(text: str, at: str) -> list[str]:
    """Split where `at` is neither escaped nor inside quotes."""
    if "\\" not in text and '"' not in text:
        return text.split(at)
    parts, start, quoted, position = [], 0, False, 0
    while position < len(text):
        letter = text[position]
        if letter == "\\":
            position += 1
        elif letter == '"':
            quoted = not quoted
        elif letter == at and not quoted:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    parts.append(text[start:])
    return parts


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text) if "\\" in text else text


def _influx_number(text: str) -> float | None:
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    match = _INFLUX_NUMBER.fullmatch(text)
    return float(match[1]) if match else None
