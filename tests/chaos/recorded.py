"""A recorded history, read back: the lines of all files of a folder in the order they happened."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


class Recorded:
    """Lines by time; a line that was cut when its writer died is left out and counted.

    An event of a frame is told by every controller that reads it: the first to tell counts.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        ordered = sorted(lines, key=lambda line: int(line["mono_ns"]))
        self.lines: Sequence[Line] = list(_once(ordered))
        self.cut = 0

    @classmethod
    def read(cls, folder: Path) -> "Recorded":
        found: list[Line] = []
        cut = 0
        for path in sorted(folder.glob("*.jsonl")):
            for text in path.read_text(errors="replace").splitlines():
                try:
                    found.append(json.loads(text))
                except ValueError:
                    cut += 1
        recorded = cls(found)
        recorded.cut = cut
        return recorded

    def of(self, *kinds: str) -> Iterator[Line]:
        return (line for line in self.lines if line["ev"] in kinds)

    @property
    def ends_ns(self) -> int:
        return int(self.lines[-1]["mono_ns"]) if self.lines else 0


def _once(lines: Iterable[Line]) -> Iterator[Line]:
    seen: set[tuple[int, int]] = set()
    for line in lines:
        if "n" in line:
            key = (int(line["seq"]), int(line["n"]))
            if key in seen:
                continue
            seen.add(key)
        yield line


def at_s(line: Line) -> float:
    """Return when it happened, in seconds of the machine's monotonic clock."""
    return int(line["mono_ns"]) / 1e9


def agent_of(line: Line) -> str:
    """Return the name of the agent that wrote a line."""
    return str(line["actor"]).removeprefix("agent ")


def fence_of(line: Line) -> int:
    """Return the fence as a number; a shell writes it with leading zeros, as text."""
    return int(line.get("fence") or 0)


def run_of(job: str) -> str:
    """Return the run of a job, by its name: job-X-001 is one of run-X."""
    kind, _, rest = job.partition("-")
    return f"run-{rest.rpartition('-')[0]}" if kind == "job" else job
