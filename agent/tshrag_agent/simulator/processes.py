"""The processes of a simulated board: real ones of this machine, known by a mark."""

import fcntl
import os
import signal
import termios
import time
from pathlib import Path

_TRIES = 50


def end_marked(mark: str) -> None:
    """Kill every process with `mark` (``NAME=value``) in its environment, and what it forks."""
    for _ in range(_TRIES):
        marked = [pid for pid in _processes() if mark.encode() in _environment(pid)]
        if not marked:
            return
        for pid in marked:
            kill(pid)
        time.sleep(0.01)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it was faster


def take_terminal() -> None:
    """Make stdin the controlling terminal of a new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
