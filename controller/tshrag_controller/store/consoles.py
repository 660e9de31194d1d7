"""Records of consoles on the controller's disk: a folder a DUT, segments by time, blocks in them.

An entry is ``crc32 length spool sequence first-instant`` and the block as its agent packed it. A
block that comes again is known by its spool and number; a tail that a crash has torn is cut when
the segment is opened. Old segments go by age and by the size of the folder, never the newest.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import msgspec

from tshrag_common import ids
from tshrag_common.console_log import unpacked
from tshrag_common.errors import Refused
from tshrag_common.reports import OutputChunk

SEGMENT_BYTES = 4 << 20
_HEAD = struct.Struct(">IIQQQ")  # crc of what follows it, length, spool, sequence, first instant
_CRC_BYTES = 4
_ENDING = ".console"
_DAY_US = 86_400 * 1_000_000


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each console is kept, and for how long."""

    days: float = 30.0
    bytes_per_dut: int = 1 << 30


class Entry(msgspec.Struct, frozen=True):
    """One block as it lies in a segment, and where the next one begins."""

    spool: int
    seq: int
    at: int
    block: bytes
    after: int


class _Tail(msgspec.Struct):
    """Where the newest segment of a DUT ends."""

    path: Path | None = None
    size: int = 0
    seen: dict[int, int] = msgspec.field(default_factory=dict[int, int])  # spool -> number


class ConsoleStore:
    """Writes blocks; lives in the writer's thread."""

    def __init__(self, folder: Path, kept: Kept | None = None) -> None:
        self._folder, self._kept = folder, kept or Kept()
        self._tails: dict[str, _Tail] = {}
        self._older: dict[str, _Tail] = {}

    def write(self, spool: str, seq: int, chunk: OutputChunk, *, older: bool = False) -> None:
        """Keep a block; the same again changes nothing.

        `older`: newer ones came before it; it goes into segments of its own, before theirs.

        Raises:
            Refused: it is no block of a console (``bad_message``).

        """
        unpacked(chunk.data)
        number = _number_of(spool)
        tail = self._older_tail(chunk) if older else self._tail(chunk.dut)
        if tail.seen.get(number, 0) >= seq:
            return
        body = _HEAD.pack(0, len(chunk.data), number, seq, chunk.at)[_CRC_BYTES:] + chunk.data
        entry = zlib.crc32(body).to_bytes(_CRC_BYTES, "big") + body
        path = tail.path
        if path is None or tail.size + len(entry) > SEGMENT_BYTES:
            path = self._new_segment(chunk.dut, chunk.at, tail, older)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, entry)
            os.fdatasync(descriptor)  # what is confirmed leaves the journal of its agent
        finally:
            os.close(descriptor)
        tail.size += len(entry)
        tail.seen[number] = seq

    def _tail(self, dut: str) -> _Tail:
        tail = self._tails.get(dut)
        if tail is None:
            tail = self._tails[dut] = _opened(folder_of(self._folder, dut))
        return tail

    def _older_tail(self, chunk: OutputChunk) -> _Tail:
        """Return the end of what is filled in before the segments that were here first."""
        tail = self._older.get(chunk.dut)
        if tail is None:
            tail = self._older[chunk.dut] = _Tail()
            known = segments(folder_of(self._folder, chunk.dut))
            for path in [each for each in known if _first_at(each) <= chunk.at][-1:]:
                tail.seen = _seen_before(path, chunk.at)
        return tail

    def _new_segment(self, dut: str, at: int, tail: _Tail, older: bool) -> Path:
        folder = folder_of(self._folder, dut)
        folder.mkdir(parents=True, exist_ok=True)
        known = segments(folder)
        first = max(at, _first_at(known[-1]) + 1) if known and not older else at
        while older and (folder / f"{first:020d}{_ENDING}") in known:
            first += 1
        tail.path, tail.size = folder / f"{first:020d}{_ENDING}", 0
        self._expire(known, at)
        return tail.path

    def _expire(self, known: list[Path], now: int) -> None:
        """Remove whole segments that are too old, and the oldest where there are too many."""
        total = sum(path.stat().st_size for path in known)
        oldest = now - round(self._kept.days * _DAY_US)
        for path, following in zip_longest(known, known[1:]):
            ended_at = _first_at(following) if following is not None else now
            if ended_at >= oldest and total <= self._kept.bytes_per_dut:
                return
            total -= path.stat().st_size
            path.unlink()


