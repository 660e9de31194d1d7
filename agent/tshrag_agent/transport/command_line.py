"""A serial line that is a command of this host, as ``ipmitool … sol activate``.

The command has a pty of its own, raw, as its controlling terminal: every byte goes through, and
when the agent dies, however it dies, the kernel hangs up on the command and its children. What it
says on stderr is no byte of the DUT: the last of it is the reason in "lost: …".
"""

import asyncio
import os
import pty
import select
import signal
import threading
import tty
from contextlib import suppress
from pathlib import Path

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.line import FdLine, LineSettings, Lost, Received
from tshrag_common.errors import shown

GRACE_S = 2.0
"""Between SIGTERM and SIGKILL: a BMC wants its session closed, or it refuses the next one."""

_LAST_BYTES = 512


class Child:
    """A command on a pty; ``Port`` of the line that reads its other end."""

    def __init__(self, settings: LineSettings) -> None:
        self.break_condition = False
        self._name = shown(Path(settings.command[0]).name)
        self.stderr, complains = os.pipe()
        self._master, slave = pty.openpty()
        try:
            tty.setraw(slave)
            self._pid = _spawned(settings.command, os.ttyname(slave), complains)
        except BaseException:
            os.close(self._master)
            os.close(self.stderr)
            raise
        finally:
            os.close(slave)
            os.close(complains)
        os.set_blocking(self._master, False)
        os.set_blocking(self.stderr, False)
        self.pidfd = os.pidfd_open(self._pid)
        self._last = b""

    def fileno(self) -> int:
        return self._master

    def close(self) -> None:
        """Hang up."""
        os.close(self._master)

    def complain(self) -> bool:
        """Keep the last of what it says on stderr; tell whether there may be more."""
        try:
            data = os.read(self.stderr, 4096)
        except BlockingIOError:
            return True
        self._last = (self._last + data)[-_LAST_BYTES:]
        return bool(data)

    def end(self) -> str:
        """End the whole tree now, reap it, and return how the command ended, in words."""
        if not _is_over(self.pidfd, 0.0):
            self.kill(signal.SIGTERM)
            _is_over(self.pidfd, GRACE_S)
        self.kill(signal.SIGKILL)  # its children too; the zombie keeps the number ours
        _, status = os.waitpid(self._pid, 0)
        os.close(self.pidfd)
        self.complain()
        os.close(self.stderr)
        said = shown(self._last.decode("utf-8", "replace").strip(), 200)
        how = f"{self._name} ended with {os.waitstatus_to_exitcode(status)}"
        return f"{how}: {said}" if self._last.strip() else how

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the command and its children; not after ``end``."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, number)


class CommandLine:
    """A command as a line."""

    def __init__(
        self, child: Child, settings: LineSettings, received: Received, lost: Lost
    ) -> None:
        self._child, self._settings, self._lost = child, settings, lost
        self._loop = asyncio.get_running_loop()
        self._over = False
        self._bytes = FdLine(child, settings.where, received, self._hung_up)
        self._loop.add_reader(child.stderr, self._complain)
        self._loop.add_reader(child.pidfd, self._exited)

    async def write(self, data: bytes) -> None:
        await self._bytes.write(data)

    async def send_break(self, duration_s: float) -> None:
        if not self._settings.break_text:
            what = f"a command carries no break (of {duration_s:g} s)"
            fix = "set break_text to what it takes for one"
            raise TransportFailed("serial_lost", self._settings.where, what, fix)
        await self._bytes.write(self._settings.break_text.encode())

    async def configure(self, settings: LineSettings) -> None:
        what = f"a command has no speed to set ({settings.baud})"
        raise TransportFailed("serial_lost", self._settings.where, what, "its arguments may say it")

    def close(self) -> None:
        """Hang up and ask for the end; a thread sees to it, for the loop may end with us."""
        if self._let_go():
            self._bytes.close()
            threading.Thread(target=self._child.end, name=f"end {self._settings.where}").start()

    def _complain(self) -> None:
        if not self._child.complain():
            self._loop.remove_reader(self._child.stderr)

    def _exited(self) -> None:
        """Take what it has said last, then tell of its end."""
        self._bytes.drain()
        self._finish()

    def _hung_up(self, _reason: str) -> None:
        """Nobody has the pty open any more: it ends, or is ended."""
        if _is_over(self._child.pidfd, 0.0):
            self._finish()
        else:
            self._child.kill(signal.SIGTERM)
            self._loop.call_later(GRACE_S, self._insist)

    def _insist(self) -> None:
        if not self._over:
            self._child.kill(signal.SIGKILL)

    def _finish(self) -> None:
        if self._let_go():
            self._bytes.close()
            self._lost(self._child.end())

    def _let_go(self) -> bool:
        was_open, self._over = not self._over, True
        if was_open:
            self._loop.remove_reader(self._child.stderr)
            self._loop.remove_reader(self._child.pidfd)
        return was_open


def open_command(settings: LineSettings, received: Received, lost: Lost) -> CommandLine:
    """Start the command.

    Raises:
        TransportFailed: ``serial_missing``: it does not start.

    """
    try:
        child = Child(settings)
    except (OSError, ValueError) as error:
        what = f"it does not start: {error}"
        raise TransportFailed("serial_missing", settings.where, what, "see its path") from None
    return CommandLine(child, settings, received, lost)


def _spawned(argv: tuple[str, ...], terminal: str, complains: int) -> int:
    """Start `argv`: the first terminal that a new session opens is its controlling one."""
    return os.posix_spawnp(
        argv[0],
        argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, complains, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM),
    )


def _is_over(pidfd: int, within_s: float) -> bool:
    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    return bool(watch.poll(within_s * 1000))
