"""Processes that nothing can end: they hang in the kernel, mostly in a file system.

The agent goes on without them. Its host is told of with every heartbeat for as long as they are
there: it should be looked after, and most often rebooted.
"""

from collections.abc import Iterable
from pathlib import Path

_STARTED = 19  # field of /proc/PID/stat behind the name


class Stuck:
    """What is known to hang, by pid and start time: a number that is used again is another."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._known: dict[int, str] = {}

    def add(self, pids: Iterable[int]) -> None:
        for pid in pids:
            started = self._started(pid)
            if started:
                self._known[pid] = started

    def count(self) -> int:
        """Return how many are still there."""
        for pid, started in list(self._known.items()):
            if self._started(pid) != started:
                del self._known[pid]
        return len(self._known)

    def _started(self, pid: int) -> str:
        try:
            text = (self._proc / str(pid) / "stat").read_text()
        except OSError:
            return ""
        fields = text.rpartition(")")[2].split()
        return fields[_STARTED] if len(fields) > _STARTED and fields[0] not in "ZX" else ""
