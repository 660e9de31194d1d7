"""Follows the CSV files that a load writes to ``metrics/`` of its job directory.

Files are kept open, so that one which is renamed away is read to its end before its successor.
A truncated file is read again from its start. Only regular files count: a load cannot make the
agent follow a link or hang on a FIFO. Reading happens on a worker thread, parsing on the loop.
"""

import asyncio
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tshrag_agent.attempts.metric_gate import OVERFLOW, MetricGate
from tshrag_agent.attempts.metric_lines import MetricRows
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_common.metrics import key_of_file

MAX_FILES = 200  # of one attempt
READ_BYTES = 1 << 20  # of one file at once
MAX_NAMES = 10_000  # entries of the folder that are looked at


class _Piece(NamedTuple):
    name: str
    fresh: bool  # a new file, or the same one cut short: what came before is over
    data: bytes


class _Followed:
    """One open file; used on the worker thread only."""

    def __init__(self, descriptor: int, inode: tuple[int, int]) -> None:
        self.descriptor, self.inode = descriptor, inode
        self.offset = 0

    def read(self) -> tuple[bool, bytes]:
        """Return whether it was cut short, and what is new."""
        fresh = os.fstat(self.descriptor).st_size < self.offset
        if fresh:
            self.offset = 0
        data = os.pread(self.descriptor, READ_BYTES, self.offset)
        self.offset += len(data)
        return fresh, data


class MetricFiles:
    """The files of one attempt. `poll` in time, `finish` once at its end, then `close`."""

    def __init__(
        self,
        folder: Path,
        gate: MetricGate,
        clock: Clock,
        offsets: Mapping[str, int] | None = None,
    ) -> None:
        """Follow what is in `folder`; `offsets` is what an earlier agent had read of its files."""
        self._begin_at = dict(offsets or {})
        self._folder, self._gate, self._clock = folder, gate, clock
        self._open: dict[str, _Followed] = {}
        self._rows: dict[str, MetricRows] = {}
        self._bad: set[str] = set()  # names that were refused, once each
        self._left_out = False

    @property
    def offsets(self) -> dict[str, int]:
        """Return how far each file has become samples: up to the last whole row."""
        return {
            name: followed.offset - (rows.waiting_bytes if rows else 0)
            for name, followed in self._open.items()
            for rows in (self._rows.get(name),)
        }

    @property
    def is_open(self) -> bool:
        """Tell whether any file is being followed."""
        return bool(self._open)

    async def run(self, interval_s: float = 0.5) -> None:
        """Follow for ever; cancel it to end, then `finish`."""
        while True:
            await self.poll()
            await asyncio.sleep(interval_s)

    async def poll(self) -> int:
        """Take what is new, at most 1 MiB a file; return how many bytes it was."""
        pieces = await asyncio.to_thread(self._read_new)
        if self._left_out and OVERFLOW not in self._bad:
            self._bad.add(OVERFLOW)
            self._gate.refuse(OVERFLOW, f"metric_file: more than {MAX_FILES} files")
        for name, fresh, data in pieces:
            rows = self._rows_of(name)
            if rows is None:
                continue
            if fresh:
                rows.close(self._clock.now())
                rows.restart()
            rows.feed(data, self._clock.now())
        return sum(len(piece.data) for piece in pieces)

    async def finish(self, within_s: float = 30.0) -> None:
        """Read everything to its end, the last line without a line feed too; close the files."""
        try:
            async with asyncio.timeout(within_s):
                while await self.poll():
                    pass
        except TimeoutError:
            self._gate.refuse("metrics/", f"metric_file: not read to the end in {within_s:g} s")
        for rows in self._rows.values():
            rows.close(self._clock.now())
        self.close()

    def close(self) -> None:
        """Let go of the files; a second time does nothing."""
        for followed in self._open.values():
            os.close(followed.descriptor)
        self._open.clear()

    def _rows_of(self, name: str) -> MetricRows | None:
        if name in self._rows or name in self._bad:
            return self._rows.get(name)
        try:
            key = key_of_file(name)
        except LabError as refused:
            self._bad.add(name)
            self._gate.refuse(name, refused.line)
            return None
        self._rows[name] = MetricRows(self._gate, key)
        return self._rows[name]

    def _read_new(self) -> list[_Piece]:
        names = dict(self._names())
        pieces = [piece for name in list(self._open) for piece in self._read(name, names)]
        for name in sorted(names.keys() - self._open.keys()):
            if len(self._open) >= MAX_FILES:
                self._left_out = True
                break
            followed = self._follow(name)
            if followed is not None:
                pieces.append(_Piece(name, True, followed.read()[1]))
        return pieces

    def _read(self, name: str, names: dict[str, tuple[int, int]]) -> Iterator[_Piece]:
        """Read what is new; let go of a file that was removed or renamed, once it is read."""
        followed = self._open[name]
        fresh, data = followed.read()
        if fresh or data:
            yield _Piece(name, fresh, data)
        if len(data) < READ_BYTES and names.get(name) != followed.inode:
            os.close(followed.descriptor)
            del self._open[name]

    def _names(self) -> list[tuple[str, tuple[int, int]]]:
        """List regular files that end in .csv, with what tells them apart."""
        found: list[tuple[str, tuple[int, int]]] = []
        try:
            with os.scandir(self._folder) as entries:
                for _, entry in zip(range(MAX_NAMES), entries, strict=False):
                    if entry.name.endswith(".csv") and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        found.append((entry.name, (status.st_dev, status.st_ino)))
        except OSError:
            return found  # it is not there yet, or any more
        return found

    def _follow(self, name: str) -> _Followed | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._folder / name, flags)
        except OSError:
            return None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return None
        followed = self._open[name] = _Followed(descriptor, (status.st_dev, status.st_ino))
        followed.offset = min(self._begin_at.pop(name, 0), status.st_size)
        return followed
