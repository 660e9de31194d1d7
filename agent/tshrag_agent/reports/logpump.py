"""Output files of an attempt -> chunks in the journal, while the job runs; samples on the way.

A chunk, the samples found in it and the offset that was reached are one transaction: an agent that
was killed goes on where the journal says, and nothing is missing and nothing comes twice. What is
beyond the bound stays out of the spool (samples are still found in it); the last bytes are added.
"""

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from tshrag_agent.attempts.attempt import Attempt
from tshrag_agent.attempts.workdir import free_bytes, has_room
from tshrag_agent.journal.journal import Journal
from tshrag_agent.journal.records import Append, Change, Pumped
from tshrag_agent.reports.tap import SampleTap
from tshrag_common import wire
from tshrag_common.clock import Clock
from tshrag_common.errors import ErrorReport, Refused
from tshrag_common.metrics import SampleBatch
from tshrag_common.reports import OutputChunk, OutputEnd

logger = logging.getLogger(__name__)

StreamName = Literal["stdout", "stderr"]
STREAMS: tuple[StreamName, StreamName] = ("stdout", "stderr")

CHUNK_BYTES = 64 << 10
OUTPUT_BYTES = 64 << 20
"""Of each stream; what is beyond is cut, but for the last bytes."""
TAIL_BYTES = 64 << 10

_CHUNKS_A_TURN = 4
_LEAST_ROOM_BYTES = 16 << 10
_TRY_S = 1.0
_REST_S = (0.01, 0.08)

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
"""Begin a task that lives as long as the daemon; its name is for people."""


