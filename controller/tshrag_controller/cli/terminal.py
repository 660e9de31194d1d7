"""The terminal as a console needs it: raw while it is attached, as it was before afterwards."""

import asyncio
import os
import shutil
import stat
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

READ_BYTES = 1 << 16


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Hand every key through while the block lasts; no terminal: nothing to do."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)


def window_size() -> tuple[int, int]:
    """Return columns and rows of the window, as it is now: what COLUMNS says may be long over."""
    for stream in (0, 1, 2):
        with suppress(OSError):
            size = os.get_terminal_size(stream)
            if size.columns and size.lines:
                return size.columns, size.lines
    size = shutil.get_terminal_size()
    return size.columns, size.lines


async def typed(fd: int) -> AsyncIterator[bytes]:
    """Yield what comes in on `fd` until its end, without a byte more being taken from it."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    if stat.S_ISREG(os.fstat(fd).st_mode):  # a file is always ready: no loop can wait for it
        room = threading.Semaphore(64)
        threading.Thread(target=_copy, args=(fd, loop, arrived, room), daemon=True).start()
        while data := await arrived.get():
            room.release()
            yield data
        return
    loop.add_reader(fd, lambda: arrived.put_nowait(_read(fd)))
    try:
        while data := await arrived.get():
            yield data
    finally:
        loop.remove_reader(fd)


async def show(fd: int, data: bytes) -> None:
    """Write all of `data`, however slow who reads is."""
    rest = memoryview(data)
    while rest:
        rest = rest[await asyncio.to_thread(os.write, fd, rest) :]


def stdout_fd() -> int:
    sys.stdout.flush()
    return sys.stdout.fileno()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, READ_BYTES)
    except OSError:  # the terminal has gone
        return b""


def _copy(
    fd: int,
    loop: asyncio.AbstractEventLoop,
    arrived: asyncio.Queue[bytes],
    room: threading.Semaphore,
) -> None:
    with suppress(RuntimeError):  # the loop has ended before the file
        while True:
            room.acquire()
            data = _read(fd)
            loop.call_soon_threadsafe(arrived.put_nowait, data)
            if not data:
                return
