"""Criteria: what is asked of samples, as people write it; and what came of it.

    latency: {metric: "network::latency::avg", max: 150ms}
    errors:  {metric: net.errors, stat: last, equals: 0, scope: job}
    rail:    {metric: power.volt, in: [4.9V, 5.1V], warn_max: 5.05V, window: {after: 10s}}
    hot:     {metric: cpu.temp, max: 85C, for: 30s}
    alive:   {metric: heartbeat, silence: 5s}
    slower:  {metric: "boot.time::avg", vs: baseline, max_change: 5%, significance: 0.01}
    either:  {any: [{metric: "a::max", max: 1}, {metric: "b::max", max: 1}]}

A criterion without a statistic asks of *every* sample. Limits are inclusive. A bound without a
unit is in `unit`, else in the unit that the metric is declared with, else in the one its samples
are written with. `criteria_compile` finds all that is wrong, before anything runs.
"""

from typing import Annotated, ClassVar, Literal

import msgspec

from tshrag_common.units import Dimension

Verdict = Literal["pass", "fail", "error"]
Scope = Literal["run", "job", "dut", "host"]
Across = Literal["avg", "min", "max", "sum", "spread", "stdev"]
Severity = Literal["critical", "major", "minor"]
Bound = float | str
"""``150ms`` or a bare number."""

BoundName = Literal["min", "max", "equals", "warn_min", "warn_max"]
EVERY = "every"
"""The statistic of a criterion that names none: the bounds hold for each sample."""
BASELINE = "baseline"

MAX_GROUPS = 20  # of whose evidence is kept, the worst ones
MAX_CRITERIA = 200
MAX_PARTS = 32
MAX_NESTED = 4


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which samples count: from `after` the start, to `before` after it, the `last` stretch."""

    after: Bound | None = None
    before: Bound | None = None
    last: Bound | None = None


class Criterion(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is asked of the samples of one metric, or of other criteria, as a profile has it."""

    KINDS: ClassVar[tuple[str, ...]] = ("metric", "all", "any", "not")

    metric: str = ""
    stat: str = ""
    min: Bound | None = None
    max: Bound | None = None
    equals: Bound | None = None
    within: tuple[Bound, Bound] | None = msgspec.field(default=None, name="in")
    warn_min: Bound | None = None
    warn_max: Bound | None = None
    lasting: Bound | None = msgspec.field(default=None, name="for")
    over: Bound | None = None
    silence: Bound | None = None
    absent: bool = False
    vs: str = ""
    min_change: Bound | None = None
    max_change: Bound | None = None
    warn_min_change: Bound | None = None
    warn_max_change: Bound | None = None
    significance: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    without_baseline: Literal["error", "pass"] = "error"
    window: Window | None = None
    scope: Scope = "run"
    across: Across | None = None
    severity: Severity = "major"
    unit: str = ""
    all_of: Annotated[tuple["Criterion", ...], msgspec.Meta(min_length=1, max_length=MAX_PARTS)] = (
        msgspec.field(default=(), name="all")
    )
    any_of: Annotated[tuple["Criterion", ...], msgspec.Meta(min_length=1, max_length=MAX_PARTS)] = (
        msgspec.field(default=(), name="any")
    )
    negated: "Criterion | None" = msgspec.field(default=None, name="not")

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

    def changes(self) -> list[tuple[BoundName, str, Bound]]:
        """List the bounds of the change against something else, in the same way."""
        every: list[tuple[BoundName, str, Bound | None]] = [
            ("min", "min_change", self.min_change),
            ("max", "max_change", self.max_change),
            ("warn_min", "warn_min_change", self.warn_min_change),
            ("warn_max", "warn_max_change", self.warn_max_change),
        ]
        return [(name, path, bound) for name, path, bound in every if bound is not None]

    @property
    def parts(self) -> tuple[tuple[str, "Criterion"], ...]:
        """Return the criteria inside this one, each with its path in it."""
        inside = [(f"all[{n}]", part) for n, part in enumerate(self.all_of)]
        inside += [(f"any[{n}]", part) for n, part in enumerate(self.any_of)]
        return tuple(inside) + ((("not", self.negated),) if self.negated else ())


class CompiledBound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bound in the base unit of `dimension`; without one it is in the unit of the samples."""

    name: BoundName
    number: float
    dimension: Dimension | None = None


class CompiledCriterion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A criterion that can be judged.

    ``whole`` is the key with what was taken for its statistic: where samples of that name exist,
    it was a metric after all, and the bounds hold for each of them. Where ``logic`` is there, it
    stands over ``parts``, and has no key of its own. With ``vs`` the bounds are those of the
    change, ``relative`` to the other value or in its unit.
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
    for_us: int = 0
    over_us: int = 0
    silence_us: int = 0
    absent: bool = False
    vs: Literal["", "baseline", "metric"] = ""
    vs_key: str = ""
    vs_statistic: str = ""
    relative: bool = False
    significance: float = 0.0  # 0: the change alone decides
    without_baseline: Literal["error", "pass"] = "error"
    across: Across | Literal[""] = ""
    severity: Severity = "major"
    logic: Literal["", "all", "any", "not"] = ""
    parts: tuple["CompiledCriterion", ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys whose samples `judge` wants to see."""
        own = tuple(key for key in (self.key, self.whole, self.vs_key) if key)
        inside = [key for part in self.parts for key in part.keys]
        return tuple(dict.fromkeys((*own, *inside)))

    @property
    def is_live(self) -> bool:
        """Tell whether it can be told from samples as they come."""
        return not (self.vs or self.across) and all(part.is_live for part in self.parts)

    @property
    def needs_baseline(self) -> bool:
        return self.vs == BASELINE or any(part.needs_baseline for part in self.parts)


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verdict and what it rests on. Numbers are in `unit`, as people read them.

    ``margin`` is the distance to the bound, negative beyond it. Where a criterion is judged by
    groups, ``groups`` holds the worst of them, ``counts`` how many said what; ``parts`` is what
    the criteria inside it said.
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
    severity: Severity = "major"
    parts: tuple["Evidence", ...] = ()
    p_value: float | None = None  # that a change as large came by chance
    against: str = ""  # the run that was the baseline
    live: str = ""  # what was said while it ran, where that was something else
