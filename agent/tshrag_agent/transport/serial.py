"""Serial lines: pyserial opens and sets them, ``line.py`` carries their bytes.

One reader and one writer a line. An RFC 2217 line alone has a thread, for pyserial speaks that
protocol only blocking. Whoever wants to share a line goes through ``console.py``, its one owner.

A line is named by a device path (best ``/dev/serial/by-id/…``), the path of a pty,
``socket://host:port`` (raw TCP, e.g. ser2net), ``unix:///path`` or ``rfc2217://host:port``; or it
is a command (``command_line.py``).
"""

import asyncio
import errno
import fcntl
import grp
import os
import queue
import stat
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import serial
from serial import rfc2217

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.command_line import open_command
from tshrag_agent.transport.holders import holders
from tshrag_agent.transport.line import (
    FdLine,
    Line,
    LineSettings,
    Lost,
    Received,
    open_tcp,
    reason_of,
    resolve,
    steady,
)
from tshrag_agent.transport.unix_line import open_unix

OPEN_TIMEOUT_S = 10.0

_PTY_MAJORS = range(136, 144)
_THREAD_READ_S = 0.02
_PARITY = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}


async def open_line(settings: LineSettings, received: Received, lost: Lost) -> Line:
    """Open the line that `settings` names; both callbacks come on this event loop.

    Raises:
        TransportFailed: serial_missing, serial_busy (with the holder), serial_perm.

    """
    if settings.command:
        return open_command(settings, received, lost)
    scheme = urlsplit(settings.url).scheme
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            if scheme == "socket":
                return await open_tcp(settings, received, lost)
            if scheme == "unix":
                return await open_unix(settings, received, lost)
            if scheme == "rfc2217":
                remote = await asyncio.to_thread(_open_rfc2217, settings)
                return _ThreadLine(remote, settings.url, received, lost)
            port = await asyncio.to_thread(_open_device, settings)
            return FdLine(port, settings.url, received, lost)
    except TimeoutError:
        what = f"no answer within {OPEN_TIMEOUT_S:g} s"
        raise TransportFailed("serial_missing", settings.url, what) from None


class _ThreadLine:
    """An RFC 2217 line: one thread reads and writes what pyserial can only do blocking."""

    def __init__(self, port: rfc2217.Serial, url: str, received: Received, lost: Lost) -> None:
        self._port, self._url, self._received, self._lost = port, url, received, lost
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[tuple[bytes | bool | int, asyncio.Future[None]]]
        self._orders = queue.SimpleQueue()
        self._open = True
        threading.Thread(target=self._carry, name=f"rfc2217 {url}", daemon=True).start()

    async def write(self, data: bytes) -> None:
        await self._order(data)

    async def send_break(self, duration_s: float) -> None:
        await self._order(True)
        try:
            await asyncio.sleep(duration_s)
        finally:
            self._orders.put((False, self._loop.create_future()))

    async def set_baud(self, baud: int) -> None:
        await self._order(baud)

    def close(self) -> None:
        self._open = False

    async def _order(self, what: bytes | bool | int) -> None:
        if not self._open:
            raise TransportFailed("serial_lost", self._url, "the connection is closed")
        done = self._loop.create_future()
        self._orders.put((what, done))
        await done

    def _carry(self) -> None:
        reason = ""
        try:
            while self._open:
                self._obey()
                data = self._port.read(max(1, self._port.in_waiting))
                if data:
                    self._tell(self._received, data)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            reason = str(error) or "the connection broke"
        finally:
            link = getattr(self._port, "_socket", None)
            self._port.close()
            if link:  # pyserial forgets to close it when the other side was faster
                link.close()
            self._tell(self._ended, reason)

    def _obey(self) -> None:
        while not self._orders.empty():
            what, done = self._orders.get()
            if isinstance(what, bool):
                self._port.break_condition = what
            elif isinstance(what, int):
                self._port.baudrate = what
            else:
                self._port.write(what)
            self._tell(resolve, done)

    def _ended(self, reason: str) -> None:
        while not self._orders.empty():
            _what, done = self._orders.get()
            if not done.done():
                done.set_exception(TransportFailed("serial_lost", self._url, reason or "closed"))
        if self._open:
            self._open = False
            self._lost(reason)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has been closed before the line was
            self._loop.call_soon_threadsafe(callback, *arguments)


def _open_rfc2217(settings: LineSettings) -> rfc2217.Serial:
    try:
        port = rfc2217.Serial(timeout=_THREAD_READ_S)
        port.port = settings.url
        _set(port, settings)
        port.open()
    except (OSError, ValueError) as error:
        raise TransportFailed("serial_missing", settings.url, str(error)) from None
    return port


def _open_device(settings: LineSettings) -> serial.Serial:
    """Open a tty for us alone, and leave its modem lines alone when it is closed."""
    path = Path(settings.url)
    device = _examine(path)
    port = serial.Serial(exclusive=True)
    port.port = settings.url
    try:
        _set(port, settings)
        port.open()
    except OSError as error:
        raise _refusal(path, device, error) from None
    except ValueError as error:
        raise TransportFailed("serial_missing", settings.url, str(error)) from None
    fd = port.fileno()
    steady(fd)
    if os.major(device) not in _PTY_MAJORS:
        # A pty keeps the mark beyond the death of its opener, and would shut us out for ever.
        fcntl.ioctl(fd, termios.TIOCEXCL)
    return port


def _set(port: serial.SerialBase, settings: LineSettings) -> None:
    port.baudrate, port.bytesize = settings.baud, settings.data_bits
    port.parity, port.stopbits = _PARITY[settings.parity], settings.stop_bits
    port.xonxoff, port.rtscts = settings.xonxoff, settings.rtscts
    port.dtr, port.rts = settings.dtr, settings.rts


def _examine(path: Path) -> int:
    """Return the device number of `path`; raise where it cannot be ours."""
    try:
        found = path.stat()
    except OSError as error:
        raise _refusal(path, 0, error) from None
    if not stat.S_ISCHR(found.st_mode):
        raise TransportFailed("serial_missing", str(path), "this is no serial device")
    if not os.access(path, os.R_OK | os.W_OK):
        raise _refusal(path, found.st_rdev, PermissionError(errno.EACCES, "forbidden"))
    held = holders(found.st_rdev)
    if held:
        raise _busy(path, held)
    return found.st_rdev


def _refusal(path: Path, device: int, error: OSError) -> TransportFailed:
    """Return the one line for what the system said."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return TransportFailed("serial_perm", str(path), "no right to open it", _way_in(path))
    if error.errno in (errno.EBUSY, errno.EWOULDBLOCK):
        return _busy(path, holders(device))
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.EIO):
        fix = "plug it in, or name the port by /dev/serial/by-id"
        return TransportFailed("serial_missing", str(path), "there is no such device", fix)
    return TransportFailed("serial_missing", str(path), reason_of(error))


def _busy(path: Path, held: list[tuple[int, str]]) -> TransportFailed:
    who = ", ".join(f"pid {pid} {name}" for pid, name in held[:4])
    fix = "end it: the agent shares the line with everybody"
    return TransportFailed("serial_busy", str(path), who or "another process holds it", fix)


def _way_in(path: Path) -> str:
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        group = "dialout"
    return f"add user to {'dialout' if group == 'root' else group}"