def folder_of(folder: Path, dut: str) -> Path:
    return folder / ids.dut_id(dut)


def segments(folder: Path) -> list[Path]:
    """Return the segments of a DUT, oldest first."""
    return sorted(folder.glob(f"*{_ENDING}"))


def _first_at(path: Path) -> int:
    return int(path.name.removesuffix(_ENDING))


def entries(path: Path, offset: int = 0) -> Iterator[Entry]:
    """Yield the entries of a segment from `offset`; ends before one that is not whole."""
    with path.open("rb") as file:
        file.seek(offset)
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            crc, length, spool, seq, at = _HEAD.unpack(head)
            block = file.read(length) if length <= SEGMENT_BYTES else b""
            if len(block) < length or zlib.crc32(head[_CRC_BYTES:] + block) != crc:
                return
            yield Entry(spool, seq, at, block, file.tell())


def _opened(folder: Path) -> _Tail:
    """Return the end of what a folder holds; a torn tail is cut off."""
    known = segments(folder)
    tail = _Tail()
    for path in known[-2:]:  # a block that comes again was among the last
        tail.path, tail.size = path, 0
        for entry in entries(path):
            tail.size = entry.after
            tail.seen[entry.spool] = max(entry.seq, tail.seen.get(entry.spool, 0))
    if tail.path is not None and tail.path.stat().st_size > tail.size:
        os.truncate(tail.path, tail.size)
    return tail


def _seen_before(path: Path, at: int) -> dict[int, int]:
    """Return the newest number of each spool in a segment, of blocks that began before `at`."""
    seen: dict[int, int] = {}
    for entry in entries(path):
        if entry.at <= at:
            seen[entry.spool] = max(entry.seq, seen.get(entry.spool, 0))
    return seen


def _number_of(spool: str) -> int:
    return int.from_bytes(hashlib.sha256(spool.encode()).digest()[:8], "big")


class Place(msgspec.Struct, frozen=True):
    """A place in the record of a DUT: a segment, and an offset in it."""

    segment: int
    offset: int

    def __str__(self) -> str:
        return f"{self.segment}:{self.offset}"


def place_of(cursor: str) -> Place:
    """Return the place that a cursor means; refuse (``cursor``) what is none."""
    segment, _, offset = cursor.partition(":")
    if not (segment.isdecimal() and offset.isdecimal()):
        raise Refused("cursor", "this is no place in a record", code="cursor")
    return Place(int(segment), int(offset))


def blocks(
    folder: Path, since: int = 0, start: Place | None = None
) -> Iterator[tuple[bytes, Place]]:
    """Yield blocks and the place behind each, from a place or those that may hold `since`."""
    known = segments(folder)
    for path, following in zip_longest(known, known[1:]):
        first = _first_at(path)
        if start is not None and first < start.segment:
            continue
        if start is None and following is not None and _first_at(following) <= since:
            continue
        offset = start.offset if start is not None and first == start.segment else 0
        for entry in entries(path, offset):
            yield entry.block, Place(first, entry.after)


def newest(folder: Path, tail_bytes: int) -> Place | None:
    """Return from where on about the newest `tail_bytes` of a console stand; None: nothing."""
    found: Place | None = None
    size = 0
    for path in reversed(segments(folder)):
        starts: list[tuple[Place, int]] = []
        offset = 0
        for entry in entries(path):
            length = sum(len(record.data) for record in unpacked(entry.block))
            starts.append((Place(_first_at(path), offset), length))
            offset = entry.after
        for place, length in reversed(starts):
            found = place
            size += length
            if size >= tail_bytes:
                return found
    return found
