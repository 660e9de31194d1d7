"""Each repetition of a fault as a line of a file: what was tried is kept, whatever comes later.

A run that is cut goes on where it stopped, and two that run beside each other share one file.
"""

import datetime
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tests.chaos.outcome import Bar, Once, Row, row


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One repetition, when it was, of which build, and how busy the machine was then."""

    fault: str
    what: str
    at: str
    commit: str
    busy: float
    once: Once = Once()
    note: str = ""
    """Why it was not tried."""

    @property
    def name(self) -> str:
        return f"{self.fault} {self.what}"


class Tried(msgspec.Struct, frozen=True):
    """What is asked of a fault: so many repetitions, within these bars."""

    fault: str
    what: str
    times: int
    bars: tuple[Bar, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.fault} {self.what}"


def keep(path: Path, fault: str, what: str, once: Once, note: str = "") -> None:
    """Append what came of a repetition; without the ids of its runs, which nobody looks up."""
    kept = Kept(
        fault=fault,
        what=what,
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=build(),
        busy=round(os.getloadavg()[0], 1),
        once=msgspec.structs.replace(once, runs=()),
        note=note,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(msgspec.json.encode(kept) + b"\n")


def read(path: Path) -> list[Kept]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Kept) for line in lines]


def missing(wanted: Iterable[Tried], kept: Iterable[Kept]) -> list[str]:
    """Return what has not been tried often enough: each once before any of them twice."""
    done = Counter(each.name for each in kept)
    rounds: list[tuple[int, int, str]] = []
    for number, each in enumerate(wanted):
        rounds += [(turn, number, each.name) for turn in range(done[each.name], each.times)]
    return [name for _, _, name in sorted(rounds)]


def rows(wanted: Sequence[Tried], kept: Sequence[Kept]) -> list[Row]:
    """Sum up what was kept, in the order of the faults; what was never tried says so."""
    found: list[Row] = []
    for each in wanted:
        of_it = [one for one in kept if one.name == each.name]
        onces = [one.once for one in of_it if not one.note]
        note = next((one.note for one in of_it if one.note), "" if onces else "its turn never came")
        busy = max((one.busy for one in of_it), default=0.0)
        found.append(row(each.fault, each.what, onces, each.bars, note, busy))
    return found


def build() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip()
