"""What rules of the checker share: a violation, the lives of attempts, the plans of runs."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.chaos.recorded import Line, Recorded, at_s, run_of

FINAL = ("pass", "fail", "break", "time_out", "cancel", "expire", "skip")
SLACK_S = 0.5  # a look of the sampler, a line of a shell


class Broken(NamedTuple):
    """An invariant that does not hold, and where."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


class Life(NamedTuple):
    """A time during which an attempt certainly lived."""

    job: str
    attempt: int
    dut: str
    first_s: float
    last_s: float


class Planned(NamedTuple):
    """A job as its run was admitted."""

    job: str
    run: str
    org: str
    gang: int
    after: tuple[str, ...]
    order: tuple[int, int]  # of admission, and in its run
    priority: int
    spec: Line


Rule = Callable[[Recorded], Iterator[Broken]]


def lives(recorded: Recorded) -> list[Life]:
    """Return when each attempt lived; one whose end was not seen lives to the end."""
    runs = {str(line["job"]) for line in recorded.of("admitted")}
    open_lives: dict[tuple[str, int, str], float] = {}
    found: list[Life] = []
    for line in recorded.of("born", "dead"):
        job = str(line["job"])
        if run_of(job) not in runs:
            continue  # of another lab on this machine
        key = (job, int(line["attempt"]), str(line["dut"]))
        if line["ev"] == "born":
            open_lives[key] = at_s(line)
        else:
            open_lives.pop(key, None)
            found.append(Life(*key, int(line["first_ns"]) / 1e9, int(line["last_ns"]) / 1e9))
    end_s = recorded.ends_ns / 1e9
    return found + [Life(*key, first, end_s) for key, first in open_lives.items()]


def plans(recorded: Recorded) -> dict[str, Planned]:
    """Return every job of every run that was admitted with its plan."""
    return {each.job: each for line in recorded.of("admitted") for each in jobs_of(line)}


def jobs_of(line: Line) -> Iterator[Planned]:
    """Return the jobs of a run, in the order of its plan."""
    run = str(line["job"])
    specs: list[Any] = list(line.get("specs", ()))
    for serial, spec, gang, after in line.get("plan", ()):
        yield Planned(
            job=_name(run, serial),
            run=run,
            org=str(line.get("org", "")),
            gang=int(gang),
            after=tuple(_name(run, each) for each in after),
            order=(int(line["seq"]), int(serial)),
            priority=int(line.get("priority", 0)),
            spec=specs[spec],
        )


def _name(run: str, serial: int) -> str:
    return f"job-{run.removeprefix('run-')}-{serial:03d}"
