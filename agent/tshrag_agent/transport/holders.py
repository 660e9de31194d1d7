"""Who has a device open: named in the error, so that somebody can act on it."""

import os
import stat
from pathlib import Path

PTY_MAJORS = range(136, 144)


def holders(device: int) -> list[tuple[int, str]]:
    """Return (pid, name) of the other processes that have `device` open, as far as we may see.

    Who has the other end of a pty is no rival: socat keeps both ends of the ones that it makes.
    """
    held: list[tuple[int, str]] = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        pid = int(folder.parent.name)
        if pid != os.getpid() and _has_open(folder, device) and not _made(folder, device):
            held.append((pid, _name_of(folder.parent)))
    return sorted(held)


def _has_open(folder: Path, device: int) -> bool:
    try:
        return any(_device_of(link) == device for link in folder.iterdir())
    except OSError:
        return False  # it has ended meanwhile, or belongs to somebody else


def _made(folder: Path, device: int) -> bool:
    """Tell whether a process has the controlling end of the pty `device`."""
    if os.major(device) not in PTY_MAJORS:
        return False
    number = (os.major(device) - PTY_MAJORS.start) * 256 + os.minor(device)
    mark = f"tty-index:\t{number}\n"
    try:
        return any(mark in info.read_text() for info in folder.with_name("fdinfo").iterdir())
    except OSError:
        return False


def _device_of(link: Path) -> int:
    try:
        found = link.stat()
    except OSError:
        return -1
    return found.st_rdev if stat.S_ISCHR(found.st_mode) else -1


def _name_of(process: Path) -> str:
    try:
        return process.joinpath("comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
