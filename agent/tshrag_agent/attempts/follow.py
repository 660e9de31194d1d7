"""Follow output files while a process writes to them: every byte once, from any offset.

One clock looks at the sizes of all followed files (a system call each, 20 to 100 ms apart), so
that 64 jobs cost next to nothing; nobody reads before there is something. What the shepherd has
cut out of the middle of a file shows as a jump of the offset (shepherd/output.py).
"""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec

_BUSY_S = 0.02
_QUIET_S = 0.1
_QUIET_AFTER = 25  # looks that have found nothing
_READ_BYTES = 64 * 1024
_BREATH_BYTES = 1024 * 1024


class Chunk(msgspec.Struct, frozen=True):
    """Some bytes of a file, and where they stand in it."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class _Watch:
    def __init__(self, fd: int, offset: int, wake: asyncio.Future[None]) -> None:
        self.fd, self.offset, self.wake = fd, offset, wake


class Tails:
    """All files that this agent follows; they share one clock, which stops when there is none."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._clock: asyncio.TimerHandle | None = None
        self._found_nothing = 0

    async def follow(
        self,
        path: Path,
        *,
        offset: int = 0,
        ended: asyncio.Future[Any],
        read_bytes: int = _READ_BYTES,
    ) -> AsyncGenerator[Chunk, None]:
        """Yield what is in `path` from `offset` on, and what comes, until `ended` and all is read.

        Complete it or close it (`contextlib.aclosing`): an open file stands behind it. A file
        that is not there, or no plain file, is waited for.
        """
        fd = -1
        try:
            while True:
                is_last = ended.done()  # asked before the read: afterwards nothing can come
                fd = _open(path) if fd < 0 else fd
                since_breath = 0
                while fd >= 0 and (chunk := _read(fd, offset, read_bytes)):
                    offset = chunk.end
                    if chunk.data:
                        yield chunk
                    since_breath += len(chunk.data)
                    if since_breath > _BREATH_BYTES:
                        since_breath = 0
                        await asyncio.sleep(0)
                if is_last:
                    return
                await self._growth(fd, offset, ended)
        finally:
            if fd >= 0:
                os.close(fd)

    async def _growth(self, fd: int, offset: int, ended: asyncio.Future[Any]) -> None:
        """Wait until there may be something behind `offset`, or the process has ended."""
        loop = asyncio.get_running_loop()
        watch = _Watch(fd, offset, loop.create_future())

        def wake(_: asyncio.Future[Any]) -> None:
            _wake(watch)

        self._watches.add(watch)
        if self._clock is None:
            self._clock = loop.call_later(_BUSY_S, self._look)
        ended.add_done_callback(wake)
        try:
            await watch.wake
        finally:
            ended.remove_done_callback(wake)
            self._watches.discard(watch)

    def _look(self) -> None:
        found = [watch for watch in self._watches if _has_more(watch)]
        for watch in found:
            _wake(watch)
        self._found_nothing = 0 if found else self._found_nothing + 1
        self._clock = None
        if self._watches:
            pause = _QUIET_S if self._found_nothing > _QUIET_AFTER else _BUSY_S
            self._clock = asyncio.get_running_loop().call_later(pause, self._look)


def _wake(watch: _Watch) -> None:
    if not watch.wake.done():
        watch.wake.set_result(None)


def _has_more(watch: _Watch) -> bool:
    # Without a file yet, the follower itself looks whether there is one.
    return watch.fd < 0 or os.fstat(watch.fd).st_size > watch.offset


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return -1
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return -1


def _read(fd: int, offset: int, most: int) -> Chunk | None:
    """Read what is at `offset`; an empty chunk leads over a hole, None is the end for now."""
    data = os.pread(fd, most, offset)
    if not data:
        return None
    status = os.fstat(fd)
    if status.st_blocks * 512 >= status.st_size:
        return Chunk(offset, data)
    # Asked after the read: what is no hole now has not been one then.
    hole = _seek(fd, offset, os.SEEK_HOLE, status.st_size)
    if hole > offset:
        return Chunk(offset, data[: hole - offset])
    return Chunk(_seek(fd, offset, os.SEEK_DATA, status.st_size), b"")


def _seek(fd: int, offset: int, how: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, how)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end
            return size
        raise
