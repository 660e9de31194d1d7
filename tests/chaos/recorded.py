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
        return Reader(folder).read()

    def of(self, *kinds: str) -> Iterator[Line]:
        return (line for line in self.lines if line["ev"] in kinds)

    @property
    def ends_ns(self) -> int:
        return int(self.lines[-1]["mono_ns"]) if self.lines else 0


class Reader:
    """Reads a history that grows: what was read once is not read again.

    A line without its end waits: its writer is in the middle of it, or died there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside: dict[Path, Reader] = {}
        self._read: dict[Path, int] = {}
        self._lines: list[Line] = []
        self._cut = 0

    def labs(self) -> list[Recorded]:
        """Return the history of each lab: of the one of the folder, and of those in folders of it.

        What was seen of a run from outside, by clients and by the sampler, goes to its lab.
        """
        whole, inner = self.read(), [each.read() for each in self._inner()]
        lab_of = {
            line["job"]: lab for lab, one in enumerate(inner, 1) for line in one.of("admitted")
        }
        lines: list[list[Line]] = [[], *(list(each.lines) for each in inner)]
        for line in whole.lines:
            lines[lab_of.get(run_of(str(line.get("job"))), 0)].append(line)
        return [Recorded(each) for each in lines]

    def _inner(self) -> list["Reader"]:
        folders = {path.parent for path in self._folder.glob("*/*.jsonl")}
        return [self._inside.setdefault(each, Reader(each)) for each in sorted(folders)]

    def read(self) -> Recorded:
        """Return what the files of the folder itself hold."""
        unfinished = sum([self._more_of(path) for path in sorted(self._folder.glob("*.jsonl"))])
        recorded = Recorded(self._lines)
        recorded.cut = self._cut + unfinished
        return recorded

    def _more_of(self, path: Path) -> bool:
        """Take what a file has more; say whether its last line has no end."""
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            whole, end, rest = file.read().rpartition(b"\n")
        self._read[path] = self._read.get(path, 0) + len(whole + end)
        for line in whole.splitlines():
            try:
                self._lines.append(json.loads(line))
            except ValueError:
                self._cut += 1
        return bool(rest)


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
