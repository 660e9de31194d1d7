"""What came of faults: figures of each repetition, and the bars they are held against."""

import math
from collections.abc import Mapping, Sequence

import msgspec


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition. Times in seconds; NaN-free: what was not measured is left out."""

    running: int = 0
    per_s: float = 0.0
    times: dict[str, float] = {}
    counts: dict[str, int] = {}
    broken: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    seconds: float = 0.0


def with_more(once: Once, **more: object) -> Once:
    """Return a repetition with other figures."""
    return msgspec.structs.replace(once, **more)


class Bar(msgspec.Struct, frozen=True):
    """The most that a figure may be; ``least`` for the few that must not be smaller."""

    name: str
    most: float
    least: float = -math.inf

    def misses(self, value: float) -> bool:
        return not self.least <= value <= self.most


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table: a fault, its repetitions, its figures, what was missed."""

    fault: str
    what: str
    repetitions: int
    p50: dict[str, float]
    most: dict[str, float]
    counts: dict[str, int]
    missed: tuple[str, ...] = ()
    note: str = ""
    running: int = 0  # the least of all repetitions that had load on; 0: none had
    per_s: float = 0.0
    busy: float = 0.0  # the highest load average of the machine

    @property
    def load(self) -> str:
        """Say how much was going on, at least, when the fault came."""
        said = [f"{self.running} jobs, {self.per_s:.0f}/s"] if self.running else []
        return ", ".join([*said, *([f"busy {self.busy:g}"] if self.busy else [])])

    @property
    def is_met(self) -> bool:
        return not self.missed and self.repetitions > 0


ZERO = ("lost", "doubled", "survivors", "broken", "wrong")


def row(
    fault: str,
    what: str,
    all_of: Sequence[Once],
    bars: Sequence[Bar],
    note: str = "",
    busy: float = 0.0,
) -> Row:
    """Sum up the repetitions of a fault and hold them against its bars."""
    times: dict[str, list[float]] = {}
    counts: dict[str, int] = {"lost": 0, "doubled": 0, "survivors": 0, "broken": 0}
    for once in all_of:
        for name, value in once.times.items():
            times.setdefault(name, []).append(value)
        for name, count in once.counts.items():
            counts[name] = counts.get(name, 0) + count
        counts["broken"] += len(once.broken)
    p50 = {name: round(sorted(each)[len(each) // 2], 2) for name, each in times.items()}
    most = {name: round(max(each), 2) for name, each in times.items()}
    missed = [f"{name} {counts[name]} > 0" for name in ZERO if counts.get(name)]
    for bar in bars:
        for value in times.get(bar.name, ()):
            if bar.misses(value):
                missed.append(f"{bar.name} {value:.1f} s, the bar is {_bar(bar)}")
    said = [each for once in all_of for each in once.broken]
    return Row(
        fault=fault,
        what=what,
        repetitions=len(all_of),
        p50=p50,
        most=most,
        counts=counts,
        missed=(*missed, *said[:5]),
        note=note,
        running=min((once.running for once in all_of if once.running), default=0),
        per_s=round(min((once.per_s for once in all_of if once.per_s), default=0.0), 1),
        busy=busy,
    )


def _bar(bar: Bar) -> str:
    low = f"{bar.least:g} to " if bar.least > -math.inf else "<= "
    return f"{low}{bar.most:g} s"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as people read it."""
    lines = [
        "| fault | what | n | load | p50 / max, s | lost | doubled | survivors | broken | |",
        "|---|---|---:|---|---|---:|---:|---:|---:|---|",
    ]
    for each in rows:
        times = ", ".join(
            f"{name} {each.p50[name]:g} / {each.most[name]:g}" for name in sorted(each.p50)
        )
        counts: Mapping[str, int] = each.counts
        others = [f"{name}: {count}" for name, count in counts.items() if name not in ZERO]
        times = "; ".join([each for each in (times, *others) if each])
        zero = " | ".join(str(counts.get(name, 0)) for name in ZERO[:4])
        verdict = "met" if each.is_met else "**missed**: " + "; ".join(each.missed)
        if not each.repetitions:
            verdict = f"not run: {each.note}"
        elif each.note:
            verdict += f"; {each.note}"
        lines.append(
            f"| {each.fault} | {each.what} | {each.repetitions} | {each.load} | {times} "
            f"| {zero} | {verdict} |"
        )
    return "\n".join(lines) + "\n"
