"""Who has a device open: named in the error, so that somebody can act on it."""

import os
import stat
from pathlib import Path


def holders(device: int) -> list[tuple[int, str]]:
    """Return (pid, name) of the other processes that have `device` open, as far as we may see."""
    held: list[tuple[int, str]] = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        pid = int(folder.parent.name)
        if pid != os.getpid() and _has_open(folder, device):
            held.append((pid, _name_of(folder.parent)))
    return sorted(held)


def _has_open(folder: Path, device: int) -> bool:
    try:
        return any(_device_of(link) == device for link in folder.iterdir())
    except OSError:
        return False  # it has ended meanwhile, or belongs to somebody else


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
