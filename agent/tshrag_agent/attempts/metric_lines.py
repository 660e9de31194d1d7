"""PURE. Samples in the output of a load, and in CSV files that it writes.

A sample in the output is a line ``::metric KEY VALUE[unit] [time]`` that *begins* with the marker:
with anything before it, a space or a backslash, it is text. A line feed, a carriage return or both
end a line. However the bytes are cut into pieces, the same samples come out; at most one line is
kept in memory.

A row of CSV is ``time,value`` or ``time,duration,value``; a first row that has words in it is the
header and may name the columns in another order.
"""

import re
from collections.abc import Sequence

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_common.errors import shown

LINE_CAP = 16 * 1024
MARK = b"::metric "
NOISE = b"\x00\xff"  # what a UART makes of a line that was never driven

_STARTS_TIME = re.compile(r"[0-9]")
_NAMES = {
    "time": "time", "timestamp": "time", "at": "time", "at_us": "time", "time_us": "time",
    "value": "value", "duration": "duration", "duration_us": "duration",
}  # fmt: skip


class MetricLines:
    """Finds samples in a stream of output; one a stream."""

    def __init__(self, gate: MetricGate) -> None:
        self._gate = gate
        self._tail = b""  # of a line that may still become a sample
        self._in_text = False  # in the middle of a line that will not

    def feed(self, data: bytes, now_us: int) -> None:
        """Take the samples of all lines that `data` completes."""
        if b"\r" in data:
            data = data.replace(b"\r", b"\n")
        if self._in_text:
            _, ended, data = data.partition(b"\n")
            if not ended:
                return
            self._in_text = False
        data = self._tail + data
        whole, _, self._tail = data.rpartition(b"\n")
        if MARK in whole:
            for line in whole.split(b"\n"):
                self._line(line, now_us)
        self._judge_tail()

    def close(self, now_us: int) -> None:
        """Take the last line, which nothing ended."""
        self._line(self._tail, now_us)
        self._tail, self._in_text = b"", False

    def _line(self, line: bytes, now_us: int) -> None:
        if MARK not in line:
            return
        line = line.lstrip(NOISE)
        if not line.startswith(MARK):
            return
        if len(line) > LINE_CAP:
            self._refuse_long()
        else:
            offer_line(self._gate, line, now_us)

    def _judge_tail(self) -> None:
        """Keep the tail only while it may become a sample."""
        self._tail = self._tail.lstrip(NOISE)
        if not self._tail.startswith(MARK[: len(self._tail)]):
            self._in_text, self._tail = True, b""
        elif len(self._tail) > LINE_CAP:
            self._refuse_long()
            self._in_text, self._tail = True, b""

    def _refuse_long(self) -> None:
        self._gate.refuse("::metric", f"metric_line: longer than {LINE_CAP} bytes")


def offer_line(gate: MetricGate, line: bytes, now_us: int) -> bool:
    """Take the sample of one ``::metric`` line, or count why not."""
    words = line.decode("utf-8", "backslashreplace").split()[1:]
    match words:
        case [key, value]:
            return gate.offer_text(key, value, now_us=now_us)
        case [key, value, third] if _STARTS_TIME.match(third):
            return gate.offer_text(key, value, third, now_us=now_us)
        case [key, value, name]:
            return gate.offer_text(key, value + name, now_us=now_us)
        case [key, value, name, time]:
            return gate.offer_text(key, value + name, time, now_us=now_us)
    said = "metric_line: expected '::metric KEY VALUE[unit] [time]'"
    gate.refuse(words[0] if words else "::metric", said)
    return False


class MetricRows:
    """Finds samples in the bytes of one CSV file, all of one key."""

    def __init__(self, gate: MetricGate, key: str) -> None:
        self._gate, self._key = gate, key
        self.restart()

    @property
    def waiting_bytes(self) -> int:
        """Return how much of a row waits for its end."""
        return len(self._tail)

    def restart(self) -> None:
        """Begin anew: the file was replaced or truncated."""
        self._columns: Sequence[str] = ()
        self._rows = 0
        self._tail = b""
        self._in_long = False

    def feed(self, data: bytes, now_us: int) -> None:
        """Take the samples of all rows that `data` completes."""
        whole, ended, rest = (self._tail + data).rpartition(b"\n")
        if ended:
            lines = whole.split(b"\n")
            if self._in_long:
                del lines[0]
                self._in_long = False
            for line in lines:
                self._row(line, now_us)
        self._tail = b"" if self._in_long else rest
        if len(self._tail) > LINE_CAP:
            self._row(self._tail, now_us)
            self._tail, self._in_long = b"", True

    def close(self, now_us: int) -> None:
        """Take the last row, which nothing ended."""
        if not self._in_long:
            self._row(self._tail, now_us)
        self._tail, self._in_long = b"", False

    def _row(self, line: bytes, now_us: int) -> None:
        if len(line) > LINE_CAP:
            self._gate.refuse(self._key, f"metric_line: longer than {LINE_CAP} bytes")
            return
        text = line.decode("utf-8", "backslashreplace").strip().removeprefix("\ufeff")
        if not text or text.startswith("#"):
            return
        cells = [cell.strip().strip('"') for cell in text.split(",")]
        self._rows += 1
        if self._rows == 1 and self._is_header(cells):
            return
        columns = self._columns
        if len(columns) != len(cells):
            columns = _COLUMNS.get(len(cells), ())
        row = dict(zip(columns, cells, strict=False))
        if not row.get("time"):
            said = f"metric_line: {shown(text)} is no 'time,value' or 'time,duration,value'"
            self._gate.refuse(self._key, said)
            return
        self._gate.offer_text(
            self._key, row["value"], row["time"], row.get("duration", ""), now_us=now_us
        )

    def _is_header(self, cells: list[str]) -> bool:
        """Tell whether the first row names columns, and remember their order."""
        names = [_NAMES.get(cell.lower(), "") for cell in cells]
        if "time" in names and "value" in names and all(names) and len(set(names)) == len(names):
            self._columns = names
            return True
        return not any(_STARTS_TIME.search(cell) for cell in cells)


_COLUMNS = {2: ("time", "value"), 3: ("time", "duration", "value")}
