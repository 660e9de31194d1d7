"""One criterion of a metric, from what is written to what can be judged; see criteria_compile."""

from collections.abc import Mapping

from tshrag_common.criteria import (
    BASELINE,
    EVERY,
    Bound,
    BoundName,
    CompiledBound,
    CompiledCriterion,
    Criterion,
    Window,
)
from tshrag_common.errors import LabError, Problem, shown
from tshrag_common.metrics import MetricInfo, metric_key, split_statistic
from tshrag_common.statistics import UnknownStatistic, is_one_number, is_statistic, unit_of
from tshrag_common.times import duration_s
from tshrag_common.units import UNITS, BadQuantity, Dimension, Unit, split, unit


class OneCriterion:
    """One criterion of a metric on its way; problems are gathered, not raised."""

    count = 1

    def __init__(
        self, name: str, where: str, criterion: Criterion, infos: Mapping[str, MetricInfo]
    ) -> None:
        self.problems: list[Problem] = []
        self._name, self._criterion = name, criterion
        self._where = where
        self._key, self._statistic, self._whole = self._metric(infos)
        self._info = infos.get(self._key)
        self._unit = self._unit_of_result()
        self._relative = self._is_relative()
        self._bounds = self._all_bounds()
        self._check_bounds()
        self._after, self._before, self._last = self._window()
        self._spans = {
            path: self._span(path, given, least_s=0.001)
            for path, given in (
                ("for", criterion.lasting),
                ("over", criterion.over),
                ("silence", criterion.silence),
            )
        }
        self._check_asked()
        self._vs_key, self._vs_statistic = self._other(infos)

    def compiled(self) -> CompiledCriterion:
        written = self._criterion
        vs = written.vs and (BASELINE if written.vs == BASELINE else "metric")
        return CompiledCriterion(
            name=self._name,
            key=self._key,
            statistic=self._statistic,
            bounds=tuple(self._bounds.values()),
            whole=self._whole,
            unit="%" if self._relative else self._unit or "",
            scope=written.scope,
            after_us=self._after or 0,
            before_us=self._before,
            last_us=self._last,
            for_us=self._spans["for"] or 0,
            over_us=self._spans["over"] or 0,
            silence_us=self._spans["silence"] or 0,
            absent=written.absent,
            vs=vs,  # type: ignore[arg-type]  # one of the three words
            vs_key=self._vs_key,
            vs_statistic=self._vs_statistic,
            relative=self._relative,
            significance=written.significance or 0.0,
            without_baseline=written.without_baseline,
            across=written.across or "",
            severity=written.severity,
        )

    def _is_relative(self) -> bool:
        """Tell whether the change is asked for in percent of the other value."""
        written = [str(bound).strip() for _, _, bound in self._criterion.changes()]
        relative = {text.endswith("%") for text in written}
        if len(relative) > 1:
            self._problem("unit", self._where, "changes in percent and in units", "use one of them")
        return relative == {True}

    def _other(self, infos: Mapping[str, MetricInfo]) -> tuple[str, str]:
        """Return what the metric is compared with: its key and statistic."""
        vs = self._criterion.vs
        if not vs:
            return "", ""
        if vs == BASELINE:
            return "", self._statistic
        try:
            key, trailing = split_statistic(metric_key(vs, f"{self._where}.vs"), infos)
        except LabError as refused:
            self._say(refused)
            return "", ""
        return key, trailing or self._statistic

    def _check_asked(self) -> None:
        """See that exactly one kind of thing is asked, and only with what goes with it."""
        written = self._criterion
        asked = [
            word
            for word, given in (
                ("bounds", bool(written.bounds())),
                ("vs", bool(written.vs)),
                ("silence", written.silence is not None),
                ("absent", written.absent),
            )
            if given
        ]
        if len(asked) > 1:
            named = " and ".join(f"'{word}'" for word in asked)
            self._problem("bounds", self._where, f"{named} in one", "write two criteria")
        if bool(written.changes()) != bool(written.vs):
            what, fix = "a change against what?", "give vs: baseline, or another metric"
            if written.vs:
                what, fix = "vs without a bound", "give max_change or min_change"
            self._problem("bounds", self._where, what, fix)
        self._check_statistic(asked)
        if written.across and written.scope == "run":
            self._problem("bounds", f"{self._where}.across", "across what?", "give a scope")
        if written.significance is not None and not written.vs:
            self._problem("bounds", f"{self._where}.significance", "there is no vs")

    def _check_statistic(self, asked: list[str]) -> None:
        written = self._criterion
        every = self._statistic == EVERY
        if every and written.vs:
            fix = "put avg, p99 … at the end of the metric"
            self._problem("statistic", self._where, "a change of what?", fix)
        if every and (written.across or written.over is not None):
            word = "across" if written.across else "over"
            fix = "put avg, p99 … at the end of the metric"
            self._problem("statistic", f"{self._where}.{word}", "of which statistic?", fix)
        if written.lasting is not None and (not every or asked != ["bounds"]):
            fix = "leave the statistic out: 'for' asks of samples one by one"
            self._problem("statistic", f"{self._where}.for", "needs bounds on samples", fix)
        if written.over is not None and (written.vs or written.across):
            word = "vs" if written.vs else "across"
            self._problem("bounds", f"{self._where}.over", f"not together with {word}")
        if written.across and asked and asked != ["bounds"]:
            self._problem("bounds", f"{self._where}.across", f"not together with {asked[0]}")
        if not every and {"silence", "absent"} & set(asked):
            fix = "leave the statistic out"
            self._problem("statistic", self._where, "asked of the samples themselves", fix)

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
        changes = self._criterion.changes() if self._criterion.vs else []
        for name, path, written in self._criterion.bounds() + changes:
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
        if self._relative:
            return CompiledBound(name=name, number=found.to_base(number), dimension="ratio")
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
        written = self._criterion
        given = {name for name, _, _ in written.bounds() + written.changes()}
        is_asked = written.silence is not None or written.absent
        if not given & {"min", "max", "equals"} and not is_asked:
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
        after = self._span("window.after", window.after)
        before = self._span("window.before", window.before)
        if after is not None and before is not None and after >= before:
            self._problem("range", f"{self._where}.window", "after is not before 'before'")
        return after, before, self._span("window.last", window.last)

    def _span(self, field: str, given: Bound | None, least_s: float = 0) -> int | None:
        if given is None:
            return None
        try:
            return round(duration_s(given, f"{self._where}.{field}", least_s=least_s) * 1e6)
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
