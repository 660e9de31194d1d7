"""Serial lines: pyserial opens and sets them, ``line.py`` carries their bytes.

One reader and one writer a line. Whoever wants to share it goes through ``console.py``, its owner.

A line is named by a device path (best ``/dev/serial/by-id/…``), the path of a pty,
``socket://host:port`` (raw TCP, e.g. ser2net), ``unix:///path`` or ``rfc2217://host:port``; or it
is a command (``command_line.py``).
"""

import asyncio
import errno
import fcntl
import grp
import os
import stat
import termios
from pathlib import Path
from urllib.parse import urlsplit

import serial

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.command_line import open_command
from tshrag_agent.transport.holders import PTY_MAJORS, holders
from tshrag_agent.transport.line import (
    FdLine,
    Line,
    LineSettings,
    Lost,
    Received,
    open_tcp,
    put,
    reason_of,
    steady,
)
from tshrag_agent.transport.rfc2217_line import open_rfc2217
from tshrag_agent.transport.unix_line import open_unix

OPEN_TIMEOUT_S = 10.0


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
                return await open_rfc2217(settings, received, lost)
            port = await asyncio.to_thread(_open_device, settings)
            return FdLine(port, settings.url, received, lost)
    except TimeoutError:
        what = f"no answer within {OPEN_TIMEOUT_S:g} s"
        raise TransportFailed("serial_missing", settings.url, what) from None


def _open_device(settings: LineSettings) -> serial.Serial:
    """Open a tty for us alone, and leave its modem lines alone when it is closed."""
    path = Path(settings.url)
    device = _examine(path)
    port = serial.Serial(exclusive=True)
    port.port = settings.url
    try:
        put(port, settings)
        port.open()
    except OSError as error:
        raise _refusal(path, device, error) from None
    except ValueError as error:
        raise TransportFailed("serial_missing", settings.url, str(error)) from None
    fd = port.fileno()
    steady(fd)
    if os.major(device) not in PTY_MAJORS:
        # A pty keeps the mark beyond the death of its opener, and would shut us out for ever.
        fcntl.ioctl(fd, termios.TIOCEXCL)
    return port


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
