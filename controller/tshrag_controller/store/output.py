"""Output of attempts: raw files by run, job, attempt and stream, written at their offsets.

A chunk that comes again writes the same bytes to the same place, so its number needs no care of
its own; the high-water mark of the spool tells the agent what it may forget. LOGS keeps the
messages for 7 days beside these files. What an agent has cut out of the middle of a long stream
never comes: it is a hole in the file, and a reader is told its length in its place.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tshrag_common import ids
from tshrag_common.errors import LabError, Refused
from tshrag_common.reports import OutputBatch, OutputChunk
from tshrag_controller.store.consoles import ConsoleStore
from tshrag_controller.store.hot import HotStore, Stored
from tshrag_controller.store.marks import fit

MOST_BYTES = 80 << 20
"""Of one stream, on our disk: agents cut at 64 MiB, so that more is a lie."""
MOST_OFFSET = 1 << 42
MOST_OPEN = 64
"""Files of streams that are written before they are synced."""
SMALLEST_CUT = 4096
"""A shorter hole is a chunk that has not come yet, or a matter of the file system's blocks."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a stream from ``offset``; it goes on at ``after``; ``total`` has arrived so far.

    ``cut`` > 0: that many bytes are not there, and ``data`` is the mark that says so.
    """

    offset: int
    total: int
    data: bytes
    after: int
    cut: int = 0


class OutputStore:
    """Writes output below a folder; its marks lie in the database of the hot store."""

    def __init__(self, folder: Path, hot: HotStore, consoles: ConsoleStore) -> None:
        self._folder, self._hot, self._consoles = folder, hot, consoles
        self._open: dict[Path, int] = {}

    def store_all(self, batches: Sequence[OutputBatch], *, ahead: bool = False) -> list[Stored]:
        """Take the chunks that are new; called in the writer's thread.

        They are on the disk when this returns: what is confirmed leaves the journal of its agent.
        A file is synced once, however many chunks it has got.
        """
        try:
            stored = [self._store(batch, ahead) for batch in batches]
            self._sync()
            return stored
        finally:
            self._close()

    def _store(self, batch: OutputBatch, ahead: bool) -> Stored:
        place = (batch.agent, "output", batch.spool)
        before = self._hot.marks.standing(*place)
        now, new, gap_from = fit(before, batch.first_seq, len(batch.chunks), ahead=ahead)
        if gap_from:
            return Stored(upto=before.upto, whole=before.whole, gap_from=gap_from)
        refused: list[str] = []
        for seq in new:
            chunk = batch.chunks[seq - batch.first_seq]
            try:
                if chunk.dut:
                    self._consoles.write(batch.spool, seq, chunk, older=seq < before.base)
                else:
                    self._write(batch.agent, chunk)
            except LabError as error:
                refused.append(error.line)
        self._hot.marks.put(*place, before, now)
        return Stored(upto=now.upto, whole=now.whole, refused=tuple(refused))

    def _write(self, agent: str, chunk: OutputChunk) -> None:
        self._hot.run_of(agent, chunk.job, chunk.attempt)
        if not 0 <= chunk.offset <= MOST_OFFSET:
            raise Refused(chunk.job, f"{chunk.stream} at {chunk.offset}", code="output_offset")
        path = path_of(self._folder, chunk.job, chunk.attempt, chunk.stream)
        descriptor = self._opened(path)
        held = os.fstat(descriptor).st_blocks * 512
        if held + len(chunk.data) > MOST_BYTES and not _is_there(descriptor, chunk):
            what = f"{chunk.stream} has {held} bytes"
            raise Refused(chunk.job, what, code="output_limit")
        os.pwrite(descriptor, chunk.data, chunk.offset)

    def _opened(self, path: Path) -> int:
        """Return the open file; who opens too many syncs those that it had."""
        descriptor = self._open.get(path)
        if descriptor is None:
            if len(self._open) >= MOST_OPEN:
                self._sync()
                self._close()
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = self._open[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        return descriptor

    def _sync(self) -> None:
        for descriptor in self._open.values():
            os.fdatasync(descriptor)

    def _close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def path_of(folder: Path, job: str, attempt: int, stream: str) -> Path:
    """Return the file of a stream; every part is checked, so it lies below `folder`."""
    name = ids.job_id(job)
    file = f"{ids.serial_of(name):06d}.{int(attempt)}.{ids.token('stream', stream)}"
    return folder / ids.run_of(name) / file


def _is_there(descriptor: int, chunk: OutputChunk) -> bool:
    """Tell whether a chunk that came again is written already."""
    return os.pread(descriptor, len(chunk.data), chunk.offset) == chunk.data


def read(folder: Path, job: str, attempt: int, stream: str, offset: int, limit: int) -> Piece:
    """Return at most `limit` bytes from `offset`; -1: the last ones. Blocks: for a thread."""
    path = path_of(folder, job, attempt, stream)
    if not path.exists():
        return Piece(offset=0, total=0, data=b"", after=0)
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        begin = max(0, total - limit) if offset < 0 else min(offset, total)
        data_at, hole_at = _extent(file.fileno(), begin, total)
        cut = data_at - begin
        if cut >= SMALLEST_CUT:
            mark = f"\n…cut {cut} bytes…\n".encode()
            return Piece(offset=begin, total=total, data=mark, after=data_at, cut=cut)
        until = min(begin + limit, hole_at if hole_at > begin else total)
        file.seek(begin)
        data = file.read(until - begin)
        return Piece(offset=begin, total=total, data=data, after=begin + len(data))


def _extent(descriptor: int, begin: int, total: int) -> tuple[int, int]:
    """Return where data begins at or behind `begin`, and where a cut follows behind that."""
    if begin >= total:
        return total, total
    try:
        data_at = os.lseek(descriptor, begin, os.SEEK_DATA)
        hole_at = os.lseek(descriptor, data_at, os.SEEK_HOLE)
    except OSError:  # a file system that knows nothing of holes
        return begin, total
    return data_at, hole_at
