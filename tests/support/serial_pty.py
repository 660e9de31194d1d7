"""Serial lines for tests: bare ptys, and the simulated board as a process of its own."""

import asyncio
import json
import os
import pty
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from tshrag_agent.transport.console import SerialConsole


class Wire:
    """A pty: the agent opens ``path``, the test is the device at the other end."""

    def __init__(self) -> None:
        self.fd, slave = pty.openpty()
        self.path = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)
        os.set_blocking(self.fd, False)
        self._is_open = True
        self._typed = b""

    def say(self, data: bytes) -> int:
        """Send as the device; return how much the line took."""
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0

    def heard(self) -> bytes:
        """Return all that has been typed so far."""
        with suppress(OSError):  # nothing new, or nobody has it open
            self._typed += os.read(self.fd, 1 << 16)
        return self._typed

    def unplug(self) -> None:
        if self._is_open:
            os.close(self.fd)
        self._is_open = False


@contextmanager
def wire() -> Iterator[Wire]:
    made = Wire()
    try:
        yield made
    finally:
        made.unplug()


class Simulated:
    """A simulated board in a process of its own; ``path`` is its tty."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self._process = process
        self.path: str = json.loads(process.stdout.readline())["path"]

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def simulated(directory: Path, *arguments: str) -> Iterator[Simulated]:
    """Start a simulated board, and end it."""
    command = [sys.executable, "-m", "tshrag_agent.simulator.serial_board", "--with-parent"]
    with subprocess.Popen(
        [*command, "--dir", str(directory), *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Simulated(process)
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def board(directory: Path, *arguments: str) -> Iterator[str]:
    """Start a simulated board; return the path of its tty."""
    with simulated(directory, *arguments) as made:
        yield made.path


@contextmanager
def started(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program with pipes, and end it."""
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as process:
        try:
            yield process
        finally:
            process.kill()


class _Over(Exception):
    pass


@asynccontextmanager
async def running(console: SerialConsole) -> AsyncIterator[SerialConsole]:
    """Hold `console` open in a task for as long as the test needs it."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(console.run(), name="console")
            yield console
            raise _Over
    except* _Over:
        pass