class LogPump:
    """Follows the two files of one attempt."""

    def __init__(
        self,
        attempt: Attempt,
        paths: dict[StreamName, Path],
        *,
        journal: Journal,
        clock: Clock,
        tap: SampleTap,
        spawn: Spawn,
        offsets: tuple[int, int] = (0, 0),
        most_bytes: int = OUTPUT_BYTES,
    ) -> None:
        self._attempt, self._journal, self._clock = attempt, journal, clock
        self._tap, self._spawn = tap, spawn
        self._task: asyncio.Task[None] | None = None
        self._stopping, self._ended = asyncio.Event(), asyncio.Event()
        self._fault: Exception | None = None
        self._folder, self._starved = paths["stdout"].parent, False
        self._tried_at = asyncio.get_running_loop().time()
        self._sent_bytes = 0  # of samples
        self._tails = {
            name: _Tail(paths[name], offset, most_bytes)
            for name, offset in zip(STREAMS, offsets, strict=True)
        }

    def start(self) -> None:
        """Begin to follow, in a task of its own: what ends the attempt must not cut a turn."""
        if self._task is None:
            self._task = self._spawn(self._pump(), f"output of {self._attempt.start.fence}")

    async def finish(self) -> None:
        """Take the rest: nobody writes any more."""
        self._stopping.set()
        if self._task is not None:
            await self._ended.wait()
        if self._fault is not None:
            raise self._fault
        await self._try_to_write()  # it may have been quick
        if self._starved:  # a program that could not write may well have ended in success
            what = "its disk or quota was full meanwhile: output or samples may be missing"
            report = ErrorReport(code="storage_full", message=what, retryable=True)
            record = self._attempt.record
            if record.outcome in ("passed", "failed"):
                record.outcome, record.error = "error", report
        while await self.turn():
            pass
        await self._tap.finish()
        self._tap.close()
        chunks = [chunk for name in STREAMS for chunk in self._last(name)]
        await self._put(chunks, self._tap.take(True))
        record = self._attempt.record
        record.stdout, record.stderr = (self._tails[name].end for name in STREAMS)
        for tail in self._tails.values():
            tail.close()

    async def _pump(self) -> None:
        rest_s = _REST_S[0]
        try:
            while not self._stopping.is_set():
                await self._journal.pressure.eased(self._sent_bytes, self._stopping)
                moved = await self.turn()
                await self._look_for_room()
                rest_s = _REST_S[0] if moved else min(_REST_S[1], 2 * rest_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._stopping.wait()
        except Exception as error:  # it is raised where the attempt can be blamed
            self._fault = error
        finally:
            self._ended.set()

    async def _look_for_room(self) -> None:
        """Note that its disk is full, or, once in a while, that a quota is used up."""
        with contextlib.suppress(OSError):  # the folder is gone: that is told elsewhere
            self._starved |= free_bytes(self._folder) < _LEAST_ROOM_BYTES
        now = asyncio.get_running_loop().time()
        if now - self._tried_at >= _TRY_S:
            self._tried_at = now
            await self._try_to_write()

    async def _try_to_write(self) -> None:
        if self._starved:
            return
        if not await asyncio.to_thread(has_room, self._folder, _LEAST_ROOM_BYTES):
            logger.error("a job cannot write any more", extra=self._attempt.facts)
            self._starved = True

    async def turn(self) -> bool:
        """Take what is there, up to a few chunks; false: there was nothing."""
        chunks: list[OutputChunk] = []
        moved = False
        for name, tail in self._tails.items():
            for _ in range(_CHUNKS_A_TURN):
                data, offset = tail.read(CHUNK_BYTES)
                if not data:
                    break
                moved = True
                self._tap.feed(name, data)
                if told := tail.within(data, offset):
                    chunks.append(self._chunk(name, offset, told))
        polled = await self._tap.poll()
        samples = self._tap.take(moved or polled)
        if moved or samples:
            await self._put(chunks, samples)
        return moved

    async def _put(
        self, chunks: list[OutputChunk], samples: list[SampleBatch] | None = None
    ) -> None:
        changes: list[Change] = []
        record = self._attempt.record
        if samples:
            bodies = tuple(map(wire.body, samples))
            self._sent_bytes += sum(map(len, bodies))
            changes.append(Append("samples", bodies))
        if chunks:
            changes.append(Append("output", tuple(map(wire.body, chunks))))
        if not changes:
            return
        stdout, stderr = (self._tails[name].offset for name in STREAMS)
        marks = {"marks_samples": bool(samples), "marks_output": bool(chunks)}
        fence = self._attempt.start.fence
        pumped = Pumped(fence, stdout, stderr, self._tap.offsets, **marks)
        dropped: list[Append] = []
        last = await self._journal.write(*changes, pumped, dropped=dropped)
        if dropped and samples:
            self._tap.gate.dropped(sum(batch.count for batch in samples))
        elif samples:
            record.samples_upto = self._journal.state("samples").last
        if chunks:
            record.output_upto = last

    def _last(self, name: StreamName) -> list[OutputChunk]:
        """Return the end of a stream that was cut."""
        tail = self._tails[name]
        data, offset = tail.ending()
        if not data:
            return []
        tail.told += len(data)
        return [self._chunk(name, offset, data)]

    def _chunk(self, name: StreamName, offset: int, data: bytes) -> OutputChunk:
        start = self._attempt.start
        return OutputChunk(
            run=start.run,
            job=start.job,
            attempt=start.attempt,
            stream=name,
            offset=offset,
            data=data,
            at=self._clock.now(),
        )


class _Tail:
    """One growing file; holes that the shepherd has made in it are passed over."""

    def __init__(self, path: Path, offset: int, most: int) -> None:
        self._path = path
        self._fd = -1
        self._ending = min(TAIL_BYTES, most // 4)
        self._head = most - self._ending
        self.offset = offset
        self.told = min(offset, self._head)  # bytes
        self.told_to = offset  # where the last of them ends

    def read(self, most: int) -> tuple[bytes, int]:
        """Return what comes next, and where it stands."""
        if self._fd < 0:
            self._fd = _open(self._path)
            if self._fd < 0:
                return b"", self.offset
        data = os.pread(self._fd, most, self.offset)
        status = os.fstat(self._fd)
        if data and status.st_blocks * 512 < status.st_size:
            # Asked after the read: what is no hole now has not been one then.
            hole = self._seek(os.SEEK_HOLE, status.st_size)
            if hole <= self.offset:
                self.offset = self._seek(os.SEEK_DATA, status.st_size)
                return self.read(most)
            data = data[: hole - self.offset]
        offset = self.offset
        self.offset += len(data)
        return data, offset

    def within(self, data: bytes, offset: int) -> bytes:
        """Return what of `data` there is room for, and count it as told; the end has its own."""
        told = data[: max(self._head - self.told, 0)]
        if told:
            self.told += len(told)
            self.told_to = offset + len(told)
        return told

    def ending(self) -> tuple[bytes, int]:
        """Return the last bytes that were not told, when some before them were not either."""
        if self._fd < 0 or self.told_to >= self.offset:
            return b"", 0
        begin = max(self.told_to, self.offset - self._ending)
        return os.pread(self._fd, self.offset - begin, begin), begin

    @property
    def end(self) -> OutputEnd:
        return OutputEnd(self.offset, self.offset - self.told)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _seek(self, how: int, size: int) -> int:
        try:
            return os.lseek(self._fd, self.offset, how)
        except OSError:  # nothing but a hole up to the end, or a file system without holes
            return size


def _open(path: Path) -> int:
    """Open an output file; -1: it is not there yet. Never waits: a job may have put a pipe there.

    Raises:
        Refused: it is no plain file any more.

    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return -1
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise Refused(path.name, "the job has replaced its output file", code="output_replaced")
