"""What rules of the checker share: a violation, the lives of attempts, the plans of runs."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from tests.chaos.recorded import Line, Recorded, at_s, run_of

FINAL = ("pass", "fail", "break", "time_out", "cancel", "expire", "skip")
SLACK_S = 0.5  # a look of the sampler, a line of a shell
COMMIT_S = 40.0
"""How long a frame may have waited for a bus that was away."""


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


class Beats:
    """When each leader heard each agent, and for how long it did not."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, int], list[float]] = {}

    def hear(self, agent: str, epoch: int, at: float) -> None:
        self._heard.setdefault((agent, epoch), []).append(at)

    def silence_s(self, agent: str, epoch: int, since: float, at: float) -> float:
        """Return the longest silence between `since` and `at` that a decision of now may mean.

        It was taken before its frame was in the LOG: a beat may have come while that waited.
        """
        heard = [each for each in self._heard.get((agent, epoch), ()) if since < each < at]
        times = [since, *heard, at]
        ends = [pair for pair in pairwise(times) if pair[1] >= at - COMMIT_S]
        return max((after - before for before, after in ends), default=0.0)


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
    admitted = enumerate(recorded.of("admitted"))
    return {each.job: each for number, line in admitted for each in jobs_of(line, number)}


def jobs_of(line: Line, number: int) -> Iterator[Planned]:
    """Return the jobs of a run, the `number`-th that was admitted, in the order of its plan."""
    run = str(line["job"])
    specs: list[Any] = list(line.get("specs", ()))
    for serial, spec, gang, after in line.get("plan", ()):
        yield Planned(
            job=_name(run, serial),
            run=run,
            org=str(line.get("org", "")),
            gang=int(gang),
            after=tuple(_name(run, each) for each in after),
            order=(number, int(serial)),
            priority=int(line.get("priority", 0)),
            spec=specs[spec],
        )


def _name(run: str, serial: int) -> str:
    return f"job-{run.removeprefix('run-')}-{serial:03d}"
