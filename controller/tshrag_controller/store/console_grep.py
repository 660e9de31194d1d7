"""``python -m tshrag_controller.store.console_grep``: one search, in a process that may be ended.

Reads an order from stdin, writes one line of JSON: the answer, or why the pattern is none.
"""

import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tshrag_common.console_log import unpacked
from tshrag_common.console_requests import ConsoleLine, GrepAnswer, GrepConsole
from tshrag_controller.store.console_reading import Windows
from tshrag_controller.store.consoles import blocks, folder_of

LINE_MOST = 4096
_TEXT_MOST = 500
_MEMORY_BYTES = 1 << 30


def main() -> None:
    root, within_s, asked, windows = msgspec.json.decode(
        sys.stdin.buffer.read(), type=tuple[str, float, GrepConsole, Windows]
    )
    seconds = max(1, round(within_s))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    answer = searched(Path(root), asked, windows, within_s * 0.8)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def searched(root: Path, asked: GrepConsole, windows: Windows, within_s: float) -> GrepAnswer | str:
    """Return the lines found, or why the pattern cannot be used."""
    flags = re.IGNORECASE if asked.ignore_case else 0
    try:
        pattern = re.compile(asked.pattern.encode(), flags)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{error}"
    duts = asked.duts or tuple(sorted(path.name for path in root.glob("*") if path.is_dir()))
    ends = time.monotonic() + within_s
    found: list[ConsoleLine] = []
    for dut, at, line in _all_lines(root, duts, asked):
        if pattern.search(line) and windows.holds(dut, at):
            text = line.decode("utf-8", "replace")[:_TEXT_MOST]
            found.append(ConsoleLine(at=at, dut=dut, text=text))
        late = time.monotonic() > ends
        if late or len(found) > asked.limit:
            found.sort(key=lambda line: line.at)
            return GrepAnswer(lines=tuple(found[: asked.limit]), more=True, late=late)
    found.sort(key=lambda line: line.at)
    return GrepAnswer(lines=tuple(found))


def _all_lines(
    root: Path, duts: tuple[str, ...], asked: GrepConsole
) -> Iterator[tuple[str, int, bytes]]:
    for dut in duts:
        for at, line in lines(folder_of(root, dut), asked.since, asked.until):
            yield dut, at, line


def lines(folder: Path, since: int, until: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that a DUT has said, each with the instant at which it began."""
    rest, began = b"", 0
    for at, data in _said(folder, since, until):
        if not rest:
            began = at
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield began, line.rstrip(b"\r")
            began = at
        while len(rest) > LINE_MOST:
            yield began, rest[:LINE_MOST]
            rest = rest[LINE_MOST:]
    if rest:
        yield began, rest


def _said(folder: Path, since: int, until: int) -> Iterator[tuple[int, bytes]]:
    for block, _ in blocks(folder, since):
        for record in unpacked(block):
            if until and record.at >= until:
                return
            if record.direction == "rx" and record.at >= since:
                yield record.at, record.data


if __name__ == "__main__":
    main()
