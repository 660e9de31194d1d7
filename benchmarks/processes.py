"""The processes of a lab as the kernel counts them: processor time and resident memory."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import NamedTuple

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_KINDS = (
    ("broker", ("nats-server",)),
    ("controller", ("tshrag_controller.daemon",)),
    ("agent", ("tshrag_agent", "run")),
    ("fleet", ("benchmarks.fleet",)),
)


class Cost(NamedTuple):
    """Processor time that one kind of process has used, in seconds."""

    user_s: float = 0.0
    system_s: float = 0.0

    @property
    def all_s(self) -> float:
        return self.user_s + self.system_s

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.user_s - other.user_s, self.system_s - other.system_s)


class Measured:
    """The processes whose command line names the folder of a lab, by what they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder).encode()

    def pids(self) -> dict[str, list[int]]:
        """Return kind -> pids; a shepherd and its hands are one kind."""
        found: dict[str, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(self._folder in word for word in words):
                found.setdefault(_kind(words), []).append(int(entry.name))
        return found

    def costs(self) -> dict[str, Cost]:
        return {kind: _sum(map(_cost, pids)) for kind, pids in self.pids().items()}

    def rss_mib(self, kind: str) -> float:
        """Return the resident memory of a kind of process together, in MiB."""
        pages = (
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids()[kind]
        )
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    async def gone(self, within_s: float) -> None:
        """End what is left, and wait until it is gone."""
        for _ in range(round(within_s / 0.1)):
            pids = [pid for each in self.pids().values() for pid in each]
            if not pids:
                return
            for pid in pids:  # a shepherd would wait for its agent to come back
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            await asyncio.sleep(0.1)


def rss_mib_of(pid: int) -> float:
    """Return the resident memory of one process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _kind(words: list[bytes]) -> str:
    line = b" ".join(words).decode("utf-8", "replace")
    for kind, marks in _KINDS:
        if all(mark in line for mark in marks) and "-I" not in line.split()[:3]:
            return kind
    return "shepherd"


def _cost(pid: int) -> Cost:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return Cost()
    return Cost(int(fields[11]) * _TICK_S, int(fields[12]) * _TICK_S)


def _sum(costs: "map[Cost]") -> Cost:
    user_s, system_s = 0.0, 0.0
    for cost in costs:
        user_s, system_s = user_s + cost.user_s, system_s + cost.system_s
    return Cost(user_s, system_s)
