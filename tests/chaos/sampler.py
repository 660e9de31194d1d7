"""Watches which attempts live, by nothing but /proc: who runs them has no say in it.

    python -m tests.chaos.sampler FOLDER

Every 200 ms it reads the environment and the control group of every process. A process belongs
to the attempt that its environment names; one that dropped its environment, to the attempt whose
control group it is in. Lines: ``born`` when an attempt is first seen, ``dead`` when it is not
seen any more, with the last instant at which it certainly lived.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

EVERY_S = 0.2
MEASURE_EVERY = 20
"""So many looks for one at memory and descriptors."""
_WANTED = (b"TSHRAG_JOB_ID=", b"TSHRAG_ATTEMPT=", b"TSHRAG_JOB_DEVICE=", b"TSHRAG_JOB_MACHINE=")


class Alive(NamedTuple):
    """One attempt, as its processes name it."""

    job: str
    attempt: int
    dut: str
    agent: str


class Sampler:
    """Looks again and again; remembers what it has seen."""

    def __init__(self, path: Path) -> None:
        self._out = path.open("a", buffering=1)
        self._groups: dict[bytes, Alive] = {}
        self._seen: dict[Alive, tuple[int, int]] = {}  # first and last instant
        self.looks = 0

    def look(self) -> dict[Alive, list[int]]:
        """Read all of /proc once; return the pids of each attempt."""
        found: dict[Alive, list[int]] = {}
        strays: list[tuple[int, bytes]] = []
        times: dict[Alive, tuple[int, int]] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208 -- five times a second, all of it
            if not name.isdigit():
                continue
            group = _group(name)
            alive = _named(name)
            if alive is None:
                if group:
                    strays.append((int(name), group))
                continue
            self._take(found, times, alive, int(name))
            if group:
                self._groups[group] = alive
        for pid, group in strays:
            if group in self._groups:
                self._take(found, times, self._groups[group], pid)
        used = {group for _, group in strays}
        self._groups = {g: a for g, a in self._groups.items() if a in found or g in used}
        self._note(times)
        self.looks += 1
        return found

    def measure(self, folder: str) -> None:
        """Note memory and descriptors of the agents and controllers that write below `folder`."""
        mark = f"TSHRAG_HISTORY={folder}".encode()
        for name in os.listdir("/proc"):  # noqa: PTH208 -- as above
            if name.isdigit() and (role := _role(name)):
                try:
                    environ = Path("/proc", name, "environ").read_bytes() + b"\0"
                    pages = int(Path("/proc", name, "statm").read_text().split()[1])
                    count = len(os.listdir(f"/proc/{name}/fd"))  # noqa: PTH208 -- names only
                except (OSError, IndexError):
                    continue
                if mark in environ:
                    size = pages * os.sysconf("SC_PAGE_SIZE")
                    self._footprint(f"{role} {name}", count, size)

    def _footprint(self, of: str, descriptors: int, rss_bytes: int) -> None:
        line = {"mono_ns": time.monotonic_ns(), "actor": "sampler", "ev": "footprint"}
        facts = {"of": of, "descriptors": descriptors, "rss_bytes": rss_bytes}
        self._out.write(json.dumps({**line, **facts}) + "\n")

    def end(self) -> None:
        self._note({})

    def close(self) -> None:
        self._out.close()

    def _take(
        self,
        found: dict[Alive, list[int]],
        times: dict[Alive, tuple[int, int]],
        alive: Alive,
        pid: int,
    ) -> None:
        now = time.monotonic_ns()
        found.setdefault(alive, []).append(pid)
        times[alive] = (times.get(alive, (now, now))[0], now)

    def _note(self, times: dict[Alive, tuple[int, int]]) -> None:
        for alive in [one for one in self._seen if one not in times]:
            first, last = self._seen.pop(alive)
            self._write("dead", alive, first_ns=first, last_ns=last)
        for alive, (first, last) in times.items():
            if alive not in self._seen:
                self._write("born", alive)
                self._seen[alive] = (first, last)
            self._seen[alive] = (self._seen[alive][0], last)

    def _write(self, ev: str, alive: Alive, **more: int) -> None:
        line = {"mono_ns": time.monotonic_ns(), "actor": "sampler", "ev": ev}
        self._out.write(json.dumps({**line, **alive._asdict(), **more}) + "\n")


def _named(pid: str) -> Alive | None:
    try:
        with Path("/proc", pid, "environ").open("rb") as file:
            data = file.read(65536)
    except OSError:
        return None
    if _WANTED[0] not in data:
        return None
    values: dict[bytes, str] = {}
    for word in data.split(b"\0"):
        for name in _WANTED:
            if word.startswith(name):
                values[name] = word[len(name) :].decode("utf-8", "replace")
    job, attempt, dut, agent = (values.get(name, "") for name in _WANTED)
    return Alive(job, int(attempt or 0), dut, agent)


def _role(pid: str) -> str:
    """Return what a process is, by its arguments; empty: neither agent nor controller."""
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if b"tshrag_controller.daemon" in words:
        return "controller"
    return "agent" if b"tshrag_agent" in words and b"run" in words else ""


def _group(pid: str) -> bytes:
    """Return the control group that a shepherd has put a process into."""
    try:
        with Path("/proc", pid, "cgroup").open("rb") as file:
            lines = file.read(8192).splitlines()
    except OSError:
        return b""
    for line in lines:
        path = line.split(b":", 2)[-1]
        if b"tshrag-" in path:
            return path
    return b""


def main(folder: str) -> None:
    sampler = Sampler(Path(folder, "sampler.jsonl"))
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    while not stopped:
        began = time.monotonic()
        sampler.look()
        if sampler.looks % MEASURE_EVERY == 0:
            sampler.measure(folder)
        time.sleep(max(0.01, EVERY_S - (time.monotonic() - began)))
    sampler.end()
    sampler.close()


if __name__ == "__main__":
    main(sys.argv[1])
