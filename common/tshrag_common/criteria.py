"""Criteria: what is asked of samples, as people write it; and what came of it.

    latency: {metric: "network::latency::avg", max: 150ms}
    errors:  {metric: net.errors, stat: last, equals: 0, scope: job}
    rail:    {metric: power.volt, in: [4.9V, 5.1V], warn_max: 5.05V, window: {after: 10s}}

A criterion without a statistic asks of *every* sample. Limits are inclusive. A bound without a
unit is in `unit`, else in the unit that the metric is declared with, else in the one its samples
are written with. `compile_criteria` finds all that is wrong, before anything runs.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from tshrag_common.errors import Invalid, LabError, Problem, shown
from tshrag_common.metrics import MetricInfo, metric_key, split_statistic
from tshrag_common.statistics import UnknownStatistic, is_one_number, is_statistic, unit_of
from tshrag_common.times import duration_s
from tshrag_common.units import UNITS, BadQuantity, Dimension, Unit, split, unit

Verdict = Literal["pass", "fail", "error"]
Scope = Literal["run", "job", "dut", "host"]
Bound = float | str
"""``150ms`` or a bare number."""

BoundName = Literal["min", "max", "equals", "warn_min", "warn_max"]
EVERY = "every"
"""The statistic of a criterion that names none: the bounds hold for each sample."""

MAX_GROUPS = 20  # of whose evidence is kept, the worst ones
MAX_CRITERIA = 200


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which samples count: from `after` the start, to `before` after it, the `last` stretch."""

    after: Bound | None = None
    before: Bound | None = None
    last: Bound | None = None


