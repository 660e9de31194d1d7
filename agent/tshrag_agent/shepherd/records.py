"""What a shepherd must still know when it is started again: one file, a line a fact.

It is not synced: a crash of the shepherd leaves it whole, and a crash of the host leaves nothing
alive that it could help to find. A full disk does not stop a shepherd, who ends what is over its
limits whatever the disk does: it owes the file what memory knows until there is room.
"""

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from tshrag_agent.shepherd.protocol import Message, to_json

_COMPACT_BYTES = 4 * 1024 * 1024


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class Records:
    """Attempts that were started and not ended, exits that the agent has not acknowledged."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.boot = boot_id()
        self.started: dict[str, Message] = {}
        self.exits: dict[str, Message] = {}
        self.folders: list[str] = []
        self.is_same_boot = False
        self._lines: list[str] = []
        self._size = 0
        self._fd = -1
        self._is_owed = False
        self._read()

    def begin(self, folders: Iterable[str]) -> None:
        """Start over with what is still of use, written whole before it replaces the old file."""
        self.folders = list(folders)
        self._is_owed = True
        self.flush()

    def note_start(self, key: str, pid: int, group: str, at: int) -> None:
        fact = {"key": key, "pid": pid, "ticks": 0, "group": group, "at": at}
        self.started[key] = fact
        self._note("start", fact)

    def note_ticks(self, key: str, started_ticks: int) -> None:
        fact = self.started[key] = {**self.started[key], "ticks": started_ticks}
        self._note("start", fact)

    def note_exit(self, message: Message) -> None:
        self.started.pop(message["key"], None)
        self.exits[message["key"]] = message
        self._note("exit", message)

    def note_forgotten(self, keys: Iterable[str]) -> None:
        known = [key for key in keys if self.exits.pop(key, None)]
        if known:
            self._note("forget", known)

    def flush(self) -> None:
        """Write what was noted; only then does it count."""
        if not self._lines and not self._is_owed:
            return
        data = "".join(self._lines).encode("ascii")
        self._lines.clear()
        self._size += len(data)
        try:
            if self._is_owed or self._size > _COMPACT_BYTES:
                self._compact()
            else:
                _write_all(self._fd, data)
        except OSError as error:
            if not self._is_owed:
                print(f"records cannot be written: {error}", file=sys.stderr)  # noqa: T201 -- its log
            self._is_owed = True  # all of it: the last line may be torn
        else:
            self._is_owed = False

    def _note(self, kind: str, fact: Any) -> None:
        self._lines.append(to_json([kind, fact]) + "\n")

    def _compact(self) -> None:
        lines = [["boot", {"boot": self.boot, "folders": self.folders}]]
        lines += [["start", fact] for fact in self.started.values()]
        lines += [["exit", fact] for fact in self.exits.values()]
        data = "".join(to_json(line) + "\n" for line in lines).encode("ascii")
        new_fd = os.open(self._path + ".new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            _write_all(new_fd, data)
        finally:
            os.close(new_fd)
        os.replace(self._path + ".new", self._path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = 0

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                kind, fact = json.loads(line)
                self._take(kind, fact)
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a shepherd that was killed while it wrote

    def _take(self, kind: str, fact: Any) -> None:
        if kind == "boot":
            self.is_same_boot = fact["boot"] == self.boot
            self.folders = fact["folders"] if self.is_same_boot else []
        elif kind == "start":
            self.started[fact["key"]] = fact
        elif kind == "exit":
            self.started.pop(fact["key"], None)
            self.exits[fact["key"]] = fact
        elif kind == "forget":
            for key in fact:
                self.exits.pop(key, None)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
