"""PURE: a criterion on samples as they come: how it stands, and whether that can still change.

What is *decided* stays so, whatever comes: a sample beyond a bound that holds for every sample, a
largest value that is too large, a window that is over. The rest is how it stands now, and a guess.
The verdict that counts is given on all samples at the end (core/criteria); this one frees boards
early and lets a schedule react.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from tshrag_common.criteria import EVERY, CompiledCriterion, Verdict
from tshrag_common.metrics import MetricType
from tshrag_common.statistics import unit_of
from tshrag_common.units import printed
from tshrag_controller.core.bounds import Held, decisive, held, in_base, place
from tshrag_controller.core.running import Running, needs_quantiles, together
from tshrag_controller.core.source import NoVerdict

MOST_KEPT = 200_000
"""Samples of a window ``last`` that are kept; older ones leave first."""
GROWS = {"max": ("max",), "min": ("min",), "count": ("max",), "spread": ("max",)}
"""Statistics that move one way only: what is beyond these bounds stays beyond them."""


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one key from one attempt, in base units, in the order in which they came."""

    key: str
    times: Sequence[int]
    values: Sequence[float]
    unit: str = ""
    type: MetricType = "gauge"
    job: str = ""
    attempt: int = 1
    dut: str = ""
    host: str = ""
    started_at: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a criterion stands; without a verdict nothing can be said yet."""

    verdict: Verdict | None = None
    decided: bool = False
    said: str = "no samples yet"
    value: float | None = None
    unit: str = ""


class LiveCriterion:
    """A criterion and all that it must remember of the stream."""

    def __init__(self, criterion: CompiledCriterion) -> None:
        self.criterion = criterion
        self._parts = [LiveCriterion(part) for part in criterion.parts]
        self._sources: dict[tuple[str, str, str], _Source] = {}  # job, DUT, host
        self._unit: str | None = None

    def feed(self, arrived: Arrived) -> None:
        """Take samples in; those of other keys are passed over."""
        for part in self._parts:
            part.feed(arrived)
        if self.criterion.logic or arrived.key != self.criterion.key:
            return
        place_ = (arrived.job, arrived.dut, arrived.host)
        source = self._sources.get(place_)
        if source is None or source.attempt < arrived.attempt:  # of a job only the last try counts
            source = self._sources[place_] = _Source(self.criterion, arrived)
        if source.attempt == arrived.attempt:
            self._unit = arrived.unit
            source.take(arrived)

    def standing(self, now: int, open_jobs: Mapping[str, int], job: str = "") -> Standing:
        """Return how it stands at `now`.

        `open_jobs` are the jobs that may still bring samples, with the begin of their attempts; 0:
        it has not begun. Where a `job` is named and the scope is the job, only its samples count.
        """
        if self.criterion.logic:
            parts = [part.standing(now, open_jobs, job) for part in self._parts]
            return _combined(self.criterion, self._parts, parts)
        if self.criterion.absent:
            return self._absent()
        if self.criterion.vs or self.criterion.across:
            return Standing(said="judged at the end")
        try:
            return self._standing(now, open_jobs, job if self.criterion.scope == "job" else "")
        except NoVerdict as why:
            return Standing(said=str(why))

    def _absent(self) -> Standing:
        count = sum(source.whole.count for source in self._sources.values())
        if count:
            said = f"{self.criterion.key} has come, it must be absent"
            return Standing(verdict="fail", decided=True, said=said, value=count)
        return Standing(verdict="pass", said=f"{self.criterion.key} is absent so far")

    def _standing(self, now: int, open_jobs: Mapping[str, int], only: str) -> Standing:
        groups: dict[str, list[_Source]] = {}
        for source in self._sources.values():
            if only and source.job != only:
                continue
            groups.setdefault(source.group(self.criterion.scope), []).append(source)
        found = [self._of_group(sources, now, open_jobs) for _, sources in sorted(groups.items())]
        if not found:
            return Standing()
        over = self._is_over(open_jobs)
        worst = min(found, key=lambda each: {"fail": 0, None: 1}.get(each.verdict, 2))
        decided = worst.decided or (over and all(each.verdict is not None for each in found))
        return msgspec.structs.replace(worst, decided=decided)

    def _is_over(self, open_jobs: Mapping[str, int]) -> bool:
        """Tell whether the window is over for every job that may still bring samples."""
        before = self.criterion.before_us
        if before is None:
            return False
        latest: dict[str, int] = {}
        for (job, _, _), source in self._sources.items():
            latest[job] = max(latest.get(job, 0), source.latest)
        return all(
            began and latest.get(job, 0) > began + before for job, began in open_jobs.items()
        )

    def _of_group(
        self, sources: list["_Source"], now: int, open_jobs: Mapping[str, int]
    ) -> Standing:
        criterion = self.criterion
        if criterion.silence_us:
            return _silence(criterion, sources, now, open_jobs)
        unit = unit_of(criterion.statistic if criterion.statistic != EVERY else "avg", self.unit)
        if criterion.for_us:
            return _lasting(criterion, sources)
        bounds = [(bound.name, in_base(criterion, bound, unit)) for bound in criterion.bounds]
        low, high = self._range(sources, now)
        if low is None or high is None:
            return Standing()
        worst = decisive(bounds, low, high)
        return self._told(worst, unit, sources)

    @property
    def unit(self) -> str:
        return self._unit or ""

    def _range(self, sources: list["_Source"], now: int) -> tuple[float | None, float | None]:
        criterion = self.criterion
        if criterion.over_us:
            found = [value for source in sources for value in source.stretches()]
            return (min(found), max(found)) if found else (None, None)
        running = [source.seen(now) for source in sources]
        if criterion.statistic == EVERY:
            counted = [each for each in running if each.count]
            if not counted:
                return None, None
            return min(each.low for each in counted), max(each.high for each in counted)
        value = together(criterion.statistic, running)
        return value, value

    def _told(self, worst: Held, unit: str, sources: list["_Source"]) -> Standing:
        criterion = self.criterion
        fails = worst.margin < 0 and not worst.name.startswith("warn")
        stays = criterion.statistic == EVERY or worst.name in GROWS.get(criterion.statistic, ())
        stays = (stays or bool(criterion.over_us)) and criterion.last_us is None
        every = criterion.statistic == EVERY
        subject = criterion.key if every else f"{criterion.statistic} of {criterion.key}"
        about = "" if every or not needs_quantiles(criterion.statistic) else " (within 1%)"
        return Standing(
            verdict="fail" if fails else "pass",
            decided=fails and stays,
            said=f"{subject} is {printed(worst.value, unit)}{about}, {place(worst, unit)}",
            value=worst.value,
            unit=unit,
        )


class _Source:
    """What is remembered of one attempt's samples."""

    def __init__(self, criterion: CompiledCriterion, first: Arrived) -> None:
        self._criterion = criterion
        self.attempt, self.job, self.dut, self.host = (
            first.attempt,
            first.job,
            first.dut,
            first.host,
        )
        self._counter = first.type == "counter"
        self._quantiles = needs_quantiles(criterion.statistic)
        self.started_at = first.started_at
        self.latest = 0
        self.whole = self._new()
        self._kept: deque[tuple[int, float]] = deque(maxlen=MOST_KEPT)
        self._stretch: tuple[int, Running] | None = None
        self._closed: list[float] = []  # the smallest and the largest
        self.breach = [0] * len(criterion.bounds)  # longest so far, by bound
        self._since = [-1] * len(criterion.bounds)

    def _new(self) -> Running:
        return Running(self._counter, self._quantiles)

    def group(self, scope: str) -> str:
        return {"job": self.job, "dut": self.dut, "host": self.host}.get(scope, "")

    def take(self, arrived: Arrived) -> None:
        criterion = self._criterion
        self.started_at = self.started_at or arrived.started_at
        for at, value in zip(arrived.times, arrived.values, strict=True):
            begin = self.started_at or (self.whole.first[0] if self.whole.first else at)
            self.latest = max(self.latest, at)
            if at < begin + criterion.after_us:
                continue
            if criterion.before_us is not None and at > begin + criterion.before_us:
                continue
            self._take_one(at, value, begin, arrived.unit)

    def _take_one(self, at: int, value: float, begin: int, unit: str) -> None:
        criterion = self._criterion
        self.whole.add(at, value)
        if criterion.last_us is not None:
            self._kept.append((at, value))
        if criterion.over_us:
            self._into_stretch((at - begin - criterion.after_us) // criterion.over_us, at, value)
        if criterion.for_us:
            self._watch_breach(at, value, unit)

    def _into_stretch(self, number: int, at: int, value: float) -> None:
        if self._stretch is not None and self._stretch[0] < number:
            done = self._stretch[1].value(self._criterion.statistic)
            if done is not None:
                self._closed = [min([done, *self._closed]), max([done, *self._closed])]
            self._stretch = None
        if self._stretch is None:
            self._stretch = (number, self._new())
        if self._stretch[0] == number:
            self._stretch[1].add(at, value)

    def stretches(self) -> list[float]:
        """Return the smallest and the largest statistic of the stretches that are over."""
        return self._closed

    def _watch_breach(self, at: int, value: float, unit: str) -> None:
        for number, bound in enumerate(self._criterion.bounds):
            limit = in_base(self._criterion, bound, unit)
            broken = held(bound.name, limit, value, value).margin < 0
            since = self._since[number]
            if since >= 0:
                self.breach[number] = max(self.breach[number], at - since)
            self._since[number] = (at if since < 0 else since) if broken else -1

    def seen(self, now: int) -> Running:
        """Return what counts now: all in the window, or its last stretch."""
        last_us = self._criterion.last_us
        if last_us is None:
            return self.whole
        while self._kept and self._kept[0][0] < now - last_us:
            self._kept.popleft()
        recent = self._new()
        for at, value in self._kept:
            recent.add(at, value)
        return recent


def _silence(
    criterion: CompiledCriterion, sources: list[_Source], now: int, open_jobs: Mapping[str, int]
) -> Standing:
    """Say for how long the quietest source has been silent; a late sample may still fill it."""
    silent = [
        now - max(source.latest, source.started_at)
        for source in sources
        if open_jobs.get(source.job)
    ]
    if not silent:
        return Standing(said="judged at the end")
    most, bound = max(silent) / 1e6, criterion.silence_us / 1e6
    said = (
        f"{criterion.key} has been silent for {printed(most, 's')}, at most {printed(bound, 's')}"
    )
    return Standing(verdict="fail" if most > bound else "pass", said=said, value=most, unit="s")


def _lasting(criterion: CompiledCriterion, sources: list[_Source]) -> Standing:
    hard = [n for n, bound in enumerate(criterion.bounds) if not bound.name.startswith("warn")]
    most = max(source.breach[n] for source in sources for n in hard)
    fails = most >= criterion.for_us
    span, least = printed(most / 1e6, "s"), printed(criterion.for_us / 1e6, "s")
    said = f"{criterion.key} was beyond its bound for at most {span}, {least} is too long"
    verdict: Verdict = "fail" if fails else "pass"
    return Standing(verdict=verdict, decided=fails, said=said, value=most / 1e6, unit="s")


def _combined(
    criterion: CompiledCriterion, lives: list[LiveCriterion], parts: list[Standing]
) -> Standing:
    """Return how criteria over criteria stand; decided as soon as the rest makes no difference."""
    if criterion.logic == "not":
        turned: dict[Verdict | None, Verdict | None] = {"pass": "fail", "fail": "pass"}
        return msgspec.structs.replace(parts[0], verdict=turned.get(parts[0].verdict))
    first: Verdict = "fail" if criterion.logic == "all" else "pass"
    rest: Verdict = "pass" if first == "fail" else "fail"
    firsts = [part for part in parts if part.verdict == first]
    if firsts:
        told = next((part for part in firsts if part.decided), firsts[0])
        return msgspec.structs.replace(told, verdict=first)
    if any(part.verdict is None for part in parts):
        return Standing(said=next(part.said for part in parts if part.verdict is None))
    decided = all(part.decided for part in parts)
    return Standing(
        verdict=rest, decided=decided, said="; ".join(part.said for part in parts)[:500]
    )
