"""A console for other programs: its bytes on stdin and stdout, a pty or a TCP port.

Nothing is added to the bytes and nothing is taken from them. What the agent tells beside them
goes to stderr.
"""

import asyncio
import os
import pty
import sys
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import click

from tshrag_common.channel.console_words import Failed, Happened
from tshrag_common.client import Client
from tshrag_common.errors import LabError, Refused
from tshrag_controller.cli.console_screen import first_of, happened_line
from tshrag_controller.cli.console_seat import Seat, Wishes, seated
from tshrag_controller.cli.terminal import show, stdout_fd, typed
from tshrag_controller.reports.text import clean

Write = Callable[[bytes], Awaitable[None]]


class Ended(Exception):
    """Ends the halves of a copy."""


async def raw_copy(lab: Client, wishes: Wishes, linger_s: float) -> None:
    """Copy stdin to the board and the board to stdout.

    After the end of stdin it goes on until the board has said nothing for `linger_s`.
    """
    async with seated(lab, wishes) as seat, ending_together() as group:
        ended, heard = asyncio.Event(), asyncio.Event()
        out = stdout_fd()

        async def write(data: bytes) -> None:
            heard.set()
            await show(out, data)

        async def read() -> None:
            async for data in typed(sys.stdin.fileno()):
                await seat.type(data)
            await seat.channel.flushed()
            ended.set()

        group.create_task(_down(seat, write))
        group.create_task(_quiet(ended, heard, linger_s))
        if not seat.watching:
            group.create_task(read())


async def to_pty(lab: Client, wishes: Wishes, path: Path, say: Callable[[str], None]) -> None:
    """Be the other end of a pty whose name is `path`, until interrupted."""
    async with seated(lab, wishes) as seat:
        master, slave = pty.openpty()
        tty.setraw(slave)  # the slave stays open here: programs come and go
        _name(path, slave)
        say(f"console of {wishes.dut}: {path}")
        try:
            async with ending_together() as group:
                group.create_task(_down(seat, _Master(master).write))
                group.create_task(_up(seat, master))
        finally:
            _unname(path, master, slave)


def _name(path: Path, slave: int) -> None:
    """Give the pty its name; only a link that an earlier one has left may stand there."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        raise Refused(str(path), "something is there", "name a path that is free", code="exists")
    path.symlink_to(os.ttyname(slave))


def _unname(path: Path, *fds: int) -> None:
    path.unlink(missing_ok=True)
    for fd in fds:
        os.close(fd)


class _Master:
    """The controlling end of a pty; what nobody reads is dropped, as on a line."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_read = True
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        tries = 100 if self._is_read else 1
        while rest and tries:
            try:
                rest = rest[os.write(self._fd, rest) :]
                self._is_read, tries = True, 100
            except BlockingIOError:
                tries -= 1
                await asyncio.sleep(0.005 if tries else 0)
        self._is_read = not rest


async def _up(seat: Seat, fd: int) -> None:
    async for data in typed(fd):
        await seat.type(data)


async def _down(seat: Seat, write: Write) -> None:
    while (said := await seat.next()) is not None:
        if isinstance(said, bytes):
            await write(said)
        else:
            tell(said, seat.me)
    raise Ended


async def _quiet(ended: asyncio.Event, heard: asyncio.Event, linger_s: float) -> None:
    await ended.wait()
    while True:
        heard.clear()
        try:
            async with asyncio.timeout(linger_s):
                await heard.wait()
        except TimeoutError:
            raise Ended from None


def tell(said: object, me: str) -> None:
    """Say beside the bytes what the agent tells."""
    line = said.line if isinstance(said, Failed) else ""
    if isinstance(said, Happened):
        line = happened_line(said, me)
    if line:
        click.echo(f"console: {clean(line)}", err=True)


@asynccontextmanager
async def ending_together() -> AsyncIterator[asyncio.TaskGroup]:
    """Let the first that ends with `Ended` end all; an error of the lab comes out as itself."""
    failure: LabError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except* Ended:
        pass
    except* LabError as failed:
        failure = first_of(failed)
    if failure is not None:
        raise failure
