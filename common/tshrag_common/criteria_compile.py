"""Criteria as people write them -> criteria that can be judged, with every problem at once."""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from tshrag_common.criteria import MAX_CRITERIA, MAX_NESTED, CompiledCriterion, Criterion
from tshrag_common.criteria_one import OneCriterion
from tshrag_common.errors import Invalid, Problem
from tshrag_common.metrics import MetricInfo


def compile_criteria(
    criteria: Mapping[str, Criterion], known: Iterable[MetricInfo] = ()
) -> tuple[CompiledCriterion, ...]:
    """Compile all criteria of a profile against the metrics that its loads declare.

    Raises:
        Invalid: with every problem of every criterion.

    """
    infos = {info.key: info for info in known}
    done = [_tree(name, f"criteria.{name}", each, infos, 1) for name, each in criteria.items()]
    problems = [problem for each in done for problem in each.problems]
    count = sum(each.count for each in done)
    if count > MAX_CRITERIA:
        said = f"{count} criteria > {MAX_CRITERIA}"
        problems.append(Problem(code="limit", where="criteria", what=said))
    if problems:
        raise Invalid(problems)
    return tuple(each.compiled() for each in done)


def compile_criterion(
    name: str, criterion: Criterion, known: Iterable[MetricInfo] = ()
) -> CompiledCriterion:
    """Compile one criterion; raise Invalid with all that is wrong with it."""
    return compile_criteria({name: criterion}, known)[0]


def _tree(
    name: str, where: str, criterion: Criterion, infos: Mapping[str, MetricInfo], depth: int
) -> "OneCriterion | _Combining":
    if criterion.parts:
        return _Combining(name, where, criterion, infos, depth)
    return OneCriterion(name, where, criterion, infos)


class _Combining:
    """A criterion over others: ``all``, ``any``, ``not``."""

    def __init__(
        self,
        name: str,
        where: str,
        criterion: Criterion,
        infos: Mapping[str, MetricInfo],
        depth: int,
    ) -> None:
        self.problems: list[Problem] = []
        self._name, self._criterion = name, criterion
        self._logic: Literal["all", "any", "not"] = "not"
        if criterion.all_of or criterion.any_of:
            self._logic = "all" if criterion.all_of else "any"
        extra = sorted(_given(criterion) - {"all", "any", "not", "severity"})
        if extra:
            what = f"{', '.join(extra)} beside '{self._logic}'"
            self._add("bounds", where, what, "say it in the criteria inside")
        if depth > MAX_NESTED:
            self._add("too_deep", where, f"limit {MAX_NESTED}")
            self._parts: list[OneCriterion | _Combining] = []
            return
        self._parts = [
            _tree(path, f"{where}.{path}", part, infos, depth + 1) for path, part in criterion.parts
        ]
        self.problems += [problem for part in self._parts for problem in part.problems]

    @property
    def count(self) -> int:
        return 1 + sum(part.count for part in self._parts)

    def compiled(self) -> CompiledCriterion:
        return CompiledCriterion(
            name=self._name,
            key="",
            statistic="",
            bounds=(),
            severity=self._criterion.severity,
            logic=self._logic,
            parts=tuple(part.compiled() for part in self._parts),
        )

    def _add(self, code: str, where: str, what: str, fix: str = "") -> None:
        self.problems.append(Problem(code=code, where=where, what=what, fix=fix))


def _given(criterion: Criterion) -> set[str]:
    """Return the fields that differ from their defaults, as they are written."""
    return {
        field.encode_name
        for field in msgspec.structs.fields(criterion)
        if getattr(criterion, field.name) != field.default
    }
