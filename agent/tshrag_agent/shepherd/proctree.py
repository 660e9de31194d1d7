"""Groups without any cgroup: what belongs to an attempt is found by walking /proc.

A process belongs to an attempt when it is of the main one's session, carries the attempt's mark
in its environment, or descends from one that belongs. The shepherd is a subreaper, so that
orphans come to it instead of getting lost. A process that leaves the session, clears its
environment and loses its parent can be told from others only when its attempt is the last one.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

from tshrag_agent.shepherd import groups
from tshrag_agent.shepherd.limits import Limits

_KILL_WALKS = 3


class Process(NamedTuple):
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    started: int  # clock ticks since boot: with the pid it names one process for ever


def processes() -> dict[int, Process]:
    """Return every process that is alive; zombies are not."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {one.pid: one for one in found if one}


def process(pid: int) -> Process | None:
    """Return one process, None where it is gone or a zombie."""
    fields = _stat(pid)
    if not fields or fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def started_ticks(pid: int) -> int:
    """Return when a process was started, be it a zombie by now; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat behind the name, which may hold anything."""
    try:
        stat = groups.read_text(f"/proc/{pid}/stat")
    except OSError:
        return []
    return stat[stat.rindex(")") + 2 :].split()


def mark_of(pid: int) -> str:
    """Return the mark in a process's environment, empty where there is none."""
    try:
        environment = groups.read_text(f"/proc/{pid}/environ")
    except OSError:
        return ""
    for entry in environment.split("\0"):
        if entry.startswith(groups.MARK + "="):
            return entry[len(groups.MARK) + 1 :]
    return ""


def kill_process(one: Process, signum: int = signal.SIGKILL) -> None:
    """Send a signal to exactly this process, not to a later one with the same pid."""
    try:
        fd = os.pidfd_open(one.pid)
    except OSError:
        return
    try:
        now = process(one.pid)
        if now and now.started == one.started:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signum)
    finally:
        os.close(fd)


def marked(state_id: str) -> Iterator[Process]:
    """Yield what an earlier shepherd of this state folder has left alive."""
    for one in processes().values():
        if one.pid != os.getpid() and mark_of(one.pid).startswith(state_id + ":"):
            yield one


class TreeGroup:
    """One attempt, held together by session, mark and descent."""

    held: frozenset[str] = frozenset()
    birth_fd = -1
    enter_fds: tuple[int, ...] = ()
    has_extras = False
    name = ""

    def __init__(self, mark: str, alive: "set[TreeGroup]", spared: set[int]) -> None:
        if not mark:
            raise ValueError("an empty mark would match every process of the host")
        self._mark, self._alive, self._spared = mark, alive, spared
        self._known: dict[int, Process] = {}
        self._main = -1
        self._since = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) - 1

    def bind(self, pid: int) -> None:
        self._main = pid

    def pids(self) -> list[int]:
        return list(self._members())

    def is_empty(self) -> bool:
        # A process that forks and exits can slip through one walk, hardly through two.
        return not self._members() and not self._members()

    def kill(self) -> None:
        # Newest first, several times: who forks while it is being killed is met again at once.
        for _ in range(_KILL_WALKS):
            members = self._members()
            for pid in sorted(members, reverse=True):
                kill_process(members[pid])
            if not members:
                return

    def oom_kills(self) -> int:
        return 0

    def _members(self) -> dict[int, Process]:
        # Whoever is older than this group is none of ours, whatever it looks like.
        table = {pid: one for pid, one in processes().items() if one.started >= self._since}
        table.pop(os.getpid(), None)
        found = {pid: one for pid, one in table.items() if self._is_ours(one)}
        grown = True
        while grown:
            born = [one for one in table.values() if one.parent in found and one.pid not in found]
            found.update((one.pid, one) for one in born)
            grown = bool(born)
        self._known = found
        return found

    def _is_ours(self, one: Process) -> bool:
        before = self._known.get(one.pid)
        if before and before.started == one.started:
            return True
        if one.pid == self._main or one.session == self._main:
            return True
        orphan = one.parent == os.getpid() and one.pid not in self._spared
        if orphan and len(self._alive) == 1 and self in self._alive:
            return True
        return mark_of(one.pid) == self._mark


class TreeGroups:
    """Makes groups where the system gives no cgroup."""

    kind = "proc"
    home_fd = -1
    folders: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._alive: set[TreeGroup] = set()
        self.spared: set[int] = set()  # children of the shepherd that are no orphans

    def take(self, limits: Limits, mark: str) -> TreeGroup:
        group = TreeGroup(mark, self._alive, self.spared)
        self._alive.add(group)
        return group

    def give_back(self, group: groups.Group) -> None:
        assert isinstance(group, TreeGroup)
        self._alive.discard(group)

    def close(self) -> None:
        """Do nothing: there is nothing to remove."""
