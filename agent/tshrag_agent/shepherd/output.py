"""Output files of an attempt: the job writes to them itself, on disk they stay bounded.

What is beyond the bound is cut out of the middle: the first half stays, the last half follows
the end of the file, and the disk space between them is given back (a hole; the size counts every
byte that was ever written). So offsets never change for who follows the file, and the job never
notices. Holes are whole blocks, so that up to a block less stays of each half, and never more than
the bound. Where the file system knows no holes, the file is truncated at its bound instead.
"""

import errno
import os
import stat
from collections.abc import Callable

from tshrag_agent.shepherd import native
from tshrag_agent.shepherd.protocol import Rejected

_LONGEST_PAUSE_S = 0.2
_SHORTEST_PAUSE_S = 0.01


class Output:
    """One output file, open for as long as the job may write to it."""

    def __init__(
        self, fd: int, most_bytes: int, punch: Callable[[int, int, int], None] = native.punch_hole
    ) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self._punch = punch
        self._block = max(status.st_blksize, 4096)
        self._start = status.st_size
        self._size = status.st_size
        self._most = most_bytes
        half = (self._start + most_bytes // 2) // self._block * self._block
        self._head_end = max(half, _up(self._start, self._block))
        self._punched_to = self._head_end
        self._truncated = 0

    @property
    def written_bytes(self) -> int:
        return self._size - self._start + self._truncated

    @property
    def cut_bytes(self) -> int:
        return self._punched_to - self._head_end + self._truncated

    def check(self, elapsed_s: float) -> float:
        """Cut what is beyond the bound; return in how many seconds to look again."""
        before = self._size
        self._size = os.fstat(self.fd).st_size
        slack = max(self._most // 8, 4 * self._block)
        if self._size - self._start - self._cut_inside() > self._most + slack:
            self._cut()
        rate = max(self._size - before, 0) / max(elapsed_s, 0.001)
        pause = slack / rate if rate else _LONGEST_PAUSE_S
        return min(max(pause, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Cut for the last time, let go of the file."""
        self._size = os.fstat(self.fd).st_size
        if self._size - self._start - self._cut_inside() > self._most:
            self._cut()
        os.close(self.fd)

    def _cut_inside(self) -> int:
        return self._punched_to - self._head_end

    def _cut(self) -> None:
        tail = _up(self._size - self._most // 2, self._block)
        tail -= self._block if tail > self._size else 0  # a part of a block is no hole
        if tail <= self._punched_to:
            return
        try:
            self._punch(self.fd, self._punched_to, tail - self._punched_to)
            self._punched_to = tail
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                return  # a full disk, a file that has been sealed: the next look tries again
            end = self._start + self._most
            os.ftruncate(self.fd, end)
            self._truncated += self._size - end
            self._size = end


def open_output(path: str, most_bytes: int) -> Output:
    """Open a file to append to; refuse what is no plain file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o640)
    except (OSError, ValueError) as error:
        raise Rejected("bad_output", ascii(path), str(error), "the folder must be there") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Rejected("bad_output", ascii(path), "no plain file")
    os.set_blocking(fd, True)  # a FIFO would have held us; the job gets the usual kind
    return Output(fd, most_bytes)


def _up(offset: int, block: int) -> int:
    return -(-offset // block) * block