class Criterion(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is asked of the samples of one metric, as a profile has it."""

    metric: str
    stat: str = ""
    min: Bound | None = None
    max: Bound | None = None
    equals: Bound | None = None
    within: tuple[Bound, Bound] | None = msgspec.field(default=None, name="in")
    warn_min: Bound | None = None
    warn_max: Bound | None = None
    window: Window | None = None
    scope: Scope = "run"
    unit: str = ""

    def bounds(self) -> list[tuple[BoundName, str, Bound]]:
        """List the bounds that are given: kind, path in the criterion, as written."""
        low, high = self.within or (None, None)
        every: list[tuple[BoundName, str, Bound | None]] = [
            ("min", "min", self.min),
            ("max", "max", self.max),
            ("min", "in[0]", low),
            ("max", "in[1]", high),
            ("equals", "equals", self.equals),
            ("warn_min", "warn_min", self.warn_min),
            ("warn_max", "warn_max", self.warn_max),
        ]
        return [(name, path, bound) for name, path, bound in every if bound is not None]


class CompiledBound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bound in the base unit of `dimension`; without one it is in the unit of the samples."""

    name: BoundName
    number: float
    dimension: Dimension | None = None


class CompiledCriterion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A criterion that can be judged.

    ``whole`` is the key with what was taken for its statistic: where samples of that name exist,
    it was a metric after all, and the bounds hold for each of them.
    """

    name: str
    key: str
    statistic: str
    bounds: tuple[CompiledBound, ...]
    whole: str = ""
    unit: str = ""  # that the result is printed in; empty: that of the samples
    scope: Scope = "run"
    after_us: int = 0
    before_us: int | None = None
    last_us: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys whose samples `judge` wants to see."""
        return (self.key, self.whole) if self.whole else (self.key,)


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verdict and what it rests on. Numbers are in `unit`, as people read them.

    ``margin`` is the distance to the bound, negative beyond it. Where a criterion is judged by
    groups, ``groups`` holds the worst of them, ``counts`` how many said what.
    """

    criterion: str
    metric: str
    statistic: str
    verdict: Verdict
    reason: str
    marginal: bool = False
    scope: Scope = "run"
    group: str = ""
    value: float | None = None
    bound: float | None = None
    bound_name: str = ""
    margin: float | None = None
    unit: str = ""
    samples: int = 0
    first_at_us: int = 0
    last_at_us: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    groups: tuple["Evidence", ...] = ()


def compile_criteria(
    criteria: Mapping[str, Criterion], known: Iterable[MetricInfo] = ()
) -> tuple[CompiledCriterion, ...]:
    """Compile all criteria of a profile against the metrics that its loads declare.

    Raises:
        Invalid: with every problem of every criterion.

    """
    infos = {info.key: info for info in known}
    done = [_Compiling(name, criterion, infos) for name, criterion in criteria.items()]
    problems = [problem for each in done for problem in each.problems]
    if len(criteria) > MAX_CRITERIA:
        said = f"{len(criteria)} criteria > {MAX_CRITERIA}"
        problems.append(Problem(code="limit", where="criteria", what=said))
    if problems:
        raise Invalid(problems)
    return tuple(each.compiled() for each in done)


def compile_criterion(
    name: str, criterion: Criterion, known: Iterable[MetricInfo] = ()
) -> CompiledCriterion:
    """Compile one criterion; raise Invalid with all that is wrong with it."""
    return compile_criteria({name: criterion}, known)[0]


class _Compiling:
    """One criterion on its way; problems are gathered, not raised."""

    def __init__(self, name: str, criterion: Criterion, infos: Mapping[str, MetricInfo]) -> None:
        self.problems: list[Problem] = []
        self._name, self._criterion = name, criterion
        self._where = f"criteria.{name}"
        self._key, self._statistic, self._whole = self._metric(infos)
        self._info = infos.get(self._key)
        self._unit = self._unit_of_result()
        self._bounds = self._all_bounds()
        self._check_bounds()
        self._after, self._before, self._last = self._window()

    def compiled(self) -> CompiledCriterion:
        return CompiledCriterion(
            name=self._name,
            key=self._key,
            statistic=self._statistic,
            bounds=tuple(self._bounds.values()),
            whole=self._whole,
            unit=self._unit or "",
            scope=self._criterion.scope,
            after_us=self._after or 0,
            before_us=self._before,
            last_us=self._last,
        )

    def _metric(self, infos: Mapping[str, MetricInfo]) -> tuple[str, str, str]:
        try:
            whole = metric_key(self._criterion.metric, f"{self._where}.metric")
        except LabError as refused:
            self._say(refused)
            return "", EVERY, ""
        stat = self._criterion.stat
        key, trailing = (whole, stat) if stat else split_statistic(whole, infos)
        parent, _, last = whole.rpartition(".")
        if not trailing and whole not in infos and parent in infos:
            trailing = last  # a misspelt statistic of a declared metric
        if trailing and trailing != EVERY and not is_one_number(trailing):
            where = f"{self._where}.{'stat' if stat else 'metric'}"
            if is_statistic(trailing):
                self._problem("statistic", where, f"{trailing} is not one number to be bounded")
            else:
                self._say(UnknownStatistic(trailing, where))
        return key, trailing or EVERY, "" if stat or key == whole else whole

    def _unit_of_result(self) -> str | None:
        """Return the unit that bare numbers are in; None where nothing says it yet."""
        declared = unit_of(self._statistic, self._info.unit) if self._info else None
        if not self._criterion.unit:
            return "" if declared is None and self._statistic == "count" else declared
        try:
            wanted = unit(self._criterion.unit, f"{self._where}.unit")
        except BadQuantity as refused:
            self._say(refused)
            return declared
        self._fits("unit", self._criterion.unit, wanted.dimension, declared)
        return self._criterion.unit

    def _all_bounds(self) -> dict[str, CompiledBound]:
        bounds: dict[str, CompiledBound] = {}
        for name, path, written in self._criterion.bounds():
            compiled = self._bound(name, path, written)
            if name in bounds:
                said = f"{name} is given twice"
                self._problem("bounds", f"{self._where}.{path}", said, "use either 'in' or it")
            elif compiled is not None:
                bounds[name] = compiled
        return bounds

    def _bound(self, name: BoundName, path: str, written: Bound) -> CompiledBound | None:
        try:
            number, found = split(str(written), f"{self._where}.{path}")
        except BadQuantity as refused:
            self._say(refused)
            return None
        if found.name:
            self._fits(path, written, found.dimension, self._unit)
            return CompiledBound(name=name, number=found.to_base(number), dimension=found.dimension)
        known: Unit | None = None if self._unit is None else UNITS.get(self._unit)
        if known is None:
            return CompiledBound(name=name, number=number)
        return CompiledBound(name=name, number=known.to_base(number), dimension=known.dimension)

    def _fits(self, path: str, written: Bound, dimension: Dimension, declared: str | None) -> None:
        if declared is None:
            return
        known = UNITS.get(declared)
        if known is None or known.dimension != dimension:
            of = self._key if self._statistic == EVERY else f"{self._statistic} of {self._key}"
            said = f"{shown(str(written))} is a {dimension}, {of} is in {declared or 'no unit'}"
            self._problem("unit", f"{self._where}.{path}", said)

    def _check_bounds(self) -> None:
        given = {name for name, _, _ in self._criterion.bounds()}
        if not given & {"min", "max", "equals"}:
            fix = "give min, max, equals or in"
            self._problem("bounds", self._where, "nothing that could fail is asked", fix)
        if "equals" in given and given & {"min", "max"}:
            self._problem("bounds", self._where, "equals excludes min, max and in")
        self._check_same_unit()
        for low, high in _ORDER:
            below, above = self._bounds.get(low), self._bounds.get(high)
            if below and above and self._comparable(below, above) and below.number > above.number:
                self._problem("bounds", self._where, f"{low} is above {high}")

    def _check_same_unit(self) -> None:
        found = {
            bound.dimension for bound in self._bounds.values() if bound.number or bound.dimension
        }
        if len(found) > 1 and self._unit is None:
            said = ", ".join(sorted(dimension or "a bare number" for dimension in found))
            fix = "give every bound a unit of one dimension"
            self._problem("unit", self._where, f"bounds of different kinds: {said}", fix)

    def _comparable(self, one: CompiledBound, other: CompiledBound) -> bool:
        return one.dimension == other.dimension or not one.number or not other.number

    def _window(self) -> tuple[int | None, int | None, int | None]:
        window = self._criterion.window or Window()
        after = self._span("after", window.after)
        before = self._span("before", window.before)
        if after is not None and before is not None and after >= before:
            self._problem("range", f"{self._where}.window", "after is not before 'before'")
        return after, before, self._span("last", window.last)

    def _span(self, field: str, given: Bound | None) -> int | None:
        if given is None:
            return None
        try:
            return round(duration_s(given, f"{self._where}.window.{field}", least_s=0) * 1e6)
        except BadQuantity as refused:
            self._say(refused)
            return None

    def _problem(self, code: str, where: str, what: str, fix: str = "") -> None:
        self.problems.append(Problem(code=code, where=where, what=what, fix=fix))

    def _say(self, refused: LabError) -> None:
        self._problem(refused.code, refused.where, refused.what, refused.fix)


_ORDER = (
    ("min", "max"), ("min", "warn_min"), ("min", "warn_max"), ("warn_min", "warn_max"),
    ("warn_min", "max"), ("warn_max", "max"),
)  # fmt: skip
