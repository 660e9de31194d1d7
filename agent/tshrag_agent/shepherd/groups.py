"""A group holds every process of one attempt, whatever they do; three ways to make one.

``v2``    a cgroup v2 each: born in it, ended by one write, nothing can leave it
``v1``    a freezer cgroup each: frozen, killed, thawed
``proc``  no cgroup at all: sessions, descent and a mark in the environment, found by walking /proc
"""

import os
from typing import Protocol

from tshrag_agent.shepherd.limits import Limits

MARK = "TSHRAG_SHEPHERD"
"""Environment variable of every host process: ``<state id>:<key>``."""
KINDS = ("v2", "v1", "proc")


class Group(Protocol):
    """Where the processes of one attempt live."""

    name: str
    held: frozenset[str]  # the limits that this group sees to
    birth_fd: int  # a cgroup v2 for native.fork_into, or -1
    enter_fds: tuple[int, ...]  # a process that writes 0 to these is in
    has_extras: bool  # bound by more than its containment: entered by the child alone

    def bind(self, pid: int) -> None:
        """Say which process is the main one."""

    def pids(self) -> list[int]: ...

    def is_empty(self) -> bool: ...

    def kill(self) -> None:
        """Send SIGKILL to everything in it; a second time for what was not there yet."""

    def oom_kills(self) -> int: ...


class Groups(Protocol):
    """Makes groups of one kind."""

    kind: str
    home_fd: int  # where the shepherd itself belongs; -1 where it may not leave
    folders: tuple[str, ...]  # for the record: what a later shepherd has to look through

    def take(self, limits: Limits, mark: str) -> Group:
        """Make a group under these limits for processes that carry `mark`."""
        ...

    def give_back(self, group: Group) -> None:
        """Take an empty group back, for the next attempt or to remove it."""

    def close(self) -> None: ...


def command_of(pid: int, longest: int = 200) -> str:
    """Return the command line of a process as people may read it; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            said = file.read(longest)
    except OSError:
        return ""
    return said.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "backslashreplace")


def read_text(path: str) -> str:
    """Return a small file of the kernel; OSError where it is not there."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def write_text(path: str, text: str) -> None:
    """Write to a file of the kernel; OSError where it does not take it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
