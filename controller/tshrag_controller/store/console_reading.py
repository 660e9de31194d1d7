"""Reads of the records of consoles: a page of records, lines that a pattern finds.

A pattern of a person is executed in a process of its own, which has seconds of processor time and
then ends: no pattern, however unlucky, holds the controller up.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tshrag_common.console_log import ConsoleRecord, packed, unpacked
from tshrag_common.console_requests import ConsoleAnswer, GetConsole, GrepAnswer, GrepConsole
from tshrag_common.errors import Refused, Unavailable
from tshrag_controller.store.consoles import Place, blocks, folder_of, newest, place_of

PAGE_BYTES = 256 << 10
"""Of records in one answer; packed it is less."""
GREP_S = 20.0
_GREPS = 2


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """When somebody had which DUT, from and until (0: still); ``all``: no matter when."""

    by_dut: dict[str, tuple[tuple[int, int], ...]] = {}
    all: bool = True

    def get(self, dut: str) -> tuple[tuple[int, int], ...] | None:
        """Return the windows of a DUT; None: everything."""
        return None if self.all else self.by_dut.get(dut, ())

    def holds(self, dut: str, at: int) -> bool:
        return is_within(self.get(dut), at)


def is_within(windows: tuple[tuple[int, int], ...] | None, at: int) -> bool:
    if windows is None:
        return True
    return any(since <= at and (not until or at < until) for since, until in windows)


def page(
    root: Path, asked: GetConsole, windows: tuple[tuple[int, int], ...] | None = None
) -> ConsoleAnswer:
    """Return the next records of a console. Blocks: for a thread."""
    folder = folder_of(root, asked.dut)
    start = place_of(asked.cursor) if asked.cursor else None
    if start is None and not asked.since:
        start = newest(folder, asked.tail_bytes or PAGE_BYTES)
    found: list[ConsoleRecord] = []
    size, place = 0, start
    for block, after in blocks(folder, asked.since, start):
        records = unpacked(block)
        if asked.until and records and records[0].at >= asked.until:
            break
        wanted = [each for each in records if _is_wanted(each, asked)]
        wanted = [each for each in wanted if is_within(windows, each.at)]
        if found and size + _size(wanted) > PAGE_BYTES:
            return _answer(found, place, more=True)
        found += wanted
        size += _size(wanted)
        place = after
    return _answer(found, place, more=False)


def _is_wanted(record: ConsoleRecord, asked: GetConsole) -> bool:
    return asked.since <= record.at and (not asked.until or record.at < asked.until)


def _size(records: Iterable[ConsoleRecord]) -> int:
    return sum(len(record.data) + 24 for record in records)


def _answer(found: list[ConsoleRecord], place: Place | None, *, more: bool) -> ConsoleAnswer:
    block = packed(found) if found else b""
    return ConsoleAnswer(block=block, cursor=str(place) if place else "", more=more)


class Searches:
    """Greps, a few at once, each in a process with an end."""

    def __init__(self, root: Path, within_s: float = GREP_S) -> None:
        self._root, self._within_s = root, within_s
        self._turns = asyncio.Semaphore(_GREPS)

    async def grep(self, asked: GrepConsole, windows: Windows | None = None) -> GrepAnswer:
        """Return what the pattern finds.

        Raises:
            Refused: it is no pattern (``pattern``).
            Unavailable: the search did not come to an end in time (``pattern_slow``).

        """
        order = msgspec.json.encode((str(self._root), self._within_s, asked, windows or Windows()))
        async with self._turns:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tshrag_controller.store.console_grep",
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
            )  # fmt: skip
            try:
                async with asyncio.timeout(self._within_s + 5):
                    said, _ = await process.communicate(order)
            except TimeoutError:
                said = b""
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return _found(said)


def _found(said: bytes) -> GrepAnswer:
    try:
        answer = msgspec.json.decode(said, type=GrepAnswer | str)
    except msgspec.DecodeError:
        fix = "make it simpler, or search a shorter time by --since"
        what = "the search took too long and was ended"
        raise Unavailable("pattern", what, fix, code="pattern_slow") from None
    if isinstance(answer, str):
        raise Refused("pattern", answer, code="pattern")
    return answer
