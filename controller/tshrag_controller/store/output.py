"""Output of attempts: raw files by run, job, attempt and stream, written at their offsets.

A chunk that comes again writes the same bytes to the same place, so its number needs no care of
its own; the high-water mark of the spool tells the agent what it may forget. LOGS keeps the
messages for 7 days beside these files. What an agent has cut out of the middle of a long stream
never comes: it is a hole in the file, and a reader is told its length in its place.
"""

import os
from pathlib import Path

import msgspec

from tshrag_common import ids
from tshrag_common.errors import LabError, Refused
from tshrag_common.reports import OutputBatch, OutputChunk
from tshrag_controller.store.consoles import ConsoleStore
from tshrag_controller.store.hot import HotStore, Stored

MOST_BYTES = 80 << 20
"""Of one stream, on our disk: agents cut at 64 MiB, so that more is a lie."""
MOST_OFFSET = 1 << 42
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

    def store(self, batch: OutputBatch) -> Stored:
        """Take the chunks of a message that are new; called in the writer's thread."""
        upto = self._hot.upto(batch.agent, "output", batch.spool)
        if batch.first_seq > upto + 1:
            return Stored(upto=upto, gap_from=upto + 1)
        refused: list[str] = []
        for seq, chunk in enumerate(batch.chunks, batch.first_seq):
            if seq > upto:
                try:
                    if chunk.dut:
                        self._consoles.write(batch.spool, seq, chunk)
                    else:
                        self._write(batch.agent, chunk)
                except LabError as error:
                    refused.append(error.line)
                upto = seq
        self._hot.set_mark(batch.agent, "output", batch.spool, upto)
        return Stored(upto=upto, refused=tuple(refused))

    def _write(self, agent: str, chunk: OutputChunk) -> None:
        self._hot.run_of(agent, chunk.job, chunk.attempt)
        if not 0 <= chunk.offset <= MOST_OFFSET:
            raise Refused(chunk.job, f"{chunk.stream} at {chunk.offset}", code="output_offset")
        path = path_of(self._folder, chunk.job, chunk.attempt, chunk.stream)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            held = os.fstat(descriptor).st_blocks * 512
            if held + len(chunk.data) > MOST_BYTES and not _is_there(descriptor, chunk):
                what = f"{chunk.stream} has {held} bytes"
                raise Refused(chunk.job, what, code="output_limit")
            os.pwrite(descriptor, chunk.data, chunk.offset)
            os.fdatasync(descriptor)  # what is confirmed leaves the journal of its agent
        finally:
            os.close(descriptor)


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
